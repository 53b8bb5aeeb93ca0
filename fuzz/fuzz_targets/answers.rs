//! The client's decoder of answers, of every dialect: whatever a server sends has a class.
#![no_main]

use floodline::config::{DialectConfig, JsonConfig};
use floodline::dialect::{
    Answer, AnyDialect, Dialect, DialectKind, DialectSettings, Echo, Floodline, Frame, Identity, RequestKind, Session,
};
use floodline::message::{decode_response, decode_response_text};
use libfuzzer_sys::fuzz_target;

thread_local! {
    // Each has a stock of content, which takes a millisecond to make.
    static FLOODLINE: Floodline = Floodline::new(1, 64, RequestKind::ThroughputTest, None);
    static ECHO: Echo = Echo::new(1, 64).expect("a payload that is long enough");
    static OTHERS: Vec<AnyDialect> = others();
}

fn others() -> Vec<AnyDialect> {
    let json = JsonConfig {
        request: r#"{"id":"{id}"}"#.to_owned(),
        id: "/id".to_owned(),
        login: "{}".to_owned(),
        login_ok: "/ok".to_owned(),
        ..JsonConfig::default()
    };
    let config = DialectConfig { json, fan_out: 2, ..DialectConfig::default() };
    let settings = DialectSettings::new(config, |_| None).expect("settings that make sense");
    let kinds = DialectKind::ALL.into_iter().filter(|kind| *kind != DialectKind::Floodline);
    kinds.map(|kind| settings.dialect(kind, 1, 64).expect("settings that make sense")).collect()
}

/// Opens, and goes on, with the input in two pieces.
fn feed(dialect: &AnyDialect, identity: Identity, input: &[u8]) {
    let (first, second) = input.split_at(input.len() / 2);
    let mut session = dialect.session(identity);
    session.open(None);
    session.open(Some(Frame::Binary(first)));
    for piece in [first, second] {
        session.decode(Frame::Binary(piece));
        while session.more().is_some() {}
        while session.owed().is_some() {}
        session.ended();
    }
}

fuzz_target!(|input: &[u8]| {
    let identity = || Identity { client_id: "r-0-0".to_owned(), connection: 0 };
    let mut floodline = FLOODLINE.with(|dialect| dialect.session(identity()));
    let mut echo = ECHO.with(|dialect| dialect.session(identity()));
    let decoded = decode_response(input);
    let binary = [floodline.decode(Frame::Binary(input)), echo.decode(Frame::Binary(input))];
    assert!(!matches!(binary[0], Answer::Processed { .. }), "its answers are texts");
    OTHERS.with(|dialects| dialects.iter().for_each(|dialect| feed(dialect, identity(), input)));
    let Ok(text) = std::str::from_utf8(input) else {
        assert!(decoded.is_err());
        return;
    };
    assert_eq!(decoded, decode_response_text(text));
    // The scanner knows no text that begins with a space, so this one goes to the parser.
    let spaced = format!(" {text}");
    let parsed = decode_response_text(&spaced);
    assert_eq!(decoded.is_ok(), parsed.is_ok(), "{text}");
    if decoded.is_ok() {
        assert_eq!(decoded, parsed, "{text}");
    }
    assert_eq!(floodline.decode(Frame::Text(text)), floodline.decode(Frame::Text(&spaced)), "{text}");
    let _ = echo.decode(Frame::Text(text));
});
