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
    assert!(matches!(ledger.answered(0, Some(Lane::Normal)), Class::Answered(_)));
    assert_eq!(ledger.answered(1, Some(Lane::Normal)), Class::Answered(flight));
    assert!(matches!(ledger.refused(2), Class::Refused(_)));
    assert_eq!(*ledger.counts(), Counts { sent: 3, answered: 2, refused: 1, ..Counts::default() });
    assert_eq!(ledger.in_flight(), 0);
}

#[test]
fn reordering_is_that_of_rfc_4737() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 5);
    for sequence in [0, 2, 1, 4, 3] {
        ledger.answered(sequence, Some(Lane::Normal));
    }
    assert_eq!(ledger.counts().reordered, 2);
    assert_eq!(ledger.reorder_distance_max(), 1);
}

#[test]
fn lanes_keep_their_own_order() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 4);
    ledger.answered(3, Some(Lane::High));
    ledger.answered(0, Some(Lane::Normal));
    ledger.answered(1, Some(Lane::Normal));
    assert_eq!(ledger.counts().reordered, 0);
    ledger.answered(2, Some(Lane::High));
    assert_eq!(ledger.counts().reordered, 1);
}

#[test]
fn what_is_answered_after_it_was_given_up_is_late_once() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 3);
    assert_eq!(ledger.expire(11), 2);
    assert_eq!(ledger.missing(), [0, 1]);
    assert_eq!(ledger.answered(1, Some(Lane::Normal)), Class::Late);
    assert_eq!(ledger.answered(1, Some(Lane::Normal)), Class::Duplicate);
    assert!(matches!(ledger.answered(2, Some(Lane::Normal)), Class::Answered(_)));
    let expected = Counts { sent: 3, answered: 1, lost: 2, late: 1, duplicates: 1, ..Counts::default() };
    assert_eq!(*ledger.counts(), expected);
}

#[test]
fn an_answer_to_what_was_never_sent_is_foreign() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 1);
    let queued = ledger.issue(None);
    for sequence in [queued, 2, u64::MAX] {
        assert_eq!(ledger.answered(sequence, Some(Lane::Normal)), Class::Foreign);
    }
    assert_eq!(ledger.refused(u64::MAX), Class::Foreign);
    assert_eq!(ledger.counts().foreign, 4);
    // The queued one is still there and can be sent and answered.
    ledger.sent(queued, 5);
    assert!(matches!(ledger.answered(queued, Some(Lane::Normal)), Class::Answered(_)));
}

#[test]
fn a_resend_gives_a_message_a_new_life() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 2);
    assert_eq!(ledger.unanswered_from(1).map(|(sequence, _)| sequence), Some(1));
    assert_eq!(ledger.unanswered_from(2), None);
    assert!(!ledger.sent(0, 100) && !ledger.sent(1, 100));
    assert_eq!(ledger.expire(99), 0);
    assert_eq!((ledger.counts().sent, ledger.counts().resent), (2, 2));
    assert_eq!(ledger.expire(100), 2);
}

#[test]
fn a_message_may_have_as_many_answers_as_it_was_sent() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 1);
    ledger.sent(0, 50);
    assert!(matches!(ledger.answered(0, None), Class::Answered(_)));
    assert_eq!(ledger.answered(0, None), Class::Repeated);
    assert_eq!(ledger.answered(0, None), Class::Duplicate);
    // A third send, which its answer overtook.
    ledger.sent(0, 60);
    assert_eq!(ledger.refused(0), Class::Repeated);
    let expected =
        Counts { sent: 1, resent: 2, answered: 1, repeated: 2, duplicates: 1, ..Counts::default() };
    assert_eq!(*ledger.counts(), expected);
}

#[test]
fn what_was_sent_before_a_resend_still_expires_behind_it() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 3);
    // A second cut came after only the first of three had been sent again.
    ledger.sent(0, 100);
    assert_eq!(ledger.expire(50), 2);
    assert_eq!(ledger.missing(), [1, 2]);
}

#[test]
fn answers_outside_the_order_reorder_nothing() {
    let mut ledger = Ledger::default();
    sent(&mut ledger, 3);
    ledger.answered(2, None);
    ledger.answered(1, Some(Lane::Normal));
    ledger.answered(0, None);
    assert_eq!(ledger.counts().reordered, 0);
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
    /// When last, and how often.
    Sent(u64, u64),
    /// With so many more answers allowed.
    Done(u64),
    Lost(u64),
}

