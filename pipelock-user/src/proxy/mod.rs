//! Faces the agent: the transparent listener, the resolver it must use, and the denials it reads.
pub mod dns;
