//! What our own server lets in where a case asks for it, and what somebody brings who wants to get in.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::client::{Token, Tokens};
use crate::clock::unix_now_ns;

/// What somebody brings who wants to get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer {
    /// Nothing.
    Nothing,
    /// A token that nobody knows.
    Wrong,
    /// One that was good once.
    Expired,
    /// One that is still good, and soon is not.
    Expiring,
}

/// What a plan wants of our own server's door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locks {
    /// Among how many identities the connections are dealt.
    pub identities: u32,
    /// For how long the token that expires is good.
    pub good_for: Duration,
}

/// The tokens of our own server, made for one plan.
#[derive(Debug)]
pub(super) struct Keys {
    known: Vec<String>,
    expired: String,
    expiring: String,
    good_for: Duration,
}

impl Keys {
    /// New ones.
    pub(super) fn cut(locks: Locks) -> Self {
        // They guard a server on loopback for as long as a case lasts: they must differ, not be hard to guess.
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(unix_now_ns() ^ u64::from(std::process::id()));
        let mut token = || format!("{:016x}{:016x}", rng.random::<u64>(), rng.random::<u64>());
        Self {
            known: (0..locks.identities).map(|_| token()).collect(),
            expired: token(),
            expiring: token(),
            good_for: locks.good_for,
        }
    }

    /// Writes them as `floodline serve --tokens` reads them.
    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text = String::new();
        for (n, token) in self.known.iter().enumerate() {
            let _ = writeln!(text, "{token} identity-{n}");
        }
        let _ = writeln!(text, "{} expired 0s", self.expired);
        let _ = writeln!(text, "{} expiring {}ns", self.expiring, self.good_for.as_nanos());
        std::fs::write(path, text)
    }

    /// Those of who may come in and stay.
    pub(super) fn known(&self) -> Tokens {
        Tokens::of(self.known.iter().map(Token::new))
    }
}

impl Bearer {
    /// What is brought, to our own server by its `keys`.
    ///
    /// # Errors
    /// Why there is no such thing for another server.
    pub(super) fn tokens(self, keys: Option<&Keys>) -> Result<Tokens, &'static str> {
        let ours = "only our own server is given tokens that expire";
        Ok(match self {
            Self::Nothing => Tokens::default(),
            Self::Wrong => Tokens::of([Token::new(format!("wrong-{:x}", unix_now_ns()))]),
            Self::Expired => Tokens::of([Token::new(&keys.ok_or(ours)?.expired)]),
            Self::Expiring => Tokens::of([Token::new(&keys.ok_or(ours)?.expiring)]),
        })
    }
}
