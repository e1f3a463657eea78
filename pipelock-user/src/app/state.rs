//! What `status` and `detach` read: one file per attachment under /run/pipelock, written by whoever serves it.
