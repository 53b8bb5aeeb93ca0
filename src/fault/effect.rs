//! What the faults in force do to the bytes of one flow of one connection. No I/O: the caller reads, asks
//! what is to become of the bytes, and writes.

use crate::fault::meter::Meter;
use crate::fault::seed::Draws;
use crate::fault::{Cut, Fault, Flow, nanos};

/// The effects in force on one flow, each with the number of the rule that it comes from.
#[derive(Debug, Default)]
pub struct Effects {
    effects: Vec<(u64, Effect)>,
}

/// What becomes of bytes that were read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// So many of them, from the first, are to be forwarded; the others are lost.
    pub kept_bytes: usize,
    /// The instant before which they must not leave; `None` is at once.
    pub due_ns: Option<u64>,
    /// The bytes that were altered.
    pub altered: Vec<Altered>,
    /// The rule that cuts the connection once the kept bytes are forwarded.
    pub cut_by: Option<u64>,
}

/// One altered byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Altered {
    /// The number of the rule.
    pub rule: u64,
    /// Its place in the flow, counted from the instant at which the fault took hold.
    pub offset_bytes: u64,
    /// What was read.
    pub before: u8,
    /// What is forwarded.
    pub after: u8,
}

#[derive(Debug)]
enum Effect {
    Hold,
    Swallow,
    Delay { least_ns: u64, spread_ns: u64, draws: Draws },
    WritePace(Meter),
    ReadPace(Meter),
    Corrupt(Corruption),
    Cut(Draws),
}

#[derive(Debug)]
struct Corruption {
    /// Bytes still to be altered.
    left: u32,
    spacing_bytes: u64,
    /// Bytes seen so far.
    seen_bytes: u64,
    /// The stretch in which the next byte is altered, and its place in the flow.
    stretch: u64,
    next_bytes: u64,
    draws: Draws,
}

impl Effects {
    /// The fault of rule `rule` takes hold of `flow`; nothing happens where it does not meet that flow, or
    /// where it is none that acts on bytes (a drop, a half-open). `seed` is the verdict's.
    pub fn begin(&mut self, rule: u64, fault: Fault, flow: Flow, seed: u64, now_ns: u64) {
        let mut draws = Draws::new(&[seed, u64::from(flow == Flow::ToClient)]);
        let (direction, effect) = match fault {
            Fault::Latency { delay, jitter, direction } => {
                let least_ns = nanos(delay).saturating_sub(nanos(jitter));
                (direction, Effect::Delay { least_ns, spread_ns: 2 * nanos(jitter), draws })
            }
            Fault::Bandwidth { bytes_per_s, direction } => {
                (direction, Effect::WritePace(Meter::new(bytes_per_s, now_ns)))
            }
            Fault::SlowReader { bytes_per_s, direction } => {
                (direction, Effect::ReadPace(Meter::new(bytes_per_s, now_ns)))
            }
            Fault::Partition { direction } => (direction, Effect::Hold),
            Fault::Silence { direction } => (direction, Effect::Swallow),
            Fault::Drop(Cut::MidFrame { direction }) => (direction, Effect::Cut(draws)),
            Fault::Corrupt { times, spacing_bytes, direction } => {
                let next_bytes = draws.below(spacing_bytes);
                let corruption =
                    Corruption { left: times, spacing_bytes, seen_bytes: 0, stretch: 0, next_bytes, draws };
                (direction, Effect::Corrupt(corruption))
            }
            Fault::Drop(Cut::Fin | Cut::Rst) | Fault::HalfOpen { .. } => return,
        };
        if direction.meets(flow) {
            self.effects.push((rule, effect));
        }
    }

    /// The fault of rule `rule` lets go.
    pub fn end(&mut self, rule: u64) {
        self.effects.retain(|&(of, _)| of != rule);
    }

