//! Moves bytes both ways without reading them, within a budget, which `meter` keeps. Called for connections that a rule
//! passes through.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::idle::{Activity, Watched};
use super::meter::{Meter, Metered};
use super::scratch;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides were done, or one broke off.
    Done,
    /// The budget ran out: nothing beyond it was forwarded.
    OverBudget,
    /// No byte moved in either direction for too long.
    Idle,
}

/// Moves bytes until both sides are done, the budget is used up, or no byte has moved either way for `idle`.
pub(super) async fn pump<A, B>(agent: A, upstream: B, meter: &Arc<Meter>, idle: Duration) -> End
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (activity, since) = (Activity::new(), Instant::now());
    let (agent_read, agent_write) = tokio::io::split(Watched::new(agent, &activity));
    let upstream = Metered::new(Watched::new(upstream, &activity), meter);
    let (upstream_read, upstream_write) = tokio::io::split(upstream);
    let both = async {
        let out = copy(agent_read, upstream_write);
        let inn = copy(upstream_read, agent_write);
        tokio::pin!(out, inn);
        // One direction over its budget ends both; one that is merely done leaves the other to finish.
        tokio::select! {
            () = &mut out => if !meter.was_cut(since) { inn.await },
            () = &mut inn => if !meter.was_cut(since) { out.await },
        }
    };
    tokio::select! {
        () = both => if meter.was_cut(since) { End::OverBudget } else { End::Done },
        // Also while the only thing that moves, or does not, is on the agent's side.
        () = meter.time_up() => End::OverBudget,
        () = activity.idle(idle) => End::Idle,
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    while let Ok(Some(rest)) = poll_fn(|cx| step(&mut from, &mut to, cx)).await {
        // What is written may wait in a layer of TLS.
        if to.write_all(&rest).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Reads once, and writes as much of it as can be written now; gives the rest, and none at the end.
fn step(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Vec<u8>>>> {
    let moved = ready!(scratch::poll(from, cx, |mut rest, cx| {
        if rest.is_empty() {
            return Ok(None);
        }
        while !rest.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => rest = rest.get(written..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(Some(rest.to_vec()))
    }))?;
    Poll::Ready(moved)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::proxy::meter::Budget;

    const IDLE: Duration = Duration::from_secs(600);

    async fn through(budget: Budget, sent: &[u8]) -> (End, Vec<u8>) {
        let (mut client, agent) = tokio::io::duplex(1 << 16);
        let (upstream, mut server) = tokio::io::duplex(1 << 16);
        let pumping = tokio::spawn(async move { pump(agent, upstream, &Meter::new(budget), IDLE).await });
        client.write_all(sent).await.expect("write");
        client.shutdown().await.expect("shutdown");
        let mut got = Vec::new();
        let _ = server.read_to_end(&mut got).await;
        drop(server);
        (pumping.await.expect("no panic"), got)
    }

    #[tokio::test]
    async fn within_the_budget_every_byte_arrives() {
        let sent = vec![7; 5000];
        assert_eq!(through(Budget { out: Some(5000), ..Budget::default() }, &sent).await, (End::Done, sent));
    }

    #[tokio::test]
    async fn over_the_budget_nothing_more_leaves() {
        let (end, got) = through(Budget { out: Some(4999), ..Budget::default() }, &vec![7; 5000]).await;
        assert_eq!(end, End::OverBudget);
        assert!(got.len() <= 4999);
    }

    #[tokio::test]
    async fn what_cannot_be_written_at_once_is_kept_in_order() {
        let mut pumps = tokio::task::JoinSet::new();
        for seed in 0..8_u64 {
            pumps.spawn(async move {
                let (mut client, agent) = tokio::io::duplex(100_000);
                let (upstream, mut server) = tokio::io::duplex(7);
                let pump = async { pump(agent, upstream, &Meter::new(Budget::default()), IDLE).await };
                let sent: Vec<u8> = (seed..200_000).map(|at| ((at * at) >> 3) as u8).collect();
                let talk = async {
                    client.write_all(&sent).await.expect("write");
                    client.shutdown().await.expect("shutdown");
                };
                let mut got = Vec::new();
                let answer = async {
                    let _ = server.read_to_end(&mut got).await;
                    drop(server);
                };
                let (end, (), ()) = tokio::join!(pump, talk, answer);
                assert!(end == End::Done && got == sent, "{seed}: {} of {}", got.len(), sent.len());
            });
        }
        while let Some(done) = pumps.join_next().await {
            done.expect("no panic");
        }
    }

    #[tokio::test]
    async fn nothing_waits_in_a_layer_below_until_more_comes() {
        let (mut client, agent) = tokio::io::duplex(64);
        let (upstream, mut server) = tokio::io::duplex(64);
        // As TLS does to a next hop.
        let upstream = tokio::io::BufStream::new(upstream);
        let pumping = tokio::spawn(async move { pump(agent, upstream, &Meter::new(Budget::default()), IDLE).await });
        client.write_all(b"question").await.expect("write");
        let mut got = [0; 8];
        let came = tokio::time::timeout(Duration::from_secs(5), server.read_exact(&mut got)).await;
        came.expect("it came").expect("read");
        drop((client, server));
        pumping.await.expect("no panic");
    }

    #[tokio::test]
    async fn time_is_a_budget_too() {
        let (_client, agent) = tokio::io::duplex(64);
        let (upstream, _server) = tokio::io::duplex(64);
        let budget = Budget { time: Some(Duration::from_millis(20)), ..Budget::default() };
        assert_eq!(pump(agent, upstream, &Meter::new(budget), IDLE).await, End::OverBudget);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_and_one_direction_is_enough_to_keep_it() {
        let (mut client, agent) = tokio::io::duplex(64);
        let (upstream, mut server) = tokio::io::duplex(64);
        let start = Instant::now();
        let pumping = tokio::spawn(async move { pump(agent, upstream, &Meter::new(Budget::default()), IDLE).await });
        // A download: the agent itself says nothing for far longer than the limit.
        for _ in 0..10 {
            tokio::time::sleep(IDLE / 2).await;
            server.write_all(b"x").await.expect("still open");
        }
        let mut got = [0; 10];
        client.read_exact(&mut got).await.expect("everything arrives");
        assert_eq!(pumping.await.expect("no panic"), End::Idle);
        assert_eq!(start.elapsed(), IDLE / 2 * 10 + IDLE);
    }
}
