//! The summaries of a run, second by second, in few bytes: an hour of them takes a quarter of 650 KB at most.

use std::iter::repeat_with;

use super::WindowSummary;

/// So many seconds are packed together. The latest ones, fewer than twice as many, are not packed.
const CHUNK: usize = 64;

/// Summaries in order of time.
#[derive(Debug, Default)]
pub(super) struct Seconds {
    packed: Vec<Chunk>,
    recent: Vec<WindowSummary>,
}

impl Seconds {
    /// The last second in order of time.
    pub(super) fn latest(&self) -> Option<&WindowSummary> {
        self.recent.last()
    }

    /// Puts a second in its place. Where it is known already, `correct` gets what is known and what comes.
    pub(super) fn put(
        &mut self,
        summary: WindowSummary,
        correct: impl FnOnce(&mut WindowSummary, &WindowSummary),
    ) {
        let at = self.packed.partition_point(|chunk| chunk.last_s < summary.t_s);
        match self.packed.get_mut(at) {
            Some(chunk) => {
                let mut seconds = chunk.seconds();
                put_into(&mut seconds, summary, correct);
                *chunk = Chunk::of(&seconds);
            }
            None => put_into(&mut self.recent, summary, correct),
        }
        if self.recent.len() >= 2 * CHUNK {
            self.packed.push(Chunk::of(&self.recent[..CHUNK]));
            self.recent.drain(..CHUNK);
        }
    }

    /// All of them.
    pub(super) fn into_vec(self) -> Vec<WindowSummary> {
        let mut all: Vec<_> = self.packed.iter().flat_map(Chunk::seconds).collect();
        all.extend(self.recent);
        all
    }
}

fn put_into(
    seconds: &mut Vec<WindowSummary>,
    summary: WindowSummary,
    correct: impl FnOnce(&mut WindowSummary, &WindowSummary),
) {
    match seconds.binary_search_by_key(&summary.t_s, |known| known.t_s) {
        Ok(at) => correct(&mut seconds[at], &summary),
        Err(at) => seconds.insert(at, summary),
    }
}

/// Seconds as LEB128 numbers: 0 for none, the value plus one otherwise. Latencies are in whole nanoseconds, as they were
/// recorded, so nothing is lost.
#[derive(Debug)]
struct Chunk {
    last_s: u64,
    bytes: Box<[u8]>,
}

impl Chunk {
    fn of(seconds: &[WindowSummary]) -> Self {
        let mut bytes = Vec::new();
        seconds.iter().flat_map(numbers).for_each(|number| push(&mut bytes, number));
        Self { last_s: seconds.last().map_or(0, |last| last.t_s), bytes: bytes.into() }
    }

    fn seconds(&self) -> Vec<WindowSummary> {
        let mut bytes = self.bytes.iter().copied();
        let mut numbers = repeat_with(|| pull(&mut bytes));
        repeat_with(|| summary(numbers.by_ref().map_while(|number| number)))
            .map_while(|second| second)
            .collect()
    }
}

/// A number of 0 to 2^64: a queue may be said to be as deep as 64 bits can say.
fn push(bytes: &mut Vec<u8>, number: Option<u64>) {
    let mut left = number.map_or(0, |value| u128::from(value) + 1);
    while left >= 0x80 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
}

/// The next number; the outer `None` says that there is no further one.
fn pull(bytes: &mut impl Iterator<Item = u8>) -> Option<Option<u64>> {
    let (mut number, mut shift) = (0_u128, 0);
    loop {
        let byte = bytes.next()?;
        number |= u128::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return Some(number.checked_sub(1).map(|value| value as u64));
        }
    }
}

