//! A ClientHello, however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipelock::proxy::fuzzing::hello;

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, bytes) = input;
    hello(bytes, &cuts);
});
