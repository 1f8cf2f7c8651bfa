//! How do figures get into a document?
//!
//! A document marks where they stand with `<!-- measured: NAME -->` and `<!-- end of measured -->`; what is between them
//! is written anew, the rest is left as it is. `full` is everything, `summary` the main table and the chart.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::measure::chart;
use crate::measure::outcome::Outcome;
use crate::measure::outcome::Way;
use crate::measure::stats::Median;

const END: &str = "<!-- end of measured -->";

/// Writes the figures beside each other in `figures`, and into the documents that have a place for them.
pub(super) fn write(outcome: &Outcome, documents: &[PathBuf], figures: &Path) -> io::Result<()> {
    fs::create_dir_all(figures)?;
    let json = serde_json::to_string_pretty(outcome).map_err(io::Error::other)?;
    fs::write(figures.join("measured.json"), json + "\n")?;
    fs::write(figures.join("cpu.svg"), chart::cpu(outcome))?;
    fs::write(figures.join("latency.svg"), chart::latency(outcome))?;
    for document in documents {
        let text = fs::read_to_string(document)?;
        let beside = document.parent().unwrap_or(Path::new(""));
        let figures = figures.strip_prefix(beside).unwrap_or(figures).display().to_string();
        let text = replace(&text, "full", &full(outcome, &figures))?;
        let text = replace(&text, "summary", &summary(outcome, &figures))?;
        fs::write(document, text)?;
    }
    Ok(())
}

/// `text` with what stands between the marks of `name` replaced. A text without them stays as it is.
fn replace(text: &str, name: &str, by: &str) -> io::Result<String> {
    let mark = format!("<!-- measured: {name} -->");
    let Some((before, rest)) = text.split_once(&mark) else { return Ok(text.to_owned()) };
    let Some((_, after)) = rest.split_once(END) else {
        return Err(io::Error::other(format!("`{mark}` without `{END}`")));
    };
    Ok(format!("{before}{mark}\n{by}\n{END}{after}"))
}

fn summary(outcome: &Outcome, figures: &str) -> String {
    let mut text = doubts(outcome);
    text.push_str("| | CPU a call | × bare Pingora | p50 | p90 | p99 | resident | system calls |\n");
    text.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for way in &outcome.ways {
        let ratio = way.cpu_ratio.map_or(String::new(), |ratio| with_interval(&ratio, 2));
        let latency =
            |name: &str| way.latency_us.get(name).map_or(String::new(), |value| format!("{:.0} µs", value.median));
        let syscalls = way.syscalls.as_ref().map_or("not counted".to_owned(), |count| format!("{:.1}", count.per_call));
        let _ = writeln!(
            text,
            "| {} | {:.1} µs | {ratio} | {} | {} | {} | {:.0} MiB | {syscalls} |",
            way.label,
            way.cpu_us.median,
            latency("p50"),
            latency("p90"),
            latency("p99"),
            way.resident_mib[0],
        );
    }
    let _ = write!(text, "\n![CPU per call]({figures}/cpu.svg)\n\n![Latency]({figures}/latency.svg)");
    text
}

fn full(outcome: &Outcome, figures: &str) -> String {
    let mut text = summary(outcome, figures);
    text.push_str("\n\n### Intervals\n\n");
    text.push_str("| | CPU a call, µs | calls a second, saturated | p50 over bare, µs | p90 over bare, µs | p99 over bare, µs |\n");
    text.push_str("| --- | ---: | ---: | ---: | ---: | ---: |\n");
    for way in &outcome.ways {
        let added = |name: &str| {
            let added = way.added_us.as_ref().and_then(|added| added.get(name));
            added.map_or(String::new(), |added| with_interval(added, 0))
        };
        let (cpu, rate) = (with_interval(&way.cpu_us, 1), with_interval(&way.per_second, 0));
        let _ = writeln!(
            text,
            "| {} | {cpu} | {rate} | {} | {} | {} |",
            way.label,
            added("p50"),
            added("p90"),
            added("p99")
        );
    }
    text.push_str("\n### Other requests, CPU\n\n| | what | bare Pingora, µs | Portcullis, full policy, µs | ratio |\n");
    text.push_str("| --- | --- | ---: | ---: | ---: |\n");
    for workload in &outcome.workloads {
        let (bare, own) = (with_interval(&workload.bare_us, 1), with_interval(&workload.gateway_us, 1));
        let ratio = with_interval(&workload.ratio, 2);
        let _ = writeln!(text, "| {} | {} | {bare} | {own} | {ratio} |", workload.name, workload.what);
    }
    text.push_str("\n### System calls of a call\n\n");
    outcome.ways.iter().for_each(|way| text.push_str(&syscalls(way)));
    text.push_str("\n### Ways\n\n");
    for way in &outcome.ways {
        let recorded =
            way.recorded.map(|[recorded, made]| format!(" On record: {recorded} of {made} calls made, or more."));
        let _ = writeln!(text, "- {}: {}.{}", way.label, way.what, recorded.unwrap_or_default());
    }
    text.push_str(&method(outcome));
    text
}

