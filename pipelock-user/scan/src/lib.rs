//! Bytes in, findings out. Callers are the `inspect` room and the command line; it promises no sockets, no tasks, no
//! policy and no panic on any input.

#![forbid(unsafe_code)]

pub mod injection;
