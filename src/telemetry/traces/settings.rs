//! Whether and how traces are collected, by the environment variables that OpenTelemetry has for it.
//!
//! Nothing is collected unless a collector is named. A variable that cannot be followed is a mistake, which is told; traces are
//! then off, and everything else goes on. Where spans are sent and with which headers the exporter reads by itself.

use std::time::Duration;

use opentelemetry::trace::SpanKind;
use opentelemetry::trace::TraceId;
use opentelemetry_sdk::trace::Sampler;
use opentelemetry_sdk::trace::SamplingDecision;
use opentelemetry_sdk::trace::ShouldSample;

/// Spans that may wait, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise.
const QUEUED_SPANS_MAX: usize = 4_096;
/// The most that it may say.
const QUEUED_SPANS_MOST: usize = 65_536;
/// Spans sent at once, unless `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` says otherwise.
const BATCH_SPANS_MAX: usize = 512;
/// How long a span waits for others, unless `OTEL_BSP_SCHEDULE_DELAY` says otherwise.
const DELAY_MS: u64 = 5_000;
/// How long sending may take, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const TIMEOUT_MS: u64 = 10_000;
/// The most that either of them may say.
const TIME_MS_MOST: u64 = 60_000;

/// How traces are collected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Which traces are.
    pub sampling: Sampling,
    /// Spans that may wait to be sent.
    pub queued_spans_max: usize,
    /// Spans sent at once.
    pub batch_spans_max: usize,
    /// How long a span waits for others.
    pub delay: Duration,
    /// How long sending may take.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sampling: Sampling { follows_parent: true, ratio: 1.0 },
            queued_spans_max: QUEUED_SPANS_MAX,
            batch_spans_max: BATCH_SPANS_MAX,
            delay: Duration::from_millis(DELAY_MS),
            timeout: Duration::from_millis(TIMEOUT_MS),
        }
    }
}

/// Which traces are collected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Whether a request in somebody's trace is told exactly if that trace is.
    pub follows_parent: bool,
    /// The share of the others.
    pub ratio: f64,
}

impl Sampling {
    /// Whether a request is told of: that of this trace, whose parent is sampled or not.
    pub fn samples(&self, trace: TraceId, parent: Option<bool>) -> bool {
        match parent.filter(|_| self.follows_parent) {
            Some(is_sampled) => is_sampled,
            None => {
                let sampler = Sampler::TraceIdRatioBased(self.ratio);
                let sampled = sampler.should_sample(None, trace, "", &SpanKind::Server, &[], &[]);
                sampled.decision == SamplingDecision::RecordAndSample
            }
        }
    }

    fn read(name: Option<&str>, argument: Option<&str>) -> Result<Self, String> {
        let ratio = || match argument {
            None => Ok(1.0),
            Some(text) => text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or_else(|| {
                format!("OTEL_TRACES_SAMPLER_ARG is `{text}`: write the share of traces as a number from 0 to 1")
            }),
        };
        let (follows_parent, ratio) = match name.unwrap_or("parentbased_always_on") {
            "always_on" => (false, 1.0),
            "always_off" => (false, 0.0),
            "traceidratio" => (false, ratio()?),
            "parentbased_always_on" => (true, 1.0),
            "parentbased_always_off" => (true, 0.0),
            "parentbased_traceidratio" => (true, ratio()?),
            other => {
                return Err(format!(
                    "OTEL_TRACES_SAMPLER is `{other}`: write `always_on`, `always_off`, `traceidratio`, or one of them after `parentbased_`"
                ));
            }
        };
        Ok(Self { follows_parent, ratio })
    }
}

