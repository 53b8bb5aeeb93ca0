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
    /// Issued and never sent, with its due time.
    Queued(Option<u64>),
    Sent(Flight),
    /// With so many more answers allowed.
    Done(u64),
    /// With so many more answers allowed beyond the late one.
    Lost(u64),
}

#[derive(Debug, Default)]
struct Model {
    states: BTreeMap<u64, State>,
    counts: Counts,
    missing: Vec<u64>,
    /// All messages whose answers were wrong.
    wrong: Vec<(Wrong, u64)>,
    seen: [Vec<u64>; 2],
    reorder_distance_max: u64,
}

impl Model {
    fn issue(&mut self, sequence: u64, due_ns: Option<u64>) {
        self.states.insert(sequence, State::Queued(due_ns));
    }

    /// The next that is to be sent for the first time: they leave in order.
    fn next_to_send(&self) -> Option<u64> {
        self.states.iter().find(|(_, state)| matches!(state, State::Queued(_))).map(|(&sequence, _)| sequence)
    }

    fn send(&mut self, sequence: u64, now: u64) -> bool {
        match self.states.get_mut(&sequence).unwrap() {
            state @ State::Queued(_) => {
                let State::Queued(due_ns) = *state else { unreachable!() };
                *state = State::Sent(Flight { due_ns, sent_ns: Some(now), resends: 0 });
                self.counts.sent += 1;
                return true;
            }
            State::Sent(flight) => {
                flight.sent_ns = Some(now);
                flight.resends += 1;
            }
            State::Done(more) | State::Lost(more) => *more += 1,
        }
        self.counts.resent += 1;
        false
    }

    fn answer(&mut self, sequence: u64, reply: Reply) -> Class {
        match self.states.get(&sequence).copied() {
            None | Some(State::Queued(_)) => {
                self.counts.foreign += 1;
                self.wrong.push((Wrong::Foreign, sequence));
                Class::Foreign
            }
            Some(State::Done(0)) => {
                self.counts.duplicates += 1;
                self.wrong.push((Wrong::Duplicate, sequence));
                Class::Duplicate
            }
            Some(State::Done(more)) => {
                self.counts.repeated += 1;
                self.states.insert(sequence, State::Done(more - 1));
                Class::Repeated
            }
            Some(State::Lost(more)) => {
                self.counts.late += 1;
                self.states.insert(sequence, State::Done(more));
                Class::Late
            }
            Some(State::Sent(flight)) => {
                self.states.insert(sequence, State::Done(flight.resends.into()));
                let Reply::Processed(lane) = reply else {
                    self.counts.refused += 1;
                    return Class::Refused(flight);
                };
                self.counts.answered += 1;
                if let Some(lane) = lane {
                    self.in_order(sequence, lane);
                }
                Class::Answered(flight)
            }
        }
    }

    fn in_order(&mut self, sequence: u64, lane: Lane) {
        let seen = &mut self.seen[lane as usize];
        if let Some(highest) = seen.iter().copied().max().filter(|&highest| highest > sequence) {
            self.counts.reordered += 1;
            self.wrong.push((Wrong::Reordered, sequence));
            self.reorder_distance_max = self.reorder_distance_max.max(highest - sequence);
        }
        seen.push(sequence);
    }

    /// Loses every sent message that `is_over` says, in order; how many there were.
    fn lose(&mut self, is_over: impl Fn(Flight) -> bool) -> u64 {
        let before = self.counts.lost;
        for (&sequence, state) in &mut self.states {
            if let State::Sent(flight) = *state
                && is_over(flight)
            {
                *state = State::Lost(flight.resends.into());
                self.counts.lost += 1;
                self.missing.push(sequence);
            }
        }
        self.counts.lost - before
    }

    fn abandon(&mut self) {
        self.lose(|_| true);
        for state in self.states.values_mut() {
            if matches!(state, State::Queued(_)) {
                // Never sent, and never will be: an answer to it is to a message that is over.
                *state = State::Done(0);
            }
        }
    }

