//! Moves frames both ways until either side is done, a message is stopped or the connection is cut.
//!
//! Called by `http::upgrade` with both ends of an upgraded connection. It promises that a message that is read goes on whole
//! and only after it was read, that one which ends with the beginning of a secret waits for the next, though not for long, that
//! control frames pass at once between its pieces, that every frame arrives in the bytes it was sent in, but for the masks of those
//! that are read, and that both sides are told by a close frame when a message is stopped or the connection is cut, unless one was cut
//! off in the middle of a frame.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::frame::{self, Bounds, CLOSE, CONTINUATION, INVALID, POLICY, PROTOCOL_ERROR, TEXT, TOO_BIG};
use crate::flow::{FlowId, Found, Reason, Verdict};
use crate::inspect::Messages;
use crate::proxy::listen::linger;
use crate::proxy::scratch;

/// Longest message that is read. It waits in memory until it is whole.
const MAX_MESSAGE: usize = 1 << 20;
/// How long a message of the agent's waits for the next one when it ends with the beginning of a token or of a known value: what is cut
/// into messages is stopped before more than that has left, unless each waits for an answer. Those that end so by chance go on late.
const HOLD: Duration = Duration::from_millis(500);
/// How long messages wait at the most that all end so.
const HOLD_ALL: Duration = Duration::from_secs(30);
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Way {
    /// From the agent.
    Out,
    /// To the agent.
    In,
}

/// What reads the messages of both directions.
pub(in crate::proxy) struct Reading {
    pub(in crate::proxy) out: Messages,
    pub(in crate::proxy) inn: Messages,
}

/// Moves frames, and gives back what cut them. Where they are read, `noted` is told of what was found and let go on, and
/// `stopped` of what ended it, before either side is.
pub(in crate::proxy) async fn relay<A, U>(
    (agent, upstream): (A, U),
    reading: Option<Reading>,
    flow: FlowId,
    noted: impl Fn(Vec<Found>, Way),
    stopped: impl AsyncFnOnce(Verdict),
    cut: impl Future<Output = Verdict>,
) -> Option<Verdict>
where
    A: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut agent_read, mut agent_write) = tokio::io::split(agent);
    let (mut upstream_read, mut upstream_write) = tokio::io::split(upstream);
    let (mut out, mut inn) = reading.map(|Reading { out, inn }| (out, inn)).unzip();
    let (out_busy, in_busy) = (AtomicBool::new(false), AtomicBool::new(false));
    let moved = async {
        let out = direction(&mut agent_read, &mut upstream_write, out.as_mut(), Way::Out, &out_busy, &noted);
        let inn = direction(&mut upstream_read, &mut agent_write, inn.as_mut(), Way::In, &in_busy, &noted);
        tokio::pin!(out, inn);
        // One direction that is stopped ends both; one that is merely done leaves the other to finish.
        tokio::select! {
            ended = &mut out => match ended {
                Ok(()) => inn.await,
                stopped => stopped,
            },
            ended = &mut inn => match ended {
                Ok(()) => out.await,
                stopped => stopped,
            },
        }
    };
    tokio::pin!(cut);
    let ended = tokio::select! {
        moved = moved => moved,
        verdict = &mut cut => Err(Ended::Cut(verdict)),
    };
    let ended = match ended {
        // Perhaps for what cuts the connection: a budget refuses what comes.
        Err(Ended::Off) => tokio::select! {
            biased;
            verdict = cut => Ended::Cut(verdict),
            () = std::future::ready(()) => Ended::Off,
        },
        Err(ended) => ended,
        Ok(()) => return None,
    };
    let (code, reason, cut) = match ended {
        Ended::Stopped((code, verdict)) => {
            let reason = verdict.reason;
            stopped(verdict).await;
            (code, reason, None)
        }
        Ended::Cut(verdict) => (POLICY, verdict.reason, Some(verdict)),
        Ended::Off => {
            let both = async { tokio::join!(agent_write.shutdown(), upstream_write.shutdown()) };
            let _ = tokio::time::timeout(LAST_WORDS, both).await;
            return None;
        }
    };
    let why = format!("{{\"reason\":\"{}\",\"flow\":\"{}\"}}", reason.code(), flow.0);
    let close = |mask| frame::write(CLOSE, &[&code.to_be_bytes(), why.as_bytes()].concat(), mask);
    let to_agent = async {
        if !in_busy.load(Ordering::Relaxed) {
            let _ = agent_write.write_all(&close(None)).await;
        }
        let _ = agent_write.shutdown().await;
        linger(&mut agent_read).await;
    };
    let to_upstream = async {
        if !out_busy.load(Ordering::Relaxed) {
            let mut mask = [0; 4];
            // What is masked is no secret; the standard wants a mask that the other side cannot foresee.
            let _ = getrandom::fill(&mut mask);
            let _ = upstream_write.write_all(&close(Some(mask))).await;
        }
        let _ = upstream_write.shutdown().await;
    };
    // Side by side: one that does not read must not keep the other from hearing of it.
    let both = async { tokio::join!(to_agent, to_upstream) };
    let _ = tokio::time::timeout(LAST_WORDS, both).await;
    cut
}

/// What ends both directions before their end.
enum Ended {
    /// A message or frame was stopped: the close code, and why.
    Stopped((u16, Verdict)),
    /// One side has broken off.
    Off,
    /// The connection is cut.
    Cut(Verdict),
}

/// One direction, to its end.
async fn direction(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    messages: Option<&mut Messages>,
    way: Way,
    is_busy: &AtomicBool,
    noted: &impl Fn(Vec<Found>, Way),
) -> Result<(), Ended> {
    match messages {
        Some(messages) => carry(from, to, messages, way, is_busy, noted).await,
        None => pass(from, to, is_busy).await,
    }
}

