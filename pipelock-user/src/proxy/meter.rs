//! The budget of a rule on one agent connection: counted where bytes go to the destination and come from it, over all the
//! connections that are made to it meanwhile.
//!
//! Called by `http` and `pump`. It promises that no byte beyond the budget is forwarded
//! either way, nor beyond the rates that it shares with others: the connection fails instead, and [`Meter::cut`] says why.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use super::counts::Scarce;
use super::ration::{self, Held, Ration, Short};
use crate::flow::{Reason, Verdict, locked};

/// What one connection may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Budget {
    /// Bytes from the agent; none for no limit.
    pub out: Option<u64>,
    /// Bytes to the agent; none for no limit.
    pub inn: Option<u64>,
    /// Time from start to end; none for no limit.
    pub time: Option<Duration>,
}

/// What has been used of a budget, and what is to be used of rates besides.
#[derive(Debug)]
pub(super) struct Meter {
    used: Arc<Used>,
    rations: Vec<Arc<Ration>>,
}

/// What has been used of a budget, whichever rates count too.
#[derive(Debug)]
struct Used {
    /// Bytes that may still leave. Locked for the length of one write, which never waits: another connection that looked
    /// meanwhile would see what is not used yet as used up.
    out: Mutex<u64>,
    /// Bytes that may still come.
    inn: AtomicU64,
    deadline: Option<Instant>,
    over: AtomicBool,
    /// Tells who waits for that.
    told: Notify,
    /// When a rate had no room for bytes, and which.
    short: Mutex<Option<(Instant, Short)>>,
    /// Something was cut since a receipt said so.
    is_untold: AtomicBool,
    /// There was no budget from the first on.
    is_unlimited: bool,
}

impl Meter {
    /// Nothing is used yet; time runs from now on.
    pub(super) fn new(budget: Budget) -> Arc<Self> {
        Self::rationed(budget, Vec::new())
    }

    /// The same, where bytes are also taken from these.
    pub(super) fn rationed(budget: Budget, rations: Vec<Arc<Ration>>) -> Arc<Self> {
        let used = Used {
            out: Mutex::new(budget.out.unwrap_or(u64::MAX)),
            inn: AtomicU64::new(budget.inn.unwrap_or(u64::MAX)),
            deadline: budget.time.and_then(|time| Instant::now().checked_add(time)),
            over: AtomicBool::new(false),
            told: Notify::new(),
            short: Mutex::default(),
            is_untold: AtomicBool::new(false),
            is_unlimited: budget == Budget::default(),
        };
        Arc::new(Self { used: Arc::new(used), rations })
    }

    /// The same budget, where bytes are taken from these rations.
    pub(super) fn under(&self, rations: Vec<Arc<Ration>>) -> Arc<Self> {
        Arc::new(Self { used: self.used.clone(), rations })
    }

    /// The same budget, where bytes are taken from one more ration, which is none of those that others of it have.
    pub(super) fn and(self: &Arc<Self>, ration: Option<Arc<Ration>>) -> Arc<Self> {
        let Some(ration) = ration else { return self.clone() };
        Arc::new(Self { used: self.used.clone(), rations: self.rations.iter().cloned().chain([ration]).collect() })
    }

    /// True when there is neither a budget nor a rate.
    pub(super) fn is_unlimited(&self) -> bool {
        self.used.is_unlimited && self.rations.is_empty()
    }

