//! Reads the exact shape that the encoders write, without a parser: it compares prefixes, reads digits, looks for
//! the next quote. Where anything differs the scan gives up, and `serde_json` decides.

use std::borrow::Cow;

use super::known::{Counter, KnownTime};
use super::template::Learned;
use super::{
    AiResponse, Priority, QueueFull, Request, Response, ThroughputResponse, ThroughputTest, UserMessage,
    WallTime,
};

/// A request in canonical shape; `None` where the text is anything else.
pub(super) fn request(text: &str) -> Option<Request<'_>> {
    let mut scan = Scan { text, at: 0 };
    scan.literal(r#"{"type":""#)?;
    match text.as_bytes().get(scan.at)? {
        b't' => throughput_test(scan).map(Request::ThroughputTest),
        b'u' => user_message(scan).map(Request::UserMessage),
        _ => None,
    }
}

/// A response in canonical shape; `None` where the text is anything else.
pub(super) fn response(text: &str) -> Option<Response<'_>> {
    let mut scan = Scan { text, at: 0 };
    scan.literal(r#"{"type":""#)?;
    match text.as_bytes().get(scan.at)? {
        b't' => throughput_response(scan).map(Response::Throughput),
        b'a' => ai_response(scan).map(Response::Ai),
        b'q' => queue_full(scan).map(Response::QueueFull),
        _ => None,
    }
}

/// How many bytes at the start of `bytes` may stand in a JSON string as they are: no quote, backslash or control.
///
/// Eight bytes at a time, with the zero-byte test of Mycroft ("Bit Twiddling Hacks", "Determine if a word has a
/// zero byte"): a borrow can only mark bytes behind a true hit, so the first mark is always true. (Comparing byte by
/// byte in strides, for the compiler to vectorise, took twice as long.)
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let marks = special_marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return place * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    match bytes.last_chunk::<8>() {
        // The last eight once more, of which the first are known to be plain.
        Some(last) if !rest.is_empty() => match special_marks(u64::from_le_bytes(*last)) {
            0 => bytes.len(),
            marks => bytes.len() - 8 + marks.trailing_zeros() as usize / 8,
        },
        _ => {
            let special = |&byte: &u8| byte == b'"' || byte == b'\\' || byte < 0x20;
            words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
        }
    }
}

/// Marks the top bit of the first byte that is special, and maybe of bytes above it.
fn special_marks(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let zero_marks = |word: u64| word.wrapping_sub(ONES) & !word;
    let control_marks = word.wrapping_sub(ONES * 0x20) & !word;
    let quote_marks = zero_marks(word ^ (ONES * b'"' as u64));
    let backslash_marks = zero_marks(word ^ (ONES * b'\\' as u64));
    (control_marks | quote_marks | backslash_marks) & TOPS
}

/// 10 to the power of up to 8.
const POWERS_OF_TEN: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// The number at the start of eight bytes, the first the lowest, and how many digits it has.
///
/// All at once, as in Lemire's `parse_eight_digits_unrolled` (fast_float): neighbours are put together to pairs, pairs to
/// fours, and those to eight digits.
#[inline]
fn leading_digits(chunk: u64) -> (u64, usize) {
    match count_digits(chunk) {
        0 => (0, 0),
        // Zeros in front, in place of what stands behind.
        digits => (eight_digits((chunk ^ ZEROS) << (64 - 8 * digits)), digits),
    }
}

const ZEROS: u64 = 0x3030_3030_3030_3030;

/// How many of the first of eight bytes are digits.
#[inline]
fn count_digits(chunk: u64) -> usize {
    const HIGHS: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    // A digit has 3 as its high half, also when 6 is added; what overflows into the next byte comes behind the first
    // that is none.
    let others = ((chunk & HIGHS) | ((chunk.wrapping_add(0x0606_0606_0606_0606) & HIGHS) >> 4))
        ^ 0x3333_3333_3333_3333;
    others.trailing_zeros() as usize / 8
}

