//! The commands of a push, however they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipelock::proxy::fuzzing::push;

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, bytes) = input;
    push(bytes, &cuts);
});