    /// True once something was refused because the budget is used up, and always when its time is.
    pub(super) fn is_over(&self) -> bool {
        self.used.over.load(Ordering::Acquire) || self.used.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// The same, or because a rate had no room since then: unlike a budget, that passes.
    pub(super) fn was_cut(&self, since: Instant) -> bool {
        self.is_over() || locked(&self.used.short).as_ref().is_some_and(|(at, _)| *at >= since)
    }

    /// True when something was cut and no receipt says so.
    pub(super) fn is_untold(&self) -> bool {
        self.used.is_untold.load(Ordering::Acquire)
    }

    /// A receipt says what was cut until now.
    pub(super) fn tell(&self) {
        self.used.is_untold.store(false, Ordering::Release);
    }

    /// What the budget or the rate was that something was cut for; for a rate, with when there is room again.
    pub(super) fn cut(&self, what: &str) -> Verdict {
        let Verdict { reason, detail, retry, .. } = self.refusal();
        let detail = if detail.is_empty() { what.to_owned() } else { format!("{what}: {detail}") };
        Verdict { retry, ..Verdict::let_out(reason, detail) }
    }

    /// The same of something of which nothing has left: for a rate, with when there is room again.
    pub(super) fn refusal(&self) -> Verdict {
        let short = locked(&self.used.short).as_ref().map(|(_, short)| short.verdict());
        short.filter(|_| !self.is_over()).unwrap_or_else(|| Verdict::block(Reason::BudgetExceeded, ""))
    }

    /// Takes a request's worth of the rates.
    ///
    /// # Errors
    /// The verdict on it, when one of them has no room.
    pub(super) fn admit(&self) -> Result<(), Verdict> {
        self.admit_of(0)
    }

    /// The same for a request of which so many bytes at least are to leave.
    ///
    /// # Errors
    /// The verdict on it, when the budget or one of the rates has no room for so much.
    pub(super) fn admit_of(&self, out: u64) -> Result<(), Verdict> {
        let left = *locked(&self.used.out);
        if out > left {
            let detail = format!("this request has {out} bytes, and of what one connection may send {left} are left");
            return Err(Verdict::block(Reason::BudgetExceeded, detail));
        }
        ration::admit_of(&self.rations, out).map_err(|short| {
            short.count();
            short.verdict()
        })
    }

    /// Waits until something was refused since then, or the time of the budget is up.
    pub(super) async fn used_up(&self, since: Instant) {
        let told = self.used.told.notified();
        tokio::pin!(told);
        // From here on it is told, so that none falls between.
        told.as_mut().enable();
        if !self.was_cut(since) {
            tokio::select! {
                () = told => {}
                () = self.time_up() => {}
            }
        }
    }

    /// Waits until the time of the budget is up.
    pub(super) async fn time_up(&self) {
        match self.used.deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    fn refuse(&self) -> io::Error {
        self.used.over.store(true, Ordering::Release);
        self.used.is_untold.store(true, Ordering::Release);
        self.used.told.notify_waiters();
        io::Error::other("the budget of the rule is used up")
    }

    /// Notes that a rate has no room for bytes.
    fn ran_short(&self, held: &mut Held<'_>) -> io::Error {
        if let Some(short) = held.short() {
            short.count();
            *locked(&self.used.short) = Some((Instant::now(), short));
            self.used.is_untold.store(true, Ordering::Release);
        }
        self.used.told.notify_waiters();
        io::Error::other("a rate of the policy is used up")
    }

    /// Takes what a write has used.
    fn note(left: &mut u64, written: &Poll<io::Result<usize>>) {
        *left = left.saturating_sub(sent(written));
    }

    /// Takes all of `used`, or nothing when so much is not left.
    fn spend(left: &AtomicU64, used: usize) -> bool {
        let used = u64::try_from(used).unwrap_or(u64::MAX);
        left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(used)).is_ok()
    }
}

/// How many bytes a write has moved.
fn sent(written: &Poll<io::Result<usize>>) -> u64 {
    match written {
        Poll::Ready(Ok(sent)) => u64::try_from(*sent).unwrap_or(u64::MAX),
        _ => 0,
    }
}

/// A stream to the destination whose bytes are counted.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    meter: Arc<Meter>,
    /// Ends a side that waits for a byte that may come after the end of the budget's time.
    end: Option<Pin<Box<Sleep>>>,
}

