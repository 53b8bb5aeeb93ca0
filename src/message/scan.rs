//! Reads the exact shape that the encoders write, without a parser: it compares prefixes, reads digits, looks for
//! the next quote. Where anything differs the scan gives up, and `serde_json` decides.

use std::borrow::Cow;

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
    let special = |&byte: &u8| byte == b'"' || byte == b'\\' || byte < 0x20;
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
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
    fn digits(&mut self) -> Option<(u64, usize)> {
        let mut number = 0;
        let mut len = 0;
        for digit in self.rest().iter().map(|byte| byte.wrapping_sub(b'0')).take_while(|&digit| digit < 10) {
            if len == 19 {
                return None;
            }
            number = number * 10 + u64::from(digit);
            len += 1;
        }
        self.at += len;
        Some((number, len))
    }

    fn integer(&mut self) -> Option<u64> {
        let leading_zero = self.rest().first() == Some(&b'0');
        let (number, len) = self.digits()?;
        (len == 1 || len > 1 && !leading_zero).then_some(number)
    }

    /// Seconds with exactly 6 decimals.
    fn time(&mut self) -> Option<WallTime> {
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
