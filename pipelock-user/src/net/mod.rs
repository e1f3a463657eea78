//! The one door to the network: resolve, check, dial.
