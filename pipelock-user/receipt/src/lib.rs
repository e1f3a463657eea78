//! Action receipts in a hash chain.
