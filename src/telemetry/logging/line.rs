//! What does one line of the log look like?
//!
//! Text: time, level, target, message, `name=value`. JSON: one flat object, a field's dots kept in its name. Nothing
//! in a line can end it or reach the terminal: control and direction-changing characters are escaped.

use std::error::Error;
use std::fmt;
use std::fmt::Write;

use serde_json::Map;
use serde_json::Value;
use tracing::Event;
use tracing::Level;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::FormatEvent;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::registry::LookupSpan;

/// Names a line has of its own; an event's field of that name gets a prefix.
const RESERVED: [&str; 4] = ["timestamp", "level", "target", "message"];

/// Form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// For people.
    Text {
        /// Whether the level is coloured.
        colours: bool,
    },
    /// For machines.
    Json,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut content = Content { target: event.metadata().target().to_owned(), ..Content::default() };
        event.record(&mut content);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let level = *event.metadata().level();
        match self {
            Self::Text { colours } => content.write_text(&mut writer, &time, level, *colours),
            Self::Json => content.write_json(&mut writer, time, level),
        }
    }
}

/// Formats the fields of spans, which are not printed.
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, _: Writer<'w>, _: R) -> fmt::Result {
        Ok(())
    }
}

/// What one event says.
#[derive(Default)]
struct Content {
    target: String,
    message: String,
    fields: Map<String, Value>,
}

impl Content {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", value) => self.message = value.to_string(),
            // A record of the `log` crate: its target comes as a field. Where in a library it was made helps nobody.
            ("log.target", Value::String(target)) => self.target = target,
            ("log.module_path" | "log.file" | "log.line", _) => {}
            (name, value) if RESERVED.contains(&name) => {
                self.fields.insert(format!("field.{name}"), value);
            }
            (name, value) => {
                self.fields.insert(name.to_owned(), value);
            }
        }
    }

    fn write_text(&self, writer: &mut Writer<'_>, time: &str, level: Level, colours: bool) -> fmt::Result {
        write!(writer, "{time} ")?;
        match (colours, colour(level)) {
            (true, colour) => write!(writer, "\u{1b}[{colour}m{level:>5}\u{1b}[0m")?,
            (false, _) => write!(writer, "{level:>5}")?,
        }
        write!(writer, " {}: {}", Escaped(&self.target), Escaped(&self.message))?;
        for (name, value) in &self.fields {
            match value {
                Value::String(text) if is_plain(text) => write!(writer, " {name}={text}")?,
                Value::String(text) => write!(writer, " {name}={text:?}")?,
                value => write!(writer, " {name}={value}")?,
            }
        }
        writeln!(writer)
    }

    fn write_json(self, writer: &mut Writer<'_>, time: String, level: Level) -> fmt::Result {
        let fixed = [time, level.to_string(), self.target, self.message];
        let fixed = RESERVED.into_iter().map(str::to_owned).zip(fixed.map(Value::String));
        let mut before = '{';
        for (name, value) in fixed.chain(self.fields) {
            write!(writer, "{before}{}:{value}", Value::String(name))?;
            before = ',';
        }
        writeln!(writer, "}}")
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// Whether a text can stand unquoted after `name=`.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

/// A text that cannot end the line or change how it is shown.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                write!(f, "{}", character.escape_unicode())
            }
            character if character.is_control() => write!(f, "{}", character.escape_default()),
            character => f.write_char(character),
        })
    }
}

impl Visit for Content {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        self.put(field, text.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}
