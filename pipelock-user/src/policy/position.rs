//! Where each value of the file stands: a tree of places, in the shape of the document.
//!
//! Called by `raw`, which lays it over the values that another YAML parser read. It promises to decide nothing but
//! positions, with exceptions that can only refuse: aliases and endless nesting are seen here before anything expands
//! them.

use saphyr_parser::{Event, Marker, Parser};

use super::error::Pos;

/// Levels of nesting; the format needs seven. The parser of values needs time that grows with the square of the depth.
const MAX_DEPTH: usize = 64;
/// Aliases that are reported one by one.
const MAX_ALIASES: usize = 20;

/// The place of one value; for a mapping, the children are key, value, key, value …
#[derive(Debug)]
pub(super) struct Place {
    pub(super) pos: Pos,
    pub(super) children: Vec<Place>,
}

/// What one pass over the text saw, up to the first thing it could not read.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The first document.
    pub(super) root: Option<Place>,
    /// Where aliases stand.
    pub(super) aliases: Vec<Pos>,
    /// Where a second document begins.
    pub(super) second_document: Option<Pos>,
    /// Where the nesting goes too deep.
    pub(super) too_deep: Option<Pos>,
    /// Where and why it could not read on.
    pub(super) broken: Option<(Pos, String)>,
}

/// Reads the places out of `text`; never fails, at worst it knows less.
pub(super) fn survey(text: &str) -> Survey {
    let mut survey = Survey::default();
    let mut open: Vec<Place> = Vec::new();
    let mut documents = 0_usize;
    // No YAML text has more events than this; the bound is there in case the parser loops.
    let bound = text.len().saturating_mul(4).saturating_add(64);
    for event in Parser::new_from_str(text).take(bound) {
        let (event, span) = match event {
            Ok(read) => read,
            Err(error) => {
                survey.broken = Some((place_of(*error.marker()), error.info().to_owned()));
                break;
            }
        };
        let pos = place_of(span.start);
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents == 2 {
                    survey.second_document = Some(pos);
                }
            }
            Event::Alias(_) => {
                if survey.aliases.len() < MAX_ALIASES {
                    survey.aliases.push(pos);
                }
                close(&mut survey, &mut open, Place { pos, children: Vec::new() }, documents);
            }
            Event::Scalar(..) => close(&mut survey, &mut open, Place { pos, children: Vec::new() }, documents),
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() >= MAX_DEPTH {
                    survey.too_deep = Some(pos);
                    break;
                }
                open.push(Place { pos, children: Vec::new() });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(done) = open.pop() {
                    close(&mut survey, &mut open, done, documents);
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }
    // Broken off: what is open still has places for its beginning.
    while let Some(done) = open.pop() {
        close(&mut survey, &mut open, done, documents);
    }
    survey
}

fn close(survey: &mut Survey, open: &mut [Place], done: Place, documents: usize) {
    match open.last_mut() {
        Some(parent) => parent.children.push(done),
        None if documents == 1 && survey.root.is_none() => survey.root = Some(done),
        None => {}
    }
}

fn place_of(mark: Marker) -> Pos {
    Pos { line: mark.line(), column: mark.col() + 1 }
}
