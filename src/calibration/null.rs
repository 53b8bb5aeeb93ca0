//! The null server: it answers each `throughput_test` with the least that is an answer, and looks at nothing else.
//!
//! Whoever measures a generator needs a peer that is never the limit. Of a message this one reads the id and the sequence
//! and skips the content without unmasking it; it counts, queues and remembers nothing.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Read at once, a connection: as much as fills a batch of the client's.
const READ_BYTES: usize = 64 << 10;
/// The id and the sequence stand within so many bytes of a request.
const HEAD_BYTES: usize = 160;
/// What stands around them in a request of our encoder, and in the answer.
const REQUEST: [&[u8]; 2] = [br#"{"type":"throughput_test","message_id":""#, br#"","sequence_id":"#];
const ANSWER: [&[u8]; 3] = [
    br#"{"type":"throughput_response","message_id":""#,
    br#"","sequence_id":"#,
    br#","server_time":0,"queue_depth":0}"#,
];

/// Answers whoever connects, on this thread, for ever. Run it where `spawn_local` works.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::task::spawn_local(async move {
            // A client that is gone is the end of its connection, and no news.
            let _ = attend(stream).await;
        });
    }
}

async fn attend(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Only the stream is kept, as the server does: a client sends nothing before the handshake is answered.
    let config = WebSocketConfig::default().read_buffer_size(0).write_buffer_size(0);
    let accepted = accept_async_with_config(stream, Some(config)).await.map_err(io::Error::other)?;
    let mut stream = accepted.into_inner();
    let (mut input, mut filled) = (vec![0; READ_BYTES], 0);
    let (mut scanner, mut answers) = (Scanner::default(), Vec::new());
    while !scanner.closed {
        let read = stream.read(&mut input[filled..]).await?;
        if read == 0 {
            break;
        }
        filled += read;
        let used = scanner.scan(&input[..filled], &mut answers);
        input.copy_within(used..filled, 0);
        filled -= used;
        stream.write_all(&answers).await?;
        answers.clear();
    }
    Ok(())
}

/// Where a stream of frames stands.
#[derive(Debug, Default)]
struct Scanner {
    /// Bytes of the last frame that are still to come, and of no interest.
    skip: usize,
    /// Whether the client said goodbye.
    closed: bool,
}

impl Scanner {
    /// Appends the answer to each request that begins in `input`; how many of its bytes are done with.
    fn scan(&mut self, input: &[u8], answers: &mut Vec<u8>) -> usize {
        let mut at = 0;
        loop {
            let skipped = self.skip.min(input.len() - at);
            self.skip -= skipped;
            at += skipped;
            let Some(frame) = Frame::read(&input[at..]) else { return at };
            let needed = frame.payload_bytes.min(HEAD_BYTES);
            let start = at + frame.head_bytes;
            let Some(head) = input.get(start..start + needed) else { return at };
            match frame.opcode {
                0x1 => answer(head, frame.mask, answers),
                0x8 => {
                    answers.extend([0x88, 0]);
                    self.closed = true;
                }
                _ => {}
            }
            at = start + needed;
            self.skip = frame.payload_bytes - needed;
        }
    }
}

/// The head of a client's frame (RFC 6455, section 5.2).
struct Frame {
    opcode: u8,
    payload_bytes: usize,
    mask: [u8; 4],
    head_bytes: usize,
}

impl Frame {
    /// `None` where it is not all there yet.
    fn read(input: &[u8]) -> Option<Self> {
        let (&first, &second) = (input.first()?, input.get(1)?);
        let (payload_bytes, mask_at) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(input.get(2..10)?.try_into().ok()?)).ok()?, 10),
            short => (usize::from(short), 2),
        };
        let mask = input.get(mask_at..mask_at + 4)?.try_into().ok()?;
        Some(Self { opcode: first & 0x0f, payload_bytes, mask, head_bytes: mask_at + 4 })
    }
}

