//! The evidence folder: what a person takes away from a run.
//!
//! The recorder makes it as a [`Folder`], which it holds open, and writes `evidence.jsonl` while the run goes on; at its end
//! [`write_folder`] derives the rest from it, line by line, so that a million receipts need no more memory than one. Every
//! file appears whole or not at all (written under another name, synced, renamed), readable by its owner only. Nothing here
//! is signed: whatever is derived can be derived again, and the verifier holds it against the chain.

mod held;
mod summary;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::thread::Builder;

pub use self::held::{Folder, Room};
use self::summary::Summary;
use crate::bind::sha256_hex;
use crate::body::Receipt;
use crate::entry::{ACTION_RECEIPT, Entry};
use crate::read::{Evidence, Head, Item, SCHEMA};
use crate::sign::PublicKey;

/// The chain as it was recorded.
pub const EVIDENCE: &str = "evidence.jsonl";
/// The receipts as one document.
pub const DOCUMENT: &str = "receipts.json";
/// The policy's hash.
pub const POLICY: &str = "policy-hash.txt";
/// The public key for openssl.
pub const KEY_PEM: &str = "public-key.pem";
/// The public key for the public verifiers.
pub const KEY_HEX: &str = "public-key.hex";
/// The run for people.
pub const SUMMARY: &str = "summary.md";

/// Why the folder was not written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file could not be read or written.
    #[error("evidence folder: {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could change what is written there.
    #[error("evidence folder: {path}: {why}; give a folder that is not there yet, it will be made")]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Whose it is, or why it is not known.
        why: String,
    },
    /// The evidence file is not as the recorder writes it.
    #[error("evidence folder: {EVIDENCE} line {line}: {why}; run pipelock verify on it")]
    Evidence {
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
}

/// Derives everything else from `evidence.jsonl` in `folder` and returns the head of the document. Call it when the
/// chain is closed; after a crash it takes the lines that are whole.
///
/// # Errors
/// [`FolderError`].
pub fn write_folder(folder: &Folder) -> Result<Head, FolderError> {
    let mut summary = Summary::default();
    let mut head: Option<Head> = None;
    each_receipt(folder, |line, text| {
        let receipt: Receipt =
            serde_json::from_str(text).map_err(|error| FolderError::Evidence { line, why: error.to_string() })?;
        let record = &receipt.action_record;
        let head = head.get_or_insert_with(|| Head {
            schema: SCHEMA.to_owned(),
            signer_key: receipt.signer_key.clone(),
            policy_hash: record.policy_hash.clone(),
            receipt_count: 0,
            totals: Default::default(),
            root_hash: String::new(),
            final_seq: 0,
            run_nonce: record.run_nonce.clone(),
            flows: None,
        });
        head.root_hash = sha256_hex(text.as_bytes());
        head.final_seq = record.chain_seq;
        summary.add(&receipt);
        Ok(())
    })?;
    let mut head = head.ok_or_else(|| FolderError::Evidence { line: 0, why: "it holds no receipts".to_owned() })?;
    head.receipt_count = summary.tally.count;
    head.totals = summary.tally.totals;
    head.flows = summary.ledger.as_ref().map(|ledger| ledger.flows);
    let key = PublicKey::parse(&head.signer_key)
        .map_err(|error| FolderError::Evidence { line: 1, why: format!("signer_key: {error}") })?;

    let text = summary.render(&head);
    let drafts = [
        draft_document(folder, &head)?,
        draft_file(folder, POLICY, |file| writeln!(file, "{}", head.policy_hash).map_err(folder.failed(POLICY)))?,
        draft_file(folder, KEY_PEM, |file| file.write_all(key.pem().as_bytes()).map_err(folder.failed(KEY_PEM)))?,
        draft_file(folder, KEY_HEX, |file| writeln!(file, "{key}").map_err(folder.failed(KEY_HEX)))?,
        draft_file(folder, SUMMARY, |file| file.write_all(text.as_bytes()).map_err(folder.failed(SUMMARY)))?,
    ];
    sync_all(folder, &drafts)?;
    for draft in &drafts {
        folder.rename(&part(draft.name), draft.name)?;
    }
    // The new names must be on the disk too.
    folder.sync()?;
    Ok(head)
}

fn draft_document(folder: &Folder, head: &Head) -> Result<Draft, FolderError> {
    draft_file(folder, DOCUMENT, |file| {
        let failed = || folder.failed(DOCUMENT);
        let start = head.render().map_err(|error| failed()(error.into()))?;
        file.write_all(start.as_bytes()).map_err(failed())?;
        let mut first = true;
        each_receipt(folder, |_, text| {
            if !std::mem::take(&mut first) {
                file.write_all(b",\n").map_err(failed())?;
            }
            file.write_all(text.as_bytes()).map_err(failed())
        })?;
        file.write_all(Head::render_end().as_bytes()).map_err(failed())
    })
}

/// Calls `each` with line number and text of every receipt in the evidence file.
fn each_receipt(
    folder: &Folder,
    mut each: impl FnMut(u64, &str) -> Result<(), FolderError>,
) -> Result<(), FolderError> {
    let mut evidence = Evidence::new(BufReader::with_capacity(1 << 16, folder.evidence()?));
    while let Some((line, item)) = evidence.next_item().map_err(folder.failed(EVIDENCE))? {
        let text = match item {
            Item::Line(text) => text,
            // Half a line: the recorder was interrupted here.
            Item::Torn => break,
            Item::Unreadable(why) => return Err(FolderError::Evidence { line, why: why.to_owned() }),
            Item::Layout(why) => return Err(FolderError::Evidence { line, why }),
            Item::Closing => continue,
        };
        let entry: Entry<'_> =
            serde_json::from_str(text).map_err(|error| FolderError::Evidence { line, why: error.to_string() })?;
        if entry.kind == ACTION_RECEIPT {
            each(line, entry.detail.get())?;
        }
    }
    Ok(())
}

/// A file under the name it has until it is whole and on the disk.
struct Draft {
    name: &'static str,
    file: File,
}

/// The name of a draft.
fn part(name: &str) -> String {
    format!(".{name}.part")
}

/// Writes one file under another name.
fn draft_file(
    folder: &Folder,
    name: &'static str,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), FolderError>,
) -> Result<Draft, FolderError> {
    let draft = part(name);
    // One of a pipelock that was killed while it wrote.
    folder.remove(&draft);
    let mut file = BufWriter::new(folder.create(&draft)?);
    fill(&mut file)?;
    let file = file.into_inner().map_err(|error| folder.failed(name)(error.into_error()))?;
    Ok(Draft { name, file })
}

/// Brings the drafts onto the disk, side by side: a file system writes its journal once for all who wait at one moment.
fn sync_all(folder: &Folder, drafts: &[Draft]) -> Result<(), FolderError> {
    std::thread::scope(|scope| {
        let start = |draft| Builder::new().spawn_scoped(scope, move || File::sync_all(draft));
        let waiting: Vec<_> = drafts.iter().map(|draft| (draft, start(&draft.file))).collect();
        for (draft, thread) in waiting {
            let died = |_| Err(io::Error::other("the thread that wrote it to the disk died"));
            // Where no thread can be had, one after the other.
            let synced = thread.map_or_else(|_| draft.file.sync_all(), |thread| thread.join().unwrap_or_else(died));
            synced.map_err(folder.failed(draft.name))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests;
