//! `json`: any request–answer service that speaks JSON, described by settings: what a request looks like, where the id
//! stands in the answer to it, what a refusal is, what is no answer at all, and what is said first to log in.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::template::{Template, Values};
use super::{Answer, Content, Dialect, DialectError, Frame, FrameKind, Identity, Opening, Session, spoken};
use crate::config::JsonConfig;
use crate::ledger::Lane;
use crate::message::{MessageId, WallTime};

/// A service that is described by settings.
#[derive(Debug, Clone)]
pub struct Json {
    content: Content,
    service: Arc<Service>,
}

/// What the settings say.
#[derive(Debug)]
struct Service {
    request: Template,
    id: String,
    content: Option<String>,
    refusal: Vec<Rule>,
    ignore: Vec<Rule>,
    login: Option<Login>,
    lane: Option<Lane>,
}

/// What is said first, and by what it is known to have gone well.
struct Login {
    message: Bytes,
    ok: Rule,
}

impl std::fmt::Debug for Login {
    /// Without the message, which may hold a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("ok", &self.ok).finish_non_exhaustive()
    }
}

impl Json {
    /// The service that `settings` describe, with payloads of `payload_bytes` bytes.
    ///
    /// # Errors
    /// At the first setting that makes no sense, by its flag and key.
    pub fn new(seed: u64, payload_bytes: usize, settings: &JsonConfig) -> Result<Self, DialectError> {
        let request = Template::parse(&settings.request)
            .map_err(|cause| refused("request", &settings.request, cause))?;
        if settings.id.is_empty() {
            return Err(refused(
                "id",
                "",
                "where the answer holds the id, a JSON pointer such as /id, must be said",
            ));
        }
        let content = (!settings.content.is_empty()).then(|| settings.content.clone());
        for (name, text) in [("id", Some(&settings.id)), ("content", content.as_ref())] {
            if let Some(text) = text.filter(|text| !is_pointer(text)) {
                return Err(refused(name, text, POINTER));
            }
        }
        if content.is_some() && !request.has_payload() {
            let cause = "the request holds no {payload} that could come back there";
            return Err(refused("content", &settings.content, cause));
        }
        let rules = |name: &'static str, rules: &[String]| -> Result<Vec<Rule>, DialectError> {
            rules.iter().map(|text| Rule::parse(name, text)).collect()
        };
        let service = Service {
            request,
            id: settings.id.clone(),
            content,
            refusal: rules("refusal", &settings.refusal)?,
            ignore: rules("ignore", &settings.ignore)?,
            login: login(settings)?,
            lane: settings.ordered.then_some(Lane::Normal),
        };
        Ok(Self { content: Content::new(seed, payload_bytes), service: Arc::new(service) })
    }
}

/// What is said first, where anything is.
fn login(settings: &JsonConfig) -> Result<Option<Login>, DialectError> {
    let JsonConfig { login, login_ok, .. } = settings;
    match (login.is_empty(), login_ok.is_empty()) {
        (true, true) => Ok(None),
        (true, false) => Err(refused("login_ok", login_ok, "there is no login that it could answer")),
        (false, true) => {
            let cause =
                "with a login, what the answer to a good one holds must be said, such as /type=welcome";
            Err(refused("login_ok", "", cause))
        }
        (false, false) => {
            let message = Bytes::copy_from_slice(login.as_bytes());
            Ok(Some(Login { message, ok: Rule::parse("login_ok", login_ok)? }))
        }
    }
}

const POINTER: &str = "a JSON pointer begins with /, such as /result/id";

fn is_pointer(text: &str) -> bool {
    text.starts_with('/')
}

/// A setting of this dialect that makes no sense.
fn refused(name: &'static str, value: &str, cause: &'static str) -> DialectError {
    DialectError::setting("json", name, value, cause)
}

/// What a message may hold: a pointer, and the value that must stand there. Without a value anything may but null and false.
#[derive(Debug, Clone, PartialEq)]
struct Rule {
    pointer: String,
    value: Option<Value>,
}

impl Rule {
    fn parse(name: &'static str, text: &str) -> Result<Self, DialectError> {
        let (pointer, value) = text.split_once('=').map_or((text, None), |(at, value)| (at, Some(value)));
        if !is_pointer(pointer) {
            return Err(refused(
                name,
                text,
                "a rule is a JSON pointer, or one with a value, such as /error or /type=news",
            ));
        }
        // What is no JSON is a text whose quotes were left out.
        let parse =
            |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        Ok(Self { pointer: pointer.to_owned(), value: value.map(parse) })
    }

    fn matches(&self, message: &Value) -> bool {
        match (message.pointer(&self.pointer), &self.value) {
            (None, _) => false,
            (Some(found), Some(wanted)) => found == wanted,
            (Some(found), None) => !matches!(found, Value::Null | Value::Bool(false)),
        }
    }
}

impl Dialect for Json {
    type Session = JsonSession;

