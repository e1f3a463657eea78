//! What processes have used.

use std::path::Path;
use std::time::Duration;

/// User and system time, and resident memory in KiB, of processes that live.
pub(crate) fn used(pids: &[u32]) -> (Duration, u64) {
    let all = pids.iter().filter_map(|pid| fields(*pid));
    let (ticks, pages) = all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    (Duration::from_millis(ticks * 10), pages * 4)
}

/// Ticks of a hundredth of a second (`USER_HZ`), and resident pages: proc(5).
fn fields(pid: u32) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let field = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    Some((field(11)? + field(12)?, field(21)?))
}

/// A process and those below it.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let tasks = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"));
    for task in tasks.into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse().ok()).flat_map(tree));
    }
    all
}
