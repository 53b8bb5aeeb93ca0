//! How fast the cores are right now, by the time that one and the same work takes on either half of them.
//!
//! A shared machine runs at down to half its speed for seconds at a time, while no counter of its own shows it: the neighbour is
//! on the same core's other thread, or the hypervisor's. What was measured then tells of the machine, and is told apart by
//! this, which has nothing to do with what was measured.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::pin::Halves;
use crate::clock::thread_cpu;
use crate::message::{RequestTemplate, SenderTemplate, WallTime};

/// The CPU time that the work took on the server's half of the cores and on the client's.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pace {
    server: Duration,
    client: Duration,
}

impl Pace {
    /// Of these times.
    #[must_use]
    pub fn of(server: Duration, client: Duration) -> Self {
        Self { server, client }
    }

    /// The slower of both, half by half.
    #[must_use]
    pub fn slower(self, other: Self) -> Self {
        Self { server: self.server.max(other.server), client: self.client.max(other.client) }
    }

    /// How much longer than `usual` it took, on the half where that is more, as a share.
    #[must_use]
    pub fn beyond(self, usual: Self) -> f64 {
        let share = |now: Duration, usual: Duration| {
            if usual.is_zero() { 0.0 } else { now.as_secs_f64() / usual.as_secs_f64() - 1.0 }
        };
        share(self.server, usual.server).max(share(self.client, usual.client))
    }
}

/// What the work took in the calmer minutes: of so many the lower quartile, half by half.
const CALM_SHARE: f64 = 0.25;

/// What is usual of so many paces.
#[must_use]
pub fn usual(paces: &[Pace]) -> Pace {
    let quantile = |of: fn(&Pace) -> Duration| {
        let mut all: Vec<Duration> = paces.iter().map(of).collect();
        all.sort_unstable();
        all.get((all.len() as f64 * CALM_SHARE) as usize).copied().unwrap_or_default()
    };
    Pace { server: quantile(|pace| pace.server), client: quantile(|pace| pace.client) }
}

/// Which of these are the calmest, so many of them.
pub(super) fn calmest(paces: &[Pace], wanted: usize, usual: Pace) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..paces.len()).collect();
    indices.sort_by(|&a, &b| paces[a].beyond(usual).total_cmp(&paces[b].beyond(usual)));
    indices.truncate(wanted);
    indices
}

/// Messages in a block of the work, up to 1 KiB of content each: some 0.15 ms.
const MESSAGES: usize = 500;
/// Of larger messages there are fewer.
const BYTES: usize = MESSAGES << 10;
/// Of so many blocks the shortest counts, so that an interrupt does not.
const BLOCKS: u32 = 4;

/// The work: what both sides do with a message in their own time, encoding it and taking it apart.
#[derive(Debug)]
pub(super) struct Reference {
    template: RequestTemplate,
    content: String,
    messages: u64,
    out: BytesMut,
}

impl Reference {
    pub(super) fn new(payload_bytes: usize) -> Self {
        let content = "x".repeat(payload_bytes);
        let messages = (BYTES / payload_bytes.max(1)).clamp(1, MESSAGES) as u64;
        Self {
            messages,
            template: RequestTemplate::throughput_test("reference-0", None),
            out: BytesMut::with_capacity(2 * payload_bytes + 512),
            content,
        }
    }

    /// Does the work on either half.
    pub(super) fn pace(&mut self, halves: &Halves) -> Pace {
        halves.start_server();
        let server = self.shortest();
        halves.start_client();
        Pace { server, client: self.shortest() }
    }

    fn shortest(&mut self) -> Duration {
        (0..BLOCKS).map(|_| self.block()).min().unwrap_or_default()
    }

    fn block(&mut self) -> Duration {
        let (cpu, wall) = (thread_cpu(), Instant::now());
        let mut reader = SenderTemplate::default();
        for n in 0..self.messages {
            self.out.clear();
            self.template.encode(&mut self.out, n, &self.content, WallTime::from_unix_ns(n));
            let text = std::str::from_utf8(&self.out).unwrap_or_default();
            black_box(crc32fast::hash(text.as_bytes()));
            let read = black_box(reader.decode(text));
            debug_assert!(read.is_ok(), "what is not read is not the work: {read:?}");
        }
        match (cpu, thread_cpu()) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            _ => wall.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(server_us: u64, client_us: u64) -> Pace {
        Pace { server: Duration::from_micros(server_us), client: Duration::from_micros(client_us) }
    }

    #[test]
    fn the_half_that_is_further_from_what_is_usual_tells() {
        let usual = pace(100, 200);
        assert!((pace(110, 200).beyond(usual) - 0.1).abs() < 1e-9);
        assert!((pace(110, 240).beyond(usual) - 0.2).abs() < 1e-9);
        assert!((pace(90, 190).beyond(usual) + 0.05).abs() < 1e-9);
        assert_eq!(pace(90, 190).beyond(Pace::default()), 0.0);
        assert_eq!(pace(110, 190).slower(pace(100, 230)), pace(110, 230));
    }

    #[test]
    fn usual_is_what_a_quarter_is_faster_than_half_by_half() {
        let paces: Vec<Pace> = (0..8).map(|n| pace(100 + n, 300 - n)).collect();
        assert_eq!(usual(&paces), pace(102, 295));
        assert_eq!(usual(&paces[..1]), paces[0]);
        assert_eq!(usual(&[]), Pace::default());
    }

    #[test]
    fn the_calmest_are_chosen_by_their_worse_half() {
        let paces = [pace(100, 130), pace(102, 101), pace(120, 100), pace(100, 100), pace(101, 100)];
        assert_eq!(calmest(&paces, 3, pace(100, 100)), [3, 4, 1]);
        assert_eq!(calmest(&paces, 9, pace(100, 100)).len(), 5);
    }

    #[test]
    fn the_work_takes_time_on_either_half_and_is_bounded_whatever_the_content() {
        let halves = Halves::of_this_thread();
        let [small, full, large] = [1, 1 << 10, 1 << 20].map(Reference::new);
        assert_eq!([small.messages, full.messages, large.messages], [500, 500, 1]);
        for mut reference in [small, full, large] {
            let pace = reference.pace(&halves);
            assert!(pace.server > Duration::ZERO && pace.client > Duration::ZERO, "{pace:?}");
        }
    }
}