fn method(outcome: &Outcome) -> String {
    let (machine, method) = (&outcome.machine, &outcome.method);
    let kind = if machine.virtual_machine { ", a virtual machine" } else { "" };
    let confidence = outcome.ways.first().map_or(0.0, |way| way.cpu_us.confidence) * 100.0;
    let mut text = format!(
        "\n### Machine and method\n\n\
         - {}, {} cores, {} MiB{kind}; Linux {}; record on {}; {}; profile `{}`; commit {}; {}.\n\
         - {} rounds beside one to warm up. Each way in each round, in turning order: {} calls on {} connections as fast as answers come, then \
         {:.0} calls a second for {} s, whatever becomes of them, on up to {} connections. All on loopback.\n\
         - Intervals hold the median at {confidence:.1} %.\n\
         - Others used {:.2} cores while ours were idle (median of the rounds). The generator began calls {:.0} µs late in the median, {:.0} µs at p99: \
         that is in all latencies alike.\n",
        machine.processor,
        machine.cores,
        machine.memory_mib,
        machine.kernel,
        machine.file_system,
        machine.rustc,
        outcome.profile,
        outcome.commit,
        outcome.date,
        method.rounds,
        method.calls_a_round,
        method.connections,
        method.rate,
        method.seconds_a_round,
        method.open_connections,
        method.others_cores,
        method.start_delay_us[0],
        method.start_delay_us[1],
    );
    for absent in &outcome.absent {
        let _ = writeln!(text, "- Not measured: {absent}.");
    }
    text.pop();
    text
}

fn syscalls(way: &Way) -> String {
    let Some(count) = &way.syscalls else { return format!("- {}: not counted\n", way.label) };
    let mut names: Vec<(&String, &f64)> = count.names.iter().collect();
    names.sort_by(|a, b| b.1.total_cmp(a.1));
    let names: Vec<String> = names.iter().take(8).map(|(name, count)| format!("{name} {count:.2}")).collect();
    let traced = if names.is_empty() { String::new() } else { format!("; under strace: {}", names.join(", ")) };
    format!("- {}: {:.2} by {}{traced}\n", way.label, count.per_call, count.by)
}

fn doubts(outcome: &Outcome) -> String {
    if outcome.doubts.is_empty() {
        return String::new();
    }
    format!("**Not for publication:** {}. The form is right, the figures are not.\n\n", outcome.doubts.join("; "))
}

fn with_interval(value: &Median, digits: usize) -> String {
    format!("{:.digits$} [{:.digits$} .. {:.digits$}]", value.median, value.low, value.high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_marked_is_written_anew() {
        let text = "before\n<!-- measured: full -->\nold\n<!-- end of measured -->\nafter";
        let once = replace(text, "full", "new").unwrap();
        assert_eq!(once, "before\n<!-- measured: full -->\nnew\n<!-- end of measured -->\nafter");
        assert_eq!(replace(&once, "full", "new").unwrap(), once);
        assert_eq!(replace(text, "summary", "new").unwrap(), text);
        assert!(replace("<!-- measured: full -->\nold", "full", "new").is_err());
    }
}
