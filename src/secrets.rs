//! What must not be shown: a password, a token, whatever came from the environment or a file to be told to a server. A
//! server may say it back, so what it says is looked through before anybody sees it.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

/// What stands in the place of a secret.
pub const HIDDEN: &str = "[secret]";

/// So much of a peer's message goes into an error.
const EXCERPT_BYTES: usize = 200;

/// Texts that are not to be shown. Clones know the same ones, also those that one of them learns later; printing it shows
/// none.
///
/// A secret is found however it is written: as it is, escaped as in JSON, in a URL, in a STOMP header or by Rust, in whole or
/// in part. One that is encoded in another way (base64, a digest) is not, nor one that comes in pieces.
///
/// ```
/// use floodline::secrets::Secrets;
///
/// let secrets = Secrets::of(["pä/ss"]);
/// let said = r#"no user has "pä/ss", "p\u00e4\/ss" or p%C3%A4%2Fss"#;
/// assert_eq!(secrets.excerpt(said), r#"no user has "[secret]", "[secret]" or [secret]"#);
/// ```
#[derive(Clone)]
pub struct Secrets(Vec<Arc<RwLock<BTreeSet<String>>>>);

impl Default for Secrets {
    /// None yet.
    fn default() -> Self {
        Self(vec![Arc::default()])
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Secrets {
    /// These; an empty text is none.
    #[must_use]
    pub fn of<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Self {
        let secrets = Self::default();
        texts.into_iter().for_each(|text| secrets.learn(text.as_ref()));
        secrets
    }

    /// One more.
    pub fn learn(&self, text: &str) {
        if let (Some(own), false) = (self.0.first(), text.is_empty()) {
            own.write().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned());
        }
    }

    /// Those of both, also what either learns later.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        // Nobody reads the same ones twice: a writer who waits in between would wait for ever.
        let known = |set: &Arc<_>| self.0.iter().any(|own| Arc::ptr_eq(own, set));
        let new: Vec<_> = other.0.into_iter().filter(|set| !known(set)).collect();
        self.0.extend(new);
        self
    }

    /// What somebody said with [`HIDDEN`] for each secret, up to `most` bytes, and whether there was more. No character of
    /// a text is cut in two.
    #[must_use]
    pub fn hide(&self, said: &[u8], most: usize) -> (Vec<u8>, bool) {
        let known: Vec<_> =
            self.0.iter().map(|set| set.read().unwrap_or_else(PoisonError::into_inner)).collect();
        let (mut shown, mut rest) = (Vec::new(), said);
        while !rest.is_empty() {
            let secret = known.iter().filter_map(|secrets| longest(secrets, rest)).max();
            let taken = secret.or_else(|| literal(rest).map(|(_, bytes)| bytes)).unwrap_or(1);
            let (piece, behind) = rest.split_at(taken);
            let piece = if secret.is_some() { HIDDEN.as_bytes() } else { piece };
            if shown.len() + piece.len() > most {
                return (shown, true);
            }
            shown.extend_from_slice(piece);
            rest = behind;
        }
        (shown, false)
    }

    /// The same of a text for an error: on one line, cut short where it is long.
    #[must_use]
    pub fn excerpt(&self, said: &str) -> String {
        let (shown, cut) = self.hide(said.as_bytes(), EXCERPT_BYTES);
        let text = String::from_utf8_lossy(&shown).replace(char::is_control, " ");
        format!("{text}{}", if cut { "…" } else { "" })
    }
}

/// How many bytes of `text`, from its beginning, are one of the secrets: the most where there are several.
fn longest(secrets: &BTreeSet<String>, text: &[u8]) -> Option<usize> {
    let mut found = None;
    // What has been read, and how many bytes that took: a backslash may begin an escape, or be one.
    let mut readings = BTreeSet::from([(String::new(), 0)]);
    while !secrets.is_empty() && !readings.is_empty() {
        let mut longer = BTreeSet::new();
        for (read, taken) in readings {
            for (letter, bytes) in letters(text.get(taken..).unwrap_or_default()) {
                let read = format!("{read}{letter}");
                let from = (Bound::Included(&*read), Bound::<&str>::Unbounded);
                let Some(next) = secrets.range::<str, _>(from).next() else { continue };
                if *next == read {
                    found = found.max(Some(taken + bytes));
                }
                if next.starts_with(&read) {
                    longer.insert((read, taken + bytes));
                }
            }
        }
        readings = longer;
    }
    found
}

