//! The bounded queue with two priorities.

use std::collections::VecDeque;

use crate::message::Priority;

/// What waits, high priority first, and first come first served within a priority.
#[derive(Debug)]
pub(super) struct PriorityQueue<T> {
    high: VecDeque<T>,
    normal: VecDeque<T>,
    /// Whether a request of high priority waits like a normal one, by a fault.
    in_arrival_order: bool,
    /// A fault: of how many the last ones are set aside, once something was refused; 0 is none.
    keep: usize,
    overflowed: bool,
    /// What is set aside: it takes its place, and is not taken out.
    kept: VecDeque<T>,
    /// From here on, normal requests are refused.
    threshold: usize,
    /// From here on, all are.
    limit: usize,
}

impl<T> PriorityQueue<T> {
    /// A queue that refuses normal requests when it holds `threshold`, and has a reserve of a tenth for high ones.
    /// After the first refusal the last `keep` are set aside, where that is not 0.
    pub(super) fn new(threshold: usize, in_arrival_order: bool, keep: usize) -> Self {
        let limit = threshold.saturating_add(threshold / 10);
        Self {
            high: VecDeque::new(),
            normal: VecDeque::new(),
            in_arrival_order,
            keep,
            overflowed: false,
            kept: VecDeque::new(),
            threshold,
            limit,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.high.len() + self.normal.len() + self.kept.len()
    }

    /// Takes `item` in.
    ///
    /// # Errors
    /// With the item, where there is no room for one of its priority.
    pub(super) fn push(&mut self, priority: Priority, item: T) -> Result<(), T> {
        if self.len() >= self.room(priority) {
            self.overflowed = true;
            return Err(item);
        }
        match priority {
            Priority::High if !self.in_arrival_order => self.high.push_back(item),
            Priority::High | Priority::Normal => self.normal.push_back(item),
        }
        Ok(())
    }

    /// From how many items on one of `priority` is refused.
    pub(super) fn room(&self, priority: Priority) -> usize {
        match priority {
            Priority::High => self.limit,
            Priority::Normal => self.threshold,
        }
    }

    /// Takes out the next.
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.overflowed && self.len() <= self.keep && self.kept.is_empty() {
            self.kept.extend(self.high.drain(..).chain(self.normal.drain(..)));
            // It happens once.
            self.keep = 0;
        }
        let next = self.high.pop_front().or_else(|| self.normal.pop_front());
        if self.len() == 0 {
            // After an overload the room is given back.
            self.high = VecDeque::new();
            self.normal = VecDeque::new();
        }
        next
    }

    /// Puts what is set aside back to where it was, and sets nothing aside any more.
    pub(super) fn restore_kept(&mut self) {
        self.keep = 0;
        while let Some(item) = self.kept.pop_back() {
            self.normal.push_front(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list that is searched for the first of the higher priority.
        #[test]
        fn it_orders_and_refuses_as_a_list_would(
            threshold in 1..30_usize,
            in_arrival_order: bool,
            steps in prop::collection::vec(prop_oneof![
                Just(None), Just(Some(Priority::High)), Just(Some(Priority::Normal)), Just(Some(Priority::Normal)),
            ], 0..300),
        ) {
            let mut queue = PriorityQueue::new(threshold, in_arrival_order, 0);
            let mut list: Vec<(Priority, usize)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Some(priority) => {
                        let reserve = if priority == Priority::High { threshold / 10 } else { 0 };
                        let room = list.len() < threshold + reserve;
                        prop_assert_eq!(queue.push(priority, number).is_ok(), room);
                        if room {
                            list.push((priority, number));
                        }
                    }
                    None => {
                        let next = list.iter().position(|&(priority, _)| priority == Priority::High || in_arrival_order);
                        let next = next.or(if list.is_empty() { None } else { Some(0) });
                        prop_assert_eq!(queue.pop(), next.map(|next| list.remove(next).1));
                    }
                }
                prop_assert_eq!(queue.len(), list.len());
            }
        }
    }

    #[test]
    fn the_last_are_set_aside_after_the_first_refusal_only() {
        let mut queue = PriorityQueue::new(4, false, 2);
        let push = |queue: &mut PriorityQueue<u32>, items: std::ops::Range<u32>| {
            items.filter(|&item| queue.push(Priority::Normal, item).is_err()).count()
        };
        assert_eq!(push(&mut queue, 0..4), 0);
        assert_eq!([(); 4].map(|()| queue.pop()), [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(push(&mut queue, 0..5), 1);
        assert_eq!([(); 3].map(|()| queue.pop()), [Some(0), Some(1), None]);
        // Later ones have the rest of the room, and are served.
        assert_eq!((queue.len(), push(&mut queue, 5..8)), (2, 1));
        assert_eq!([(); 3].map(|()| queue.pop()), [Some(5), Some(6), None]);
        queue.restore_kept();
        assert_eq!([(); 3].map(|()| queue.pop()), [Some(2), Some(3), None]);
    }
}
