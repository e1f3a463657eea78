//! Answers of HTTP/1: which of those that hyper reads another reader could frame differently.
//!
//! Called by `upstream`. It promises that the body of an answer that passes is as long for everybody: hyper itself lets
//! Transfer-Encoding win over Content-Length and hands on both, and undoes `chunked` below other codings unsaid.

use http::{HeaderValue, Response, Version, header};

/// Whether there is one reading.
///
/// # Errors
/// What there are two of.
pub(in crate::proxy::http) fn sound_answer<B>(response: &Response<B>) -> Result<(), &'static str> {
    if response.version() == Version::HTTP_2 {
        return Ok(());
    }
    let headers = response.headers();
    let lengths: Vec<&HeaderValue> = headers.get_all(header::CONTENT_LENGTH).iter().collect();
    let codings: Vec<&HeaderValue> = headers.get_all(header::TRANSFER_ENCODING).iter().collect();
    match (&codings[..], &lengths[..]) {
        ([], []) => Ok(()),
        ([], [length]) if !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit) => Ok(()),
        ([], [_]) => Err("a Content-Length that is no number"),
        ([], _) => Err("more than one Content-Length"),
        (_, [_, ..]) => Err("Transfer-Encoding and Content-Length"),
        ([_], []) if response.version() != Version::HTTP_11 => Err("Transfer-Encoding in HTTP/1.0"),
        ([coding], []) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        (_, []) => Err("a Transfer-Encoding other than chunked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_length_or_chunks_and_nothing_else() {
        let check = |version, headers: &[(&str, &str)]| {
            let response = Response::builder().version(version);
            let response = headers.iter().fold(response, |response, (name, value)| response.header(*name, *value));
            sound_answer(&response.body(()).expect("an answer")).is_ok()
        };
        let length = ("content-length", "5");
        let chunked = ("transfer-encoding", "Chunked");
        for headers in [&[][..], &[length], &[chunked]] {
            assert!(check(Version::HTTP_11, headers), "{headers:?}");
        }
        for headers in [
            &[length, chunked][..],
            &[length, length],
            &[("content-length", "5, 5")],
            &[("content-length", "+5")],
            &[("content-length", "")],
            &[chunked, chunked],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "identity")],
        ] {
            assert!(!check(Version::HTTP_11, headers), "{headers:?}");
        }
        assert!(check(Version::HTTP_10, &[length]) && !check(Version::HTTP_10, &[chunked]));
    }
}
