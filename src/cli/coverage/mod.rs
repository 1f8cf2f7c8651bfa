//! `portcullis coverage`: which rules did the calls on record never need?
//!
//! Recorded calls are decided under the configuration as it is; what no call of them came to is listed with its place. That is no
//! proof that a rule can go: it says what to ask about.

mod entries;
mod rules;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde_json::Value;
use serde_json::json;

use crate::config::Loaded;
use crate::server;

use super::Failure;
use super::asked::place;
use super::logs::escaped;
use super::past::Part;
use super::past::Read;

use self::rules::Rule;
use self::rules::Rules;

/// What to look at.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration's main file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    part: Part,
    /// Print one JSON object: `decisions`, `minted`, `unclear`, `unused`, `unmentioned` and `unmentioned_others`.
    #[arg(long)]
    json: bool,
}

/// Lists what was never needed.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let compiled = server::compile(&arguments.config, 1, None).map_err(Failure::config)?;
    let mut rules = Rules::of(&compiled.loaded.config);
    let read = arguments.part.each(&compiled.loaded, &compiled.snapshot, |decided| rules.take(decided))?;
    rules.finish(&read.keys);
    let (loaded, unused) = (&compiled.loaded, rules.unused());
    super::print(&if arguments.json {
        json(loaded, &read, &unused, &rules).to_string()
    } else {
        text(loaded, &read, &unused, &rules)
    })
}

/// Decisions that came to nothing here.
fn unclear(read: &Read) -> u64 {
    read.unclear - read.minted
}

fn text(loaded: &Loaded, read: &Read, unused: &[&Rule], rules: &Rules<'_>) -> String {
    let mut text = read.title();
    if read.minted > 0 {
        text.push_str(&format!("\n{:>8} calls of minted keys, taken for their keys' own", read.minted));
    }
    if unclear(read) > 0 {
        text.push_str(&format!(
            "\n{:>8} cannot be decided again, since their records lack something: what they alone came to is listed too",
            unclear(read)
        ));
    }
    text.push_str(&format!("\n\n{} rules no call came to:", unused.len()));
    for Rule { what, at, text: entry, .. } in unused {
        let entry = if entry.is_empty() { String::new() } else { format!(" `{entry}`") };
        let place = place(loaded, at).map(|place| format!(" ({place})")).unwrap_or_default();
        text.push_str(&format!("\n  {what}:{entry} {at}{place}"));
    }
    let unmentioned = rules.unmentioned();
    text.push_str(&format!("\n\n{} tools were called that no rule mentions:", unmentioned.len()));
    for ((server, tool), count) in unmentioned {
        text.push_str(&format!("\n  {count:>8} {}", escaped(&format!("{server}/{tool}"))));
    }
    if rules.unmentioned_others > 0 {
        text.push_str(&format!("\n  {:>8} calls of others", rules.unmentioned_others));
    }
    text
}

fn json(loaded: &Loaded, read: &Read, unused: &[&Rule], rules: &Rules<'_>) -> Value {
    let unused: Vec<Value> = unused
        .iter()
        .map(|Rule { what, at, text, .. }| {
            json!({ "what": what, "rule": at.to_string(), "entry": text, "place": place(loaded, at) })
        })
        .collect();
    let unmentioned: Vec<Value> = rules
        .unmentioned()
        .into_iter()
        .map(|((server, tool), calls)| json!({ "server": server, "tool": tool, "calls": calls }))
        .collect();
    json!({
        "decisions": read.decisions,
        "minted": read.minted,
        "unclear": unclear(read),
        "first": read.first,
        "last": read.last,
        "unused": unused,
        "unmentioned": unmentioned,
        "unmentioned_others": rules.unmentioned_others,
    })
}
