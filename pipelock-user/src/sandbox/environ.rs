//! The environments of processes that run already, as each was given its own: their secrets are to be looked for.
//!
//! Called before a cgroup is attached. It promises bounded memory, and that what could not be read is told.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};

/// Longest environment that is read of one process, in bytes, …
const LONGEST: u64 = 1 << 20;
/// … and bytes of all that are kept.
const MOST: usize = 8 << 20;

/// What was found.
#[derive(Debug, Default)]
pub struct Environments {
    /// Names and values, each pair once.
    pub variables: Vec<(String, Vec<u8>)>,
    /// Processes whose environment could not be read to its end.
    pub unread: Vec<i32>,
}

impl Environments {
    /// The environments of these processes. One that has ended has none.
    #[must_use]
    pub fn of(processes: &[i32]) -> Self {
        let mut all = BTreeSet::new();
        let (mut unread, mut bytes) = (Vec::new(), 0);
        for pid in processes {
            let text = match read(*pid) {
                Ok(text) => text,
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => continue,
                Err(_) => {
                    unread.push(*pid);
                    continue;
                }
            };
            let mut is_whole = text.len() as u64 <= LONGEST;
            for variable in text.split(|byte| *byte == 0) {
                let Some(at) = variable.iter().position(|byte| *byte == b'=') else { continue };
                let (name, value) = (variable.get(..at), variable.get(at + 1..));
                let Some((name, value)) = name.and_then(|name| std::str::from_utf8(name).ok()).zip(value) else {
                    continue;
                };
                if name.is_empty() || value.is_empty() {
                    continue;
                }
                let pair = (name.to_owned(), value.to_vec());
                if all.contains(&pair) {
                    continue;
                }
                if bytes + variable.len() > MOST {
                    is_whole = false;
                    break;
                }
                bytes += variable.len();
                all.insert(pair);
            }
            if !is_whole {
                unread.push(*pid);
            }
        }
        Self { variables: all.into_iter().collect(), unread }
    }
}

fn read(pid: i32) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/environ"))?.take(LONGEST + 1).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processes_were_given_is_found_once() {
        let start = |value: &str| {
            let mut command = std::process::Command::new("sleep");
            command.arg("60").env_clear().env("DEPLOY_TOKEN", value).env("EMPTY", "").env("WITH", "a=b");
            command.spawn().expect("sleep")
        };
        let mut children = [start("one"), start("one"), start("two")];
        let mut pids: Vec<i32> = children.iter().map(|child| i32::try_from(child.id()).expect("a pid")).collect();
        // One that has ended.
        pids.push(i32::MAX);
        let pair = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let wanted = [pair("DEPLOY_TOKEN", "one"), pair("DEPLOY_TOKEN", "two"), pair("WITH", "a=b")];
        // A child shows its parent's environment until it has become what it is to run.
        let mut found = Environments::of(&pids);
        for _ in 0..500 {
            if found.variables == wanted {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            found = Environments::of(&pids);
        }
        for child in &mut children {
            child.kill().expect("it runs");
            child.wait().expect("ours");
        }
        assert_eq!((found.variables.as_slice(), found.unread.len()), (&wanted[..], 0));
    }
}
