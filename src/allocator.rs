//! What the allocator knows and the kernel does not: bytes in use, apart from those it merely keeps.
//!
//! Resident memory blurs a leak, since the allocator holds on to pages for later. These figures are those of glibc's
//! malloc, Rust's default on Linux (`x86_64-unknown-linux-gnu` and its like); elsewhere there are none. A program
//! with a global allocator of its own gets figures that leave out what went through it.

/// Bytes that this process has allocated and not freed, allocator's headers included: `uordblks + hblkhd` of
/// `mallinfo2` (mallinfo(3)), summed over all arenas. `None` where the allocator is not glibc's.
///
/// Freed blocks in a thread's cache count as in use (at most 7 of each of 64 sizes up to 1 KiB a thread, so some
/// 200 KiB); that bounds the blur.
///
/// One call walks the free blocks with each arena locked: 0.2 µs for a heap without holes, 400,000 blocks in use or
/// none, but 16 to 19 ms with 200,000 holes (80 to 95 ns each), in which threads of that arena wait for memory (glibc 2.36, x86-64).
/// So it belongs between phases, or at seconds' distance, not beside a measurement of latency.
#[must_use]
#[allow(unsafe_code, reason = "glibc's statistics have no safe wrapper")]
pub fn live_bytes() -> Option<u64> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `mallinfo2` takes no argument, locks each arena while it reads it (MT-Safe since glibc 2.33, which
        // brought it), and returns a plain struct by value.
        let info = unsafe { libc::mallinfo2() };
        u64::try_from(info.uordblks.saturating_add(info.hblkhd)).ok()
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}

/// Gives free memory back to the system: `malloc_trim(0)` (malloc_trim(3)). True where some was; false where there
/// was none or the allocator is not glibc's.
///
/// Costs as [`live_bytes`] does, and more where it releases pages: 2 µs for a heap without holes, 11 to 19 ms for 200,000 holes.
/// The pages released must be faulted in again when next needed, so it belongs after a load.
#[allow(unsafe_code, reason = "glibc's trim has no safe wrapper")]
pub fn purge() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `malloc_trim` is MT-Safe (malloc_trim(3)), releases only pages of free chunks, and so touches
        // nothing that Rust code can hold a reference to.
        unsafe { libc::malloc_trim(0) != 0 }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::env;
    use std::hint::black_box;
    use std::process::Command;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// The test harness's own allocations stay far below it.
    const SLACK: u64 = MIB / 4;

    /// Runs the test of this module called `name` once more in a process of its own, where no other test allocates.
    /// True in that process, where the test is to do its work.
    fn alone(name: &str) -> bool {
        const MARK: &str = "FLOODLINE_TEST_ALONE";
        if env::var_os(MARK).is_some() {
            return true;
        }
        let output = Command::new(env::current_exe().unwrap())
            .args([&format!("allocator::tests::{name}"), "--exact", "--test-threads=1"])
            .env(MARK, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        false
    }

    #[test]
    fn live_bytes_follow_one_large_allocation() {
        if !alone("live_bytes_follow_one_large_allocation") {
            return;
        }
        let before = live_bytes().unwrap();
        let block = black_box(vec![1_u8; 16 << 20]);
        let held = live_bytes().unwrap();
        drop(block);
        let after = live_bytes().unwrap();
        assert!(held >= before + 16 * MIB, "{before} -> {held}");
        assert!(after <= held - 16 * MIB + SLACK, "{held} -> {after}");
    }

    #[test]
    fn live_bytes_follow_many_small_allocations() {
        if !alone("live_bytes_follow_many_small_allocations") {
            return;
        }
        let before = live_bytes().unwrap();
        let blocks: Vec<_> = (0..16_384).map(|_| black_box(vec![1_u8; 1_024])).collect();
        let held = live_bytes().unwrap();
        drop(blocks);
        let after = live_bytes().unwrap();
        assert!(held >= before + 16 * MIB, "{before} -> {held}");
        assert!(after <= held - 16 * MIB + SLACK, "{held} -> {after}");
    }

    /// After a purge what was freed is no longer resident, although it may be before.
    #[test]
    fn a_purge_returns_what_was_freed() {
        if !alone("a_purge_returns_what_was_freed") {
            return;
        }
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
        };
        let blocks: Vec<_> = (0..32_768).map(|_| black_box(vec![1_u8; 1_024])).collect();
        let held = resident();
        // The last block pins the top of the heap, so that only a purge gives back what lies under it.
        let keep = blocks.into_iter().next_back();
        purge();
        let purged = resident();
        assert!(keep.is_some());
        assert!(purged + 24 * MIB <= held, "{held} -> {purged}");
    }

    #[test]
    #[ignore = "prints what one call costs; run with --ignored --nocapture"]
    fn cost_of_a_call() {
        use std::time::Instant;
        let per_call = |calls: u32, f: &dyn Fn()| {
            let start = Instant::now();
            (0..calls).for_each(|_| f());
            start.elapsed() / calls
        };
        let live = || {
            black_box(live_bytes());
        };
        let trim = || {
            black_box(purge());
        };
        println!("small heap: live_bytes {:?}, purge {:?}", per_call(100, &live), per_call(20, &trim));
        let mut blocks: Vec<_> = (0..400_000_usize).map(|i| Some(vec![1_u8; 64 + i % 2_048])).collect();
        println!("{} MiB in use: live_bytes {:?}", live_bytes().unwrap() / MIB, per_call(20, &live));
        blocks.iter_mut().step_by(2).for_each(|block| *block = None);
        println!("200,000 holes: live_bytes {:?}", per_call(20, &live));
        println!("purge of them, first: {:?}, again: {:?}", per_call(1, &trim), per_call(5, &trim));
    }
}
