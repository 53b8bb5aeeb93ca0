//! What a dialect says before the load: a login, a subscription, whatever its peer wants first.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::{MAX_ANSWER_BYTES, opcode_of};
use super::dial::Socket;
use super::report::End;
use super::transport::Transport;
use crate::clock::Clock;
use crate::dialect::{Frame, Opening, Session};
use crate::websocket::{Event, Header, Masks, Opcode, Reader, Sender, append, append_control};

/// So much is read at once: an opening is a few short messages.
const READ_BYTES: usize = 4 * 1024;

/// Speaks the opening of a session to its end; an error is what the peer said instead of what was hoped for. What the peer
/// has sent beyond the opening stays in the socket.
pub(super) async fn open_session<S: Transport, C: Clock + Unpin, D: Session>(
    socket: &mut Socket<S, C>,
    session: &mut D,
) -> Result<(), String> {
    let mut opening = session.open(None);
    let mut reader = Reader::new(Sender::Server, MAX_ANSWER_BYTES);
    let mut masks = None;
    loop {
        while let Some(payload) = session.owed() {
            let mask = masks.get_or_insert_with(Masks::from_system).next_key();
            let mut out = BytesMut::new();
            append(&mut out, opcode_of(session.frame_kind()), Some(mask), |out| {
                out.extend_from_slice(&payload);
            });
            send(socket, &out).await?;
        }
        match opening {
            Opening::Ready => return Ok(()),
            Opening::Refused(said) => return Err(said),
            Opening::Waiting => {}
        }
        let mut frame = next_frame(socket).await?;
        let (mut closed, mut ping) = (None, None);
        opening = Opening::Waiting;
        let fed = reader.feed(&mut frame, |event| match event {
            Event::Text(text) => opening = session.open(Some(Frame::Text(text))),
            Event::Binary(bytes) => opening = session.open(Some(Frame::Binary(bytes))),
            Event::Ping(payload) => ping = Some(payload.to_vec()),
            Event::Pong => {}
            Event::Close(Some(code), reason) => {
                closed = Some(format!("close {code} {reason}").trim_end().to_owned());
            }
            Event::Close(None, _) => closed = Some("nothing: it closed the connection".to_owned()),
        });
        fed.map_err(|violation| End::violated(violation).reason)?;
        if let Some(said) = closed {
            return Err(said);
        }
        if let Some(payload) = ping {
            let mask = masks.get_or_insert_with(Masks::from_system).next_key();
            let mut out = BytesMut::new();
            append_control(&mut out, Opcode::Pong, Some(mask), &payload);
            send(socket, &out).await?;
        }
    }
}

async fn send<S: Transport, C: Clock + Unpin>(socket: &mut Socket<S, C>, out: &[u8]) -> Result<(), String> {
    let sent = async {
        socket.stream.write_all(out).await?;
        socket.stream.flush().await
    };
    sent.await.map_err(|error| End::lost(&error).reason)
}

/// The next whole frame; what came behind it stays.
async fn next_frame<S: Transport, C: Clock + Unpin>(socket: &mut Socket<S, C>) -> Result<Vec<u8>, String> {
    loop {
        let header = Header::parse(&socket.early, Sender::Server, MAX_ANSWER_BYTES);
        let header = header.map_err(|violation| End::violated(violation).reason)?;
        if let Some(header) = header.filter(|header| header.frame_bytes <= socket.early.len()) {
            return Ok(socket.early.drain(..header.frame_bytes).collect());
        }
        let mut input = [0; READ_BYTES];
        let read = socket.stream.read(&mut input).await.map_err(|error| End::lost(&error).reason)?;
        match input.get(..read) {
            None | Some([]) => return Err("connection lost without a close frame".to_owned()),
            Some(bytes) => socket.early.extend_from_slice(bytes),
        }
    }
}
