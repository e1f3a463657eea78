//! Where the agent runs: its cgroup, its user, its descriptors.
