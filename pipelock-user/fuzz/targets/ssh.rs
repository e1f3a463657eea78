//! Either side of an SSH handshake, however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipelock::proxy::fuzzing::ssh;

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, bytes) = input;
    ssh(bytes, &cuts);
});
