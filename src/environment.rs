//! Where a result was measured: machine, system and versions, so that results are compared only with their like.

use std::thread;

use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// The machine and the versions behind a result. What could not be found out is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The operating system with its version, as it calls itself, such as `Linux (Debian 12)`.
    pub os: Option<String>,
    /// The kernel's version, such as `6.18.44-generic`.
    pub kernel: Option<String>,
    /// The processor's model and architecture.
    pub cpu: Option<String>,
    /// The logical processors that this process may use (affinity and quota counted), not those of the machine.
    pub cores: Option<u64>,
    /// The machine's memory.
    pub memory_bytes: Option<u64>,
    /// What the compiler of this build calls itself.
    pub rustc: Option<String>,
    /// This crate's version.
    pub floodline: String,
    /// The version of tokio; `None` where this crate is a dependency, whose lock file is not the one in force.
    pub tokio: Option<String>,
}

impl Environment {
    /// The environment of this process. Takes milliseconds: once a run, outside what is measured.
    #[must_use]
    pub fn detect() -> Self {
        let wanted = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(wanted).ok();
        let brand = system.as_ref().and_then(|system| system.cpus().first()).map(|cpu| cpu.brand().trim());
        Self {
            os: System::long_os_version().ok(),
            kernel: System::kernel_version().ok(),
            cpu: brand
                .filter(|brand| !brand.is_empty())
                .map(|brand| format!("{brand} ({})", std::env::consts::ARCH)),
            cores: thread::available_parallelism().ok().and_then(|cores| u64::try_from(cores.get()).ok()),
            memory_bytes: system.map(|system| system.total_memory()).filter(|&bytes| bytes > 0),
            rustc: option_env!("BUILT_WITH_RUSTC").map(str::to_owned),
            floodline: env!("CARGO_PKG_VERSION").to_owned(),
            // Cargo sets the first where the package is what it was asked to build, so that the lock file beside it
            // is the one in force.
            tokio: option_env!("CARGO_PRIMARY_PACKAGE")
                .and(option_env!("BUILT_WITH_TOKIO"))
                .map(str::to_owned),
        }
    }

    /// A name for the class of machines whose timings may be compared: 16 hexadecimal digits over operating system,
    /// kernel (major and minor number), processor and cores.
    ///
    /// It is the 64-bit FNV-1a hash (draft-eastlake-fnv), which unlike the standard library's stays the same between
    /// builds. Versions of compiler and crates are left out: comparing those is what baselines are for.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let kernel = self.kernel.as_deref().map(major_minor);
        let cores = self.cores.map(|cores| cores.to_string());
        hashed(&[self.os.as_deref(), kernel, self.cpu.as_deref(), cores.as_deref()])
    }
}

/// A name for this very machine, 16 hexadecimal digits: over what its system was given as it was installed (machine-id(5)),
/// or else over its host name. `None` where neither is known.
///
/// The id itself is confidential by its manual, so it is told only as a hash of half its length.
#[must_use]
pub fn machine_id() -> Option<String> {
    named(std::fs::read_to_string("/etc/machine-id").ok().as_deref(), System::host_name().ok())
}

fn named(installed: Option<&str>, host: Option<String>) -> Option<String> {
    // Before its first start a system may be `uninitialized`, and an image for many has an empty file.
    let id = installed.map(str::trim).filter(|id| !id.is_empty() && *id != "uninitialized");
    match id {
        Some(id) => Some(hashed(&[Some("floodline machine-id"), Some(id)])),
        None => {
            host.filter(|host| !host.is_empty()).map(|host| hashed(&[Some("floodline host"), Some(&host)]))
        }
    }
}

/// The hash of some parts in turn.
fn hashed(parts: &[Option<&str>]) -> String {
    let mut hash = FNV_OFFSET_BASIS;
    for part in parts {
        // 0xff occurs in no UTF-8 text: it keeps neighbours apart, and 0xfe an unknown part from an empty one.
        let bytes = part.map_or(&[0xfe][..], str::as_bytes);
        for &byte in bytes.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
    }
    format!("{hash:016x}")
}

