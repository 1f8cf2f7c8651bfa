//! `portcullis explain`: what would become of this call, and why?
//!
//! The same `compile` and the same `decide` as on the data path; nothing is sent.

use std::path::PathBuf;

use serde_json::Value;
use serde_json::json;

use crate::config::Loaded;
use crate::policy::Consulted;
use crate::server;

use super::Failure;
use super::asked::Answer;
use super::asked::Asked;
use super::asked::place;

/// The call to explain.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration's main file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    asked: Asked,
    /// Print one JSON object: `decision`, `reason`, `text`, `rule`, `place`, `levels`, `reported`.
    #[arg(long)]
    json: bool,
}

/// Decides the call and prints why; exit code 4 if it would be refused.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let compiled = server::compile(&arguments.config, 1, None).map_err(Failure::config)?;
    let answer = arguments.asked.decide(&compiled.loaded, &compiled.snapshot)?;
    super::print(&render(arguments.json, &compiled.loaded, &answer))?;
    if answer.permitted { Ok(()) } else { Err(Failure { code: super::REFUSED, message: String::new() }) }
}

fn render(as_json: bool, loaded: &Loaded, answer: &Answer) -> String {
    let decision = if answer.permitted { "permitted" } else { "refused" };
    let rule = answer.rule.as_ref().map(ToString::to_string);
    let place_of_rule = answer.rule.as_ref().and_then(|at| place(loaded, at));
    if as_json {
        let levels: Vec<Value> = answer.consulted.iter().map(|consulted| level_json(loaded, consulted)).collect();
        let (reason, text) = (answer.reason, &answer.text);
        return json!({ "decision": decision, "reason": reason, "text": text, "rule": rule, "place": place_of_rule, "levels": levels, "reported": answer.reported })
            .to_string();
    }
    let mut text = format!("{decision}: {} ({})", answer.text, answer.reason);
    if let Some(rule) = rule {
        text.push_str(&format!("\n  rule:  {rule}"));
    }
    if let Some(place) = place_of_rule {
        text.push_str(&format!("\n  place: {place}"));
    }
    if !answer.reported.is_empty() {
        text.push_str(&format!("\n  says it is: {} (which can only deny)", answer.reported.join(", ")));
    }
    if !answer.consulted.is_empty() {
        text.push_str("\n  levels, in the order in which they are asked:");
    }
    for consulted in &answer.consulted {
        let (speaker, at) = (consulted.speaker.name(), consulted.rule.as_ref().unwrap_or(&consulted.level));
        text.push_str(&format!("\n    {speaker:<13} {:<13} {at}", said(consulted)));
        if let Some(place) = place(loaded, at) {
            text.push_str(&format!(" ({place})"));
        }
    }
    text
}

fn said(consulted: &Consulted) -> &'static str {
    match consulted.granted {
        Some(true) => "grants",
        Some(false) => "denies",
        None => "says nothing",
    }
}

fn level_json(loaded: &Loaded, consulted: &Consulted) -> Value {
    let at = consulted.rule.as_ref().unwrap_or(&consulted.level);
    json!({
        "level": consulted.speaker.name(),
        "granted": consulted.granted,
        "rule": at.to_string(),
        "place": place(loaded, at),
    })
}
