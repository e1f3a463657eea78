//! Loads the object: makes or opens its maps, relocates its programs against them, and gives these to the verifier.
//!
//! Called by `attach` and by the probe of `hooks`. Why not aya's own loader: it reads and parses all types of the running
//! kernel, some megabytes, which this object needs none of, and that would be a third of the time that a start takes.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use aya::EbpfError;
use aya::maps::{MapData, MapError};
use aya_obj::Function;
use aya_obj::btf::{BtfError, BtfFeatures};

use super::hooks::Hook;
use super::maps::MAPS;
use super::object::OBJECT;
use super::side_by_side::side_by_side;
use super::sys;

/// How often a program is given to a verifier that was interrupted.
const TRIES: usize = 5;

/// What every kernel from 6.1 on knows of the types that an object describes itself with.
const BTF_FEATURES: BtfFeatures = BtfFeatures::new(true, true, true, true, true, true, true, true);

/// The object, its maps in the kernel and its programs ready to be given to it.
pub(super) struct Loadable {
    programs: HashMap<String, Function>,
    license: CString,
    types: Option<OwnedFd>,
    /// Held until the programs hold them.
    _maps: Vec<MapData>,
}

impl Loadable {
    /// Reads the object and makes its maps. With `pins`, maps of ours that are pinned there are taken as they are, and the
    /// others are pinned there.
    ///
    /// # Errors
    /// What the kernel said to the maps or the types.
    pub(super) fn new(pins: Option<&Path>) -> Result<Self, EbpfError> {
        let mut object = aya_obj::Object::parse(OBJECT)?;
        let types = match object.fixup_and_sanitize_btf(&BTF_FEATURES)? {
            Some(types) => Some(sys::load_types(&types.to_bytes()).map_err(|io_error| BtfError::LoadError {
                io_error,
                verifier_log: aya_obj::VerifierLog::new(String::new()),
            })?),
            None => None,
        };
        // The kernel sets up all places of a table when it makes it, which takes milliseconds for the large ones.
        let mut wanted: Vec<_> = object.maps.drain().collect();
        wanted.sort_by_key(|(_, map)| u64::from(map.max_entries()) * u64::from(map.key_size() + map.value_size()));
        let maps = side_by_side(wanted, |(name, map)| {
            let made = make_map(&name, &map, pins, types.as_ref())?;
            Ok((name, map, made))
        });
        let maps = maps.into_iter().collect::<Result<Vec<_>, EbpfError>>()?;
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let placed = maps.iter().map(|(name, map, made)| (name.as_str(), made.fd().as_fd().as_raw_fd(), map));
        object.relocate_maps(placed, &sections)?;
        object.relocate_calls(&sections)?;
        let programs = object.programs.iter().filter_map(|(name, program)| {
            object.functions.get(&program.function_key()).map(|function| (name.clone(), function.clone()))
        });
        Ok(Self {
            programs: programs.collect(),
            license: object.license.clone(),
            types,
            _maps: maps.into_iter().map(|(_, _, made)| made).collect(),
        })
    }

    /// Gives the program of this hook to the verifier.
    ///
    /// # Errors
    /// What the kernel said, with the end of the verifier's log, which holds the reason.
    pub(super) fn load(&self, hook: &Hook) -> Result<OwnedFd, String> {
        let function = self.programs.get(hook.program).ok_or("the object does not hold it")?;
        let (functions, lines) = (function.func_info.func_info_bytes(), function.line_info.line_info_bytes());
        let program = sys::Program {
            kind: hook.kind,
            // The kernel wants it for these kinds, and tells one hook of the others from another at the attach only.
            attach: hook.attach_point_at_load(),
            name: hook.program,
            // SAFETY: instructions are plain 8-byte structs.
            instructions: unsafe {
                std::slice::from_raw_parts(function.instructions.as_ptr().cast(), function.instructions.len())
            },
            license: &self.license,
            types: self.types.as_ref(),
            functions: (&functions, function.func_info_rec_size),
            lines: (&lines, function.line_info_rec_size),
        };
        let first = match patiently(|| sys::load_program(&program, &mut [])) {
            Ok(fd) => return Ok(fd),
            Err(error) => error,
        };
        // Once more, for the log. It may be cut off: then the kernel answers ENOSPC, and the first answer counts.
        let mut log = vec![0; 1 << 20];
        match sys::load_program(&program, &mut log) {
            Ok(fd) => Ok(fd),
            Err(_) => Err(explain(&first, &log)),
        }
    }
}

/// Makes a map and fills in its constants; one of ours with `pins` is taken from there, or pinned there.
fn make_map(
    name: &str,
    map: &aya_obj::Map,
    pins: Option<&Path>,
    types: Option<&OwnedFd>,
) -> Result<MapData, EbpfError> {
    let make = || MapData::create(map.clone(), name, types.map(|types| types.as_fd()));
    let made = match pins.filter(|_| MAPS.contains(&name)).map(|folder| folder.join(name)) {
        Some(pin) if pin.exists() => MapData::from_pin(pin)?,
        Some(pin) => {
            let made = make()?;
            made.pin(pin).map_err(|error| MapError::PinError { name: Some(name.to_owned()), error })?;
            made
        }
        None => make()?,
    };
    if !map.data().is_empty() {
        sys::fill_constants(made.fd().as_fd(), map.data()).map_err(MapError::IoError)?;
    }
    Ok(made)
}

/// Tries as long as the verifier was interrupted, which a signal does (EAGAIN), and no more than [`TRIES`] times; libbpf asks
/// as often.
fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
    attempt()
}

fn explain(error: &io::Error, log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let text = format!("{error}\n{}", String::from_utf8_lossy(log.get(..end).unwrap_or_default()).trim_end());
    // The beginning is register states.
    let tail: Vec<_> = text.lines().rev().take(12).collect();
    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    if text.lines().count() > 12 { format!("{error}: {tail}") } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of attempts that are answered like this, and how many there were.
    fn answered(answers: &[Result<u8, i32>]) -> (Result<u8, Option<i32>>, usize) {
        let mut count = 0;
        let result = patiently(|| {
            let answer = answers.get(count).copied().expect("no more attempts than that");
            count += 1;
            answer.map_err(io::Error::from_raw_os_error)
        });
        (result.map_err(|error| error.raw_os_error()), count)
    }

    #[test]
    fn an_interrupted_verifier_is_asked_again_and_no_other_answer_is() {
        let interrupted = Err(libc::EAGAIN);
        assert_eq!(answered(&[Ok(1)]), (Ok(1), 1));
        assert_eq!(answered(&[interrupted, interrupted, Ok(3)]), (Ok(3), 3));
        assert_eq!(answered(&[interrupted, Err(libc::EACCES)]), (Err(Some(libc::EACCES)), 2));
        assert_eq!(answered(&[interrupted; TRIES]), (Err(Some(libc::EAGAIN)), TRIES));
        assert_eq!(answered(&[interrupted, interrupted, interrupted, interrupted, Ok(5)]), (Ok(5), 5));
    }
}