    /// Whether bytes pass as if there were no fault.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.effects
            .iter()
            .all(|(_, effect)| matches!(effect, Effect::Corrupt(corruption) if corruption.left == 0))
    }

    /// Whether nothing may be read or written.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.effects.iter().any(|(_, effect)| matches!(effect, Effect::Hold))
    }

    /// Whether what is read is lost.
    #[must_use]
    pub fn swallows(&self) -> bool {
        self.effects.iter().any(|(_, effect)| matches!(effect, Effect::Swallow))
    }

    /// Whether what is read may have to wait for its due instant.
    #[must_use]
    pub fn delays(&self) -> bool {
        self.effects.iter().any(|(_, effect)| matches!(effect, Effect::Delay { .. }))
    }

    /// How many of `want` bytes may be read now.
    ///
    /// # Errors
    /// None may be; the instant to ask again at.
    pub fn may_read(&mut self, want: usize, now_ns: u64) -> Result<usize, u64> {
        let paces = self.effects.iter_mut().filter_map(|(_, effect)| match effect {
            Effect::ReadPace(meter) => Some(meter),
            _ => None,
        });
        slowest(paces, want, now_ns)
    }

    /// How many of `want` bytes may be written now.
    ///
    /// # Errors
    /// None may be; the instant to ask again at.
    pub fn may_write(&mut self, want: usize, now_ns: u64) -> Result<usize, u64> {
        let paces = self.effects.iter_mut().filter_map(|(_, effect)| match effect {
            Effect::WritePace(meter) => Some(meter),
            _ => None,
        });
        slowest(paces, want, now_ns)
    }

    /// `bytes` of what [`Effects::may_write`] allowed were written.
    pub fn wrote(&mut self, bytes: usize) {
        for (_, effect) in &mut self.effects {
            if let Effect::WritePace(meter) = effect {
                meter.passed(bytes);
            }
        }
    }

    /// `chunk`, of what [`Effects::may_read`] allowed, was read: alters it, and says what becomes of it.
    pub fn read(&mut self, chunk: &mut [u8], now_ns: u64) -> Fate {
        let mut fate = Fate { kept_bytes: chunk.len(), ..Fate::default() };
        let swallowed = self.swallows();
        let mut delay_ns = None;
        for (rule, effect) in &mut self.effects {
            match effect {
                Effect::ReadPace(meter) => meter.passed(chunk.len()),
                _ if swallowed => fate.kept_bytes = 0,
                Effect::Corrupt(corruption) => corruption.meet(*rule, chunk, &mut fate.altered),
                Effect::Delay { least_ns, spread_ns, draws } => {
                    let drawn_ns = *least_ns + draws.below(*spread_ns + 1);
                    delay_ns = Some(delay_ns.unwrap_or(0) + drawn_ns);
                }
                Effect::Cut(draws) if fate.cut_by.is_none() => {
                    fate.cut_by = Some(*rule);
                    // At least one byte and not all, so that the receiver holds a part; of one byte, none.
                    let most = chunk.len().saturating_sub(1);
                    fate.kept_bytes = (1 + draws.below(most as u64) as usize).min(most);
                }
                Effect::Hold | Effect::Swallow | Effect::WritePace(_) | Effect::Cut(_) => {}
            }
        }
        fate.due_ns = delay_ns.map(|delay_ns| now_ns.saturating_add(delay_ns));
        fate
    }
}

impl Corruption {
    fn meet(&mut self, rule: u64, chunk: &mut [u8], altered: &mut Vec<Altered>) {
        let end_bytes = self.seen_bytes + chunk.len() as u64;
        while self.left > 0 && self.next_bytes < end_bytes {
            let byte = &mut chunk[(self.next_bytes - self.seen_bytes) as usize];
            let before = *byte;
            *byte ^= 1 + self.draws.below(255) as u8;
            altered.push(Altered { rule, offset_bytes: self.next_bytes, before, after: *byte });
            self.left -= 1;
            self.stretch += 1;
            self.next_bytes =
                self.stretch.saturating_mul(self.spacing_bytes) + self.draws.below(self.spacing_bytes);
        }
        self.seen_bytes = end_bytes;
    }
}

