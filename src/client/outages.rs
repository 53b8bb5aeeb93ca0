//! The cuts of connections that are opened again: when, why, and when all was well again.

use std::collections::BTreeMap;

use super::report::{End, count_reason};
use crate::ledger::Ledger;
use crate::result::{OUTAGES_KEPT, Outage};

/// The outages of all clients of one worker.
#[derive(Debug, Default)]
pub(super) struct OutageLog {
    /// The first ones, in the order in which they began.
    pub(super) kept: Vec<Outage>,
    /// How many more there were.
    pub(super) more: u64,
    /// What caused them, with how often.
    pub(super) reasons: BTreeMap<String, u64>,
}

impl OutageLog {
    /// Notes an outage; its place, where it is kept.
    fn add(&mut self, outage: Outage) -> Option<usize> {
        count_reason(&mut self.reasons, outage.reason.clone(), 1);
        if self.kept.len() >= OUTAGES_KEPT {
            self.more += 1;
            return None;
        }
        self.kept.push(outage);
        Some(self.kept.len() - 1)
    }
}

/// The outages of one client.
#[derive(Debug, Default)]
pub(super) struct Outages {
    /// How often the connection was opened again.
    pub(super) reconnects: u64,
    latest: Option<Latest>,
    /// Those after which something is unanswered, oldest first. No more than the log keeps.
    unrecovered: Vec<Unrecovered>,
}

/// The latest outage that is kept.
#[derive(Debug, Clone, Copy)]
struct Latest {
    begun: Unrecovered,
    /// How many messages had been sent again before it.
    resent: u64,
}

/// An outage from which the client has not recovered.
#[derive(Debug, Clone, Copy)]
struct Unrecovered {
    /// Where the log keeps it.
    place: usize,
    /// What was unanswered is what had been sent: every sequence below this that is still in no class.
    sent: u64,
    /// How many messages had been lost before.
    lost: u64,
}

impl Outages {
    /// The connection was lost, and is to be opened again.
    pub(super) fn lost(
        &mut self,
        connection: u32,
        end: &End,
        at_s: f64,
        ledger: &Ledger,
        log: &mut OutageLog,
    ) {
        self.count_resends(ledger, log);
        let outage = Outage {
            connection,
            lost_at_s: at_s,
            reconnected_at_s: None,
            recovered_at_s: None,
            reason: end.reason.clone(),
            unanswered: ledger.in_flight() as u64,
            resent: 0,
        };
        let place = log.add(outage);
        let counts = ledger.counts();
        let begun = place.map(|place| Unrecovered { place, sent: counts.sent, lost: counts.lost });
        self.latest = begun.map(|begun| Latest { begun, resent: counts.resent });
        self.unrecovered.extend(begun);
    }

    /// It is open again.
    pub(super) fn reconnected(&mut self, at_s: f64, log: &mut OutageLog) {
        self.reconnects += 1;
        if let Some(outage) = self.latest_in(log) {
            outage.reconnected_at_s = Some(at_s);
        }
    }

    /// It was opened only to be refused: that was no reconnect, and the outage goes on.
    pub(super) fn refused_again(&mut self, log: &mut OutageLog) {
        self.reconnects = self.reconnects.saturating_sub(1);
        if let Some(outage) = self.latest_in(log) {
            outage.reconnected_at_s = None;
            let recovered = outage.recovered_at_s.take().is_some();
            // Nothing was unanswered, so it seemed over when it was open.
            self.unrecovered.extend(self.latest.filter(|_| recovered).map(|latest| latest.begun));
        }
    }

    /// Whether there is nothing left to recover from.
    pub(super) fn is_over(&self) -> bool {
        self.unrecovered.is_empty()
    }

    /// Looks which outages are over, with the answers received until `at_s`.
    pub(super) fn recover(&mut self, at_s: f64, ledger: &mut Ledger, log: &mut OutageLog) {
        let oldest = ledger.oldest_unanswered().unwrap_or(u64::MAX);
        self.unrecovered.retain(|outage| {
            if outage.sent > oldest {
                return true;
            }
            // What was sent before the cut times out before anything that was sent after it: a loss is one of those.
            if ledger.counts().lost == outage.lost
                && let Some(kept) = log.kept.get_mut(outage.place)
            {
                kept.recovered_at_s = Some(at_s);
            }
            false
        });
    }

