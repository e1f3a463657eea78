//! WebSocket frames, however they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipelock::proxy::fuzzing::websocket;

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, bytes) = input;
    websocket(bytes, &cuts);
});