/// Appends the answer to the request that begins so; nothing where it is another request.
fn answer(masked: &[u8], mask: [u8; 4], answers: &mut Vec<u8>) {
    let mut head = [0; HEAD_BYTES];
    for (place, (byte, masked)) in head.iter_mut().zip(masked).enumerate() {
        *byte = masked ^ mask[place % 4];
    }
    let Some((id, sequence)) = named(&head[..masked.len()]) else { return };
    let [before, between, after] = ANSWER;
    let bytes = before.len() + id.len() + between.len() + sequence.len() + after.len();
    answers.push(0x81);
    match u8::try_from(bytes) {
        Ok(short) if short < 126 => answers.push(short),
        // The head of a request bounds the id, so it is never as much as 64 KiB.
        _ => {
            answers.push(126);
            answers.extend((bytes as u16).to_be_bytes());
        }
    }
    [before, id, between, sequence, after].iter().for_each(|part| answers.extend_from_slice(part));
}

/// The id and the digits of the sequence.
fn named(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = head.strip_prefix(REQUEST[0])?;
    let (id, rest) = rest.split_at(rest.iter().position(|&byte| byte == b'"')?);
    let rest = rest.strip_prefix(REQUEST[1])?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).filter(|&digits| digits > 0)?;
    Some((id, &rest[..digits]))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

    use super::*;
    use crate::message::{MessageId, Response, WallTime, decode_response, encode_throughput_test};

    /// What tungstenite writes as a client.
    fn frames(messages: &[Message]) -> Vec<u8> {
        let mut client = WebSocket::from_raw_socket(io::Cursor::new(Vec::new()), Role::Client, None);
        messages.iter().for_each(|message| client.write(message.clone()).unwrap());
        client.flush().unwrap();
        client.get_ref().get_ref().clone()
    }

    /// What tungstenite reads as a client.
    fn read(answers: Vec<u8>) -> Vec<Message> {
        let mut client = WebSocket::from_raw_socket(io::Cursor::new(answers), Role::Client, None);
        std::iter::from_fn(|| client.read().ok()).collect()
    }

    fn request(client_id: &str, n: u64, content: &str) -> Message {
        let mut text = BytesMut::new();
        let id = MessageId { client_id, n };
        encode_throughput_test(
            &mut text,
            id,
            content,
            WallTime::from_unix_ns(1_700_000_000_000_000_000),
            None,
        );
        Message::text(String::from_utf8(text.to_vec()).unwrap())
    }

    #[test]
    fn what_is_no_request_for_an_answer_gets_none_and_goodbye_is_answered() {
        let others = [Message::text("{}"), Message::Ping(vec![1].into()), Message::Binary(vec![2].into())];
        let mut answers = Vec::new();
        let mut scanner = Scanner::default();
        scanner.scan(&frames(&others), &mut answers);
        assert!(answers.is_empty() && !scanner.closed);
        scanner.scan(&frames(&[Message::Close(None)]), &mut answers);
        assert!(scanner.closed && read(answers) == [Message::Close(None)]);
    }

    proptest! {
        /// Every request is answered by its id and sequence, in order, however the stream is cut.
        #[test]
        fn each_request_is_answered_however_its_bytes_come(
            sizes in proptest::collection::vec(0_usize..70_000, 1..6),
            first in 0_u64..u64::MAX - 10,
            cuts in proptest::collection::vec(1_usize..5_000, 1..20),
        ) {
            let requests: Vec<_> =
                (first..).zip(&sizes).map(|(n, &size)| request("1a2b3c4d5e6f-0-17", n, &"x".repeat(size))).collect();
            let stream = frames(&requests);
            let (mut scanner, mut answers, mut held) = (Scanner::default(), Vec::new(), Vec::new());
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at(rest.len().min(*cut));
                held.extend_from_slice(now);
                rest = later;
                let used = scanner.scan(&held, &mut answers);
                held.drain(..used);
            }
            let answered: Vec<_> = read(answers)
                .iter()
                .map(|message| match decode_response(message.to_text().unwrap().as_bytes()).unwrap() {
                    Response::Throughput(answer) => (answer.message_id.into_owned(), answer.sequence_id),
                    other => panic!("{other:?}"),
                })
                .collect();
            let expected: Vec<_> =
                (first..).take(sizes.len()).map(|n| (format!("1a2b3c4d5e6f-0-17-{n}"), n)).collect();
            prop_assert_eq!(answered, expected);
        }
    }
}