/// Whatever a summary says, in the order of its fields; [`summary`] is the way back.
fn numbers(of: &WindowSummary) -> [Option<u64>; 14] {
    let WindowSummary {
        t_s,
        sent,
        answered,
        refused,
        blocked,
        latency_p01_us,
        latency_p50_us,
        latency_p95_us,
        latency_p99_us,
        latency_max_us,
        service_latency_p50_us,
        service_latency_p99_us,
        send_lateness_p99_us,
        queue_depth_max,
    } = *of;
    let ns = |us: Option<f64>| us.map(|us| (us * 1e3).round() as u64);
    [
        Some(t_s),
        Some(sent),
        Some(answered),
        Some(refused),
        Some(blocked),
        ns(latency_p01_us),
        ns(latency_p50_us),
        ns(latency_p95_us),
        ns(latency_p99_us),
        ns(latency_max_us),
        ns(service_latency_p50_us),
        ns(service_latency_p99_us),
        ns(send_lateness_p99_us),
        queue_depth_max,
    ]
}

fn summary(mut numbers: impl Iterator<Item = Option<u64>>) -> Option<WindowSummary> {
    let mut next = || numbers.next();
    let us = |ns: Option<u64>| ns.map(|ns| ns as f64 / 1e3);
    Some(WindowSummary {
        t_s: next()??,
        sent: next()??,
        answered: next()??,
        refused: next()??,
        blocked: next()??,
        latency_p01_us: us(next()?),
        latency_p50_us: us(next()?),
        latency_p95_us: us(next()?),
        latency_p99_us: us(next()?),
        latency_max_us: us(next()?),
        service_latency_p50_us: us(next()?),
        service_latency_p99_us: us(next()?),
        send_lateness_p99_us: us(next()?),
        queue_depth_max: next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{HIGHEST_NS, Window};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn second(t_s: u64) -> impl Strategy<Value = WindowSummary> {
        let latency = || proptest::option::of((0..=HIGHEST_NS).prop_map(|ns| ns as f64 / 1e3));
        let depth = proptest::option::of(prop_oneof![Just(u64::MAX), any::<u64>(), 0_u64..300]);
        (any::<[u64; 4]>(), [(); 8].map(|()| latency()), depth).prop_map(move |(counts, latencies, depth)| {
            WindowSummary {
                t_s,
                sent: counts[0],
                answered: counts[1],
                refused: counts[2],
                blocked: counts[3],
                latency_p01_us: latencies[0],
                latency_p50_us: latencies[1],
                latency_p95_us: latencies[2],
                latency_p99_us: latencies[3],
                latency_max_us: latencies[4],
                service_latency_p50_us: latencies[5],
                service_latency_p99_us: latencies[6],
                send_lateness_p99_us: latencies[7],
                queue_depth_max: depth,
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Against a map: in whatever order seconds come, and however often, each is there once, in order, as it came.
        #[test]
        fn packed_seconds_are_the_seconds(
            seconds in proptest::collection::vec((0_u64..600).prop_flat_map(second), 0..700),
        ) {
            let mut kept = Seconds::default();
            let mut truth = BTreeMap::<u64, WindowSummary>::new();
            for second in seconds {
                kept.put(second.clone(), |known, later| known.sent ^= later.sent);
                truth
                    .entry(second.t_s)
                    .and_modify(|known| known.sent ^= second.sent)
                    .or_insert(second);
                prop_assert_eq!(kept.latest().map(|last| last.t_s), truth.keys().last().copied());
            }
            prop_assert_eq!(kept.into_vec(), truth.into_values().collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_hour_of_seconds_takes_a_quarter_of_what_it_took() {
        let mut kept = Seconds::default();
        for t_s in 0..3_600 {
            let mut window = Window { index: t_s, sent: 50_000, answered: 50_000, ..Window::default() };
            for histogram in [&mut window.latency, &mut window.service_latency, &mut window.send_lateness] {
                (0..2_000).for_each(|n| histogram.record(400_000 + n * 700));
            }
            kept.put(WindowSummary::of(&window), |_, _| ());
        }
        let bytes: usize = kept.packed.iter().map(|chunk| chunk.bytes.len() + size_of::<Chunk>()).sum();
        let unpacked = (3_600 - kept.recent.len()) * size_of::<WindowSummary>();
        assert!(bytes * 4 <= unpacked, "{bytes} bytes of {unpacked}");
    }
}