/// What the first character of a text may be, in all the ways in which it can be written, and how many bytes it takes.
fn letters(text: &[u8]) -> impl Iterator<Item = (char, usize)> {
    let space = text.starts_with(b"+").then_some((' ', 1));
    let coded = coded(text, b"%").or_else(|| coded(text, b"\\x"));
    [literal(text), escaped(text), coded, space].into_iter().flatten()
}

fn literal(text: &[u8]) -> Option<(char, usize)> {
    // No character takes more than four bytes.
    let reach = text.get(..text.len().min(4))?;
    let letter = reach.utf8_chunks().next()?.valid().chars().next()?;
    Some((letter, letter.len_utf8()))
}

/// Behind a backslash: JSON's escapes, STOMP's (1.2, "Value Encoding"), Rust's.
fn escaped(text: &[u8]) -> Option<(char, usize)> {
    let behind = text.strip_prefix(b"\\")?;
    match behind.first()? {
        b'u' => utf16(text).or_else(|| braced(text)),
        b'n' => Some(('\n', 2)),
        b'r' => Some(('\r', 2)),
        b't' => Some(('\t', 2)),
        b'c' => Some((':', 2)),
        _ => literal(behind).map(|(letter, bytes)| (letter, 1 + bytes)),
    }
}

/// `\u00e4`, or two of these where a character takes two (RFC 8259, section 7).
fn utf16(text: &[u8]) -> Option<(char, usize)> {
    let unit = |text: &[u8]| hex(text.strip_prefix(b"\\u")?.get(..4)?);
    let units = [text.get(..6)?, text.get(6..12).unwrap_or_default()].map(unit);
    let units = units.into_iter().map_while(|unit| u16::try_from(unit?).ok());
    let letter = char::decode_utf16(units).next()?.ok()?;
    Some((letter, 6 * letter.len_utf16()))
}

/// `\u{e4}`.
fn braced(text: &[u8]) -> Option<(char, usize)> {
    let digits = text.strip_prefix(b"\\u{")?;
    let end = digits.iter().take(7).position(|&byte| byte == b'}')?;
    Some((char::from_u32(hex(digits.get(..end)?)?)?, end + 4))
}

/// A character of which each byte is written as `mark` and two hexadecimal digits.
fn coded(text: &[u8], mark: &[u8]) -> Option<(char, usize)> {
    let byte_bytes = mark.len() + 2;
    let byte =
        |coded: &[u8]| u8::try_from(hex(coded.strip_prefix(mark).filter(|digits| digits.len() == 2)?)?).ok();
    let bytes: Vec<u8> = text.chunks(byte_bytes).take(4).map_while(byte).collect();
    literal(&bytes).map(|(letter, bytes)| (letter, bytes * byte_bytes))
}