    /// Writes down how much was sent again since the latest cut.
    pub(super) fn count_resends(&self, ledger: &Ledger, log: &mut OutageLog) {
        if let (Some(latest), Some(outage)) = (self.latest, self.latest_in(log)) {
            outage.resent = ledger.counts().resent - latest.resent;
        }
    }

    fn latest_in<'a>(&self, log: &'a mut OutageLog) -> Option<&'a mut Outage> {
        log.kept.get_mut(self.latest?.begun.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(ledger: &mut Ledger, count: usize) {
        for _ in 0..count {
            let sequence = ledger.issue(None);
            ledger.sent(sequence, 1);
        }
    }

    fn reset() -> End {
        End::dropped("reset")
    }

    #[test]
    fn an_outage_is_over_when_all_that_was_unanswered_is_answered() {
        let (mut outages, mut log, mut ledger) =
            (Outages::default(), OutageLog::default(), Ledger::default());
        sent(&mut ledger, 2);
        outages.lost(7, &reset(), 1.0, &ledger, &mut log);
        outages.reconnected(1.5, &mut log);
        sent(&mut ledger, 1);
        ledger.sent(0, 2);
        ledger.answered(1, None);
        outages.recover(1.6, &mut ledger, &mut log);
        assert!(!outages.is_over());
        // Cut again: what came after the first cut does not hold up its recovery.
        outages.lost(7, &reset(), 2.0, &ledger, &mut log);
        outages.reconnected(2.5, &mut log);
        ledger.refused(0);
        outages.recover(3.0, &mut ledger, &mut log);
        assert!(!outages.is_over());
        ledger.answered(2, None);
        outages.recover(4.0, &mut ledger, &mut log);
        assert!(outages.is_over());
        let seen: Vec<_> =
            log.kept.iter().map(|o| (o.reconnected_at_s, o.recovered_at_s, o.unanswered, o.resent)).collect();
        assert_eq!(seen, [(Some(1.5), Some(3.0), 2, 1), (Some(2.5), Some(4.0), 2, 0)]);
        assert_eq!((outages.reconnects, log.reasons["reset"]), (2, 2));
    }

    #[test]
    fn a_loss_is_no_recovery() {
        let (mut outages, mut log, mut ledger) =
            (Outages::default(), OutageLog::default(), Ledger::default());
        sent(&mut ledger, 1);
        outages.lost(0, &reset(), 1.0, &ledger, &mut log);
        outages.reconnected(2.0, &mut log);
        ledger.expire(1);
        outages.recover(3.0, &mut ledger, &mut log);
        assert!(outages.is_over());
        assert_eq!(log.kept[0].recovered_at_s, None);
    }

    #[test]
    fn what_is_refused_at_once_was_no_reconnect() {
        let (mut outages, mut log, mut ledger) =
            (Outages::default(), OutageLog::default(), Ledger::default());
        outages.lost(0, &reset(), 1.0, &ledger, &mut log);
        outages.reconnected(2.0, &mut log);
        // Nothing was unanswered.
        outages.recover(2.0, &mut ledger, &mut log);
        assert_eq!(log.kept[0].recovered_at_s, Some(2.0));
        outages.refused_again(&mut log);
        assert_eq!((outages.reconnects, log.kept[0].reconnected_at_s), (0, None));
        assert_eq!((outages.is_over(), log.kept[0].recovered_at_s), (false, None));
        outages.reconnected(3.0, &mut log);
        outages.recover(3.0, &mut ledger, &mut log);
        assert_eq!((outages.is_over(), log.kept[0].recovered_at_s), (true, Some(3.0)));
    }

    #[test]
    fn beyond_the_bound_outages_are_counted_only() {
        let (mut outages, mut log, mut ledger) =
            (Outages::default(), OutageLog::default(), Ledger::default());
        sent(&mut ledger, 1);
        for at in 0..OUTAGES_KEPT + 3 {
            outages.lost(0, &reset(), at as f64, &ledger, &mut log);
            outages.reconnected(at as f64, &mut log);
        }
        assert_eq!((log.kept.len(), log.more), (OUTAGES_KEPT, 3));
        assert_eq!((outages.reconnects, outages.unrecovered.len()), (1_003, OUTAGES_KEPT));
    }
}
