//! What must hold in every world, by comparing three accounts of it: the client's report, what the client really encoded
//! and decoded, and what the server really did.

use std::collections::{BTreeMap, BTreeSet};

use floodline::client::LoadMeasurement;
use floodline::dialect::{Answer, Content, RequestKind};
use floodline::ledger::{Counts, Lane};
use floodline::message::MessageId;
use floodline::result::ConnectionSummary;

use crate::support::assert_accounted;
use crate::witness::Transcript;
use crate::world::Outcome;

/// Everything that is wrong with an outcome, in words.
pub fn violations(outcome: &Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    server_side(outcome, &mut wrong);
    match &outcome.measured {
        Ok(measured) => client_side(outcome, measured, &mut wrong),
        Err(error) if outcome.scenario.heals => wrong.push(format!("no measurement: {error}")),
        Err(_) => {}
    }
    wrong
}

fn server_side(outcome: &Outcome, wrong: &mut Vec<String>) {
    let (truth, scenario) = (&outcome.truth, &outcome.scenario);
    let (executed, received) = (truth.executed.borrow(), truth.received.borrow());
    for (key, &times) in &*executed {
        let once = scenario.request == RequestKind::UserMessage;
        if once && times > 1 || times > received.get(key).copied().unwrap_or(0) {
            wrong.push(format!("processed twice: {key:?}, {times} times"));
        }
    }
    for key in &*truth.changed.borrow() {
        wrong.push(format!("sent again with another content: {key:?}"));
    }
    let content = Content::new(scenario.workload.seed, scenario.workload.payload_bytes);
    for ((connection, sequence), text) in &*truth.contents.borrow() {
        if content.of(*connection, *sequence) != text {
            wrong.push(format!("arrived with another content: {connection}-{sequence}"));
        }
    }
}

fn client_side(outcome: &Outcome, measured: &LoadMeasurement, wrong: &mut Vec<String>) {
    // Panics where the sums are wrong: no behaviour of a peer may bring that about.
    assert_accounted(measured);
    let missing = missing(measured);
    for connection in &measured.per_connection {
        let transcript = outcome.transcripts.get(&connection.connection).cloned().unwrap_or_default();
        let missing = missing.get(&connection.connection).cloned().unwrap_or_default();
        let one = One { outcome, measured, connection, transcript: &transcript, missing };
        one.judge(wrong);
    }
    let messages = &measured.messages;
    let Counts { sent, lost, .. } = messages.counts;
    if outcome.scenario.heals && (lost > 0 || messages.unsent > 0) {
        wrong
            .push(format!("lost {lost} and left {} unsent of {sent} in a world that heals", messages.unsent));
    }
    if messages.counts.reordered > 0 && outcome.truth.happened("refused") == 0 {
        wrong.push(format!("reordered {}, and nothing was refused", messages.counts.reordered));
    }
    let accepted = outcome.truth.happened("connection accepted");
    let opened = measured.connections.established + measured.connections.reconnects;
    if opened > accepted {
        wrong.push(format!("{opened} connections, of which the server accepted {accepted}"));
    }
    if measured.connections.reconnects > 0 && measured.outages.is_empty() {
        wrong.push("connected again without an outage".to_owned());
    }
}

/// The sequences that the report names as lost, by connection.
fn missing(measured: &LoadMeasurement) -> BTreeMap<u32, BTreeSet<u64>> {
    let mut missing = BTreeMap::<u32, BTreeSet<u64>>::new();
    for id in &measured.messages.missing_ids {
        let MessageId { client_id, n } = MessageId::parse(id).unwrap();
        let (run, connection) = client_id.rsplit_once('-').unwrap();
        assert_eq!(run, format!("{}-0", measured.run_id));
        assert!(missing.entry(connection.parse().unwrap()).or_default().insert(n), "{id} is lost twice");
    }
    missing
}

/// One connection, and everything that is known of it.
struct One<'a> {
    outcome: &'a Outcome,
    measured: &'a LoadMeasurement,
    connection: &'a ConnectionSummary,
    transcript: &'a Transcript,
    missing: BTreeSet<u64>,
}

/// What the first answer to a message was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Processed(Option<Lane>),
    Refused,
}

