//! The resolver the agent must use.
