use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn sent(ledger: &mut Ledger, count: u64) {
    for n in 0..count {
        let sequence = ledger.issue(Some(n * 10));
        ledger.sent(sequence, n * 10 + 1);
    }
}

#[test]
fn a_clean_run_adds_up() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 3);
    let flight = Flight { due_ns: Some(10), sent_ns: Some(11), resends: 0 };
    assert!(matches!(ledger.answered(0, Lane::Normal), Class::Answered(_)));
    assert_eq!(ledger.answered(1, Lane::Normal), Class::Answered(flight));
    assert!(matches!(ledger.refused(2), Class::Refused(_)));
    assert_eq!(*ledger.counts(), Counts { sent: 3, answered: 2, refused: 1, ..Counts::default() });
    assert_eq!(ledger.in_flight(), 0);
}

#[test]
fn reordering_is_that_of_rfc_4737() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 5);
    for sequence in [0, 2, 1, 4, 3] {
        ledger.answered(sequence, Lane::Normal);
    }
    assert_eq!(ledger.counts().reordered, 2);
    assert_eq!(ledger.reorder_distance_max(), 1);
}

#[test]
fn lanes_keep_their_own_order() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 4);
    ledger.answered(3, Lane::High);
    ledger.answered(0, Lane::Normal);
    ledger.answered(1, Lane::Normal);
    assert_eq!(ledger.counts().reordered, 0);
    ledger.answered(2, Lane::High);
    assert_eq!(ledger.counts().reordered, 1);
}

#[test]
fn what_is_answered_after_it_was_given_up_is_late_once() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 3);
    assert_eq!(ledger.expire(11), 2);
    assert_eq!(ledger.missing(), [0, 1]);
    assert_eq!(ledger.answered(1, Lane::Normal), Class::Late);
    assert_eq!(ledger.answered(1, Lane::Normal), Class::Duplicate);
    assert!(matches!(ledger.answered(2, Lane::Normal), Class::Answered(_)));
    let expected = Counts { sent: 3, answered: 1, lost: 2, late: 1, duplicates: 1, ..Counts::default() };
    assert_eq!(*ledger.counts(), expected);
}

#[test]
fn an_answer_to_what_was_never_sent_is_foreign() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 1);
    let queued = ledger.issue(None);
    for sequence in [queued, 2, u64::MAX] {
        assert_eq!(ledger.answered(sequence, Lane::Normal), Class::Foreign);
    }
    assert_eq!(ledger.refused(u64::MAX), Class::Foreign);
    assert_eq!(ledger.counts().foreign, 4);
    // The queued one is still there and can be sent and answered.
    ledger.sent(queued, 5);
    assert!(matches!(ledger.answered(queued, Lane::Normal), Class::Answered(_)));
}

#[test]
fn a_resend_gives_a_message_a_new_life() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 2);
    assert!(ledger.unanswered().eq([0, 1]));
    ledger.sent(0, 100);
    ledger.sent(1, 100);
    assert_eq!(ledger.expire(99), 0);
    assert_eq!((ledger.counts().sent, ledger.counts().resent), (2, 2));
    assert_eq!(ledger.expire(100), 2);
}

#[test]
fn abandoning_loses_what_was_sent_and_forgets_what_was_not() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 2);
    ledger.issue(None);
    ledger.abandon();
    assert_eq!(*ledger.counts(), Counts { sent: 2, lost: 2, ..Counts::default() });
    assert_eq!(ledger.in_flight(), 0);
}

/// The brute-force model: one state a message, nothing clever.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Queued,
    Sent(u64),
    Done,
    Lost,
}

#[derive(Debug, Default)]
struct Model {
    states: BTreeMap<u64, State>,
    counts: Counts,
    seen: [Vec<u64>; 2],
}

impl Model {
    fn answer(&mut self, sequence: u64, lane: Option<Lane>) {
        match self.states.get(&sequence).copied() {
            None | Some(State::Queued) => self.counts.foreign += 1,
            Some(State::Done) => self.counts.duplicates += 1,
            Some(State::Lost) => {
                self.counts.late += 1;
                self.states.insert(sequence, State::Done);
            }
            Some(State::Sent(_)) => {
                self.states.insert(sequence, State::Done);
                let Some(lane) = lane else {
                    self.counts.refused += 1;
                    return;
                };
                self.counts.answered += 1;
                let seen = &mut self.seen[lane as usize];
                self.counts.reordered += u64::from(seen.iter().any(|&earlier| earlier > sequence));
                seen.push(sequence);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Issue,
    SendNext,
    Answer(prop::sample::Index, Lane),
    Refuse(prop::sample::Index),
    Expire(u64),
    Abandon,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => Just(Step::Issue),
        6 => Just(Step::SendNext),
        6 => (index(), prop_oneof![Just(Lane::Normal), Just(Lane::High)]).prop_map(|(i, lane)| Step::Answer(i, lane)),
        2 => index().prop_map(Step::Refuse),
        2 => (0_u64..30).prop_map(Step::Expire),
        1 => Just(Step::Abandon),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn agrees_with_the_brute_force_model(steps in proptest::collection::vec(step(), 1..300)) {
        let mut ledger = Ledger::default();
        let mut model = Model::default();
        let mut issued = 0_u64;
        for (now, step) in steps.into_iter().enumerate() {
            let now = now as u64;
            match step {
                Step::Issue => {
                    model.states.insert(ledger.issue(None), State::Queued);
                    issued += 1;
                }
                Step::SendNext => {
                    let next = model.states.iter().find(|(_, state)| **state == State::Queued).map(|(&s, _)| s);
                    if let Some(sequence) = next {
                        ledger.sent(sequence, now);
                        model.counts.sent += 1;
                        model.states.insert(sequence, State::Sent(now));
                    }
                }
                Step::Answer(index, lane) => {
                    let sequence = index.index(issued as usize + 2) as u64;
                    ledger.answered(sequence, lane);
                    model.answer(sequence, Some(lane));
                }
                Step::Refuse(index) => {
                    let sequence = index.index(issued as usize + 2) as u64;
                    ledger.refused(sequence);
                    model.answer(sequence, None);
                }
                Step::Expire(age) => {
                    let until = now.saturating_sub(age);
                    ledger.expire(until);
                    for state in model.states.values_mut() {
                        if matches!(*state, State::Sent(at) if at <= until) {
                            *state = State::Lost;
                            model.counts.lost += 1;
                        }
                    }
                }
                Step::Abandon => {
                    ledger.abandon();
                    for state in model.states.values_mut() {
                        match *state {
                            State::Sent(_) => { *state = State::Lost; model.counts.lost += 1; }
                            // Never sent, and never will be: an answer to it is to a message that is over.
                            State::Queued => *state = State::Done,
                            State::Done | State::Lost => {}
                        }
                    }
                }
            }
            prop_assert_eq!(ledger.counts(), &model.counts);
            let sent_states = model.states.values().filter(|state| matches!(state, State::Sent(_))).count();
            prop_assert_eq!(ledger.in_flight(), sent_states);
            let counts = ledger.counts();
            prop_assert_eq!(counts.sent, counts.answered + counts.refused + counts.lost + sent_states as u64);
        }
    }
}
