//! Counting is free of allocations: what a request costs in metrics is atomic operations and nothing else.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test, a panic is how a failure is told")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use pipelock::flow::Reason;
use pipelock::telemetry::metrics::{Counter, Counters, Gauge, Label, SHORT, Times, TimesOf};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's, counting what this thread asks for.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Clone, Copy)]
struct Side(usize);

impl Label for Side {
    const NAME: &'static str = "side";
    const WORDS: &'static [&'static str] = &["left", "right"];
    fn index(self) -> usize {
        self.0
    }
}

#[test]
fn counting_allocates_nothing() {
    let counter = Counter::new("test_counted_total", "Counted.");
    let counters: Counters<(Side, Reason)> = Counters::new("test_told_apart_total", "Counted.");
    let gauge = Gauge::new("test_gauge", "So much.");
    let times = Times::new("test_seconds", "How long.", SHORT);
    let times_of: TimesOf<Side> = TimesOf::new("test_told_apart_seconds", "How long.", SHORT);
    let key = (Side(1), Reason::PolicyAllow);
    // A series of a large family is made with its first count.
    counters.add(key);
    let before = ALLOCATIONS.with(Cell::get);
    for _ in 0..1000 {
        counter.add();
        counters.add(key);
        gauge.set(3);
        times.took(Duration::from_micros(70));
        times_of.since(Side(1), Instant::now());
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    assert_eq!((counter.get(), counters.get(key), times.count()), (1000, 1001, 1000));
    assert!(ALLOCATIONS.with(Cell::get) > 0, "nothing was counted at all");
}
