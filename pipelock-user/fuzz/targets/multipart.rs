//! The parts of a form that leaves, with a secret and without.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipelock::proxy::fuzzing::multipart;

fuzz_target!(|input: (u16, Vec<u8>, &[u8])| {
    let (at, cuts, bytes) = input;
    multipart(bytes, at, &cuts);
});
