//! Messages of a WebSocket, one direction: each is read whole before any of it goes on, and together with those before it.
//!
//! Made by `proxy::ws` for each direction of a connection that is read. It promises that a message which is to be stopped never
//! goes on; of a secret in pieces the message that completes it is stopped.

use std::sync::Arc;

use super::head::unread;
use super::lanes::Lanes;
use super::pieces::{SHORT, values};
use super::scanners::Scanners;
use super::terms::{MOST_TOLD, Side, Terms, told};
use crate::flow::{Found, Verdict};
use crate::policy::FindingAction;

/// Where the findings stand.
const PLACE: &str = "message";
/// Messages of one connection whose values are put together with those of other connections; what comes later is put together
/// with these.
const FIRST: u64 = 16;

/// One direction.
pub struct Messages {
    scanners: Arc<Scanners>,
    terms: Arc<Terms>,
    side: Side,
    lanes: Lanes,
    count: u64,
    /// What was told already: texts put together are read again with each message.
    told: Vec<Found>,
}

impl Messages {
    /// For what the agent sends ([`Side::Request`]) or gets ([`Side::Response`]).
    #[must_use]
    pub fn new(scanners: &Arc<Scanners>, terms: &Arc<Terms>, side: Side) -> Self {
        let scanner = if side.is_outbound() { &scanners.outbound } else { &scanners.inbound };
        Self {
            scanners: scanners.clone(),
            terms: terms.clone(),
            side,
            lanes: Lanes::new(scanner, None, !side.is_outbound()),
            count: 0,
            told: Vec::new(),
        }
    }

    /// Reads a message, or the payload of a control frame; what is to be noted.
    ///
    /// # Errors
    /// [`crate::flow::Reason::DlpMatch`], [`crate::flow::Reason::InjectionMatch`],
    /// [`crate::flow::Reason::ScannerUnavailable`].
    pub fn check(&mut self, message: &[u8], is_control: bool) -> Result<Vec<Found>, Verdict> {
        let scanner = if self.side.is_outbound() { &self.scanners.outbound } else { &self.scanners.inbound };
        let mut findings = scanner.scan(message).map_err(|error| unread(&error))?;
        let pushed = if is_control { self.lanes.push_control(message) } else { self.lanes.push(message) };
        findings.extend(pushed.map_err(|error| unread(&error))?);
        findings.extend(self.lanes.ends_now().map_err(|error| unread(&error))?);
        self.count += 1;
        if self.side.is_outbound() && self.count <= FIRST && message.len() <= SHORT {
            for (lane, value) in values(message) {
                findings.extend(self.terms.piece(&self.scanners, &format!("message {lane}"), &value)?);
            }
        }
        let mut all: Vec<Found> = Vec::new();
        for finding in &findings {
            // Frames go on as they are, so nothing is taken out of them.
            let action = match self.terms.action(self.side, finding) {
                FindingAction::Redact => FindingAction::Block,
                action => action,
            };
            let found = told(finding, PLACE, action);
            let has_room = all.len() < MOST_TOLD || action == FindingAction::Block;
            if action != FindingAction::Off && has_room && !all.contains(&found) {
                all.push(found);
            }
        }
        if all.iter().any(|found| found.action == "block") {
            all.retain(|found| found.action == "block");
            all.truncate(MOST_TOLD);
            return Err(self.terms.stop(self.side, all));
        }
        // What it hears back of its own words is no instruction to it; what was stopped it has not said.
        if self.side.is_outbound()
            && let Ok(mut own) = self.scanners.own.write()
        {
            own.remember(&String::from_utf8_lossy(message));
        }
        all.retain(|found| !self.told.contains(found));
        self.told.extend_from_slice(&all);
        self.told.drain(..self.told.len().saturating_sub(MOST_TOLD));
        Ok(all)
    }
}
