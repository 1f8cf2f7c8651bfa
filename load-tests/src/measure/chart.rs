//! How does it look?
//!
//! Two drawings, written as SVG by hand: CPU per call as bars with their intervals, latency as a line from p50 over p90 to
//! p99 on a logarithmic scale. Both carry their numbers as text, and colours of their own in light and dark.

use std::fmt::Write;

use crate::measure::outcome::Outcome;
use crate::measure::outcome::Way;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 210.0;
const RIGHT: f64 = 210.0;
const TOP: f64 = 58.0;
const ROW: f64 = 36.0;
const PLOT: f64 = WIDTH - LEFT - RIGHT;

const STYLE: &str = "<style>\
text{font:13px system-ui,sans-serif;fill:#1f2328}.t{font-weight:600;font-size:15px}.s{fill:#59636e;font-size:12px}\
.bg{fill:#ffffff}.bar{fill:#8c959f}.own{fill:#0969da}.w{stroke:#1f2328;stroke-width:1.5}.g{stroke:#d1d9e0;stroke-width:1}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9198a1}.bg{fill:#0d1117}.bar{fill:#656c76}.own{fill:#4493f8}\
.w{stroke:#e6edf3}.g{stroke:#3d444d}}\
</style>";

/// CPU per call.
pub(super) fn cpu(outcome: &Outcome) -> String {
    let most = outcome.ways.iter().map(|way| way.cpu_us.high).fold(1.0, f64::max);
    let step = step(most);
    let end = (most / step).ceil() * step;
    let x = |value: f64| LEFT + value / end * PLOT;
    let ticks: Vec<(f64, String)> = (0..=(end / step).round() as usize)
        .map(|tick| (x(tick as f64 * step), format!("{:.0}", tick as f64 * step)))
        .collect();
    let title = "CPU per call, µs";
    let note = "Median of the rounds and the interval that holds it at 95 %; × is the ratio to bare Pingora within each round.";
    draw(outcome, title, note, &ticks, |way, y, svg| {
        let (low, middle, high) = (x(way.cpu_us.low), x(way.cpu_us.median), x(way.cpu_us.high));
        let class = class(way);
        let _ = write!(
            svg,
            r#"<rect class="{class}" x="{LEFT}" y="{:.1}" width="{:.1}" height="18" rx="2"/><line class="w" x1="{low:.1}" x2="{high:.1}" y1="{:.1}" y2="{:.1}"/>"#,
            y - 9.0,
            middle - LEFT,
            y,
            y,
        );
        for end in [low, high] {
            let _ =
                write!(svg, r#"<line class="w" x1="{end:.1}" x2="{end:.1}" y1="{:.1}" y2="{:.1}"/>"#, y - 4.0, y + 4.0);
        }
        let ratio =
            way.cpu_ratio.map(|ratio| format!("  {:.2}× [{:.2} .. {:.2}]", ratio.median, ratio.low, ratio.high));
        format!("{:.1}{}", way.cpu_us.median, ratio.unwrap_or_default())
    })
}

/// Latency at a fixed rate.
pub(super) fn latency(outcome: &Outcome) -> String {
    let all = || outcome.ways.iter().flat_map(|way| way.latency_us.values().map(|value| value.median));
    let low = 10_f64.powf(all().fold(f64::INFINITY, f64::min).max(1.0).log10().floor());
    let high = 10_f64.powf(all().fold(10.0, f64::max).log10().ceil()).max(low * 10.0);
    let x = |value: f64| LEFT + (value.max(low) / low).log10() / (high / low).log10() * PLOT;
    let decades = (high / low).log10().round() as i32;
    let ticks: Vec<(f64, String)> = (0..=decades)
        .map(|decade| low * 10_f64.powi(decade))
        .map(|value| {
            (x(value), if value >= 1000.0 { format!("{:.0} ms", value / 1000.0) } else { format!("{value:.0} µs") })
        })
        .collect();
    let title = format!("Latency at {:.0} calls a second, open loop", outcome.method.rate);
    let note = "From when a call was to start: p50, p90, p99, medians of the rounds. Logarithmic.";
    draw(outcome, &title, note, &ticks, |way, y, svg| {
        let value = |name: &str| way.latency_us.get(name).map_or(low, |value| value.median);
        let at = [value("p50"), value("p90"), value("p99")];
        let class = class(way);
        let _ = write!(svg, r#"<line class="w" x1="{:.1}" x2="{:.1}" y1="{y}" y2="{y}"/>"#, x(at[0]), x(at[2]));
        for (value, radius) in at.into_iter().zip([6.0, 4.5, 3.0]) {
            let _ = write!(svg, r#"<circle class="{class}" cx="{:.1}" cy="{y}" r="{radius}"/>"#, x(value));
        }
        format!("{} / {} / {}", time(at[0]), time(at[1]), time(at[2]))
    })
}

/// Title, scale, and a row for each way: `row` draws it and says what stands at its end.
fn draw(
    outcome: &Outcome,
    title: &str,
    note: &str,
    ticks: &[(f64, String)],
    row: impl Fn(&Way, f64, &mut String) -> String,
) -> String {
    let bottom = TOP + ROW * outcome.ways.len() as f64;
    let height = bottom + 56.0;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">{STYLE}<rect class="bg" width="{WIDTH}" height="{height}"/>"#
    );
    let doubt = if outcome.doubts.is_empty() { "" } else { " (not for publication)" };
    let _ = write!(svg, r#"<text class="t" x="16" y="28">{title}{doubt}</text>"#);
    for (x, label) in ticks {
        let _ = write!(
            svg,
            r#"<line class="g" x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{bottom:.1}"/><text class="s" x="{x:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#,
            TOP - 8.0,
            bottom + 16.0
        );
    }
    for (index, way) in outcome.ways.iter().enumerate() {
        let y = TOP + ROW * (index as f64 + 0.5) - 4.0;
        let says = row(way, y, &mut svg);
        let label = way.label.replace('`', "");
        let _ = write!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{label}</text><text x="{:.1}" y="{:.1}">{says}</text>"#,
            LEFT - 12.0,
            y + 4.5,
            LEFT + PLOT + 14.0,
            y + 4.5
        );
    }
    let _ = write!(svg, r#"<text class="s" x="16" y="{:.1}">{note}</text></svg>"#, bottom + 42.0);
    svg.push('\n');
    svg
}

fn class(way: &Way) -> &'static str {
    if way.label.starts_with("Portcullis") { "own" } else { "bar" }
}

/// A round step that makes four to ten ticks.
fn step(most: f64) -> f64 {
    let decade = 10_f64.powf(most.log10().floor());
    [0.1, 0.2, 0.5, 1.0, 2.0].into_iter().map(|part| part * decade).find(|step| most / step <= 8.0).unwrap_or(decade)
}

/// Microseconds, in the unit that reads best.
fn time(micros: f64) -> String {
    if micros >= 1000.0 { format!("{:.1} ms", micros / 1000.0) } else { format!("{micros:.0} µs") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_has_few_round_steps() {
        assert_eq!((step(42.0), step(9.0), step(130.0)), (10.0, 2.0, 20.0));
    }
}
