//! A DNS message that the agent sends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipelock::proxy::fuzzing::dns;

fuzz_target!(|bytes: &[u8]| dns(bytes));
