//! What happened over all worlds: a simulation in which nothing goes wrong proves nothing.

use std::collections::BTreeMap;
use std::fmt;

use crate::world::Outcome;

/// How often what happened, and in how many worlds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<String, (u64, u64)>);

/// What must happen at least so often in the worlds that CI tries.
const MUST_HAPPEN: [(&str, u64); 35] = [
    // What the network and the server did.
    ("partition", 50),
    ("partition towards the server", 50),
    ("partition towards the client", 50),
    ("hold", 50),
    ("crash", 50),
    ("cut before work", 50),
    ("cut after work", 50),
    ("cut within an answer", 50),
    ("closed", 50),
    ("silent", 50),
    ("refused as busy", 20),
    ("connection broken", 50),
    ("received after goodbye", 10),
    ("taken again while under way", 50),
    ("rejected as a duplicate", 50),
    ("refused", 50),
    ("executed", 10_000),
    // What the client reported.
    ("client: answered", 10_000),
    ("client: refused", 50),
    ("client: lost", 50),
    ("client: late", 20),
    ("client: unsent", 50),
    ("client: resent", 50),
    ("client: reordered", 1),
    ("client: blocked sends", 50),
    ("client: reconnects", 50),
    ("client: dropped", 50),
    ("client: refused connections", 5),
    ("client: no sign of life", 50),
    ("client: cut without a close frame", 20),
    ("client: outages recovered from", 50),
    ("client: outages not recovered from", 20),
    ("client: gave up", 20),
    ("client: stopped", 20),
    ("client: not one connection", 1),
];

impl Tally {
    pub fn of(outcome: &Outcome) -> Self {
        let mut tally = Self::default();
        for (&what, &times) in &*outcome.truth.events.borrow() {
            tally.count(what, times);
        }
        let Ok(measured) = &outcome.measured else {
            tally.count("client: not one connection", 1);
            return tally;
        };
        let (messages, connections) = (&measured.messages, &measured.connections);
        let with = |text: &str| {
            let matching = connections.reasons.iter().filter(|(reason, _)| reason.contains(text));
            matching.map(|(_, times)| times).sum()
        };
        let recovered = measured.outages.iter().filter(|outage| outage.recovered_at_s.is_some()).count();
        for (what, times) in [
            ("answered", messages.counts.answered),
            ("refused", messages.counts.refused),
            ("lost", messages.counts.lost),
            ("late", messages.counts.late),
            ("unsent", messages.unsent),
            ("resent", messages.counts.resent),
            ("repeated", messages.counts.repeated),
            ("reordered", messages.counts.reordered),
            ("blocked sends", measured.blocked_sends.messages),
            ("reconnects", connections.reconnects),
            ("dropped", connections.dropped),
            ("refused connections", connections.refused),
            ("no sign of life", with("no sign of life")),
            ("cut without a close frame", with("without a close frame")),
            ("outages recovered from", recovered as u64),
            ("outages not recovered from", (measured.outages.len() - recovered) as u64),
            ("gave up", with("not connected again within")),
            ("stopped", u64::from(measured.stopped)),
        ] {
            tally.count(&format!("client: {what}"), times);
        }
        tally
    }

    pub fn add(&mut self, other: &Self) {
        for (what, &(times, worlds)) in &other.0 {
            let sum = self.0.entry(what.clone()).or_default();
            *sum = (sum.0 + times, sum.1 + worlds);
        }
    }

    fn count(&mut self, what: &str, times: u64) {
        if times > 0 {
            let sum = self.0.entry(what.to_owned()).or_default();
            *sum = (sum.0 + times, sum.1 + 1);
        }
    }

    pub fn assert_everything_happened(&self) {
        for (what, at_least) in MUST_HAPPEN {
            let (times, _) = self.0.get(what).copied().unwrap_or_default();
            assert!(times >= at_least, "{what}: only {times} times, not {at_least}");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, (times, worlds)) in &self.0 {
            writeln!(f, "{times:>9} in {worlds:>5} worlds  {what}")?;
        }
        Ok(())
    }
}
