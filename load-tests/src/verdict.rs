//! What was claimed, what was seen, and does the one hold?
//!
//! Every proof ends in figures and claims. They are printed for people and written as JSON for programs; one claim that
//! does not hold makes the proof a failure.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// What one proof found.
#[derive(Debug)]
pub struct Report {
    name: String,
    figures: Map<String, Value>,
    claims: Vec<Claim>,
    doubts: Vec<String>,
}

#[derive(Debug)]
struct Claim {
    what: String,
    holds: bool,
    seen: String,
}

impl Report {
    /// Of the proof of this name.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), figures: Map::new(), claims: Vec::new(), doubts: Vec::new() }
    }

    /// Notes a figure, the unit at the end of its name.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Notes whether `what` holds, and what was seen of it.
    pub fn claim(&mut self, what: impl Into<String>, holds: bool, seen: impl Into<String>) {
        self.claims.push(Claim { what: what.into(), holds, seen: seen.into() });
    }

    /// Notes what makes the figures of this run less than they could be.
    pub fn doubt(&mut self, what: impl Into<String>) {
        self.doubts.push(what.into());
    }

    /// Whether every claim holds. A proof without claims proves nothing.
    pub fn holds(&self) -> bool {
        !self.claims.is_empty() && self.claims.iter().all(|claim| claim.holds)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("\n== {}\n", self.name);
        for (name, value) in &self.figures {
            text.push_str(&format!("   {name:<36} {}\n", shown(value)));
        }
        for doubt in &self.doubts {
            text.push_str(&format!("   note: {doubt}\n"));
        }
        for Claim { what, holds, seen } in &self.claims {
            text.push_str(&format!("{}  {what}: {seen}\n", if *holds { "ok    " } else { "FAILED" }));
        }
        text
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let claims: Vec<Value> = self
            .claims
            .iter()
            .map(|claim| json!({ "what": claim.what, "holds": claim.holds, "seen": claim.seen }))
            .collect();
        json!({ "name": self.name, "holds": self.holds(), "figures": self.figures, "claims": claims, "notes": self.doubts })
    }
}

/// How a program of proofs ends: with success only if there are reports, all of them hold, and they could be written to `file`.
pub fn end(reports: io::Result<Vec<Report>>, file: Option<&Path>) -> ExitCode {
    match reports.and_then(|reports| publish(&reports, file)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the reports, writes them to `file`, and says whether all of them hold.
fn publish(reports: &[Report], file: Option<&Path>) -> io::Result<bool> {
    for report in reports {
        print!("{}", report.text());
    }
    if let Some(file) = file {
        let all: Vec<Value> = reports.iter().map(Report::to_json).collect();
        fs::write(file, format!("{:#}\n", Value::from(all)))?;
        println!("\nfigures: {}", file.display());
    }
    let failed = reports.iter().filter(|report| !report.holds()).count();
    println!("\n{} proofs, {failed} of which failed", reports.len());
    Ok(failed == 0 && !reports.is_empty())
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{float:.3}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claim_that_does_not_hold_fails_the_proof() {
        let mut report = Report::new("a");
        assert!(!report.holds(), "nothing was proved");
        report.claim("this", true, "seen");
        assert!(report.holds());
        report.claim("that", false, "not seen");
        assert!(!report.holds());
        assert!(report.text().contains("FAILED  that: not seen"));
        assert_eq!(report.to_json()["holds"], false);
    }
}
