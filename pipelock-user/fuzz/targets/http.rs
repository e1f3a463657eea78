//! Requests of HTTP/1.1, however they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipelock::proxy::fuzzing::http;

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, bytes) = input;
    http(bytes, &cuts);
});