impl One<'_> {
    fn judge(&self, wrong: &mut Vec<String>) {
        let index = self.connection.connection;
        let mut check = |what: &str, reported: u64, really: u64| {
            if reported != really {
                wrong.push(format!("connection {index}: {what}: {reported} reported, {really} really"));
            }
        };
        let counts = &self.connection.counts;
        if let Some(due) = self.due() {
            check("due", self.connection.due, due);
        }
        let firsts = self.firsts();
        let all = self.answers().count() as u64;
        let classified = counts.answered + counts.refused + counts.late + counts.repeated + counts.duplicates;
        check("answers to own messages", classified, all);
        let late = firsts.iter().filter(|(sequence, _)| self.missing.contains(sequence)).count() as u64;
        check(
            "answered, refused or late",
            counts.answered + counts.refused + counts.late,
            firsts.len() as u64,
        );
        check("lost and never answered", counts.lost - counts.late, counts.sent - firsts.len() as u64);
        check("signals without an id", counts.unattributed, self.signals(counts));
        let others = |answer: &&Answer| matches!(answer, Answer::Foreign);
        check("foreign", counts.foreign, self.transcript.decoded.iter().filter(others).count() as u64);
        // Only so many ids are listed; with all of them, each message's one class is known.
        if self.measured.messages.counts.lost < floodline::ledger::MISSING_KEPT as u64 {
            check("lost", counts.lost, self.missing.len() as u64);
            check("late", counts.late, late);
            let settled = || firsts.iter().filter(|(sequence, _)| !self.missing.contains(sequence));
            let processed = settled().filter(|(_, first)| matches!(first, First::Processed(_))).count();
            check("answered", counts.answered, processed as u64);
            check("refused", counts.refused, settled().count() as u64 - processed as u64);
            check("reordered", counts.reordered, reordered(settled()));
        }
        self.judge_resends(wrong);
        self.judge_against_truth(&firsts, wrong);
    }

    /// What is due by the schedule, where the load was not ended early.
    fn due(&self) -> Option<u64> {
        let schedule = self.outcome.scenario.workload.schedule()?;
        let due = schedule.due_times(self.connection.connection).count() as u64;
        (!self.measured.stopped).then_some(due)
    }

    /// Every answer to a message of this connection's that was encoded.
    fn answers(&self) -> impl Iterator<Item = (u64, First)> {
        self.transcript.decoded.iter().filter_map(|answer| match *answer {
            Answer::Processed { sequence, lane, .. } => Some((sequence, First::Processed(lane))),
            Answer::Refused { sequence, .. } => Some((sequence, First::Refused)),
            _ => None,
        })
    }

    /// The first answer to each message, in the order in which they came.
    fn firsts(&self) -> Vec<(u64, First)> {
        let mut seen = BTreeSet::new();
        let firsts = self.answers().filter(|(sequence, _)| seen.insert(*sequence));
        firsts.collect()
    }

    /// Signals of backpressure count as unattributed where no refusal said what they were about.
    fn signals(&self, counts: &Counts) -> u64 {
        let signals =
            self.transcript.decoded.iter().filter(|answer| matches!(answer, Answer::Backpressure { .. }));
        if counts.refused == 0 { signals.count() as u64 } else { 0 }
    }

    fn judge_resends(&self, wrong: &mut Vec<String>) {
        let (index, counts) = (self.connection.connection, &self.connection.counts);
        let encoded = &self.transcript.encoded;
        let distinct = encoded.iter().copied().collect::<BTreeSet<_>>();
        let again = (encoded.len() - distinct.len()) as u64;
        let received = self.outcome.truth.received.borrow();
        let received: Vec<_> = received.iter().filter(|((connection, _), _)| *connection == index).collect();
        let received_again = received.iter().map(|(_, times)| **times - 1).sum::<u64>();
        if counts.resent > again || counts.resent < received_again {
            let resent = counts.resent;
            wrong.push(format!(
                "connection {index}: {resent} sent again, {again} encoded and {received_again} received again"
            ));
        }
        // Messages leave for the first time in the order of their sequences, so those that left are the first ones.
        for ((_, sequence), _) in received {
            if *sequence >= counts.sent {
                wrong.push(format!(
                    "connection {index}: {sequence} arrived, and only {} were sent",
                    counts.sent
                ));
            }
        }
        if let Some(lost) = self.missing.iter().find(|sequence| **sequence >= counts.sent) {
            wrong.push(format!("connection {index}: {lost} is lost, and only {} were sent", counts.sent));
        }
        let Counts { duplicates, foreign, corrupted, .. } = *counts;
        if (duplicates, foreign, corrupted) != (0, 0, 0) {
            wrong.push(format!(
                "connection {index}: {duplicates} duplicates, {foreign} foreign, {corrupted} corrupted"
            ));
        }
    }

    /// Whatever is answered was processed, and once.
    fn judge_against_truth(&self, firsts: &[(u64, First)], wrong: &mut Vec<String>) {
        let executed = self.outcome.truth.executed.borrow();
        let index = self.connection.connection;
        for &(sequence, first) in firsts {
            let times = executed.get(&(index, sequence)).copied().unwrap_or(0);
            match first {
                First::Processed(_) if times == 0 => {
                    wrong.push(format!("connection {index}: {sequence} was answered and not processed"));
                }
                First::Refused if times > 0 && self.connection.counts.resent == 0 => {
                    wrong.push(format!("connection {index}: {sequence} was refused and processed"));
                }
                _ => {}
            }
        }
    }
}

/// How many come after one of a higher sequence in their lane (RFC 4737, section 3.4), looking at all before each.
fn reordered<'a>(answers: impl Iterator<Item = &'a (u64, First)>) -> u64 {
    let mut before = Vec::new();
    let mut reordered = 0;
    for &(sequence, first) in answers {
        let First::Processed(Some(lane)) = first else { continue };
        reordered +=
            u64::from(before.iter().any(|&(lane_before, earlier)| lane_before == lane && earlier > sequence));
        before.push((lane, sequence));
    }
    reordered
}