impl Settings {
    /// What the environment of this process says; `None` where no traces are wanted.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn from_environment() -> Result<Option<Self>, String> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        // An empty variable counts as absent, as the specification has it.
        let said = |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        // What is said for traces alone goes before what is said for everything.
        let of_traces = |end: &str| {
            let general = format!("OTEL_EXPORTER_OTLP_{end}");
            let own = format!("OTEL_EXPORTER_OTLP_TRACES_{end}");
            said(&own).map(|text| (own, text)).or_else(|| said(&general).map(|text| (general, text)))
        };
        let is_disabled = said("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let is_wanted = match said("OTEL_TRACES_EXPORTER").as_deref() {
            Some("none") => false,
            Some("otlp") => true,
            None => of_traces("ENDPOINT").is_some(),
            Some(other) => return Err(format!("OTEL_TRACES_EXPORTER is `{other}`: write `otlp` or `none`")),
        };
        if is_disabled || !is_wanted {
            return Ok(None);
        }
        for (end, only) in [("PROTOCOL", "http/protobuf"), ("COMPRESSION", "none")] {
            if let Some((name, text)) = of_traces(end).filter(|(_, text)| text != only) {
                return Err(format!("{name} is `{text}`: only `{only}` is spoken"));
            }
        }
        let number = |name: &str, text: Option<String>, default: u64, most: u64| match text {
            None => Ok(default),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| (1..=most).contains(number))
                .ok_or_else(|| format!("{name} is `{text}`: write a number from 1 to {most}")),
        };
        let count = |name: &str, default: usize| {
            let read = number(name, said(name), default as u64, QUEUED_SPANS_MOST as u64)?;
            Ok::<_, String>(usize::try_from(read).unwrap_or(default))
        };
        let delay = number("OTEL_BSP_SCHEDULE_DELAY", said("OTEL_BSP_SCHEDULE_DELAY"), DELAY_MS, TIME_MS_MOST)?;
        let timeout = of_traces("TIMEOUT").unzip();
        let timeout = number(timeout.0.as_deref().unwrap_or_default(), timeout.1, TIMEOUT_MS, TIME_MS_MOST)?;
        let sampler = (said("OTEL_TRACES_SAMPLER"), said("OTEL_TRACES_SAMPLER_ARG"));
        Ok(Some(Self {
            sampling: Sampling::read(sampler.0.as_deref(), sampler.1.as_deref())?,
            queued_spans_max: count("OTEL_BSP_MAX_QUEUE_SIZE", QUEUED_SPANS_MAX)?,
            batch_spans_max: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS_MAX)?,
            delay: Duration::from_millis(delay),
            timeout: Duration::from_millis(timeout),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        Settings::read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned()))
    }

    fn sampling(name: &str, argument: &str) -> Result<Sampling, String> {
        let read = read(&[ENDPOINT, ("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)]);
        read.map(|settings| settings.unwrap().sampling)
    }

    #[test]
    fn without_a_collector_nothing_is_collected() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None));
        assert_eq!(read(&[ENDPOINT]), Ok(Some(Settings::default())));
        assert_eq!(read(&[("OTEL_TRACES_EXPORTER", "otlp")]), Ok(Some(Settings::default())));
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a/b")]), Ok(Some(Settings::default())));
        assert_eq!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        assert_eq!(read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
    }

    #[test]
    fn what_cannot_be_followed_is_told() {
        for (name, text) in [
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "65537"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"),
            ("OTEL_BSP_SCHEDULE_DELAY", "60001"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        ] {
            let told = read(&[ENDPOINT, (name, text)]).unwrap_err();
            assert!(told.starts_with(&format!("{name} is `{text}`: ")), "{told}");
        }
        assert!(sampling("traceidratio", "1.5").unwrap_err().contains("`1.5`"));
        assert!(sampling("parentbased_traceidratio", "NaN").is_err());
        // What is said for traces goes before what is said for everything.
        let both = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")];
        assert!(read(&[&[ENDPOINT][..], &both].concat()).is_ok());
    }

    #[test]
    fn numbers_are_taken_over() {
        let read = read(&[
            ENDPOINT,
            ("OTEL_BSP_MAX_QUEUE_SIZE", "7"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5"),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
        ]);
        let expected = Settings {
            queued_spans_max: 7,
            batch_spans_max: 5,
            delay: Duration::from_millis(20),
            timeout: Duration::from_millis(300),
            ..Settings::default()
        };
        assert_eq!(read, Ok(Some(expected)));
    }

    #[test]
    fn a_parent_decides_where_it_is_followed_and_a_ratio_where_there_is_none() {
        let (low, high) = (TraceId::from_bytes([0; 16]), TraceId::from_bytes([0xff; 16]));
        let half = sampling("parentbased_traceidratio", "0.5").unwrap();
        assert_eq!([half.samples(low, None), half.samples(high, None)], [true, false]);
        assert_eq!([half.samples(low, Some(false)), half.samples(high, Some(true))], [false, true]);
        let alone = sampling("traceidratio", "0.5").unwrap();
        assert_eq!([alone.samples(low, Some(false)), alone.samples(high, Some(true))], [true, false]);
        assert!(!sampling("always_off", "1").unwrap().samples(low, Some(true)));
        assert!(sampling("always_on", "").unwrap().samples(high, Some(false)));
        assert!(!sampling("parentbased_always_off", "").unwrap().samples(low, None));
    }
}
