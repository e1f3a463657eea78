//! Families of series with handles that are found by number: no name is looked up and nothing is allocated where something
//! is counted.
//!
//! Made once per process by the rooms above. A count is one relaxed atomic addition; an observation is four atomic
//! operations (the bucket, the sum, and two for how many there are).

use std::marker::PhantomData;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts};

use super::label::Labels;

/// Families with at most so many series show all of them from the start, at zero; of larger ones a series appears with its
/// first count.
const SHOWN: usize = 64;

/// Bounds for what takes microseconds, in seconds.
pub const SHORT: &[f64] =
    &[0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];
/// Bounds for requests and handshakes, in seconds.
pub const MIDDLE: &[f64] =
    &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// Bounds for connections, in seconds.
pub const LONG: &[f64] = &[0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0];

/// Puts a family where it is shown. It fails only for a name that is taken or not sound, which a test looks for.
fn shown<F: Collector + Clone + 'static>(made: prometheus::Result<F>) -> Option<F> {
    let registered = made.and_then(|family| super::registry().register(Box::new(family.clone())).map(|()| family));
    registered.inspect_err(super::defect).ok()
}

/// A number that only grows.
pub struct Counter(Option<IntCounter>);

impl Counter {
    /// A family of one series.
    #[must_use]
    pub fn new(name: &'static str, help: &'static str) -> Self {
        Self(shown(IntCounter::new(name, help)))
    }

    /// Counts one.
    pub fn add(&self) {
        self.add_by(1);
    }

    /// Counts so many.
    pub fn add_by(&self, count: u64) {
        if let Some(series) = &self.0 {
            series.inc_by(count);
        }
    }

    /// What was counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.as_ref().map_or(0, IntCounter::get)
    }
}

/// A number that goes up and down.
pub struct Gauge(Option<IntGauge>);

impl Gauge {
    /// A family of one series.
    #[must_use]
    pub fn new(name: &'static str, help: &'static str) -> Self {
        Self(shown(IntGauge::new(name, help)))
    }

    /// It is so much now.
    pub fn set(&self, value: usize) {
        if let Some(series) = &self.0 {
            series.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

/// Counters told apart by labels.
pub struct Counters<K> {
    family: Option<IntCounterVec>,
    series: Box<[OnceLock<IntCounter>]>,
    of: PhantomData<fn(K)>,
}

impl<K: Labels> Counters<K> {
    /// A family with a series for each combination of words.
    #[must_use]
    pub fn new(name: &'static str, help: &'static str) -> Self {
        let family = shown(IntCounterVec::new(Opts::new(name, help), &K::names()));
        let counters = Self { family, series: (0..K::COUNT).map(|_| OnceLock::new()).collect(), of: PhantomData };
        if K::COUNT <= SHOWN {
            for index in 0..K::COUNT {
                let _ = counters.at(index);
            }
        }
        counters
    }

    /// Counts one.
    pub fn add(&self, key: K) {
        self.add_by(key, 1);
    }

    /// Counts so many.
    pub fn add_by(&self, key: K, count: u64) {
        if let Some(series) = self.at(key.index()) {
            series.inc_by(count);
        }
    }

    /// What was counted.
    #[must_use]
    pub fn get(&self, key: K) -> u64 {
        self.at(key.index()).map_or(0, IntCounter::get)
    }

    /// A series; made when it is asked for first.
    fn at(&self, index: usize) -> Option<&IntCounter> {
        let cell = self.series.get(index)?;
        if let Some(series) = cell.get() {
            return Some(series);
        }
        let series = self.family.as_ref()?.get_metric_with_label_values(&K::words(index)).ok()?;
        Some(cell.get_or_init(|| series))
    }
}

/// How often what took how long.
pub struct Times(Option<Histogram>);

impl Times {
    /// A family of one histogram with these upper bounds, in seconds.
    #[must_use]
    pub fn new(name: &'static str, help: &'static str, bounds: &[f64]) -> Self {
        Self(shown(Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec()))))
    }

    /// It took so long.
    pub fn took(&self, time: Duration) {
        if let Some(series) = &self.0 {
            series.observe(time.as_secs_f64());
        }
    }

    /// It took from then until now.
    pub fn since(&self, start: Instant) {
        self.took(start.elapsed());
    }

    /// How often.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::get_sample_count)
    }
}

/// Histograms told apart by labels; all are shown from the start.
pub struct TimesOf<K> {
    series: Box<[Histogram]>,
    of: PhantomData<fn(K)>,
}

impl<K: Labels> TimesOf<K> {
    /// A family with these upper bounds, in seconds.
    #[must_use]
    pub fn new(name: &'static str, help: &'static str, bounds: &[f64]) -> Self {
        let opts = HistogramOpts::new(name, help).buckets(bounds.to_vec());
        let family = shown(HistogramVec::new(opts, &K::names()));
        let made = |index| family.as_ref()?.get_metric_with_label_values(&K::words(index)).ok();
        Self { series: (0..K::COUNT).filter_map(made).collect(), of: PhantomData }
    }

    /// It took so long.
    pub fn took(&self, key: K, time: Duration) {
        if let Some(series) = self.series.get(key.index()) {
            series.observe(time.as_secs_f64());
        }
    }

    /// It took from then until now.
    pub fn since(&self, key: K, start: Instant) {
        self.took(key, start.elapsed());
    }
}
