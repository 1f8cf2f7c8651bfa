//! `portcullis test`: does this configuration decide as its authors expect?
//!
//! Cases stand in TOML files, each with a call, what is expected of it and, if it matters, the reason.

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::Loaded;
use crate::server;
use crate::snapshot::Snapshot;

use super::Failure;
use super::asked::Asked;
use super::asked::place;

/// What to test.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration's main file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Files with cases.
    #[arg(required = true, value_name = "CASES")]
    cases: Vec<PathBuf>,
    /// Print every case, not only those that fail.
    #[arg(long, short)]
    verbose: bool,
}

/// `[[case]]` of a file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What the case shows, for people.
    #[serde(default)]
    name: Option<String>,
    /// The call.
    call: Asked,
    /// What becomes of it.
    expect: Expected,
    /// The word for why, as `explain` prints it; absent: any.
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expected {
    Permitted,
    Refused,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

/// Decides every case; exit code 4 if any comes out otherwise than expected.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let compiled = server::compile(&arguments.config, 1, None).map_err(Failure::config)?;
    let (mut passed, mut failed) = (0, 0);
    for path in &arguments.cases {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("{} cannot be read: {error}", path.display())))?;
        let cases: Cases = toml::from_str(&text)
            .map_err(|error| Failure { code: 2, message: format!("error: in {}\n{error}", path.display()) })?;
        if cases.case.is_empty() {
            // A gate that asks nothing must not open.
            return Err(Failure { code: 2, message: format!("error: {} has no `[[case]]`", path.display()) });
        }
        for (index, case) in cases.case.iter().enumerate() {
            let name = case.name.clone().unwrap_or_else(|| format!("case {}", index + 1));
            match judge(case, &compiled.loaded, &compiled.snapshot) {
                Ok(()) => {
                    passed += 1;
                    if arguments.verbose {
                        super::print(&format!("ok      {}: {name}", path.display()))?;
                    }
                }
                Err(surprise) => {
                    failed += 1;
                    super::print(&format!("FAILED  {}: {name}\n{surprise}", path.display()))?;
                }
            }
        }
    }
    super::print(&format!("{passed} passed, {failed} failed"))?;
    if failed == 0 { Ok(()) } else { Err(Failure { code: super::REFUSED, message: String::new() }) }
}

fn judge(case: &Case, loaded: &Loaded, snapshot: &Snapshot) -> Result<(), String> {
    let answer = case.call.decide(loaded, snapshot).map_err(|failure| format!("          {}", failure.message))?;
    let as_expected = answer.permitted == (case.expect == Expected::Permitted);
    if as_expected && case.reason.as_deref().is_none_or(|reason| reason == answer.reason) {
        return Ok(());
    }
    let expected = match case.expect {
        Expected::Permitted => "permitted",
        Expected::Refused => "refused",
    };
    let reason = case.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let decision = if answer.permitted { "permitted" } else { "refused" };
    let place = answer.rule.as_ref().and_then(|at| place(loaded, at));
    let place = place.map(|place| format!("\n          place:    {place}")).unwrap_or_default();
    Err(format!(
        "          expected: {expected}{reason}\n          found:    {decision} ({}): {}{place}",
        answer.reason, answer.text
    ))
}