const FNV_OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// `6.18` of `6.18.44-generic`.
fn major_minor(kernel: &str) -> &str {
    let second_end = kernel.match_indices(|c: char| !c.is_ascii_digit()).nth(1);
    second_end.map_or(kernel, |(end, _)| &kernel[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Environment {
        Environment {
            os: Some("Linux (Debian 12)".into()),
            kernel: Some("6.18.44-generic".into()),
            cpu: Some("Example CPU @ 2 GHz (x86_64)".into()),
            cores: Some(2),
            memory_bytes: Some(1 << 33),
            rustc: Some("rustc 1.95.0".into()),
            floodline: "0.1.0".into(),
            tokio: None,
        }
    }

    #[test]
    fn this_machine_is_described() {
        let here = Environment::detect();
        assert!(here.cores.unwrap() >= 1);
        assert!(here.rustc.as_deref().unwrap().starts_with("rustc "), "{here:?}");
        assert_eq!(here.floodline, env!("CARGO_PKG_VERSION"));
        if cfg!(target_os = "linux") {
            assert!(
                here.os.is_some() && here.kernel.is_some() && here.memory_bytes.unwrap() > 1 << 20,
                "{here:?}"
            );
        }
        assert_eq!(here.fingerprint(), Environment::detect().fingerprint());
    }

    /// The lock file beside this crate is in force for its own tests, so the version must be found and be real.
    #[test]
    fn the_locked_tokio_is_named() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
        let tokio = Environment::detect().tokio.unwrap();
        assert!(lock.contains(&format!("name = \"tokio\"\nversion = \"{tokio}\"\n")), "{tokio}");
    }

    #[test]
    fn the_fingerprint_ignores_what_does_not_change_the_machine() {
        let mut other = example();
        other.kernel = Some("6.18.50".into());
        other.rustc = None;
        other.memory_bytes = None;
        assert_eq!(other.fingerprint(), example().fingerprint());
        // Pinned: results stored under a fingerprint must find their like after an upgrade of this crate.
        assert_eq!(example().fingerprint(), "40c69f55eba378b6");
    }

    #[test]
    fn the_fingerprint_changes_with_the_machine() {
        let changes: [fn(&mut Environment); 6] = [
            |e| e.os = Some("Linux (Debian 13)".into()),
            |e| e.kernel = Some("6.19.44-generic".into()),
            |e| e.cpu = None,
            |e| e.cpu = Some(String::new()),
            |e| e.cores = Some(4),
            |e| e.kernel = None,
        ];
        let mut seen = vec![example().fingerprint()];
        for change in changes {
            let mut other = example();
            change(&mut other);
            let fingerprint = other.fingerprint();
            assert!(!seen.contains(&fingerprint), "{other:?}");
            seen.push(fingerprint);
        }
    }

    #[test]
    fn a_machine_is_told_by_its_id_or_else_by_its_host_name() {
        let host = || Some("here".to_owned());
        let by_id = |id| named(Some(id), host()).unwrap();
        assert_eq!(by_id("0123456789abcdef0123456789abcdef\n"), by_id("0123456789abcdef0123456789abcdef"));
        assert_ne!(by_id("0123456789abcdef0123456789abcdef"), by_id("0123456789abcdef0123456789abcdee"));
        assert!(!by_id("0123456789abcdef0123456789abcdef").contains("01234567"));
        for none in [Some(""), Some("\n"), Some("uninitialized\n"), None] {
            assert_eq!(named(none, host()), named(None, host()), "{none:?}");
            assert_ne!(named(none, host()), named(none, Some("there".to_owned())), "{none:?}");
            assert_eq!((named(none, None), named(none, Some(String::new()))), (None, None), "{none:?}");
        }
        assert_eq!(machine_id(), machine_id());
    }

    #[test]
    fn a_kernel_version_is_cut_after_its_second_number() {
        for (full, short) in
            [("6.18.44-generic", "6.18"), ("6.1-rc3", "6.1"), ("24.1.0", "24.1"), ("10", "10"), ("", "")]
        {
            assert_eq!(major_minor(full), short);
        }
    }

    #[test]
    fn it_survives_json() {
        let text = serde_json::to_string(&example()).unwrap();
        assert!(text.contains("\"tokio\":null"), "{text}");
        assert_eq!(serde_json::from_str::<Environment>(&text).unwrap(), example());
    }
}