    fn name(&self) -> &'static str {
        "json"
    }

    fn session(&self, identity: Identity) -> JsonSession {
        JsonSession { dialect: self.clone(), identity, owed: None }
    }
}

/// One connection's share of a service.
#[derive(Debug)]
pub struct JsonSession {
    dialect: Json,
    identity: Identity,
    owed: Option<Bytes>,
}

impl JsonSession {
    /// Which message an answer is for.
    fn sequence(&self, id: &Value) -> Result<u64, Answer> {
        if self.dialect.service.request.has_id() {
            let id = id.as_str().and_then(MessageId::parse);
            return match id {
                Some(id) if id.client_id == self.identity.client_id => Ok(id.n),
                Some(_) => Err(Answer::Foreign),
                None => Err(Answer::Corrupted),
            };
        }
        let number = id.as_u64().or_else(|| id.as_str()?.parse().ok());
        number.ok_or(Answer::Corrupted)
    }
}

fn parse(frame: Frame<'_>) -> Option<Value> {
    match frame {
        Frame::Text(text) => serde_json::from_str(text).ok(),
        Frame::Binary(bytes) => serde_json::from_slice(bytes).ok(),
    }
}

impl Session for JsonSession {
    fn frame_kind(&self) -> FrameKind {
        FrameKind::Text
    }

    fn encode(&mut self, sequence: u64, now: WallTime, out: &mut BytesMut) {
        let payload = self.dialect.content.of(self.identity.connection, sequence);
        let values = Values { client_id: &self.identity.client_id, sequence, payload, now };
        self.dialect.service.request.write(&values, out);
    }

    fn decode(&mut self, frame: Frame<'_>) -> Answer {
        let Some(message) = parse(frame) else {
            return Answer::Corrupted;
        };
        let service = &self.dialect.service;
        if service.ignore.iter().any(|rule| rule.matches(&message)) {
            return Answer::Ignored;
        }
        let Some(id) = message.pointer(&service.id).filter(|id| !id.is_null()) else {
            return Answer::Unattributed;
        };
        let sequence = match self.sequence(id) {
            Ok(sequence) => sequence,
            Err(answer) => return answer,
        };
        if service.refusal.iter().any(|rule| rule.matches(&message)) {
            return Answer::Refused { sequence, queue_depth: None };
        }
        let intact = service.content.as_ref().is_none_or(|pointer| {
            let sent = self.dialect.content.of(self.identity.connection, sequence);
            message.pointer(pointer).and_then(Value::as_str) == Some(sent)
        });
        Answer::Processed { sequence, lane: service.lane, intact, queue_depth: None }
    }

    fn open(&mut self, frame: Option<Frame<'_>>) -> Opening {
        let service = &self.dialect.service;
        let Some(login) = &service.login else { return Opening::Ready };
        let Some(frame) = frame else {
            self.owed = Some(login.message.clone());
            return Opening::Waiting;
        };
        match parse(frame) {
            Some(message) if service.ignore.iter().any(|rule| rule.matches(&message)) => Opening::Waiting,
            Some(message) if login.ok.matches(&message) => Opening::Ready,
            _ => Opening::Refused(spoken(frame)),
        }
    }

