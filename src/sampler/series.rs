//! A series that holds a run of any length in bounded memory.

/// Points taken at equal steps, at most [`Thinning::capacity`] of them: when full, every second one is dropped, and
/// from then on they are to be taken half as often.
///
/// The points dropped are those between the kept, so counters that only add up lose resolution and nothing else: the
/// difference of two neighbours is then the sum over both intervals.
#[derive(Debug)]
pub(super) struct Thinning<T> {
    points: Vec<T>,
    capacity: usize,
}

impl<T> Thinning<T> {
    /// An empty series of at most `capacity` points, rounded up to an even number and 2 at least.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { points: Vec::new(), capacity: capacity.next_multiple_of(2).max(2) }
    }

    /// Adds a point. Returns true where the series had to be halved, so that the step doubles.
    #[must_use]
    pub(super) fn push(&mut self, point: T) -> bool {
        let full = self.points.len() >= self.capacity;
        if full {
            // The capacity is even: the last point goes too, and the new one is two old steps after the last kept.
            let mut keep = [true, false].into_iter().cycle();
            self.points.retain(|_| keep.next().unwrap_or(true));
        }
        self.points.push(point);
        full
    }

    /// The points, oldest first.
    pub(super) fn points(&self) -> &[T] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the definition: a producer that obeys the step leaves exactly the multiples of the step.
        #[test]
        fn what_is_kept_is_every_step_th_point(capacity in 0_usize..40, length in 0_u64..2_000) {
            let mut series = Thinning::with_capacity(capacity);
            let (mut step, mut due) = (1, 0);
            for now in 0..length {
                if now == due {
                    if series.push(now) {
                        step *= 2;
                    }
                    due += step;
                }
            }
            let oracle: Vec<u64> = (0..length).filter(|n| n % step == 0).collect();
            prop_assert_eq!(series.points(), &oracle[..]);
            prop_assert!(series.points().len() <= (capacity + 1).max(2));
            // Never thinner than it must be: half full at least once it was full.
            prop_assert!(step == 1 || series.points().len() > capacity / 2);
        }
    }
}
