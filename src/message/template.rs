//! What all messages of one client have in common, put together once: its requests are copied from three stretches of
//! text, and its answers are known by how they begin.

use std::cell::Cell;

use bytes::BytesMut;

use super::encode::escaped;
use super::known::{Counter, KnownTime, append_start};
use super::scan::{OwnAnswer, own_answer, own_request, plain_len};
use super::{DecodeError, MessageId, Priority, Request, ThroughputTest, WallTime, decode_request_text};

/// More than a request takes beside its texts: two numbers, a time and what ends it.
const FIXED_BYTES: usize = 128;

/// The requests of one client.
#[derive(Debug, Clone)]
pub struct RequestTemplate {
    /// Up to the number in the id.
    head: Box<[u8]>,
    /// From behind the content up to the time.
    tail: Box<[u8]>,
    /// From behind the time.
    end: &'static [u8],
    /// The last number.
    number: Counter,
}

impl RequestTemplate {
    /// Of `throughput_test`s.
    #[must_use]
    pub fn throughput_test(client_id: &str, priority: Option<Priority>) -> Self {
        Self::new("throughput_test", client_id, "send_time", priority)
    }

    /// Of `user_message`s.
    #[must_use]
    pub fn user_message(client_id: &str, priority: Option<Priority>) -> Self {
        Self::new("user_message", client_id, "timestamp", priority)
    }

