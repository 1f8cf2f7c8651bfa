//! `portcullis replay`: what would this configuration have decided about the calls that are on record?

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;
use serde_json::json;

use crate::config::Loaded;
use crate::config::problem::At;
use crate::server;

use super::Failure;
use super::asked::place;
use super::logs::escaped;
use super::past::Decided;
use super::past::Depends;
use super::past::Part;
use super::past::Read;
use super::past::Verdict;

/// Calls and callers that are shown of one difference.
const EXAMPLES_MAX: usize = 3;

/// What to replay.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The candidate: the configuration that decides.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    part: Part,
    /// Print one JSON object: `decisions`, `alike`, `refused`, `permitted`, `depends`, `unclear`, `differences`.
    #[arg(long)]
    json: bool,
}

/// Calls that one pair of rules decides differently.
#[derive(Debug, Default)]
struct Difference {
    count: u64,
    first: u64,
    /// Of them, those whose arguments would matter.
    depending: u64,
    /// Where the rule stands that decides now.
    at: Option<At>,
    calls: BTreeSet<String>,
    callers: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Replayed {
    read: Read,
    alike: u64,
    refused: u64,
    permitted: u64,
    /// Calls decided alike as far as the record can tell: their arguments, their scopes or their client's name would matter.
    depends: u64,
    differences: BTreeMap<(Verdict, Verdict), Difference>,
}

/// Decides everything again; exit code 4 if anything comes out otherwise than it is on record.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let compiled = server::compile(&arguments.config, 1, None).map_err(Failure::config)?;
    let mut replayed = Replayed::default();
    let read = arguments.part.each(&compiled.loaded, &compiled.snapshot, |decided| replayed.take(decided))?;
    replayed.read = read;
    super::print(&if arguments.json { replayed.json().to_string() } else { replayed.text(&compiled.loaded) })?;
    if replayed.differences.is_empty() { Ok(()) } else { Err(Failure { code: super::REFUSED, message: String::new() }) }
}

impl Replayed {
    fn take(&mut self, decided: &Decided) {
        if decided.is_minted {
            return;
        }
        let (then, now) = (&decided.then, &decided.now);
        // A refusal for want of what the record does not have may be a refusal for want of nothing, and what a client's name would
        // refuse may be refused.
        let is_open = match decided.depends {
            Some(Depends::Scopes | Depends::Client) => true,
            Some(Depends::Arguments) => now.is_of_arguments(),
            None => false,
        };
        if is_open || then.permitted == now.permitted {
            self.alike += u64::from(decided.depends.is_none());
            self.depends += u64::from(decided.depends.is_some());
            return;
        }
        // The arguments were refused then, and are still looked at.
        if decided.depends.is_some() && then.is_of_arguments() {
            self.depends += 1;
            return;
        }
        if now.permitted {
            self.permitted += 1;
        } else {
            self.refused += 1;
        }
        let difference = self.differences.entry((then.clone(), now.clone())).or_default();
        difference.count += 1;
        difference.depending += u64::from(decided.depends.is_some());
        if difference.first == 0 {
            difference.first = decided.seq;
            difference.at.clone_from(&decided.now_at);
        }
        for (set, text) in [(&mut difference.calls, &decided.what), (&mut difference.callers, &decided.principal)] {
            if set.len() <= EXAMPLES_MAX {
                set.insert(text.clone());
            }
        }
    }

    fn text(&self, loaded: &Loaded) -> String {
        let Read { others, unclear, .. } = &self.read;
        let mut text = self.read.title();
        text.push_str(&format!(
            "\n{:>8} would be decided alike\n{:>8} so, as far as arguments, scopes and clients' names allow, which are not on record\n{:>8} would be refused\n{:>8} would be permitted",
            self.alike, self.depends, self.refused, self.permitted
        ));
        if *unclear > 0 {
            text.push_str(&format!("\n{unclear:>8} cannot be decided again: their records lack something"));
        }
        text.push_str(&format!("\n{others:>8} further records are no decisions of policy"));
        for (word, permitted) in [("would be refused", false), ("would be permitted", true)] {
            let of_these = self.differences.iter().filter(|((_, now), _)| now.permitted == permitted);
            for (index, ((then, now), difference)) in of_these.enumerate() {
                if index == 0 {
                    text.push_str(&format!("\n\n{word}:"));
                }
                text.push_str(&format!("\n{:>8} {}", difference.count, some(&difference.calls)));
                text.push_str(&format!(
                    "\n           by {}; first record {}",
                    some(&difference.callers),
                    difference.first
                ));
                text.push_str(&format!(
                    "\n           then: {}\n           now:  {}",
                    then.text(None),
                    now.text(difference.at.as_ref().and_then(|at| place(loaded, at)))
                ));
                if difference.depending > 0 {
                    text.push_str(&format!(
                        "\n           {} of them if their arguments are as they must be",
                        difference.depending
                    ));
                }
            }
        }
        text
    }

    fn json(&self) -> Value {
        let verdict = |verdict: &Verdict| json!({ "permitted": verdict.permitted, "reason": verdict.reason, "rule": verdict.rule });
        let differences: Vec<Value> = self
            .differences
            .iter()
            .map(|((then, now), difference)| {
                json!({
                    "then": verdict(then),
                    "now": verdict(now),
                    "count": difference.count,
                    "depends": difference.depending,
                    "first_seq": difference.first,
                    "calls": difference.calls.iter().take(EXAMPLES_MAX).collect::<Vec<_>>(),
                    "callers": difference.callers.iter().take(EXAMPLES_MAX).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({
            "decisions": self.read.decisions,
            "alike": self.alike,
            "depends": self.depends,
            "refused": self.refused,
            "permitted": self.permitted,
            "unclear": self.read.unclear,
            "others": self.read.others,
            "first": self.read.first,
            "last": self.read.last,
            "differences": differences,
        })
    }
}

fn some(texts: &BTreeSet<String>) -> String {
    let shown: Vec<String> = texts.iter().take(EXAMPLES_MAX).map(|text| escaped(text)).collect();
    let more = if texts.len() > EXAMPLES_MAX { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

impl Verdict {
    /// In words, with the rule's place where it is known.
    fn text(&self, place: Option<String>) -> String {
        let decision = if self.permitted { "permitted" } else { "refused" };
        let rule = self.rule.as_ref().map(|rule| format!(" by {}", escaped(rule))).unwrap_or_default();
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        format!("{decision} ({}){rule}{place}", self.reason)
    }
}
