//! Tests of [`super`] with data made by each format's own encoder.

use std::io::Write as _;

use super::super::unnamed;
use super::*;

const TEXT: &[u8] = b"the same words again and again, the same words again and again";
/// What Node.js `zlib.brotliCompressSync` makes of [`TEXT`]: the reference implementation, quality 11.
const BROTLI: &str = "1b3d0060244158e87a904316e1066cc0796065e32e912a3f42f85900";

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut to = flate2::GzBuilder::new().filename("name").extra("ex").write(Vec::new(), flate2::Compression::best());
    to.write_all(text).unwrap();
    to.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(text).unwrap();
    to.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
}

/// The first file of an archive: its header with a name and something more, and its data.
fn zip(text: &[u8], method: u8) -> Vec<u8> {
    let mut to = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    to.write_all(text).unwrap();
    let mut all = b"PK\x03\x04\x14\0\x08\0".to_vec();
    all.extend_from_slice(&[method, 0]);
    all.extend_from_slice(&[7; 16]);
    all.extend_from_slice(b"\x04\0\x03\0nameext");
    all.extend(to.finish().unwrap());
    all
}

fn run(format: Format, pieces: &[&[u8]]) -> (Vec<u8>, Progress) {
    let (mut inflate, mut plain, mut progress) = (Inflate::new(format), Vec::new(), Progress::Going);
    for (at, piece) in pieces.iter().enumerate() {
        if progress == Progress::Going {
            progress = inflate.feed(piece, at + 1 == pieces.len(), |out| {
                plain.extend_from_slice(out);
                true
            });
        }
    }
    (plain, progress)
}

#[test]
fn what_was_compressed_comes_back_at_every_cut() {
    let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    raw.write_all(TEXT).unwrap();
    for (format, packed) in [
        (Format::Gzip, gzip(TEXT)),
        (Format::Zlib, zlib(TEXT)),
        (Format::Zstd, zstd(TEXT)),
        (Format::Zip, zip(TEXT, 8)),
        (Format::Deflate, raw.finish().unwrap()),
        (Format::Brotli, unhex(BROTLI)),
    ] {
        if !matches!(format, Format::Deflate | Format::Brotli) {
            assert_eq!(Format::of(&packed), Some(format));
        }
        for cut in 0..packed.len() {
            let (plain, progress) = run(format, &[&packed[..cut], &packed[cut..], b"what follows"]);
            assert_eq!(plain, TEXT, "{format:?} {cut}");
            // A gzip member's checksum and length are left to whoever looks on.
            let end = packed.len() - if format == Format::Gzip { 8 } else { 0 };
            if cut < end {
                assert_eq!(progress, Progress::Ended(end - cut), "{format:?} {cut}");
            }
        }
    }
}

#[test]
fn what_came_before_the_damage_is_handed_on() {
    // Text that hardly compresses, so that half the data is half the text.
    let noise: Vec<u8> =
        std::iter::successors(Some(1u32), |last| Some(last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)))
            .take(300_000)
            .map(|number| b' ' + (number >> 25) as u8 % 90)
            .collect();
    for (format, packed) in [(Format::Gzip, gzip(&noise)), (Format::Zlib, zlib(&noise)), (Format::Zstd, zstd(&noise))] {
        let half = packed.len() / 2;
        let (plain, _) = run(format, &[&packed[..half]]);
        assert!(plain.len() > 100_000 && noise.starts_with(&plain), "{format:?} cut short: {}", plain.len());
        let mut damaged = packed.clone();
        damaged[half..].fill(0xff);
        let (plain, progress) = run(format, &[&damaged]);
        assert!(!matches!(progress, Progress::Ended(_)), "{format:?}");
        assert!(plain.len() > 90_000 && noise.starts_with(&plain[..90_000]), "{format:?} damaged: {}", plain.len());
    }
}

#[test]
fn a_file_that_is_stored_is_left_to_whoever_looks_on() {
    assert_eq!(run(Format::Zip, &[&zip(TEXT, 0)]), (Vec::new(), Progress::Broken));
}

#[test]
fn a_frame_that_wants_too_much_memory_is_told() {
    // A window of 2^27 bytes: exponent 17 in the upper five bits (RFC 8878 §3.1.1.1.2).
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3, 1, 0, 0];
    assert_eq!(run(Format::Zstd, &[&frame]).1, Progress::TooBig);
    let fine = [0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3, 1, 0, 0];
    assert_eq!(run(Format::Zstd, &[&fine]).1, Progress::Ended(9));
}

#[test]
fn brotli_is_guessed_only_where_it_is() {
    let packed = unhex(BROTLI);
    assert_eq!(unnamed::format(&packed, true), Some(Format::Brotli));
    assert_eq!(unnamed::format(&packed[..packed.len() - 1], true), None);
    let mut numbers =
        std::iter::successors(Some(7u32), |last| Some(last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)));
    let mut guessed = 0;
    for _ in 0..20_000 {
        let noise: Vec<u8> = numbers.by_ref().take(48).map(|number| (number >> 24) as u8).collect();
        guessed +=
            [true, false].map(|whole| usize::from(unnamed::format(&noise, whole).is_some())).iter().sum::<usize>();
    }
    assert_eq!(guessed, 0);
}
