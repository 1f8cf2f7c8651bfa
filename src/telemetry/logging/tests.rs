//! Is what is logged readable, and what must not be logged absent?

use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;

use super::*;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is printed while `work` runs under these directives: the set-up of every test below.
fn printed(line: Line, directives: &str, work: impl FnOnce()) -> String {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = subscriber(line, filter(directives).unwrap(), move || writer.clone());
    tracing::subscriber::with_default(subscriber, work);
    let bytes = captured.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

const TEXT: Line = Line::Text { colours: false };

/// One event of a library with each target that is capped, at a level; the last is nobody's.
macro_rules! chatter {
    ($level:ident) => {
        tracing::$level!(target: "pingora_core::upstreams", "canary");
        tracing::$level!(target: "pingora", "canary");
        tracing::$level!(target: "h2::codec::framed_read", "canary");
        tracing::$level!(target: "hyper::proto::h1", "canary");
        tracing::$level!(target: "hyper_util::client", "canary");
        tracing::$level!(target: "rustls::client", "canary");
        tracing::$level!(target: "tokio_rustls", "canary");
        tracing::$level!(target: "tokio::task", "canary");
        tracing::$level!(target: "h2o", "not a library of ours");
    };
}

#[test]
fn libraries_never_tell_more_than_warnings() {
    let all = "trace,pingora_core=trace,pingora_core::upstreams=trace,h2=trace,hyper::proto::h1=trace,tokio=trace";
    for directives in ["trace", all] {
        let text = printed(TEXT, directives, || {
            chatter!(trace);
            chatter!(debug);
            chatter!(info);
        });
        assert!(!text.contains("canary"), "{directives}: {text}");
        assert_eq!(text.matches("not a library of ours").count(), 3, "{text}");
        let text = printed(TEXT, directives, || {
            chatter!(warn);
            chatter!(error);
        });
        assert_eq!(text.matches("canary").count(), 16, "{text}");
    }
}

#[test]
fn a_span_of_a_library_does_not_carry_its_fields_into_a_line() {
    let text = printed(TEXT, "trace", || {
        let _span = tracing::error_span!(target: "h2", "stream", uri = "http://canary/").entered();
        tracing::info!("hello");
    });
    assert!(text.contains("hello") && !text.contains("canary"), "{text}");
}

#[test]
fn the_default_is_info_and_a_directive_changes_it() {
    let talk = || {
        tracing::debug!("whisper");
        tracing::info!("word");
    };
    let text = printed(TEXT, "", talk);
    assert!(text.contains("word") && !text.contains("whisper"), "{text}");
    assert!(printed(TEXT, "debug", talk).contains("whisper"));
    assert_eq!(printed(TEXT, "off", talk), "");
    assert!(filter("portcullis=loud").is_err());
}

#[test]
fn a_text_line_reads_well() {
    let text = printed(TEXT, "", || {
        tracing::info!(target: "portcullis", { server.name = "files", took_ms = 12, why = "two words" }, "took up a server");
    });
    let (time, rest) = text.split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert_eq!(rest, " INFO portcullis: took up a server server.name=files took_ms=12 why=\"two words\"\n");
}

#[test]
fn nothing_in_a_text_line_can_end_it_or_reach_the_terminal() {
    let evil = "a\n2026 ERROR forged\u{1b}[2J\r\u{9b}\u{202e}b";
    let text = printed(TEXT, "", || {
        tracing::info!(shown = %evil, plain = evil, debugged = ?evil, "{evil}");
    });
    assert_eq!(text.lines().count(), 1, "{text:?}");
    let is_harmless = |character: char| !character.is_control() && character != '\u{202e}';
    assert!(text.trim_end().chars().all(is_harmless), "{text:?}");
    assert!(text.contains(r"a\n2026 ERROR forged\u{1b}[2J\r\u{9b}\u{202e}b"), "{text}");
}

#[test]
fn a_json_line_is_one_flat_object() {
    let text = printed(Line::Json, "", || {
        let error = std::io::Error::other("disk \"full\"\n");
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(
            target: "portcullis",
            { server.name = "files", level = "mine", at.line = 3_u64, ok = true, share = 0.5, none = f64::NAN, error },
            "two\nlines"
        );
    });
    assert_eq!(text.lines().count(), 1, "{text:?}");
    assert!(text.starts_with("{\"timestamp\":\"20"), "{text}");
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let expected = serde_json::json!({
        "timestamp": object["timestamp"], "level": "WARN", "target": "portcullis", "message": "two\nlines",
        "server.name": "files", "field.level": "mine", "at.line": 3, "ok": true, "share": 0.5, "none": "NaN",
        "error": "disk \"full\"\n",
    });
    assert_eq!(serde_json::Value::Object(object), expected);
}

#[test]
fn a_record_of_the_log_crate_shows_its_own_target() {
    // What `tracing-log` makes of a record: the target is a field, beside where the record was made.
    let text = printed(TEXT, "", || {
        tracing::warn!(
            target: "log",
            { log.target = "pingora_proxy", log.module_path = "m", log.file = "f", log.line = 3_u64 },
            "fell"
        );
    });
    assert!(text.ends_with("  WARN pingora_proxy: fell\n"), "{text}");
}