    fn new(kind: &str, client_id: &str, time_key: &str, priority: Option<Priority>) -> Self {
        let mut escaped_id = BytesMut::new();
        escaped(&mut escaped_id, client_id);
        let texts = |texts: &[&[u8]]| texts.concat().into_boxed_slice();
        Self {
            head: texts(&[br#"{"type":""#, kind.as_bytes(), br#"","message_id":""#, &escaped_id, b"-"]),
            tail: texts(&[br#"","client_id":""#, &escaped_id, br#"",""#, time_key.as_bytes(), br#"":"#]),
            end: match priority {
                None => b"}",
                Some(Priority::Normal) => br#","priority":"normal"}"#,
                Some(Priority::High) => br#","priority":"high"}"#,
            },
            number: Counter::at(0),
        }
    }

    /// Appends the client's `n`-th request. Nothing in `content` may need an escape in JSON.
    #[inline]
    pub fn encode(&mut self, out: &mut BytesMut, n: u64, content: &str, time: WallTime) {
        debug_assert_eq!(plain_len(content.as_bytes()), content.len(), "{content:?} needs escapes");
        out.reserve(FIXED_BYTES + self.head.len() + content.len() + self.tail.len());
        self.number.move_to(n);
        out.extend_from_slice(&self.head);
        self.number.append_to(out);
        out.extend_from_slice(br#"","sequence_id":"#);
        self.number.append_to(out);
        out.extend_from_slice(br#","content":""#);
        out.extend_from_slice(content.as_bytes());
        out.extend_from_slice(&self.tail);
        time.encode(out);
        out.extend_from_slice(self.end);
    }
}

/// The `throughput_response`s to one client, as our own server writes them.
#[derive(Debug, Clone)]
pub struct AnswerTemplate {
    /// Up to the number in the id.
    head: Box<[u8]>,
    /// The number that is expected: answers mostly come in order.
    next: Counter,
    /// Answers that come together were mostly given together.
    time: KnownTime,
}

impl AnswerTemplate {
    /// Of the client `client_id`.
    #[must_use]
    pub fn new(client_id: &str) -> Self {
        let mut head = BytesMut::from(&br#"{"type":"throughput_response","message_id":""#[..]);
        escaped(&mut head, client_id);
        head.extend_from_slice(b"-");
        Self { head: head.to_vec().into_boxed_slice(), next: Counter::at(0), time: KnownTime::default() }
    }

    /// Reads such an answer to one of the client's own requests, whose id and sequence agree. `None` where the text is
    /// anything else: then [`decode_response_text`](super::decode_response_text) says what.
    #[inline]
    #[must_use]
    pub fn read(&mut self, text: &str) -> Option<OwnAnswer> {
        own_answer(text, &self.head, &mut self.next, &mut self.time)
    }
}

/// The `throughput_test`s that come over one connection, which mostly are of one client: what they have in common is
/// learned from the first, and compared from then on.
#[derive(Debug, Default)]
pub struct SenderTemplate {
    learned: Option<Box<Learned>>,
    /// How often it was learned anew.
    times: u32,
}

#[derive(Debug)]
pub(super) struct Learned {
    /// Up to the number in the id.
    pub(super) head: Vec<u8>,
    /// From behind the content up to the time.
    pub(super) tail: Vec<u8>,
    /// Where in the head the id begins, and between which places of the tail the client's stands.
    pub(super) id_at: usize,
    pub(super) client_at: (usize, usize),
    pub(super) next: Counter,
    pub(super) time: KnownTime,
}

impl SenderTemplate {
    /// Who speaks for so many clients in turn is read in full each time.
    const MOST_TIMES: u32 = 16;

    /// Reads a request as [`decode_request_text`] does.
    ///
    /// # Errors
    /// As [`decode_request_text`].
    #[inline]
    pub fn decode<'a>(&mut self, text: &'a str) -> Result<Request<'a>, DecodeError> {
        if let Some(test) = self.learned.as_mut().and_then(|learned| own_request(text, learned)) {
            return Ok(Request::ThroughputTest(test));
        }
        let request = decode_request_text(text)?;
        if let Request::ThroughputTest(test) = &request
            && self.times < Self::MOST_TIMES
        {
            self.learn(text, test);
        }
        Ok(request)
    }

    #[cold]
    fn learn(&mut self, text: &str, test: &ThroughputTest<'_>) {
        let Some(MessageId { client_id, n }) = MessageId::parse(&test.message_id) else { return };
        const START: &str = r#"{"type":"throughput_test","message_id":""#;
        const CLIENT: &str = r#","client_id":""#;
        const TIME: &str = r#"","send_time":"#;
        let head = format!("{START}{client_id}-");
        let tail = format!("{CLIENT}{}{TIME}", test.client_id);
        // Anything else is written in another way, or needs escapes.
        let plain = |text: &str| plain_len(text.as_bytes()) == text.len();
        if !text.starts_with(&head) || !text.contains(&tail) || !plain(client_id) || !plain(&test.client_id) {
            return;
        }
        self.times += 1;
        self.learned = Some(Box::new(Learned {
            id_at: START.len(),
            client_at: (CLIENT.len(), tail.len() - TIME.len()),
            head: head.into_bytes(),
            tail: tail.into_bytes(),
            next: Counter::at(n.wrapping_add(1)),
            time: KnownTime::default(),
        }));
    }
}

thread_local! {
    /// The last time that was written, to the microsecond, with its text: the messages of a batch have the same.
    static LAST_TIME: Cell<TimeText> = const { Cell::new(TimeText { micros: u64::MAX, text: [0; 24], len: 0 }) };
}

/// A time as it stands on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeText {
    micros: u64,
    text: [u8; 24],
    len: u8,
}

impl TimeText {
    /// Of so many microseconds since the epoch.
    #[inline]
    pub(super) fn of(micros: u64) -> Self {
        let last = LAST_TIME.get();
        if last.micros == micros {
            return last;
        }
        let new = Self::format(micros);
        LAST_TIME.set(new);
        new
    }

    fn format(micros: u64) -> Self {
        const PER_S: u64 = 1_000_000;
        let mut text = [0; 24];
        let mut seconds = itoa::Buffer::new();
        let seconds = seconds.format(micros / PER_S).as_bytes();
        // A leading 1, over which the point is written, keeps the zeros behind it.
        let mut decimals = itoa::Buffer::new();
        let decimals = decimals.format(PER_S + micros % PER_S).as_bytes();
        let len = seconds.len() + decimals.len();
        if let Some(whole) = text.get_mut(..len) {
            let (before, after) = whole.split_at_mut(seconds.len());
            before.copy_from_slice(seconds);
            after.copy_from_slice(decimals);
            after[0] = b'.';
        }
        Self { micros, text, len: len as u8 }
    }

    #[inline]
    pub(super) fn append_to(&self, out: &mut BytesMut) {
        append_start(out, &self.text, usize::from(self.len));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decode::parse_response;
    use super::super::{
        Response, ThroughputResponse, decode_response_text, encode_throughput_test, encode_user_message,
    };
    use super::*;

    /// One message after the other over one connection, some of them not quite requests: what is learned of those before
    /// makes no difference.
    fn requests() -> impl Strategy<Value = Vec<String>> {
        let client = prop_oneof![4 => Just("run-0-3".to_owned()), 1 => ".{0,4}"];
        let parts = (
            client,
            0_u64..4,
            ".{0,8}",
            prop_oneof![Just(1_790_000_000_123_456_000), any::<u64>()],
            priority(),
        );
        let damage = proptest::option::weighted(0.3, (any::<prop::sample::Index>(), "[0-9,.\"}a-]"));
        let request = (parts, any::<bool>(), damage).prop_map(
            |((client, n, content, at_ns, priority), once, damage)| {
                let (id, time) = (MessageId { client_id: &client, n: n * 9 }, WallTime::from_unix_ns(at_ns));
                let mut out = BytesMut::new();
                let encode = if once { encode_user_message } else { encode_throughput_test };
                encode(&mut out, id, &content, time, priority);
                let mut text = String::from_utf8(out.to_vec()).unwrap();
                if let Some((place, with)) = damage {
                    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
                    let at = *place.get(&places);
                    let end = text[at..].chars().next().map_or(at, |gone| at + gone.len_utf8());
                    text.replace_range(at..end, &with);
                }
                text
            },
        );
        proptest::collection::vec(request, 1..12)
    }

    fn id(client_id: &str, n: u64) -> String {
        MessageId { client_id, n }.to_string()
    }

    fn priority() -> impl Strategy<Value = Option<Priority>> {
        prop_oneof![Just(None), Just(Some(Priority::High)), Just(Some(Priority::Normal))]
    }

    proptest! {
        #[test]
        fn what_a_sender_is_known_for_makes_no_difference(texts in requests()) {
            let mut template = SenderTemplate::default();
            for text in &texts {
                prop_assert_eq!(template.decode(text), decode_request_text(text), "{}", text);
            }
        }

        #[test]
        fn a_templates_requests_are_those_of_the_encoders(
            client in ".{0,12}", n: u64, content in "[A-Za-z0-9 .]{0,40}", at_ns: u64, priority in priority()
        ) {
            let (id, time) = (MessageId { client_id: &client, n }, WallTime::from_unix_ns(at_ns));
            let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
            RequestTemplate::throughput_test(&client, priority).encode(&mut ours, n, &content, time);
            encode_throughput_test(&mut theirs, id, &content, time, priority);
            RequestTemplate::user_message(&client, priority).encode(&mut ours, n, &content, time);
            encode_user_message(&mut theirs, id, &content, time, priority);
            prop_assert_eq!(ours, theirs);
        }

        /// Whatever the template reads, the parser reads the same, also in texts that are almost answers.
        #[test]
        fn the_template_and_the_parser_agree(
            client in "[a-z0-9-]{0,6}|.{0,6}", n: u64, other: Option<u64>, depth: u64, crc: u32, at_ns: u64,
            damage in proptest::option::of((any::<prop::sample::Index>(), "[0-9,.\"}a-]"))
        ) {
            let message_id = id(&client, n);
            let answer = ThroughputResponse {
                message_id: message_id.as_str().into(),
                sequence_id: other.unwrap_or(n),
                server_time: WallTime::from_unix_ns(at_ns),
                queue_depth: depth,
                content_crc32: Some(crc),
            };
            let mut out = BytesMut::new();
            answer.encode(&mut out);
            let mut text = String::from_utf8(out.to_vec()).unwrap();
            if let Some((place, with)) = &damage {
                let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
                let at = *place.get(&places);
                let end = text[at..].chars().next().map_or(at, |gone| at + gone.len_utf8());
                text.replace_range(at..end, with);
            }
            let mut template = AnswerTemplate::new(&client);
            let read = template.read(&text);
            // What was learned of it makes no difference.
            prop_assert_eq!(template.read(&text), read);
            let before = n.checked_sub(1).map_or(text.clone(), |before| text.replace(&n.to_string(), &before.to_string()));
            let _ = template.read(&before);
            prop_assert_eq!(template.read(&text), read);
            if let Some(OwnAnswer { sequence, queue_depth, content_crc32 }) = read {
                let Ok(Response::Throughput(parsed)) = parse_response(&text) else {
                    return Err(TestCaseError::fail(text));
                };
                prop_assert_eq!(&parsed.message_id, &id(&client, sequence));
                prop_assert_eq!(parsed.sequence_id, sequence);
                prop_assert_eq!(parsed.queue_depth, queue_depth);
                prop_assert_eq!(parsed.content_crc32, Some(content_crc32));
                prop_assert!(decode_response_text(&text).is_ok());
            } else if damage.is_none() && other.is_none_or(|other| other == n) {
                // What is not read in this way is beyond what the scanner takes: too many digits.
                let digits = |number: u64| number >= 10_u64.pow(19);
                let time_is_far = at_ns / 1_000_000_000 >= WallTime::EXACT_BELOW_S;
                prop_assert!(digits(n) || digits(depth) || time_is_far, "{text}");
            }
        }
    }
}