    fn under_way(&self) -> impl Iterator<Item = (u64, Flight)> + '_ {
        self.states.iter().filter_map(|(&sequence, &state)| match state {
            State::Queued(due_ns) => Some((sequence, Flight { due_ns, sent_ns: None, resends: 0 })),
            State::Sent(flight) => Some((sequence, flight)),
            State::Done(_) | State::Lost(_) => None,
        })
    }

    /// Where nothing has been forgotten, the ledger says all that the model says.
    fn assert_agrees(&self, ledger: &mut Ledger, from: u64) -> Result<(), TestCaseError> {
        prop_assert_eq!(ledger.counts(), &self.counts);
        for kind in [Wrong::Reordered, Wrong::Duplicate, Wrong::Foreign, Wrong::Corrupted] {
            let all = self.wrong.iter().filter(|(of, _)| *of == kind).map(|&(_, sequence)| sequence);
            let (kept, first): (Vec<_>, Vec<_>) =
                (ledger.wrong(kind).collect(), all.take(WRONG_KEPT).collect());
            prop_assert_eq!(kept, first, "{:?}", kind);
        }
        self.assert_under_way(ledger, from)
    }

    /// What the bounds of the memory never touch.
    fn assert_under_way(&self, ledger: &mut Ledger, from: u64) -> Result<(), TestCaseError> {
        let queued = self.under_way().filter(|(_, flight)| flight.sent_ns.is_none()).count();
        let in_flight = self.under_way().count() - queued;
        prop_assert_eq!((ledger.queued(), ledger.in_flight()), (queued, in_flight));
        prop_assert_eq!(ledger.oldest_unanswered(), self.under_way().next().map(|(sequence, _)| sequence));
        prop_assert_eq!(
            ledger.unanswered_from(from),
            self.under_way().find(|&(sequence, _)| sequence >= from)
        );
        prop_assert_eq!(ledger.missing(), &self.missing[..self.missing.len().min(MISSING_KEPT)]);
        prop_assert_eq!(ledger.reorder_distance_max(), self.reorder_distance_max);
        prop_assert_eq!(ledger.next_sequence(), self.states.len() as u64);
        let counts = ledger.counts();
        prop_assert_eq!(counts.sent, counts.answered + counts.refused + counts.lost + in_flight as u64);
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Reply {
    Processed(Option<Lane>),
    Refused,
}

#[derive(Debug, Clone)]
enum Step {
    Issue {
        in_open_loop: bool,
    },
    SendNext,
    Resend(prop::sample::Index),
    /// To anything issued, or to one of the two sequences beyond.
    Answer(prop::sample::Index, Reply),
    /// Of what is under way or just over, where most of the classes lie.
    AnswerRecent(u64, Reply),
    Expire(u64),
    Abandon,
    Corrupted(Option<u64>),
    Foreign,
    Unattributed,
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
        8 => any::<bool>().prop_map(|in_open_loop| Step::Issue { in_open_loop }),
        8 => Just(Step::SendNext),
        4 => index().prop_map(Step::Resend),
        6 => (index(), reply()).prop_map(|(i, reply)| Step::Answer(i, reply)),
        6 => (0_u64..6, reply()).prop_map(|(back, reply)| Step::AnswerRecent(back, reply)),
        2 => (0_u64..30).prop_map(Step::Expire),
        1 => prop_oneof![
            Just(Step::Abandon),
            proptest::option::of(0_u64..30).prop_map(Step::Corrupted),
            Just(Step::Foreign),
            Just(Step::Unattributed),
        ],
    ]
}

/// Does one step to both, and compares what the ledger returned; an answer's class is left to `compare`.
fn take(
    ledger: &mut Ledger,
    model: &mut Model,
    now: u64,
    step: Step,
    compare: fn(Class, Class) -> bool,
) -> Result<(), TestCaseError> {
    let issued = model.states.len() as u64;
    match step {
        Step::Issue { in_open_loop } => {
            let due_ns = in_open_loop.then_some(now * 10);
            prop_assert_eq!(ledger.issue(due_ns), issued);
            model.issue(issued, due_ns);
        }
        Step::SendNext => {
            if let Some(sequence) = model.next_to_send() {
                prop_assert_eq!(ledger.sent(sequence, now), model.send(sequence, now));
            }
        }
        Step::Resend(index) => {
            let sequence = index.index(issued as usize + 1) as u64;
            if matches!(model.states.get(&sequence), Some(State::Sent(_) | State::Done(_) | State::Lost(_))) {
                prop_assert_eq!(ledger.sent(sequence, now), model.send(sequence, now));
            }
        }
        Step::Answer(index, reply) => {
            answer(ledger, model, index.index(issued as usize + 2) as u64, reply, compare)?;
        }
        Step::AnswerRecent(back, reply) => {
            answer(
                ledger,
                model,
                model.next_to_send().unwrap_or(issued).saturating_sub(back),
                reply,
                compare,
            )?;
        }
        Step::Expire(age) => {
            let until = now.saturating_sub(age);
            let given_up = model.lose(|flight| flight.sent_ns.is_some_and(|sent_ns| sent_ns <= until));
            prop_assert_eq!(ledger.expire(until), given_up);
        }
        Step::Abandon => {
            ledger.abandon();
            model.abandon();
        }
        Step::Corrupted(sequence) => {
            ledger.corrupted(sequence);
            model.counts.corrupted += 1;
            model.wrong.extend(sequence.map(|sequence| (Wrong::Corrupted, sequence)));
        }
        Step::Foreign => {
            ledger.foreign();
            model.counts.foreign += 1;
        }
        Step::Unattributed => {
            ledger.unattributed();
            model.counts.unattributed += 1;
        }
    }
    Ok(())
}