impl<S> Metered<S> {
    /// The stream, counted by `meter`.
    pub(super) fn new(stream: S, meter: &Arc<Meter>) -> Self {
        let end = meter.used.deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        Self { stream, meter: meter.clone(), end }
    }

    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().map(|end| end.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Err(self.meter.refuse()),
            Some(Poll::Pending) | None => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let came = buf.filled().len() - before;
        if !Meter::spend(&self.meter.used.inn, came) {
            buf.set_filled(before);
            return Poll::Ready(Err(self.meter.refuse()));
        }
        let mut held = Held::of(&self.meter.rations, Scarce::BytesIn);
        let (came, room) = (u64::try_from(came).unwrap_or(u64::MAX), held.room());
        // They have come: what there was room for is used, whatever becomes of them.
        held.spend(came.min(room));
        if came > room {
            let error = self.meter.ran_short(&mut held);
            drop(held);
            buf.set_filled(before);
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        let Self { stream, meter, .. } = &mut *self;
        let mut left = locked(&meter.used.out);
        let room = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
        let Some(allowed) = buf.get(..room).filter(|allowed| !allowed.is_empty() || buf.is_empty()) else {
            return Poll::Ready(Err(meter.refuse()));
        };
        let mut held = Held::of(&meter.rations, Scarce::BytesOut);
        let room = usize::try_from(held.room()).unwrap_or(usize::MAX).min(allowed.len());
        let Some(allowed) = allowed.get(..room).filter(|allowed| !allowed.is_empty() || buf.is_empty()) else {
            return Poll::Ready(Err(meter.ran_short(&mut held)));
        };
        let written = Pin::new(stream).poll_write(cx, allowed);
        held.spend(sent(&written));
        Meter::note(&mut left, &written);
        written
    }

    /// Head and body go out in one call where the budget has room for both; else piece by piece.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        let wanted = bufs.iter().fold(0_usize, |sum, buf| sum.saturating_add(buf.len()));
        let Self { stream, meter, .. } = &mut *self;
        let mut left = locked(&meter.used.out);
        let mut held = Held::of(&meter.rations, Scarce::BytesOut);
        if usize::try_from(held.room().min(*left)).is_ok_and(|room| room < wanted) {
            drop((held, left));
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return self.poll_write(cx, first);
        }
        let written = Pin::new(stream).poll_write_vectored(cx, bufs);
        held.spend(sent(&written));
        Meter::note(&mut left, &written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_is_over_does_not_pass_and_is_over_for_the_next_connection_too() {
        let meter = Meter::new(Budget { out: Some(5), inn: Some(3), time: None });
        for (sent, arrived) in [(&b"abc"[..], &b"abc"[..]), (b"defg", b"de")] {
            let (near, mut far) = tokio::io::duplex(64);
            let mut near = Metered::new(near, &meter);
            assert_eq!(near.write_all(sent).await.is_ok(), sent == arrived);
            drop(near);
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.expect("read");
            assert_eq!(got, arrived);
        }
        assert!(meter.is_over());
        meter.used_up(Instant::now()).await;
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Metered::new(near, &meter);
        far.write_all(b"1234").await.expect("write");
        let mut got = [0; 8];
        assert!(near.read(&mut got).await.is_err());
    }

    #[tokio::test]
    async fn pieces_written_together_are_counted_together() {
        let (near, mut far) = tokio::io::duplex(64);
        let meter = Meter::new(Budget { out: Some(7), ..Budget::default() });
        let mut near = Metered::new(near, &meter);
        let pieces = [io::IoSlice::new(b"abc"), io::IoSlice::new(b"de")];
        let mut sent = 0;
        // Fewer than fill the pipe, so that a budget that does not hold is seen and not waited for.
        for _ in 0..4 {
            sent += near.write_vectored(&pieces).await.unwrap_or(0);
        }
        assert!((sent, meter.is_over()) == (7, true), "{sent}");
        drop(near);
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.expect("read");
        assert_eq!(got.len(), 7);
    }

    /// Takes one byte at a time.
    struct Slow;

    impl AsyncWrite for Slow {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            std::thread::yield_now();
            Poll::Ready(Ok(buf.len().min(1)))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn writes_side_by_side_do_not_take_each_other_for_the_end() {
        let meter = Meter::new(Budget { out: Some(40_000), ..Budget::default() });
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..2 {
            let mut side = Metered::new(Slow, &meter);
            tasks.spawn(async move {
                for _ in 0..20_000 {
                    assert_eq!(side.write(&[0; 50_000]).await.expect("there is room"), 1);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no write was refused");
        }
        assert!(!meter.is_over());
        assert!(Metered::new(Slow, &meter).write(b"x").await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_waits_is_woken_when_time_is_up() {
        let meter = Meter::new(Budget { time: Some(Duration::from_secs(9)), ..Budget::default() });
        let (near, _far) = tokio::io::duplex(64);
        let start = Instant::now();
        assert!(Metered::new(near, &meter).read_u8().await.is_err());
        assert_eq!((start.elapsed().as_secs(), meter.is_over()), (9, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_used_by_all_that_share_it_and_comes_back() {
        let size = ration::Size { most: 6, period: Duration::from_secs(60) };
        let limits = ration::Limits { bytes_out: Some(size), bytes_in: Some(size), ..ration::Limits::default() };
        let shared = Ration::new(ration::Whose::Rule("egress[0] a.test".into()), limits);
        let meters = [0, 1].map(|_| Meter::rationed(Budget::default(), vec![shared.clone()]));
        let [first, second] = &meters;
        let (near, mut far) = tokio::io::duplex(64);
        let mut side = Metered::new(near, first);
        side.write_all(b"abcd").await.expect("room");
        let (near, _other) = tokio::io::duplex(64);
        let since = Instant::now();
        assert!(Metered::new(near, second).write_all(b"efg").await.is_err(), "there was room for two");
        assert!(second.was_cut(since) && second.is_untold() && !second.is_over() && !first.was_cut(since));
        let denied = second.admit().expect_err("none left");
        // For a tenth of it, a byte, there is room in ten seconds.
        assert_eq!((denied.reason, denied.retry_seconds()), (Reason::BudgetExceeded, Some(10)));
        assert_eq!(second.cut("cut").reason, Reason::BudgetExceeded);
        tokio::time::advance(Duration::from_secs(30)).await;
        second.admit().expect("room again");
        assert!(!second.was_cut(Instant::now()));
        side.write_all(b"xyz").await.expect("three came back");
        // More than there is room for has come: none of it is passed on.
        far.write_all(b"1234567").await.expect("write");
        assert!(side.read(&mut [0; 16]).await.is_err());
        drop(side);
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.expect("read");
        assert_eq!(got, b"abcdxyz");
    }
}