    fn owed(&mut self) -> Option<Bytes> {
        self.owed.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = r#"{"op":"ask","id":"{id}","n":{sequence},"text":"{payload}","at":{now}}"#;

    fn settings() -> JsonConfig {
        JsonConfig {
            request: REQUEST.to_owned(),
            id: "/reply/id".to_owned(),
            content: "/reply/text".to_owned(),
            refusal: vec!["/error".to_owned()],
            ignore: vec!["/op=news".to_owned(), "/tick=1".to_owned()],
            ..JsonConfig::default()
        }
    }

    fn session(settings: &JsonConfig) -> JsonSession {
        let identity = Identity { client_id: "run-0-3".into(), connection: 3 };
        Json::new(9, 16, settings).unwrap().session(identity)
    }

    fn error(edit: impl FnOnce(&mut JsonConfig)) -> String {
        let mut settings = settings();
        edit(&mut settings);
        Json::new(9, 16, &settings).unwrap_err().to_string()
    }

    #[test]
    fn a_request_is_its_template_filled_in() {
        let mut out = BytesMut::new();
        session(&settings()).encode(5, WallTime::from_unix_ns(1_500_000_000), &mut out);
        let request: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&request["id"], &request["n"]), (&Value::from("run-0-3-5"), &Value::from(5)));
        assert_eq!(request["text"].as_str().unwrap(), Content::new(9, 16).of(3, 5));
        assert_eq!(request["at"], 1.5);
    }

    #[test]
    fn whatever_comes_is_named() {
        let text = Content::new(9, 16).of(3, 5).to_owned();
        let of = |message: &str| session(&settings()).decode(Frame::Text(message));
        let processed =
            |intact| Answer::Processed { sequence: 5, lane: Some(Lane::Normal), intact, queue_depth: None };
        assert_eq!(of(&format!(r#"{{"reply":{{"id":"run-0-3-5","text":"{text}"}}}}"#)), processed(true));
        assert_eq!(of(r#"{"reply":{"id":"run-0-3-5","text":"x"}}"#), processed(false));
        assert_eq!(of(r#"{"reply":{"id":"run-0-3-5"}}"#), processed(false));
        assert_eq!(of(r#"{"reply":{"id":"run-0-4-5"}}"#), Answer::Foreign);
        assert_eq!(of(r#"{"reply":{"id":7}}"#), Answer::Corrupted);
        let refused = Answer::Refused { sequence: 5, queue_depth: None };
        assert_eq!(of(r#"{"reply":{"id":"run-0-3-5"},"error":"full"}"#), refused);
        assert_eq!(of(r#"{"error":"who are you?"}"#), Answer::Unattributed);
        assert_eq!(of(r#"{"op":"news"}"#), Answer::Ignored);
        assert_eq!(of(r#"{"tick":1}"#), Answer::Ignored);
        assert_eq!(of(r#"{"tick":2}"#), Answer::Unattributed);
        assert_eq!(of("{"), Answer::Corrupted);
        let deep = "[".repeat(1 << 20);
        assert_eq!(of(&deep), Answer::Corrupted);
    }

    #[test]
    fn a_service_that_knows_numbers_only_is_followed_by_the_sequence() {
        let settings = JsonConfig {
            request: r#"{"jsonrpc":"2.0","id":{sequence},"method":"echo","params":["{payload}"]}"#.to_owned(),
            id: "/id".to_owned(),
            ordered: false,
            ..JsonConfig::default()
        };
        let expected = Answer::Processed { sequence: 7, lane: None, intact: true, queue_depth: None };
        for id in ["7", "\"7\""] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"x"}}"#);
            assert_eq!(session(&settings).decode(Frame::Text(&text)), expected);
            assert_eq!(session(&settings).decode(Frame::Binary(text.as_bytes())), expected);
        }
        for id in ["-1", "1.5", "\"x\"", "{}", "true"] {
            let text = format!(r#"{{"id":{id}}}"#);
            assert_eq!(session(&settings).decode(Frame::Text(&text)), Answer::Corrupted, "{id}");
        }
    }

    #[test]
    fn a_login_is_said_first_and_its_answer_awaited() {
        let settings = JsonConfig {
            login: r#"{"op":"login"}"#.to_owned(),
            login_ok: "/op=welcome".to_owned(),
            ..settings()
        };
        let mut session = session(&settings);
        assert_eq!(session.open(None), Opening::Waiting);
        assert_eq!(session.owed().as_deref(), Some(br#"{"op":"login"}"# as &[u8]));
        assert_eq!(session.owed(), None);
        assert_eq!(session.open(Some(Frame::Text(r#"{"op":"news"}"#))), Opening::Waiting);
        let refused = Opening::Refused(r#"{"op":"denied"}"#.to_owned());
        assert_eq!(session.open(Some(Frame::Text(r#"{"op":"denied"}"#))), refused);
        assert_eq!(session.open(Some(Frame::Text(r#"{"op":"welcome"}"#))), Opening::Ready);
    }

    #[test]
    fn settings_without_sense_are_refused_by_flag_key_and_value() {
        for (error, parts) in [
            (error(|s| s.request.clear()), ["--json-request", "dialect.json.request", "``"]),
            (error(|s| s.request = "{}".into()), ["--json-request", "{id} or {sequence}", "`{}`"]),
            (error(|s| s.request = "{id}".into()), ["--json-request", "not JSON", "`{id}`"]),
            (error(|s| s.id.clear()), ["--json-id", "dialect.json.id", "JSON pointer"]),
            (error(|s| s.id = "id".into()), ["--json-id", "`id`", "begins with /"]),
            (error(|s| s.content = "x".into()), ["--json-content", "`x`", "begins with /"]),
            (
                error(|s| s.request = r#"{"id":"{id}"}"#.into()),
                ["--json-content", "dialect.json.content", "{payload}"],
            ),
            (error(|s| s.refusal = vec!["no".into()]), ["--json-refusal", "`no`", "a rule is"]),
            (error(|s| s.ignore = vec!["no=1".into()]), ["--json-ignore", "`no=1`", "a rule is"]),
            (error(|s| s.login = "hello".into()), ["--json-login-ok", "dialect.json.login_ok", "good one"]),
            (error(|s| s.login_ok = "/a".into()), ["--json-login-ok", "`/a`", "no login"]),
        ] {
            assert!(parts.iter().all(|part| error.contains(part)), "{parts:?}: {error}");
        }
    }

    #[test]
    fn a_login_is_not_shown() {
        let settings = JsonConfig { login: "secret".into(), login_ok: "/a".into(), ..settings() };
        assert!(!format!("{:?}", session(&settings)).contains("secret"));
    }
}