#[derive(Debug, Default)]
struct Model {
    states: BTreeMap<u64, State>,
    counts: Counts,
    seen: [Vec<u64>; 2],
}

impl Model {
    fn answer(&mut self, sequence: u64, answer: Reply) {
        match self.states.get(&sequence).copied() {
            None | Some(State::Queued) => self.counts.foreign += 1,
            Some(State::Done(0)) => self.counts.duplicates += 1,
            Some(State::Done(more)) => {
                self.counts.repeated += 1;
                self.states.insert(sequence, State::Done(more - 1));
            }
            Some(State::Lost(sends)) => {
                self.counts.late += 1;
                self.states.insert(sequence, State::Done(sends - 1));
            }
            Some(State::Sent(_, sends)) => {
                self.states.insert(sequence, State::Done(sends - 1));
                let Reply::Processed(lane) = answer else {
                    self.counts.refused += 1;
                    return;
                };
                self.counts.answered += 1;
                let Some(lane) = lane else { return };
                let seen = &mut self.seen[lane as usize];
                self.counts.reordered += u64::from(seen.iter().any(|&earlier| earlier > sequence));
                seen.push(sequence);
            }
        }
    }

    fn resend(&mut self, sequence: u64, now: u64) {
        match self.states.get_mut(&sequence) {
            Some(State::Sent(at, sends)) => (*at, *sends) = (now, *sends + 1),
            Some(State::Done(more) | State::Lost(more)) => *more += 1,
            None | Some(State::Queued) => return,
        }
        self.counts.resent += 1;
    }
}

#[derive(Debug, Clone, Copy)]
enum Reply {
    Processed(Option<Lane>),
    Refused,
}

#[derive(Debug, Clone)]
enum Step {
    Issue,
    SendNext,
    Resend(prop::sample::Index),
    Answer(prop::sample::Index, Reply),
    Expire(u64),
    Abandon,
}

fn reply() -> impl Strategy<Value = Reply> {
    prop::sample::select(vec![
        Reply::Processed(Some(Lane::Normal)),
        Reply::Processed(Some(Lane::High)),
        Reply::Processed(None),
        Reply::Refused,
    ])
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => Just(Step::Issue),
        6 => Just(Step::SendNext),
        3 => index().prop_map(Step::Resend),
        8 => (index(), reply()).prop_map(|(i, reply)| Step::Answer(i, reply)),
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
                        prop_assert!(ledger.sent(sequence, now));
                        model.counts.sent += 1;
                        model.states.insert(sequence, State::Sent(now, 1));
                    }
                }
                Step::Resend(index) if issued > 0 => {
                    let sequence = index.index(issued as usize) as u64;
                    if model.states.get(&sequence) != Some(&State::Queued) {
                        prop_assert!(!ledger.sent(sequence, now));
                        model.resend(sequence, now);
                    }
                }
                Step::Resend(_) => {}
                Step::Answer(index, reply) => {
                    let sequence = index.index(issued as usize + 2) as u64;
                    match reply {
                        Reply::Processed(lane) => ledger.answered(sequence, lane),
                        Reply::Refused => ledger.refused(sequence),
                    };
                    model.answer(sequence, reply);
                }
                Step::Expire(age) => {
                    let until = now.saturating_sub(age);
                    ledger.expire(until);
                    for state in model.states.values_mut() {
                        if let State::Sent(at, sends) = *state
                            && at <= until
                        {
                            *state = State::Lost(sends);
                            model.counts.lost += 1;
                        }
                    }
                }
                Step::Abandon => {
                    ledger.abandon();
                    for state in model.states.values_mut() {
                        match *state {
                            State::Sent(_, sends) => { *state = State::Lost(sends); model.counts.lost += 1; }
                            // Never sent, and never will be: an answer to it is to a message that is over.
                            State::Queued => *state = State::Done(0),
                            State::Done(_) | State::Lost(_) => {}
                        }
                    }
                }
            }
            prop_assert_eq!(ledger.counts(), &model.counts);
            let sent_states = model.states.values().filter(|state| matches!(state, State::Sent(..))).count();
            prop_assert_eq!(ledger.in_flight(), sent_states);
            let counts = ledger.counts();
            prop_assert_eq!(counts.sent, counts.answered + counts.refused + counts.lost + sent_states as u64);
        }
    }
}
