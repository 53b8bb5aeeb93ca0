//! Server and client on cores of their own.
//!
//! Where the scheduler may put both on one core, or on two, it does now this and now that: on two cores the median latency
//! of one and the same build was 60 or 155 µs from run to run, and its CPU time a message 9 or 25 µs. That is no property
//! of a build, and hides every one.

/// Halves of the cores that this thread may use. Given back when dropped.
#[derive(Debug)]
pub(super) struct Halves(Option<platform::Sets>);

impl Halves {
    /// Of the cores that there are; where there is one only, or the system cannot bind threads, nothing is bound.
    pub(super) fn of_this_thread() -> Self {
        Self(platform::Sets::halves())
    }

    /// Whether there are two.
    #[cfg(all(test, target_os = "linux"))]
    fn are_there(&self) -> bool {
        self.0.is_some()
    }

    /// From now on, what this thread starts runs on the server's half.
    pub(super) fn start_server(&self) {
        if let Some(sets) = &self.0 {
            sets.use_server();
        }
    }

    /// From now on, what this thread starts runs on the client's half, as it does itself.
    pub(super) fn start_client(&self) {
        if let Some(sets) = &self.0 {
            sets.use_client();
        }
    }
}

#[cfg(target_os = "linux")]
mod platform {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;

    #[derive(Debug)]
    pub(super) struct Sets {
        all: CpuSet,
        server: CpuSet,
        client: CpuSet,
    }

    /// The calling thread.
    const THIS: Pid = Pid::from_raw(0);

    impl Sets {
        pub(super) fn halves() -> Option<Self> {
            let all = sched_getaffinity(THIS).ok()?;
            let cores: Vec<usize> =
                (0..CpuSet::count()).filter(|&core| all.is_set(core).unwrap_or(false)).collect();
            if cores.len() < 2 {
                return None;
            }
            let (first, second) = cores.split_at(cores.len() / 2);
            let of = |cores: &[usize]| {
                let mut set = CpuSet::new();
                cores.iter().try_for_each(|&core| set.set(core)).ok().map(|()| set)
            };
            let (server, client) = (of(first)?, of(second)?);
            let sets = Self { all, server, client };
            // Where it is not allowed, nothing is bound at all.
            sched_setaffinity(THIS, &sets.client).ok()?;
            Some(sets)
        }

        pub(super) fn use_server(&self) {
            let _ = sched_setaffinity(THIS, &self.server);
        }

        pub(super) fn use_client(&self) {
            let _ = sched_setaffinity(THIS, &self.client);
        }
    }

    impl Drop for Sets {
        fn drop(&mut self) {
            let _ = sched_setaffinity(THIS, &self.all);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    #[derive(Debug)]
    pub(super) struct Sets;

    impl Sets {
        pub(super) fn halves() -> Option<Self> {
            None
        }

        pub(super) fn use_server(&self) {}

        pub(super) fn use_client(&self) {}
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;

    use super::*;

    fn cores() -> usize {
        thread::available_parallelism().map_or(1, usize::from)
    }

    #[test]
    fn each_side_has_its_half_and_all_is_given_back() {
        // A thread of its own: tests share theirs.
        let seen = thread::spawn(|| {
            let before = cores();
            let halves = Halves::of_this_thread();
            halves.start_server();
            let of_server = thread::spawn(cores).join();
            halves.start_client();
            let of_client = thread::spawn(cores).join();
            let there = halves.are_there();
            drop(halves);
            (before, of_server.unwrap(), of_client.unwrap(), there, cores())
        });
        let (before, of_server, of_client, there, after) = seen.join().unwrap();
        assert_eq!(before, after);
        if there {
            assert_eq!((of_server, of_server + of_client), (before / 2, before));
        } else {
            assert_eq!((of_server, of_client), (before, before));
        }
    }
}
