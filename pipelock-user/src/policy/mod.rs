//! The egress policy: text to typed rules to decisions.
