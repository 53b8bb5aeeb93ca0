//! What a dialect says before the load: a login, a subscription, whatever its peer wants first.

use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::connection::to_message;
use super::report::End;
use crate::dialect::{Frame, Opening, Session};

/// Speaks the opening of a session to its end; an error is what the peer said instead of what was hoped for.
pub(super) async fn open_session<W, D: Session>(ws: &mut W, session: &mut D) -> Result<(), String>
where
    W: Stream<Item = Result<Message, WsError>> + Sink<Message, Error = WsError> + Unpin,
{
    let mut opening = session.open(None);
    loop {
        let mut owes = false;
        while let Some(payload) = session.owed() {
            let message = to_message(session.frame_kind(), payload).map_err(|end| end.reason)?;
            ws.feed(message).await.map_err(reason)?;
            owes = true;
        }
        if owes {
            ws.flush().await.map_err(reason)?;
        }
        match opening {
            Opening::Ready => return Ok(()),
            Opening::Refused(said) => return Err(said),
            Opening::Waiting => {}
        }
        opening = match ws.next().await {
            Some(Ok(Message::Text(text))) => session.open(Some(Frame::Text(&text))),
            Some(Ok(Message::Binary(bytes))) => session.open(Some(Frame::Binary(&bytes))),
            Some(Ok(Message::Close(Some(frame)))) => {
                return Err(format!("close {} {}", u16::from(frame.code), frame.reason)
                    .trim_end()
                    .to_owned());
            }
            // The WebSocket layer answers pings.
            Some(Ok(Message::Close(None) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                Opening::Waiting
            }
            Some(Err(error)) => return Err(reason(error)),
            None => return Err("nothing: it closed the connection".to_owned()),
        };
    }
}

fn reason(error: WsError) -> String {
    End::of(&error).reason
}