fn hex(digits: &[u8]) -> Option<u32> {
    let digits =
        std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    u32::from_str_radix(digits?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A character in one of the ways in which servers write it.
    fn written(letter: char, way: usize) -> String {
        let mut bytes = [0; 4];
        let utf8 = letter.encode_utf8(&mut bytes).as_bytes();
        let utf16 =
            |hex: fn(u16) -> String| letter.encode_utf16(&mut [0; 2]).iter().map(|&unit| hex(unit)).collect();
        match (way, letter) {
            (1, _) => utf16(|unit| format!("\\u{unit:04x}")),
            (2, _) => utf16(|unit| format!("\\u{unit:04X}")),
            (3, _) => utf8.iter().map(|byte| format!("%{byte:02X}")).collect(),
            (4, _) => utf8.iter().map(|byte| format!("\\x{byte:02x}")).collect(),
            (5, _) => format!("\\u{{{:x}}}", u32::from(letter)),
            (6, '"' | '\\' | '/' | '\'') => format!("\\{letter}"),
            (6, ':') => "\\c".to_owned(),
            (6, ' ') => "+".to_owned(),
            _ => letter.to_string(),
        }
    }

    proptest! {
        #[test]
        fn a_secret_is_found_however_it_is_written(
            secret in prop::collection::vec((prop::char::any(), 0..7usize), 1..12),
            around in "[01 ]{0,20}",
        ) {
            let plain: String = secret.iter().map(|(letter, _)| letter).collect();
            // Else there would be more than one right answer.
            prop_assume!(plain.chars().all(|letter| !around.contains(letter)));
            let said: String = secret.iter().map(|&(letter, way)| written(letter, way)).collect();
            let said = format!("{around}{said}{around}{plain}{around}");
            let (shown, cut) = Secrets::of([&plain]).hide(said.as_bytes(), usize::MAX);
            let expected = format!("{around}{HIDDEN}{around}{HIDDEN}{around}");
            prop_assert_eq!((String::from_utf8(shown).unwrap(), cut), (expected, false));
        }

        /// Against replacing by hand, from the left, the longest first.
        #[test]
        fn plain_texts_are_replaced_from_the_left_the_longest_first(
            secrets in prop::collection::vec("[ab]{0,4}", 0..4),
            said in "[abc]{0,30}",
            most in 0..40usize,
        ) {
            let mut longest_first: Vec<&String> = secrets.iter().filter(|secret| !secret.is_empty()).collect();
            longest_first.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
            let (mut expected, mut rest, mut cut) = (String::new(), &*said, false);
            while let Some(letter) = rest.get(..1) {
                let found = longest_first.iter().find(|secret| rest.starts_with(&***secret));
                let (piece, taken) = found.map_or((letter, 1), |secret| (HIDDEN, secret.len()));
                if expected.len() + piece.len() > most {
                    cut = true;
                    break;
                }
                expected += piece;
                rest = &rest[taken..];
            }
            let (half, other) = secrets.split_at(secrets.len() / 2);
            let known = Secrets::of(half).and(Secrets::of(other));
            prop_assert_eq!(known.hide(said.as_bytes(), most), (expected.into_bytes(), cut));
        }

        #[test]
        fn whatever_bytes_come_nothing_panics_and_a_text_stays_one(
            said in prop::collection::vec(prop::sample::select(&b"\\u{}%+xcn0dD8eE4\xc3\xa4\"ab"[..]), 0..60),
            secrets in prop::collection::vec("[\\\\%a-c0-9ä\"]{1,4}", 0..4),
            most in 0..80usize,
        ) {
            let (shown, _) = Secrets::of(&secrets).hide(&said, most);
            prop_assert!(shown.len() <= most);
            prop_assert!(std::str::from_utf8(&said).is_err() || std::str::from_utf8(&shown).is_ok());
        }
    }

    #[test]
    fn what_is_learnt_later_is_hidden_too_and_printing_shows_nothing() {
        let (own, other) = (Secrets::default(), Secrets::of(["s3cret"]));
        let both = own.clone().and(other);
        own.learn("t0ken");
        own.learn("");
        assert_eq!(both.excerpt("s3cret, t0ken\nand s3cret-2"), "[secret], [secret] and [secret]-2");
        assert!(!format!("{both:?}").contains("s3cret"));
    }

    #[test]
    fn a_secret_that_a_cut_would_leave_half_of_is_hidden_whole() {
        let secrets = Secrets::of(["0123456789"]);
        let text = format!("{}0123456789", "ä".repeat(97));
        assert_eq!(secrets.excerpt(&text), format!("{}…", "ä".repeat(97)));
        assert_eq!(secrets.excerpt(&text[4..]), format!("{}[secret]", "ä".repeat(95)));
        assert_eq!(secrets.excerpt(&"0123456789".repeat(30)), format!("{}…", HIDDEN.repeat(25)));
    }
}