fn answer(
    ledger: &mut Ledger,
    model: &mut Model,
    sequence: u64,
    reply: Reply,
    compare: fn(Class, Class) -> bool,
) -> Result<(), TestCaseError> {
    let class = match reply {
        Reply::Processed(lane) => ledger.answered(sequence, lane),
        Reply::Refused => ledger.refused(sequence),
    };
    let expected = model.answer(sequence, reply);
    prop_assert!(compare(class, expected), "{sequence}: {class:?}, not {expected:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn agrees_with_the_brute_force_model(
        steps in proptest::collection::vec(step(), 1..300), from: prop::sample::Index,
    ) {
        let (mut ledger, mut model) = (Ledger::default(), Model::default());
        for (now, step) in steps.into_iter().enumerate() {
            take(&mut ledger, &mut model, now as u64, step, |class, expected| class == expected)?;
            model.assert_agrees(&mut ledger, from.index(model.states.len() + 2) as u64)?;
        }
    }

    /// With next to no memory for what is over, the classes of messages are still exact; only what a further answer is
    /// may be forgotten, and then that is said.
    #[test]
    fn what_is_forgotten_is_unattributed_and_nothing_else(
        steps in proptest::collection::vec(step(), 1..300), lost in 1..4_usize, spare in 1..4_usize,
    ) {
        let mut ledger = Ledger {
            lost: LostSet::with_capacity(lost),
            spare: SpareAnswers::with_capacity(spare),
            ..Ledger::default()
        };
        let mut model = Model::default();
        for (now, step) in steps.into_iter().enumerate() {
            take(&mut ledger, &mut model, now as u64, step, |class, expected| {
                let may_be_forgotten = matches!(expected, Class::Late | Class::Repeated | Class::Duplicate);
                class == expected || may_be_forgotten && class == Class::Unattributed
            })?;
            model.assert_under_way(&mut ledger, 0)?;
            let forgotten = ledger.counts().unattributed - model.counts.unattributed;
            let known = Counts {
                late: model.counts.late,
                repeated: model.counts.repeated,
                duplicates: model.counts.duplicates,
                unattributed: model.counts.unattributed,
                ..*ledger.counts()
            };
            prop_assert_eq!(&known, &model.counts);
            let further = |counts: &Counts| counts.late + counts.repeated + counts.duplicates;
            prop_assert_eq!(further(ledger.counts()) + forgotten, further(&model.counts));
        }
    }
}

#[test]
fn counts_add_up_in_every_class() {
    let as_numbers = |counts: &Counts| -> Vec<u64> {
        let fields = serde_json::to_value(counts).unwrap();
        fields.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).collect()
    };
    let fields = serde_json::to_value(Counts::default()).unwrap();
    let names = fields.as_object().unwrap().keys();
    // A count of its own for each class, so that none is added to another.
    let distinct = names.zip(1_u64..).map(|(name, count)| (name.clone(), count.into()));
    let other: Counts = serde_json::from_value(serde_json::Value::Object(distinct.collect())).unwrap();
    let mut sum = other;
    sum.add(&other);
    assert_eq!(as_numbers(&sum), as_numbers(&other).into_iter().map(|count| 2 * count).collect::<Vec<_>>());
    assert_eq!(as_numbers(&sum).len(), 12);
    // From nothing, where a product would stay nothing, and two is not the same by either.
    let mut from_none = Counts::default();
    from_none.add(&other);
    assert_eq!(from_none, other);
}
