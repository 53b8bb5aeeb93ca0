use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

fn encoded(encode: impl FnOnce(&mut BytesMut)) -> String {
    let mut out = BytesMut::new();
    encode(&mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

/// A time that can be told exactly on the wire.
fn time() -> impl Strategy<Value = WallTime> {
    (0..(1_u64 << 32) * 1_000_000).prop_map(|micros| WallTime::from_unix_ns(micros * 1_000))
}

fn priority() -> impl Strategy<Value = Option<Priority>> {
    prop_oneof![Just(None), Just(Some(Priority::High)), Just(Some(Priority::Normal))]
}

/// Texts that need no escape, that need one, and any.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9-]{0,80}", "[\"\\\\\u{0}-\u{1f}a-zé]{0,40}", any::<String>()]
}

/// Any canonical message, of either direction.
fn canonical() -> impl Strategy<Value = String> {
    (0..9_u8, text(), any::<u64>(), text(), time(), priority(), any::<u32>()).prop_map(
        |(kind, name, n, content, time, priority, small)| {
            let id = MessageId { client_id: &name, n };
            let message_id: Cow<str> = Cow::Owned(id.to_string());
            let (content, queue_depth) = (content.as_str(), u64::from(small));
            encoded(|out| match kind {
                0 => encode_throughput_test(out, id, content, time, priority),
                1 => encode_user_message(out, id, content, time, priority),
                2 => encode_latency_probe(out, id, time),
                3 => ThroughputResponse {
                    message_id,
                    sequence_id: n,
                    server_time: time,
                    queue_depth,
                    content_crc32: Some(small),
                }
                .encode(out),
                4 => AiResponse {
                    message_id,
                    sequence_id: Some(n),
                    content: content.into(),
                    processing_time_s: f64::from(small) / 1e6,
                    server_timestamp: time,
                    queue_depth,
                    timestamp: time,
                }
                .encode(out),
                5 => QueueFull { message_id, sequence_id: Some(n), queue_depth, max_queue: n }.encode(out),
                6 => DuplicateRejected { message_id, original_timestamp: time, timestamp: time }.encode(out),
                7 => encode_stats_request(out),
                _ => encode_purge(out),
            })
        },
    )
}

proptest! {
    #[test]
    fn requests_round_trip(name in text(), n: u64, content in text(), time in time(), priority in priority()) {
        let id = MessageId { client_id: &name, n };
        let message_id: Cow<str> = Cow::Owned(id.to_string());
        let (content, client_id) = (Cow::Borrowed(content.as_str()), Cow::Borrowed(name.as_str()));
        let text = encoded(|out| encode_throughput_test(out, id, &content, time, priority));
        prop_assert_eq!(decode_request(text.as_bytes()), Ok(Request::ThroughputTest(ThroughputTest {
            message_id: message_id.clone(), sequence_id: n, content: content.clone(),
            client_id: client_id.clone(), send_time: time, priority,
        })));
        let text = encoded(|out| encode_user_message(out, id, &content, time, priority));
        prop_assert_eq!(decode_request(text.as_bytes()), Ok(Request::UserMessage(UserMessage {
            message_id: message_id.clone(), sequence_id: Some(n), client_id: Some(client_id),
            content: Some(content), priority, timestamp: Some(time),
        })));
        let text = encoded(|out| encode_latency_probe(out, id, time));
        prop_assert_eq!(decode_request(text.as_bytes()), Ok(Request::LatencyProbe(LatencyProbe {
            message_id, send_time: time,
        })));
    }

    #[test]
    fn responses_round_trip(
        id in text(), n: u64, content in text(), at in time(), depth: u64, crc: Option<u32>, sequence_id: Option<u64>,
        seconds in 0.0..1e6_f64, present: bool,
    ) {
        let message_id = Cow::Borrowed(id.as_str());
        let content = Cow::Borrowed(content.as_str());
        let throughput = ThroughputResponse {
            message_id: message_id.clone(), sequence_id: n, server_time: at, queue_depth: depth, content_crc32: crc,
        };
        let text = encoded(|out| throughput.encode(out));
        prop_assert_eq!(decode_response(text.as_bytes()), Ok(Response::Throughput(throughput)));
        let latency = LatencyResponse {
            message_id: message_id.clone(), client_send_time: at, server_receive_time: at, server_send_time: at,
            queue_depth: depth,
        };
        let text = encoded(|out| latency.encode(out));
        prop_assert_eq!(decode_response(text.as_bytes()), Ok(Response::Latency(latency)));
        let ai = AiResponse {
            message_id: message_id.clone(), sequence_id, content: content.clone(), processing_time_s: seconds,
            server_timestamp: at, queue_depth: depth, timestamp: at,
        };
        let text = encoded(|out| ai.encode(out));
        prop_assert_eq!(decode_response(text.as_bytes()), Ok(Response::Ai(ai)));
        let duplicate = DuplicateRejected { message_id: message_id.clone(), original_timestamp: at, timestamp: at };
        let text = encoded(|out| duplicate.encode(out));
        prop_assert_eq!(decode_response(text.as_bytes()), Ok(Response::DuplicateRejected(duplicate)));
        let signal = Backpressure { message: content.clone(), queue_depth: depth, max_queue: n, timestamp: at };
        let text = encoded(|out| signal.encode(out));
        prop_assert_eq!(decode_response(text.as_bytes()), Ok(Response::Backpressure(signal)));
        let full = QueueFull { message_id: message_id.clone(), sequence_id, queue_depth: depth, max_queue: n };
        let text = encoded(|out| full.encode(out));
        prop_assert_eq!(decode_response(text.as_bytes()), Ok(Response::QueueFull(full)));
        let generic = GenericResponse { message_id: present.then_some(message_id), timestamp: at };
        let text = encoded(|out| generic.encode(out, r#"[{"a":1}]"#));
        prop_assert_eq!(decode_response(text.as_bytes()), Ok(Response::Generic(generic)));
        let error = ErrorResponse { message: content, timestamp: at };
        let text = encoded(|out| error.encode(out));
        prop_assert_eq!(decode_response(text.as_bytes()), Ok(Response::Error(error)));
        let stats = PerformanceStats {
            uptime_s: seconds, message_count: n, connection_count: depth, memory_usage_mb: present.then_some(seconds),
            messages_per_second: seconds, timestamp: at, received: sequence_id, live_bytes: present.then_some(n),
            ..PerformanceStats::default()
        };
        let text = encoded(|out| stats.encode(out));
        prop_assert_eq!(decode_response(text.as_bytes()), Ok(Response::PerformanceStats(Box::new(stats))));
    }

    #[test]
    fn what_is_encoded_is_what_serde_json_would_write(content in text()) {
        let text = encoded(|out| ErrorResponse { message: Cow::Borrowed(&content), timestamp: WallTime::default() }
            .encode(out));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(value["message"].as_str(), Some(content.as_str()));
    }

    /// The scanner may give up, but where it reads a text it reads what the parser reads.
    #[test]
    fn the_scanner_and_the_parser_agree(text in canonical(), place: prop::sample::Index, insert in ".{0,3}", cut in 0..3_usize) {
        let at = (0..=place.index(text.len() + 1)).rev().find(|&at| text.is_char_boundary(at)).unwrap();
        let end = (at + cut..=text.len()).find(|&end| text.is_char_boundary(end)).unwrap_or(text.len());
        let mutated = format!("{}{insert}{}", &text[..at], &text[end..]);
        for text in [text.as_str(), &mutated] {
            if let Some(request) = scan::request(text) {
                prop_assert_eq!(decode::parse_request(text), Ok(request));
            }
            if let Some(response) = scan::response(text) {
                prop_assert_eq!(decode::parse_response(text), Ok(response));
            }
        }
    }

    #[test]
    fn no_bytes_can_break_the_decoders(bytes: Vec<u8>, text in canonical(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let _ = decode_request(&bytes);
        let _ = decode_response(&bytes);
        let mut mutated = text.into_bytes();
        for (place, byte) in flips {
            let place = place.index(mutated.len());
            mutated[place] = byte;
        }
        let _ = decode_request(&mutated);
        let _ = decode_response(&mutated);
    }

    #[test]
    fn ids_parse_as_they_are_written(client_id: String, n: u64) {
        let id = MessageId { client_id: &client_id, n };
        let text = id.to_string();
        prop_assert_eq!(MessageId::parse(&text), Some(id));
    }

    #[test]
    fn a_parsed_id_is_written_as_it_was(text in "[a-z0-9+-]{0,8}") {
        if let Some(id) = MessageId::parse(&text) {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn plain_texts_end_where_a_byte_by_byte_search_says(bytes: Vec<u8>, filler in 0..40_usize) {
        let mut all = vec![b'x'; filler];
        all.extend(bytes);
        let special = |&byte: &u8| byte == b'"' || byte == b'\\' || byte < 0x20;
        prop_assert_eq!(scan::plain_len(&all), all.iter().position(special).unwrap_or(all.len()));
    }
}

#[test]
fn the_scanner_reads_what_the_encoders_write() {
    let id = MessageId { client_id: "run-0-1", n: 7 };
    let at = WallTime::from_unix_ns(1_700_000_000_123_456_789);
    for priority in [None, Some(Priority::High), Some(Priority::Normal)] {
        assert!(
            scan::request(&encoded(|out| encode_throughput_test(out, id, "abc", at, priority))).is_some()
        );
        assert!(scan::request(&encoded(|out| encode_user_message(out, id, "abc", at, priority))).is_some());
    }
    let answer = ThroughputResponse {
        message_id: "run-0-1-7".into(),
        sequence_id: 7,
        server_time: at,
        queue_depth: 0,
        content_crc32: Some(u32::MAX),
    };
    let text = encoded(|out| answer.encode(out));
    assert_eq!(
        text,
        r#"{"type":"throughput_response","message_id":"run-0-1-7","sequence_id":7,"server_time":1700000000.123456,"queue_depth":0,"content_crc32":4294967295}"#
    );
    assert!(scan::response(&text).is_some());
}

#[test]
fn foreign_spellings_are_read() {
    let text = r#" { "send_time" : 1700000000, "client_id":"c", "extra": {"a":[1,null]}, "content": "\u00e9\n",
        "sequence_id": 5.0, "message_id": "c-5", "type": "throughput_test", "priority": null } "#;
    let Ok(Request::ThroughputTest(test)) = decode_request(text.as_bytes()) else { panic!("{text}") };
    assert_eq!((test.sequence_id, test.content.as_ref(), test.priority), (5, "é\n", None));
    assert_eq!(test.send_time.as_unix_ns(), 1_700_000_000_000_000_000);
    assert_eq!(
        decode_request(br#"{"type":"user_message","message_id":"x"}"#),
        Ok(Request::UserMessage(UserMessage {
            message_id: "x".into(),
            sequence_id: None,
            client_id: None,
            content: None,
            priority: None,
            timestamp: None
        }))
    );
}

#[test]
fn what_has_no_place_in_the_table_is_other() {
    for (text, kind, message_id) in [
        (r#"{"type":"hello","message_id":"m"}"#, Some("hello"), Some("m")),
        (r#"{"type":7,"message_id":7}"#, None, None),
        ("[1,2]", None, None),
        ("5", None, None),
        ("null", None, None),
    ] {
        let other = Other { kind: kind.map(Cow::Borrowed), message_id: message_id.map(Cow::Borrowed) };
        assert_eq!(decode_request(text.as_bytes()), Ok(Request::Other(other.clone())), "{text}");
        assert_eq!(decode_response(text.as_bytes()), Ok(Response::Other(other)), "{text}");
    }
}

#[test]
fn a_wrong_field_is_named() {
    let valid = r#"{"type":"throughput_test","message_id":"c-1","sequence_id":1,"content":"x","client_id":"c","send_time":1}"#;
    assert!(decode_request(valid.as_bytes()).is_ok());
    for (from, to, message) in [
        (r#""message_id":"c-1""#, r#""message_id":1"#, "field `message_id` is not a string"),
        (r#""sequence_id":1"#, r#""sequence_id":-1"#, "field `sequence_id` is not an integer from 0"),
        (r#""sequence_id":1"#, r#""sequence_id":1.5"#, "field `sequence_id` is not an integer from 0"),
        (r#""content":"x","#, "", "field `content` is missing"),
        (r#""client_id":"c""#, r#""client_id":[]"#, "field `client_id` is not a string"),
        (r#""send_time":1"#, r#""send_time":"1""#, "field `send_time` is not a number"),
        (
            r#""send_time":1"#,
            r#""send_time":1,"priority":"urgent""#,
            "field `priority` is not \"high\" or \"normal\"",
        ),
    ] {
        assert!(valid.contains(from));
        let error = decode_request(valid.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    for frame in [b"" as &[u8], b"{", b"nope", b"{} x", b"\xff", b"{\"a\":\"\xff\"}"] {
        assert!(matches!(decode_request(frame), Err(DecodeError::NotJson { .. })), "{frame:?}");
        assert!(matches!(decode_response(frame), Err(DecodeError::NotJson { .. })), "{frame:?}");
    }
}

#[test]
fn times_beyond_the_range_saturate() {
    for (seconds, unix_ns) in [("-5", 0), ("1e300", u64::MAX), ("0.0000004", 0), ("0.0000006", 1_000)] {
        let text = format!(r#"{{"type":"latency_probe","message_id":"m","send_time":{seconds}}}"#);
        let Ok(Request::LatencyProbe(probe)) = decode_request(text.as_bytes()) else { panic!("{text}") };
        assert_eq!(probe.send_time.as_unix_ns(), unix_ns, "{seconds}");
    }
}