/// One that nobody reads: what is kept track of is where frames end.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    is_busy: &AtomicBool,
) -> Result<(), Ended> {
    let (mut input, mut bounds) = (BytesMut::new(), Bounds::default());
    while more(from, &mut input).await? {
        is_busy.store(true, Ordering::Relaxed);
        if to.write_all(&input).await.is_err() || to.flush().await.is_err() {
            return Ok(());
        }
        is_busy.store(!bounds.follow(&input), Ordering::Relaxed);
        input.clear();
    }
    let _ = to.shutdown().await;
    Ok(())
}

/// Reads on; false at the end. What is not needed is not held while nothing comes.
async fn more(from: &mut (impl AsyncRead + Unpin), input: &mut BytesMut) -> Result<bool, Ended> {
    if input.is_empty() {
        *input = BytesMut::new();
    }
    scratch::read(from, input).await.map_err(|_| Ended::Off)
}

/// One that is read.
async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    messages: &mut Messages,
    way: Way,
    is_busy: &AtomicBool,
    noted: &impl Fn(Vec<Found>, Way),
) -> Result<(), Ended> {
    let mut input = BytesMut::new();
    // The frames of a message that is not whole, and what they carry.
    let (mut waiting, mut message) = (BytesMut::new(), Vec::new());
    let (mut is_inside, mut is_text) = (false, false);
    // Whole messages that wait for the next one, until when, and until when at the most.
    let (mut held, mut due) = (BytesMut::new(), None::<(Instant, Instant)>);
    // How many were read since the first of them, with it.
    let mut since = 0;
    loop {
        loop {
            // Control frames have room between the pieces of the longest message.
            let room = MAX_MESSAGE.saturating_sub(message.len()).max(125);
            let next = frame::next(&mut input, way == Way::Out, room);
            let Some(frame) = next.map_err(|refused| refuse(refused, way))? else { break };
            let is_control = frame.is_control();
            if !is_control && is_inside != (frame.opcode == CONTINUATION) {
                return Err(refuse((PROTOCOL_ERROR, "a message inside another, or a piece of none"), way));
            }
            let text = if is_control {
                &frame.payload
            } else {
                if frame.opcode != CONTINUATION {
                    is_text = frame.opcode == TEXT;
                }
                is_inside = !frame.is_last;
                message.extend_from_slice(&frame.payload);
                waiting.extend_from_slice(&frame.raw);
                if is_inside {
                    if message.len() >= MAX_MESSAGE || waiting.len() > 2 * MAX_MESSAGE {
                        return Err(refuse((TOO_BIG, "a message is longer than can be read whole"), way));
                    }
                    continue;
                }
                if is_text && std::str::from_utf8(&message).is_err() {
                    return Err(refuse((INVALID, "a text message that is no UTF-8"), way));
                }
                &message
            };
            let found = messages.check(text, is_control).map_err(|verdict| Ended::Stopped((POLICY, verdict)))?;
            noted(found, way);
            since = if due.is_some() { since + 1 } else { 1 };
            if !is_control {
                message.clear();
                // One long message is no reason to hold on to as much.
                message.shrink_to(scratch::CHUNK);
                held.unsplit(std::mem::take(&mut waiting));
                let may_wait = held.len() < MAX_MESSAGE && due.is_none_or(|(_, last)| Instant::now() < last);
                let begun = |last| messages.has_begun(last).map_err(|verdict| Ended::Stopped((POLICY, verdict)));
                if may_wait && begun(1)? {
                    let now = Instant::now();
                    let last = due.map_or(now + HOLD_ALL, |(_, last)| last);
                    due = Some((last.min(now + HOLD), last));
                    continue;
                }
                // One that says something else does not let go what waits, nor does it make that wait longer.
                if may_wait && due.is_some_and(|(due, _)| Instant::now() < due) && begun(since)? {
                    continue;
                }
            }
            if !is_control || frame.opcode == CLOSE {
                due = None;
                if !send(to, &std::mem::take(&mut held), is_busy).await {
                    return Ok(());
                }
            }
            if is_control && !send(to, &frame.raw, is_busy).await {
                return Ok(());
            }
            if frame.opcode == CLOSE {
                let _ = to.shutdown().await;
                return Ok(());
            }
        }
        let read = match due {
            None => Ok(more(from, &mut input).await),
            Some((due, _)) => tokio::time::timeout_at(due, more(from, &mut input)).await,
        };
        if let Ok(Ok(true)) = read {
            continue;
        }
        // Nothing came in time, or nothing comes any more. What was noted as let go on goes, also when the agent breaks off.
        due = None;
        if !send(to, &std::mem::take(&mut held), is_busy).await {
            return Ok(());
        }
        if let Ok(more) = read {
            more?;
            let _ = to.shutdown().await;
            return Ok(());
        }
    }
}

/// Writes whole frames; false when nobody takes them any more.
async fn send(to: &mut (impl AsyncWrite + Unpin), frames: &[u8], is_busy: &AtomicBool) -> bool {
    if frames.is_empty() {
        return true;
    }
    is_busy.store(true, Ordering::Relaxed);
    let is_sent = to.write_all(frames).await.is_ok() && to.flush().await.is_ok();
    is_busy.store(!is_sent, Ordering::Relaxed);
    is_sent
}

fn refuse((code, why): frame::Refused, way: Way) -> Ended {
    let reason = match (code, way) {
        (TOO_BIG, _) => Reason::LimitExceeded,
        (_, Way::Out) => Reason::RequestMalformed,
        (_, Way::In) => Reason::UpstreamFailed,
    };
    Ended::Stopped((code, Verdict::block(reason, format!("WebSocket: {why}"))))
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
