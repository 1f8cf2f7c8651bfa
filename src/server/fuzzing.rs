//! What must hold for any configuration? Checked by the fuzz targets, and by the replay of their seeds.
#![expect(clippy::expect_used, reason = "what breaks a rule is to end the run")]

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use crate::snapshot::Snapshot;

/// What every input is compiled after, as on a reload: patterns that it shares with this are not built again, which takes
/// seconds where each step is watched.
const BEFORE: &str = "[servers.a]\nurl = \"http://127.0.0.1:1/mcp\"\n";

/// Any bytes are compiled or refused, with texts that an operator can be shown; twice in the same way, and at times without
/// what went before.
pub fn configuration(input: &[u8]) {
    // One file a process: fuzzers run many, threads of a test take turns.
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    static PREVIOUS: OnceLock<Option<Snapshot>> = OnceLock::new();
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = std::env::temp_dir().join(format!("portcullis-fuzz-{}.toml", std::process::id()));
    let previous = PREVIOUS.get_or_init(|| {
        fs::write(&path, BEFORE).expect("a file in the temporary directory");
        super::compile(&path, 1, None).ok().map(|compiled| compiled.snapshot)
    });
    fs::write(&path, input).expect("a file in the temporary directory");
    let first = told(&path, previous.as_ref());
    assert_eq!(first, told(&path, previous.as_ref()));
    if input.len().is_multiple_of(64) {
        assert_eq!(first, told(&path, None), "with nothing before it, it is another");
    }
    let _ = fs::remove_file(&path);
}

/// What an operator is told of the file.
fn told(path: &Path, previous: Option<&Snapshot>) -> String {
    match super::compile(path, 1, previous) {
        Ok(compiled) => compiled.loaded.sources.render(&compiled.loaded.warnings),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("error"), "refused without a mistake: {text}");
            text
        }
    }
}
