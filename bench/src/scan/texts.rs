//! The texts of the `scan` suite: made up, the same in every run, and found on the disk. Called by the suite's other files.

use std::path::{Path, PathBuf};

use anyhow::Result;

/// A mebibyte.
pub(crate) const MIB: usize = 1 << 20;

/// A URL as an agent calls it.
pub(crate) const URL: &[u8] =
    b"https://api.example.com/v1/repos/pipelock/issues?state=open&page=2&per_page=50&sort=updated";

/// Ordinary texts with their names.
///
/// # Errors
/// When the sources beside this program cannot be read.
pub(crate) fn ordinary() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let french = "L’élève a été très étonné par la forêt enchantée où dort le cœur. ";
    let chinese = "港口静静地躺在薄雾下，第一批船带着渔获回来了。码头上的人们在分拣鲱鱼。";
    Ok(vec![
        ("a URL", URL.to_vec()),
        ("10 KB of prose", prose(10_000)),
        ("10 KB of JSON", json(10_000)),
        ("1 MiB of prose", prose(MIB)),
        ("1 MiB of JSON", json(MIB)),
        ("1 MiB of French", french.repeat(MIB / french.len()).into_bytes()),
        ("1 MiB of Chinese", chinese.repeat(MIB / chinese.len()).into_bytes()),
        ("our own source, on disk", files(&["pipelock-user", "bench", "xtask"], "rs")?),
        ("documentation, on disk", files(&["/usr/share/doc"], "")?),
        ("1 MiB of base64 of noise", base64_of_noise(MIB)),
        ("1 MiB of noise", noise(MIB)),
    ])
}

/// The files of that ending below `folders`, joined, up to 2 MiB. An empty ending takes files without one.
fn files(folders: &[&str], ending: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for folder in folders.iter().filter(|folder| Path::new(folder).is_dir()) {
        for file in walk(Path::new(folder))? {
            if file.extension().unwrap_or_default() == ending && text.len() < 2 * MIB {
                text.extend(std::fs::read(file).unwrap_or_default());
            }
        }
    }
    text.truncate(2 * MIB);
    Ok(text)
}

fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files.extend(walk(&entry.path())?);
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Numbers that look random and are the same in every run.
pub(crate) fn numbers() -> impl Iterator<Item = u32> {
    std::iter::successors(Some(12345u32), |last| Some(last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)))
        .map(|number| number >> 12)
}

/// English sentences of common words.
pub(crate) fn prose(size: usize) -> Vec<u8> {
    let words = "the committee met on a Tuesday to review its quarterly report and several members asked for more detail about \
                 that schedule after long discussion they agreed to send this draft into every office before month was over";
    let words: Vec<&str> = words.split(' ').collect();
    let mut text = String::new();
    let (mut left, mut sentences) = (0, 0);
    for number in numbers() {
        if text.len() >= size {
            break;
        }
        let word = words[number as usize % words.len()];
        if left == 0 {
            left = 6 + number % 13;
            text.push_str(&word[..1].to_uppercase());
            text.push_str(&word[1..]);
        } else {
            text.push_str(word);
        }
        left -= 1;
        sentences += u32::from(left == 0);
        text.push_str(match left {
            0 if sentences % 4 == 0 => ".\n",
            0 => ". ",
            _ => " ",
        });
    }
    text.truncate(size);
    text.into_bytes()
}

/// What an API answers.
fn json(size: usize) -> Vec<u8> {
    let mut text = String::from("[");
    let mut numbers = numbers();
    while text.len() < size {
        let number = numbers.next().unwrap_or_default();
        text.push_str(&format!(
            "{{\"id\":{number},\"node\":\"issue\",\"state\":\"open\",\"title\":\"Tests of the parser fail on a slow machine\",\
             \"comments\":{},\"created_at\":\"2026-01-{:02}T09:30:00Z\",\"url\":\"https://api.example.com/repos/a/b/issues/{number}\",\
             \"labels\":[{{\"name\":\"bug\",\"color\":\"d73a4a\",\"default\":true}}]}},\n",
            number % 17,
            1 + number % 28,
        ));
    }
    text.truncate(size);
    text.into_bytes()
}

/// Bytes of every value.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    numbers().map(|number| number as u8).take(size).collect()
}

/// A picture in a message, as it were.
pub(crate) fn base64_of_noise(size: usize) -> Vec<u8> {
    numbers().map(|number| BASE64[number as usize % 64]).take(size).collect()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 (RFC 4648), without padding.
pub(crate) fn base64(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 4 / 3 + 4);
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0usize, |word, at| word << 8 | usize::from(chunk.get(at).copied().unwrap_or(0)));
        out.extend((0..=chunk.len()).map(|at| BASE64[word >> (18 - 6 * at) & 63]));
    }
    out
}
