//! What is read of HTML, and what is kept apart.

use proptest::prelude::*;

use super::{Html, read};

fn html(title: &str, text: &str, hidden: &str) -> Html {
    Html { title: title.into(), text: text.into(), hidden: hidden.into() }
}

#[test]
fn a_page_is_title_and_text() {
    let page = "<!doctype html><html><head><title> A\n page &amp; more</title><style>p { color: red }</style>\
                <script>if (a < b) { document.write('<p>no</p>') }</script></head>\
                <body><h1>Head</h1><p>One <b>bold</b> word.<p>Two&nbsp;&#8212; &#x41;.<ul><li>x<li>y</ul>\
                <pre>a  b\n  c</pre>1 < 2 &unknown; <img alt=\"a > b\" src=x>end</body></html>";
    assert_eq!(
        read(page),
        html(
            "A page & more",
            "Head\nOne bold word.\nTwo — A.\n- x\n- y\na  b\n  c\n1 < 2 &unknown; end",
            "doctype html"
        )
    );
}

#[test]
fn what_hides_itself_is_kept_apart() {
    for style in [
        "display:none",
        "DISPLAY : None !important",
        "color:red;visibility:hidden",
        "opacity:0",
        "opacity: 0.0",
        "font-size:0px",
        "position:absolute;left:-9999px",
        "width:0;height:0",
        "transform:scale(0)",
        "clip-path: inset(50%)",
        "text-indent:-999em",
        "disp/**/lay:no/**/ne",
        "display&#58;none",
    ] {
        let page = format!("seen <div style=\"{style}\">not <div>at</div> all</div>again");
        assert_eq!(read(&page), html("", "seen\nagain", "not\nat\nall"), "{style}");
    }
    for style in ["display:block", "opacity:0.5", "font-size:0.8em", "left:-2px", "background:none", "width:100%"] {
        let page = format!("<div style=\"{style}\">seen</div>");
        assert_eq!(read(&page), html("", "seen", ""), "{style}");
    }
    for page in [
        "a<span hidden>no</span>b",
        "a<template>no</template>b",
        "a<!--no-->b",
        "a<!no>b",
        "a<?no>b",
        "a</ no>b",
        "a<iframe width=1>no</iframe>b",
        "a<span hidden=until-found>n<br>o</span>b",
        "a<span width=0 height='0'>no</span>b",
    ] {
        let found = read(page);
        assert_eq!((found.text.as_str(), found.hidden.replace('\n', "").as_str()), ("ab", "no"), "{page}");
    }
    assert_eq!(read("<p hidden>no<p>yes"), html("", "yes", "no"));
    assert_eq!(read("a<span hidden>never closed"), html("", "a", "never closed"));
}

#[test]
fn what_is_broken_up_by_markup_is_one_text() {
    assert_eq!(read("DIS<b>REG</b>ARD<i>-ALL</i>").text, "DISREGARD-ALL");
    assert_eq!(read("<span hidden>DIS<b>REG</b>ARD</span>").hidden, "DISREGARD");
    assert_eq!(read("zero\u{200b}width\u{202e}bidi").text, "zerowidthbidi");
}

#[test]
fn ends_of_all_kinds_are_ends() {
    for page in [
        "<", "</", "<!", "<!-", "<!--", "<a", "<a b", "<a b=", "<a b='", "<a b=c", "&", "&#", "&#x", "<title>",
        "<script>", "<!-->", "<!--->x",
    ] {
        let found = read(page);
        assert!(found.text.len() + found.title.len() + found.hidden.len() <= page.len(), "{page}: {found:?}");
    }
    assert_eq!(read("a<!-->b").text, "ab");
    assert_eq!(read("<title>x</titles></TITLE >b").title, "x</titles>");
}

proptest! {
    #[test]
    fn nothing_panics_and_nothing_grows(text in "(<[a-z!/?-]{0,3}|[a-z]{1,3}|=|'|\"|>|-->|&#?x?[0-9a-z]{1,4};?| |</title>|style=|hidden|\\PC){0,60}") {
        let found = read(&text);
        // An item of a list is told by two characters, and each such tag has four.
        prop_assert!(found.text.len() + found.title.len() + found.hidden.len() <= 2 * text.len());
    }

    #[test]
    fn words_between_tags_are_never_lost(words in proptest::collection::vec("[a-z]{1,6}", 1..20), tags in proptest::collection::vec("(<(/?)(b|div|p|li|span hidden|span|template)>|<!---->)", 20)) {
        let page: String = words.iter().zip(&tags).map(|(word, tag)| format!(" {word} {tag}")).collect();
        let found = read(&page);
        let all = format!("{} {}", found.text, found.hidden);
        let mut told: Vec<&str> = all.split_whitespace().filter(|word| *word != "-").collect();
        let mut said: Vec<&str> = words.iter().map(String::as_str).collect();
        told.sort_unstable();
        said.sort_unstable();
        prop_assert_eq!(told, said);
    }
}
