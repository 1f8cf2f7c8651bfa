//! What must hold for any configuration? Checked by the fuzz targets, and by the replay of their seeds.
#![expect(clippy::expect_used, reason = "what breaks a rule is to end the run")]

use std::fs;

/// Any bytes are compiled or refused, with texts that an operator can be shown; and twice in the same way.
pub fn configuration(input: &[u8]) {
    // One file a process: fuzzers run many, threads of a test take turns.
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = std::env::temp_dir().join(format!("portcullis-fuzz-{}.toml", std::process::id()));
    fs::write(&path, input).expect("a file in the temporary directory");
    let compile = || match super::compile(&path, 1, None) {
        Ok(compiled) => compiled.loaded.sources.render(&compiled.loaded.warnings),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("error"), "refused without a mistake: {text}");
            text
        }
    };
    assert_eq!(compile(), compile());
    let _ = fs::remove_file(&path);
}