/// The number of eight digits, given by their values.
#[inline]
fn eight_digits(values: u64) -> u64 {
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8);
    let fours = (pairs & 0xff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let other_fours = ((pairs >> 16) & 0xff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    fours.wrapping_add(other_fours) >> 32
}

/// The numbers in a text of ten digits, the first not 0, a point, and six digits.
#[inline]
fn ten_and_six_digits(text: [u8; 17]) -> Option<(u64, u64)> {
    // Two digits; eight more; a point, which counts as a zero here, and the six.
    let (&[tens, ones], rest) = text.split_first_chunk::<2>()?;
    let (&seconds, &decimals) = (rest.first_chunk::<8>()?, text.last_chunk::<8>()?);
    let [_, point, decimals @ ..] = decimals;
    let values = |digits: [u8; 8]| {
        let chunk = u64::from_le_bytes(digits);
        (count_digits(chunk) == 8).then(|| eight_digits(chunk ^ ZEROS))
    };
    let [a, b, c, d, e, f] = decimals;
    let micros = values([b'0', b'0', a, b, c, d, e, f])?;
    let seconds = values(seconds)?;
    let start = u64::from(tens.wrapping_sub(b'0')) * 10 + u64::from(ones.wrapping_sub(b'0'));
    let sound = point == b'.' && (b'1'..=b'9').contains(&tens) && ones.is_ascii_digit();
    sound.then_some((start * 100_000_000 + seconds, micros))
}

fn throughput_test(mut scan: Scan<'_>) -> Option<ThroughputTest<'_>> {
    scan.literal(r#"throughput_test","message_id":""#)?;
    let message_id = scan.string()?;
    scan.literal(r#","sequence_id":"#)?;
    let sequence_id = scan.integer()?;
    scan.literal(r#","content":""#)?;
    let content = scan.string()?;
    scan.literal(r#","client_id":""#)?;
    let client_id = scan.string()?;
    scan.literal(r#","send_time":"#)?;
    let send_time = scan.time()?;
    let priority = scan.priority_and_end()?;
    Some(ThroughputTest { message_id, sequence_id, content, client_id, send_time, priority })
}

fn user_message(mut scan: Scan<'_>) -> Option<UserMessage<'_>> {
    scan.literal(r#"user_message","message_id":""#)?;
    let message_id = scan.string()?;
    scan.literal(r#","sequence_id":"#)?;
    let sequence_id = Some(scan.integer()?);
    scan.literal(r#","content":""#)?;
    let content = Some(scan.string()?);
    scan.literal(r#","client_id":""#)?;
    let client_id = Some(scan.string()?);
    scan.literal(r#","timestamp":"#)?;
    let timestamp = Some(scan.time()?);
    let priority = scan.priority_and_end()?;
    Some(UserMessage { message_id, sequence_id, client_id, content, priority, timestamp })
}

fn throughput_response(mut scan: Scan<'_>) -> Option<ThroughputResponse<'_>> {
    scan.literal(r#"throughput_response","message_id":""#)?;
    let message_id = scan.string()?;
    scan.literal(r#","sequence_id":"#)?;
    let sequence_id = scan.integer()?;
    scan.literal(r#","server_time":"#)?;
    let server_time = scan.time()?;
    scan.literal(r#","queue_depth":"#)?;
    let queue_depth = scan.integer()?;
    scan.literal(r#","content_crc32":"#)?;
    let content_crc32 = Some(u32::try_from(scan.integer()?).ok()?);
    scan.end()?;
    Some(ThroughputResponse { message_id, sequence_id, server_time, queue_depth, content_crc32 })
}

fn ai_response(mut scan: Scan<'_>) -> Option<AiResponse<'_>> {
    scan.literal(r#"ai_response","message_id":""#)?;
    let message_id = scan.string()?;
    scan.literal(r#","sequence_id":"#)?;
    let sequence_id = Some(scan.integer()?);
    scan.literal(r#","content":""#)?;
    let content = scan.string()?;
    scan.literal(r#","processing_time":"#)?;
    let processing_time_s = scan.float()?;
    scan.literal(r#","server_timestamp":"#)?;
    let server_timestamp = scan.time()?;
    scan.literal(r#","queue_depth":"#)?;
    let queue_depth = scan.integer()?;
    scan.literal(r#","timestamp":"#)?;
    let timestamp = scan.time()?;
    scan.end()?;
    Some(AiResponse {
        message_id,
        sequence_id,
        content,
        processing_time_s,
        server_timestamp,
        queue_depth,
        timestamp,
    })
}

/// The answer to a client's own request, so far as the client looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnAnswer {
    /// Of the request.
    pub sequence: u64,
    /// Messages waiting in the server's queue.
    pub queue_depth: u64,
    /// CRC-32 (IEEE) of the request's content as the server read it.
    pub content_crc32: u32,
}

/// A `throughput_response` in canonical shape that begins with `head`, all up to the number in its id, and has the same
/// number as its sequence.
#[inline]
pub(super) fn own_answer(
    text: &str,
    head: &[u8],
    next: &mut Counter,
    time: &mut KnownTime,
) -> Option<OwnAnswer> {
    if !text.as_bytes().starts_with(head) {
        return None;
    }
    let mut scan = Scan { text, at: head.len() };
    let sequence = scan.expected(next)?;
    scan.literal(r#"","sequence_id":"#)?;
    if scan.expected(next)? != sequence {
        return None;
    }
    scan.literal(r#","server_time":"#)?;
    scan.known_time(time)?;
    scan.literal(r#","queue_depth":"#)?;
    let queue_depth = scan.integer()?;
    scan.literal(r#","content_crc32":"#)?;
    let content_crc32 = u32::try_from(scan.integer()?).ok()?;
    scan.end()?;
    next.move_to(sequence.wrapping_add(1));
    Some(OwnAnswer { sequence, queue_depth, content_crc32 })
}

/// A `throughput_test` in canonical shape, of the client that was learned.
#[inline]
pub(super) fn own_request<'a>(text: &'a str, learned: &mut Learned) -> Option<ThroughputTest<'a>> {
    if !text.as_bytes().starts_with(&learned.head) {
        return None;
    }
    let mut scan = Scan { text, at: learned.head.len() };
    let number = scan.expected(&learned.next)?;
    let message_id = Cow::Borrowed(text.get(learned.id_at..scan.at)?);
    scan.literal(r#"","sequence_id":"#)?;
    let sequence_id = scan.expected(&learned.next)?;
    scan.literal(r#","content":""#)?;
    let content = scan.string()?;
    if !scan.rest().starts_with(&learned.tail) {
        return None;
    }
    let (from, to) = learned.client_at;
    let client_id = Cow::Borrowed(text.get(scan.at + from..scan.at + to)?);
    scan.at += learned.tail.len();
    let send_time = scan.known_time(&mut learned.time)?;
    let priority = scan.priority_and_end()?;
    learned.next.move_to(number.wrapping_add(1));
    Some(ThroughputTest { message_id, sequence_id, content, client_id, send_time, priority })
}

fn queue_full(mut scan: Scan<'_>) -> Option<QueueFull<'_>> {
    scan.literal(r#"queue_full","message_id":""#)?;
    let message_id = scan.string()?;
    scan.literal(r#","sequence_id":"#)?;
    let sequence_id = Some(scan.integer()?);
    scan.literal(r#","queue_depth":"#)?;
    let queue_depth = scan.integer()?;
    scan.literal(r#","max_queue":"#)?;
    let max_queue = scan.integer()?;
    scan.end()?;
    Some(QueueFull { message_id, sequence_id, queue_depth, max_queue })
}

/// A place in a text.
struct Scan<'a> {
    text: &'a str,
    /// How much has been read; only ever behind an ASCII byte.
    at: usize,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn literal(&mut self, literal: &str) -> Option<()> {
        self.rest().starts_with(literal.as_bytes()).then(|| self.at += literal.len())
    }

    /// A string without escapes, behind its opening quote.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at;
        let end = start + plain_len(self.rest());
        self.at = end;
        self.literal("\"")?;
        self.text.get(start..end).map(Cow::Borrowed)
    }

    /// Digits without a leading zero, few enough (19) that they cannot overflow, and how many they are.
    #[inline]
    fn digits(&mut self) -> Option<(u64, usize)> {
        let (mut number, mut len) = (0, 0);
        while let Some(chunk) = self.rest().get(len..).and_then(<[u8]>::first_chunk::<8>) {
            let (value, digits) = leading_digits(u64::from_le_bytes(*chunk));
            if len + digits > 19 {
                return None;
            }
            number = number * POWERS_OF_TEN[digits] + value;
            len += digits;
            if digits < 8 {
                self.at += len;
                return Some((number, len));
            }
        }
        self.digits_one_by_one(number, len)
    }

    /// Goes on where fewer than eight bytes are left.
    fn digits_one_by_one(&mut self, mut number: u64, mut len: usize) -> Option<(u64, usize)> {
        let rest = self.rest().get(len..).unwrap_or_default();
        for digit in rest.iter().map(|byte| byte.wrapping_sub(b'0')).take_while(|&digit| digit < 10) {
            if len == 19 {
                return None;
            }
            number = number * 10 + u64::from(digit);
            len += 1;
        }
        self.at += len;
        Some((number, len))
    }

    #[inline]
    fn integer(&mut self) -> Option<u64> {
        // One digit is the commonest number: nothing waits in a queue.
        if let &[digit @ b'0'..=b'9', b',' | b'}', ..] = self.rest() {
            self.at += 1;
            return Some(u64::from(digit - b'0'));
        }
        let leading_zero = self.rest().first() == Some(&b'0');
        let (number, len) = self.digits()?;
        (len == 1 || len > 1 && !leading_zero).then_some(number)
    }

    /// An integer, which most likely is `next`.
    #[inline]
    fn expected(&mut self, next: &Counter) -> Option<u64> {
        let rest = self.rest();
        match next.starts(rest) {
            Some((number, len)) if !rest.get(len).is_some_and(u8::is_ascii_digit) => {
                self.at += len;
                Some(number)
            }
            _ => self.integer(),
        }
    }

    /// A time, which most likely is that of the last message.
    #[inline]
    fn known_time(&mut self, known: &mut KnownTime) -> Option<WallTime> {
        let rest = self.rest();
        let text = rest.first_chunk::<17>();
        let ends = !rest.get(17).is_some_and(u8::is_ascii_digit);
        if ends && text == Some(&known.text) {
            self.at += known.text.len();
            return Some(known.time);
        }
        let start = self.at;
        let time = self.time()?;
        if let Some(&text) = text
            && self.at - start == text.len()
        {
            *known = KnownTime { text, time };
        }
        Some(time)
    }

    /// Seconds with exactly 6 decimals.
    fn time(&mut self) -> Option<WallTime> {
        // Until the year 2286 the seconds have ten digits.
        if let Some(&text) = self.rest().first_chunk::<17>()
            && let Some((seconds, micros)) = ten_and_six_digits(text)
            && seconds < WallTime::EXACT_BELOW_S
            && !self.rest().get(17).is_some_and(u8::is_ascii_digit)
        {
            self.at += text.len();
            return Some(WallTime::from_unix_ns((seconds * 1_000_000 + micros) * 1_000));
        }
        let seconds = self.integer().filter(|&seconds| seconds < WallTime::EXACT_BELOW_S)?;
        self.literal(".")?;
        let (micros, len) = self.digits()?;
        (len == 6).then(|| WallTime::from_unix_ns((seconds * 1_000_000 + micros) * 1_000))
    }

    /// An unsigned number without an exponent.
    fn float(&mut self) -> Option<f64> {
        let start = self.at;
        self.integer()?;
        if self.literal(".").is_some() {
            self.digits().filter(|&(_, len)| len > 0)?;
        }
        self.text.get(start..self.at)?.parse().ok()
    }

    fn priority_and_end(&mut self) -> Option<Option<Priority>> {
        if self.rest() == b"}" {
            return Some(None);
        }
        self.literal(r#","priority":""#)?;
        match self.rest() {
            br#"high"}"# => Some(Some(Priority::High)),
            br#"normal"}"# => Some(Some(Priority::Normal)),
            _ => None,
        }
    }

    fn end(&self) -> Option<()> {
        (self.rest() == b"}").then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digits_are_read_as_the_standard_library_reads_them(text in "[0-9]{0,22}[^0-9]{0,9}[0-9]{0,4}") {
            let len = text.bytes().take_while(u8::is_ascii_digit).count();
            let mut scan = Scan { text: &text, at: 0 };
            let expected = match len {
                0 => Some((0, 0)),
                len if len > 19 => None,
                len => Some((text[..len].parse().unwrap(), len)),
            };
            prop_assert_eq!(scan.digits(), expected);
            prop_assert_eq!(scan.at, expected.map_or(0, |(_, len)| len));
        }

        #[test]
        fn leading_digits_are_found_in_any_bytes(bytes: [u8; 8], digits in 0..=8_usize, number: u64) {
            let mut bytes = bytes;
            let text = format!("{:08}", number % 100_000_000);
            bytes[..digits].copy_from_slice(&text.as_bytes()[..digits]);
            let len = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let value = std::str::from_utf8(&bytes[..len]).unwrap().parse().unwrap_or(0);
            prop_assert_eq!(leading_digits(u64::from_le_bytes(bytes)), (value, len));
        }

        #[test]
        fn plain_bytes_are_counted(bytes in proptest::collection::vec(
            prop_oneof![20 => 0x20..0x7f_u8, 1 => any::<u8>()], 0..40,
        )) {
            let special = |&byte: &u8| byte == b'"' || byte == b'\\' || byte < 0x20;
            let expected = bytes.iter().position(special).unwrap_or(bytes.len());
            prop_assert_eq!(plain_len(&bytes), expected);
        }
    }
}