/// What the slowest of `paces` allows; the first that allows nothing says when to ask again.
fn slowest<'a>(
    mut paces: impl Iterator<Item = &'a mut Meter>,
    want: usize,
    now_ns: u64,
) -> Result<usize, u64> {
    paces.try_fold(want, |least, meter| Ok(least.min(meter.allowed(want, now_ns)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Direction, Rule};
    use proptest::prelude::*;

    fn effects(rule: &str, flow: Flow) -> Effects {
        let rule: Rule = rule.parse().unwrap();
        let mut effects = Effects::default();
        effects.begin(7, rule.fault(), flow, rule.verdict(0, 0, None).unwrap().seed, 0);
        effects
    }

    #[test]
    fn each_fault_meets_its_own_flow_only() {
        for (rule, to_server, to_client) in [
            ("latency=1s", true, true),
            ("latency=1s,direction=to-server", true, false),
            ("bandwidth=1KiB/s,direction=to-client", false, true),
            ("slow-reader=1KiB/s", false, true),
            ("corrupt=1", false, true),
            ("partition=to-server", true, false),
            ("silence=to-client", false, true),
            ("drop=mid-frame", true, true),
            ("drop=fin", false, false),
            ("drop=rst", false, false),
            ("half-open", false, false),
        ] {
            assert_eq!(!effects(rule, Flow::ToServer).is_clear(), to_server, "{rule}");
            assert_eq!(!effects(rule, Flow::ToClient).is_clear(), to_client, "{rule}");
        }
    }

    #[test]
    fn an_effect_ends_with_its_rule_only() {
        let mut effects = effects("partition", Flow::ToServer);
        effects.begin(8, Fault::Silence { direction: Direction::Both }, Flow::ToServer, 0, 0);
        effects.end(9);
        assert!(effects.holds() && effects.swallows());
        effects.end(7);
        assert!(!effects.holds() && effects.swallows());
        effects.end(8);
        assert!(effects.is_clear());
    }

    #[test]
    fn swallowed_bytes_are_lost_and_nothing_else_happens_to_them() {
        let mut effects = effects("silence", Flow::ToClient);
        let corrupt = Fault::Corrupt { times: 1, spacing_bytes: 1, direction: Direction::Both };
        effects.begin(8, corrupt, Flow::ToClient, 0, 0);
        let mut chunk = *b"lost";
        assert_eq!(effects.read(&mut chunk, 5), Fate::default());
        assert_eq!(&chunk, b"lost");
        effects.end(7);
        let fate = effects.read(&mut chunk, 6);
        assert_eq!((fate.kept_bytes, fate.altered.len()), (4, 1));
        assert!(effects.is_clear(), "a corruption that has done its work is no fault any more");
    }

    #[test]
    fn delays_add_up_and_paces_take_the_slowest() {
        let mut effects = effects("latency=3us", Flow::ToClient);
        effects.begin(8, "latency=4us".parse::<Rule>().unwrap().fault(), Flow::ToClient, 0, 0);
        assert_eq!(effects.read(&mut [0; 4], 100).due_ns, Some(7_100));
        for pace in ["slow-reader=100KiB/s", "slow-reader=10KiB/s", "bandwidth=1KiB/s"] {
            effects.begin(9, pace.parse::<Rule>().unwrap().fault(), Flow::ToClient, 0, 0);
        }
        assert_eq!(effects.may_read(1 << 20, 1_000_000_000), Ok(102), "10 ms of 10 KiB/s");
        assert_eq!(effects.may_write(1 << 20, 1_000_000_000), Ok(10), "10 ms of 1 KiB/s");
        assert!(effects.may_write(1, 1_000_000_000).is_ok());
    }

    proptest! {
        /// Where a byte is altered depends on its place in the flow, not on how the flow was read; one in
        /// each stretch, as many as asked for.
        #[test]
        fn corruption_is_exact_however_the_flow_is_cut(
            times in 1u32..20, spacing in 1u64..40, seed: u64,
            flow in prop::collection::vec(any::<u8>(), 0..800),
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let rule = format!("corrupt={times},spacing={spacing},seed={seed}");
            let mut whole = flow.clone();
            let altered = effects(&rule, Flow::ToClient).read(&mut whole, 0).altered;
            let mut pieces = flow.clone();
            let mut in_pieces = effects(&rule, Flow::ToClient);
            let (mut rest, mut cuts) = (pieces.as_mut_slice(), cuts.iter().cycle());
            let mut altered_in_pieces = Vec::new();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at_mut((*cuts.next().unwrap()).min(rest.len()));
                altered_in_pieces.extend(in_pieces.read(piece, 0).altered);
                rest = after;
            }
            prop_assert_eq!(&pieces, &whole);
            prop_assert_eq!(&altered_in_pieces, &altered);
            let differing: Vec<usize> = (0..flow.len()).filter(|&at| flow[at] != whole[at]).collect();
            prop_assert_eq!(differing.len(), altered.len());
            for (stretch, (&at, altered)) in differing.iter().zip(&altered).enumerate() {
                prop_assert_eq!(at as u64, altered.offset_bytes);
                prop_assert_eq!(at as u64 / spacing, stretch as u64);
                prop_assert_eq!((flow[at], whole[at]), (altered.before, altered.after));
            }
            let whole_stretches = (flow.len() as u64 / spacing).min(u64::from(times));
            prop_assert!(altered.len() as u64 >= whole_stretches && altered.len() <= times as usize);
        }

        #[test]
        fn jitter_stays_within_its_bounds(delay in 1u64..1_000_000, part in 0.0f64..=1.0, seed: u64, now: u32) {
            let jitter = (delay as f64 * part) as u64;
            let mut effects =
                effects(&format!("latency={delay}us,jitter={jitter}us,seed={seed}"), Flow::ToServer);
            for _ in 0..50 {
                let waits_ns = effects.read(&mut [0], u64::from(now)).due_ns.unwrap() - u64::from(now);
                let bounds = (delay - jitter) * 1_000..=(delay + jitter) * 1_000;
                prop_assert!(bounds.contains(&waits_ns), "{} outside {:?}", waits_ns, bounds);
            }
        }

        #[test]
        fn a_cut_leaves_a_part(len in 1usize..5_000, seed: u64) {
            let rule = format!("drop=mid-frame,seed={seed}");
            let fate = effects(&rule, Flow::ToServer).read(&mut vec![0; len], 0);
            prop_assert_eq!(fate.cut_by, Some(7));
            prop_assert!(fate.kept_bytes < len && (fate.kept_bytes >= 1 || len == 1));
        }
    }
}
