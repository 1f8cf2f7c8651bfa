//! Does the project keep to its own rules?
//!
//! Reads the tree as text: layers, imports, sizes, words, dependencies. It catches drift, not sabotage: it does not
//! see what a macro expands to. Each rule is a function from text to findings, so that the tests below can show it bad input.
#![allow(clippy::expect_used, reason = "a tree that cannot be read fails the test that reads it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Modules by layer, lowest first. A module uses lower layers only, so that two modules of one layer never know each
/// other. The words are two rows, those of the second made of those of the first; and what survives a reload takes in
/// what the reload brought, so `runtime` stands above `snapshot`.
const LAYERS: &[&[&str]] = &[
    &["config", "mcp", "principal", "clock", "failpoint"],
    &["call", "network", "seal", "telemetry"],
    &["session", "policy", "quota"],
    &["disk", "net"],
    &["transport", "auth", "upstream", "audit", "search"],
    &["snapshot"],
    &["runtime"],
    &["gateway", "admin"],
    &["server"],
    &["cli"],
    &["main"],
];

/// Modules that get everything handed to them: no I/O, no clock, no runtime.
const DECIDERS: &[&str] = &["session", "policy", "quota"];
const DECIDERS_NEVER_NAME: &[&str] = &[
    "tokio",
    "pingora",
    "SystemTime",
    "Instant::now",
    "std::fs",
    "TcpStream",
    "UdpSocket",
    "std::env",
    "crate::clock",
];

/// Modules that may name Pingora's types; everybody else would outlive a change of the host.
const PINGORA_MODULES: &[&str] = &["server", "gateway", "transport", "upstream"];

/// Modules whose output is standard output.
const PRINTING_MODULES: &[&str] = &["cli", "main"];

const FILE_LINES_MAX: usize = 600;
const IN_FILE_TEST_LINES_MAX: usize = 150;

/// Crates the product is built on: direct dependencies, and named in the source.
const FOUNDATIONS: &[&str] = &[
    "pingora",
    "pingora-load-balancing",
    "serde_json",
    "simd-json",
    "regex-automata",
    "arc-swap",
    "prometheus",
    "toml",
    "bytes",
];

/// What the gateway relies on was read and measured in this one version.
const PINGORA_PINNED: &str = "=0.9.1";

/// Packages in Cargo.lock. Pingora alone brings about 240; the rest was counted when it was added (375 in all, of which the
/// eleven that `listenfd` brings for other systems are never built, four are for man pages and completions, six are SQLite and what
/// speaks to it, and 15 are built with
/// the feature `otlp` alone). The margin is for updates that split a crate. A new dependency raises this number in the commit that gives its reason.
const PACKAGES_MAX: usize = 388;

/// Never in the tree: a second TLS implementation or provider, and regular expressions that backtrack.
const BANNED_CRATES: &[&str] = &[
    "openssl",
    "openssl-sys",
    "native-tls",
    "aws-lc-rs",
    "aws-lc-sys",
    "boring",
    "fancy-regex",
    "onig",
    "pcre2",
    "pcre2-sys",
];

/// Pingora brings it for a file format of its own; we never name it.
const BANNED_DIRECT_CRATES: &[&str] = &["serde_yaml"];

/// One file of the project, by its path from the project's root.
struct File {
    path: String,
    text: String,
}

impl File {
    fn at(path: &str, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), text: text.into() }
    }

    /// `src/policy/path.rs` is `policy::path`, `src/policy/mod.rs` is `policy`.
    fn module(&self) -> Option<String> {
        let inner = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        Some(inner.strip_suffix("/mod").unwrap_or(inner).replace('/', "::"))
    }

    fn is_in(&self, modules: &[&str]) -> bool {
        self.module().is_some_and(|module| modules.iter().any(|prefix| is_within(&module, prefix)))
    }
}

/// Whether `module` is `prefix` or inside it.
fn is_within(module: &str, prefix: &str) -> bool {
    module.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every file under `folder` with one of these endings, in order.
fn files(folder: &str, endings: &[&str]) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join(folder), &mut paths);
    let mut found: Vec<File> = paths
        .into_iter()
        .filter(|path| endings.is_empty() || endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)))
        .filter_map(|path| {
            let text = fs::read_to_string(&path).ok()?;
            let path = path.strip_prefix(root).expect("found below the root");
            Some(File { path: path.to_string_lossy().into_owned(), text })
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// What is installed, built or fetched is not the project's text.
const NOT_OURS: &[&str] = &["target", ".git", ".work", "node_modules", "__pycache__", "corpus", "artifacts"];

fn collect(path: &Path, into: &mut Vec<PathBuf>) {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if path.is_dir() && !NOT_OURS.contains(&name.as_str()) {
        for entry in fs::read_dir(path).expect("a folder that can be listed") {
            collect(&entry.expect("an entry that can be read").path(), into);
        }
    } else if path.is_file() {
        into.push(path.to_owned());
    }
}

/// The text with comments, strings and characters blanked, line by line as before.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = comment_len(rest).or_else(|| literal_len(rest, code.chars().next_back()));
        let (taken, after) = rest.split_at(skipped.unwrap_or(first.len_utf8()));
        match skipped {
            Some(_) => code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => code.push(first),
        }
        rest = after;
    }
    code
}

/// Length of the comment that begins here, if one does.
fn comment_len(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let step = if rest.starts_with("/*") {
            depth += 1;
            2
        } else if rest.starts_with("*/") {
            depth -= 1;
            2
        } else {
            rest.chars().next().map_or(1, char::len_utf8)
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// Length of the string or character that begins here, if one does. `before` is the last character of code.
fn literal_len(text: &str, before: Option<char>) -> Option<usize> {
    let in_a_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let prefix = ["br", "cr", "r", "b", "c", ""]
        .into_iter()
        .find(|prefix| text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['"', '#', '\''])))?;
    if in_a_word && !prefix.is_empty() {
        return None;
    }
    let body = text.get(prefix.len()..)?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    if prefix.ends_with('r') && body.trim_start_matches('#').starts_with('"') {
        let close = format!("\"{}", "#".repeat(hashes));
        let start = prefix.len() + hashes + 1;
        return Some(text.get(start..)?.find(&close).map_or(text.len(), |end| start + end + close.len()));
    }
    let quote = body.chars().next()?;
    if quote == '#' || quote == '\'' && is_lifetime(body) {
        return None;
    }
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(prefix.len() + at + c.len_utf8()),
            _ => {}
        }
    }
    Some(text.len())
}

/// `'a` names a lifetime, `'a'` and `'\n'` are characters.
fn is_lifetime(text: &str) -> bool {
    let mut after = text.chars().skip(1);
    match (after.next(), after.next()) {
        (Some('\\'), _) => false,
        (Some(_), Some('\'')) => false,
        (Some(c), _) => c.is_alphanumeric() || c == '_',
        (None, _) => true,
    }
}

/// Code without what is built for tests only, and how many lines of tests the file carries.
fn without_tests(code: &str) -> (String, usize) {
    let mut kept = String::with_capacity(code.len());
    let mut test_lines = 0;
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, from) = rest.split_at(at);
        kept.push_str(before);
        let (item, after) = from.split_at(item_len(from));
        test_lines += item.lines().count();
        kept.extend(item.chars().filter(|c| *c == '\n'));
        rest = after;
    }
    kept.push_str(rest);
    (kept, test_lines)
}

/// Length of the item that begins here: to its semicolon, or to the end of its block.
fn item_len(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Files that hold nothing but tests.
fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The code of a file that ships; empty for a file of tests.
fn shipped(file: &File) -> String {
    if is_test_file(&file.path) { String::new() } else { without_tests(&code_only(&file.text)).0 }
}

/// Whether `text` names `word`, not as part of a longer word.
fn names(text: &str, word: &str) -> bool {
    let part_of_a_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|head| head.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|tail| tail.chars().next());
        let opens = !word.starts_with(part_of_a_word) || !before.is_some_and(part_of_a_word);
        let closes = !word.ends_with(part_of_a_word) || !after.is_some_and(part_of_a_word);
        opens && closes
    })
}

/// One finding per line of `code` that `judge` objects to.
fn by_line(path: &str, code: &str, mut judge: impl FnMut(&str) -> Option<String>) -> Vec<String> {
    let finding = |(at, line)| judge(line).map(|what| format!("{path}:{}: {what}", at + 1));
    (0..).zip(code.lines()).filter_map(finding).collect()
}

/// The layer of a module: that of the longest entry it is or lies in.
fn layer(module: &str) -> Option<(usize, &'static str)> {
    let entries = (0..).zip(LAYERS).flat_map(|(row, entries)| entries.iter().map(move |entry| (row, *entry)));
    entries.filter(|(_, entry)| is_within(module, entry)).max_by_key(|(_, entry)| entry.len())
}

/// Rule: a module uses lower layers only.
fn layer_findings(file: &File) -> Vec<String> {
    let Some(module) = file.module().filter(|module| module != "lib") else { return Vec::new() };
    let Some((row, own)) = layer(&module) else {
        return vec![format!("{}: module `{module}` is in no layer: add it to LAYERS", file.path)];
    };
    by_line(&file.path, &code_only(&file.text), |line| {
        let used = line.match_indices("crate::").filter_map(|(at, root)| {
            let path = line.get(at + root.len()..)?;
            let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(path.len());
            path.get(..end)
        });
        used.filter_map(|path| layer(path).map(|found| (path, found)))
            .find(|(_, (other_row, other))| *other != own && *other_row >= row)
            .map(|(path, _)| format!("`{own}` may not use `crate::{path}`: it is not in a lower layer"))
    })
}

/// Rule: imports name one item a line, by its full path.
fn import_findings(file: &File) -> Vec<String> {
    by_line(&file.path, &code_only(&file.text), |line| {
        let line = line.trim();
        let import = line.strip_prefix("pub ").unwrap_or(line);
        let import = import.strip_prefix("pub(crate) ").unwrap_or(import);
        let is_import = import.starts_with("use ");
        if is_import && line.contains('{') {
            return Some("import one item a line, without braces".to_owned());
        }
        let of_ours = ["use crate::", "use self::", "use super::"].iter().any(|path| import.starts_with(path));
        if of_ours && line.contains("::*") && !line.contains("use super::*;") {
            return Some("import what is used by name, without `*`".to_owned());
        }
        line.contains("super::super").then(|| "name the module by its path from `crate`".to_owned())
    })
}

/// Rule: every file opens by saying which question it answers, and stays readable in one sitting.
fn file_findings(file: &File) -> Vec<String> {
    let mut findings = Vec::new();
    if !file.text.starts_with("//! ") {
        findings.push(format!("{}:1: begin with `//!` and the question the file answers", file.path));
    }
    let all = file.text.lines().count();
    let tests = if is_test_file(&file.path) { all } else { without_tests(&code_only(&file.text)).1 };
    if all - tests > FILE_LINES_MAX {
        findings.push(format!("{}: {} lines without tests, more than {FILE_LINES_MAX}", file.path, all - tests));
    }
    if tests > IN_FILE_TEST_LINES_MAX && !is_test_file(&file.path) {
        findings.push(format!(
            "{}: {tests} lines of tests, more than {IN_FILE_TEST_LINES_MAX}: give them a file",
            file.path
        ));
    }
    findings
}

/// Rule: nothing that ends the process, was left unfinished, or writes past the log.
fn call_findings(file: &File) -> Vec<String> {
    let mut never = vec![".unwrap()", "todo!", "unimplemented!", "dbg!"];
    if !file.is_in(PRINTING_MODULES) {
        never.extend(["println!", "print!", "eprintln!", "eprint!"]);
    }
    by_line(&file.path, &shipped(file), |line| {
        never.iter().find(|call| names(line, call)).map(|call| format!("`{call}` does not belong here"))
    })
}

/// Rule: deciders are handed what they judge.
fn decider_findings(file: &File) -> Vec<String> {
    if !file.is_in(DECIDERS) {
        return Vec::new();
    }
    by_line(&file.path, &shipped(file), |line| {
        DECIDERS_NEVER_NAME
            .iter()
            .find(|name| names(line, name))
            .map(|name| format!("a decider does not know `{name}`"))
    })
}

/// Rule: the host's types stay at the edges.
fn pingora_findings(file: &File) -> Vec<String> {
    if file.is_in(PINGORA_MODULES) {
        return Vec::new();
    }
    by_line(&file.path, &code_only(&file.text), |line| {
        let named = ["pingora", "pingora_core", "pingora_http", "pingora_proxy", "pingora_load_balancing"];
        named.iter().any(|name| names(line, name)).then(|| format!("only {PINGORA_MODULES:?} may name Pingora"))
    })
}

/// Words that belong to somebody's desk, not to the project. Spelled in two halves, so that this file passes.
fn forbidden_words() -> Vec<String> {
    let halves = [
        ("TO", "DO"),
        ("FIX", "ME"),
        ("XX", "X"),
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("registry.npm", "js.org"),
        ("py", "pi.org"),
        ("files.python", "hosted.org"),
        ("Co-authored", "-by"),
        ("Generated ", "with"),
        ("Cop", "ilot"),
        ("Chat", "GPT"),
    ];
    halves.map(|(a, b)| format!("{a}{b}")).to_vec()
}

/// Rule: the project's text speaks of the project alone. A path is foreign only where it begins.
fn word_findings(file: &File) -> Vec<String> {
    let forbidden = forbidden_words();
    by_line(&file.path, &file.text, |line| {
        let said = |word: &&String| {
            line.match_indices(word.as_str()).any(|(at, _)| {
                let before = line.get(..at).and_then(|head| head.chars().next_back());
                let joined = before.is_some_and(|c| c.is_alphanumeric() || "_.-/}~".contains(c));
                !joined && names(line, word)
            })
        };
        forbidden.iter().find(said).map(|word| format!("`{word}` does not belong into the project"))
    })
}

/// A section's dependencies, as Cargo.toml states them: name and version.
fn dependencies(manifest: &toml::Table, section: &str) -> Vec<(String, String)> {
    let table = manifest.get(section).and_then(toml::Value::as_table);
    let version = |value: &toml::Value| {
        let stated = value.as_str().or_else(|| value.get("version").and_then(toml::Value::as_str));
        stated.unwrap_or_default().to_owned()
    };
    table.into_iter().flatten().map(|(name, value)| (name.clone(), version(value))).collect()
}

/// Rule: the foundations are direct, Pingora is pinned, nothing banned is direct, and everything direct is used.
fn manifest_findings(manifest: &toml::Table, shipped: &str) -> Vec<String> {
    let direct = dependencies(manifest, "dependencies");
    let mut findings = Vec::new();
    for name in FOUNDATIONS.iter().filter(|name| !direct.iter().any(|(found, _)| found == *name)) {
        findings.push(format!("Cargo.toml: `{name}` is not a direct dependency"));
    }
    for (name, version) in &direct {
        if name.starts_with("pingora") && version != PINGORA_PINNED {
            findings.push(format!("Cargo.toml: `{name}` is `{version}`, not `{PINGORA_PINNED}`"));
        }
        if !names(shipped, &name.replace('-', "_")) {
            findings.push(format!("Cargo.toml: `{name}` is not named in src: use it or remove it"));
        }
    }
    let tested = dependencies(manifest, "dev-dependencies");
    let banned = |name: &String| BANNED_DIRECT_CRATES.contains(&name.as_str());
    let direct_bans = direct.iter().chain(&tested).filter(|(name, _)| banned(name));
    findings.extend(direct_bans.map(|(name, _)| format!("Cargo.toml: `{name}` may not be a direct dependency")));
    findings
}

/// Rule: the tree stays small, comes from one registry, and holds nothing banned.
fn lock_findings(lock: &toml::Table) -> Vec<String> {
    let packages = lock.get("package").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let field = |package: &toml::Value, key: &str| package.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let mut findings = Vec::new();
    if packages.len() > PACKAGES_MAX {
        findings.push(format!("Cargo.lock: {} packages, more than {PACKAGES_MAX}", packages.len()));
    }
    let found = packages.iter().filter_map(|package| field(package, "name"));
    let banned = found.filter(|name| BANNED_CRATES.contains(&name.as_str()));
    findings.extend(banned.map(|name| format!("Cargo.lock: `{name}` is banned: see deny.toml")));
    let sources: BTreeSet<String> = packages.iter().filter_map(|package| field(package, "source")).collect();
    if sources.len() > 1 || sources.iter().any(|source| !source.starts_with("registry+")) {
        findings.push(format!("Cargo.lock: packages come from {sources:?}, not from one registry"));
    }
    findings
}

fn read_toml(name: &str) -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).expect("a file at the root").parse().expect("TOML")
}

#[track_caller]
fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// Applies a rule to every Rust file under `folder`.
#[track_caller]
fn hold(folder: &str, rule: impl Fn(&File) -> Vec<String>) {
    let all = files(folder, &[".rs"]);
    assert!(!all.is_empty(), "no file found under {folder}");
    assert_none(&all.iter().flat_map(rule).collect::<Vec<_>>());
}

#[test]
fn modules_use_lower_layers_only() {
    hold("src", layer_findings);
}

#[test]
fn imports_name_one_item_a_line() {
    hold("src", import_findings);
    hold("load-tests", import_findings);
}

#[test]
fn every_file_says_what_it_is_for_and_stays_small() {
    hold("src", file_findings);
    hold("tests", file_findings);
    hold("load-tests", file_findings);
}

#[test]
fn shipped_code_neither_panics_on_purpose_nor_prints() {
    hold("src", call_findings);
}

#[test]
fn deciders_do_no_io_and_read_no_clock() {
    hold("src", decider_findings);
}

#[test]
fn pingora_stays_at_the_edges() {
    hold("src", pingora_findings);
}

#[test]
fn the_project_speaks_of_the_project_alone() {
    let all = files("", &[]);
    assert!(all.iter().any(|file| file.path == "Cargo.toml"), "the root was not read");
    assert_none(&all.iter().flat_map(word_findings).collect::<Vec<_>>());
}

#[test]
fn dependencies_are_direct_pinned_used_and_few() {
    let shipped: String = files("src", &[".rs"]).iter().map(shipped).collect();
    let mut findings = manifest_findings(&read_toml("Cargo.toml"), &shipped);
    findings.extend(lock_findings(&read_toml("Cargo.lock")));
    assert_none(&findings);
}

#[test]
fn a_module_that_looks_up_or_sideways_is_found() {
    let found = |path, text: &str| layer_findings(&File::at(path, text)).len();
    assert_eq!(found("src/policy/mod.rs", "use crate::gateway::handle;"), 1);
    assert_eq!(found("src/policy/mod.rs", "use crate::session::Session;"), 1);
    assert_eq!(found("src/policy/mod.rs", "fn f() -> crate::runtime::Runtime {}"), 1);
    assert_eq!(found("src/unheard_of.rs", ""), 1);
    assert_eq!(found("src/policy/mod.rs", "use crate::config::model::Config;\nuse crate::policy::path::Path;"), 0);
    assert_eq!(found("src/policy/mod.rs", "// crate::gateway\nconst A: &str = \"crate::gateway\";"), 0);
    assert_eq!(found("src/lib.rs", "pub use crate::gateway::Gateway;"), 0);
}

#[test]
fn a_lumped_or_relative_import_is_found() {
    let found = |text: &str| import_findings(&File::at("src/a.rs", text)).len();
    assert_eq!(found("use crate::{a, b};\npub use std::{fmt, io};\n    use super::{a};"), 3);
    assert_eq!(found("use crate::config::*;\nuse super::a::*;\nuse super::super::a;"), 3);
    assert_eq!(
        found(
            "use std::fmt;\npub use self::a::B;\nmod tests {\nuse super::*;\nuse proptest::prelude::*;\n}\nfn f() { match a {} }"
        ),
        0
    );
}

#[test]
fn a_file_without_its_question_or_too_long_is_found() {
    let found = |path, text: String| file_findings(&File::at(path, text)).len();
    let lines = |count: usize| "const A: u8 = 1;\n".repeat(count);
    assert_eq!(found("src/a.rs", "use std::fmt;".to_owned()), 1);
    assert_eq!(found("src/a.rs", format!("//! What?\n{}", lines(FILE_LINES_MAX - 1))), 0);
    assert_eq!(found("src/a.rs", format!("//! What?\n{}", lines(FILE_LINES_MAX))), 1);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(IN_FILE_TEST_LINES_MAX));
    assert_eq!(found("src/a.rs", format!("//! What?\n{}{tests}", lines(FILE_LINES_MAX - 1))), 1, "the tests alone");
    assert_eq!(found("src/a/tests.rs", format!("//! What?\n{}", lines(FILE_LINES_MAX * 2))), 0);
}

#[test]
fn a_call_that_panics_or_prints_is_found_in_shipped_code_only() {
    let found = |path, text: &str| call_findings(&File::at(path, text)).len();
    assert_eq!(found("src/a.rs", "fn f() { a().unwrap(); }\nfn g() { todo!() }\nfn h() { dbg!(1); }"), 3);
    assert_eq!(found("src/a.rs", "fn f() { println!(); }\nfn g() { unimplemented!() }"), 2);
    assert_eq!(found("src/cli/mod.rs", "fn f() { println!(); }"), 0);
    assert_eq!(found("src/a.rs", "fn f() { a().unwrap_or(1); } // .unwrap()\n"), 0);
    assert_eq!(
        found("src/a.rs", "#[cfg(test)]\nmod tests {\n fn f() { a('}').unwrap(); }\n}\nfn g() { b().unwrap(); }"),
        1
    );
    assert_eq!(found("src/a/tests.rs", "fn f() { a().unwrap(); }"), 0);
}

#[test]
fn a_decider_that_asks_the_world_is_found() {
    let found = |path, text: &str| decider_findings(&File::at(path, text)).len();
    assert_eq!(found("src/policy/mod.rs", "use tokio::sync::Mutex;\nlet a = Instant::now();\nuse std::fs;"), 3);
    assert_eq!(
        found("src/session/mod.rs", "use std::time::SystemTime;\nuse std::net::TcpStream;\nuse pingora::lb;"),
        3
    );
    assert_eq!(found("src/policy/mod.rs", "use std::net::IpAddr;\nfn f(now: u64) {}\n// tokio"), 0);
    assert_eq!(found("src/audit/mod.rs", "use std::fs;"), 0);
}

#[test]
fn pingora_in_the_wrong_place_is_found() {
    let found = |path, text: &str| pingora_findings(&File::at(path, text)).len();
    assert_eq!(found("src/policy/mod.rs", "use pingora_proxy::Session;\nuse pingora::http::RequestHeader;"), 2);
    assert_eq!(found("src/telemetry/logging.rs", "const CAPPED: &[&str] = &[\"pingora_core\"];"), 0);
    assert_eq!(found("src/upstream/mod.rs", "use pingora::http::RequestHeader;"), 0);
}

#[test]
fn a_foreign_word_is_found() {
    let found = |text: &str| word_findings(&File::at("a", text)).len();
    for word in forbidden_words() {
        assert_eq!(found(&format!("see {word} there")), 1, "{word}");
    }
    assert_eq!(found("tests/conformance/.work/run and METHODOLOGY, $root/work/dir"), 0);
}

#[test]
fn a_dependency_that_breaks_a_rule_is_found() {
    let manifest = |text: &str| text.parse::<toml::Table>().expect("TOML");
    let sound: String = FOUNDATIONS.iter().map(|name| format!("{name} = \"{PINGORA_PINNED}\"\n")).collect();
    let used: String = FOUNDATIONS.iter().map(|name| format!("use {}::A;\n", name.replace('-', "_"))).collect();
    let found =
        |more: &str, used: &str| manifest_findings(&manifest(&format!("[dependencies]\n{sound}{more}")), used).len();
    assert_eq!(found("", &used), 0);
    assert_eq!(found("idle = \"1\"", &used), 1);
    assert_eq!(found("pingora-cache = { version = \"0.9.1\" }", &format!("{used} pingora_cache")), 1);
    assert_eq!(found("serde_yaml = \"0.9\"", &format!("{used} serde_yaml")), 1);
    assert_eq!(manifest_findings(&manifest(""), "").len(), FOUNDATIONS.len());
}

#[test]
fn a_tree_that_is_too_big_banned_or_from_elsewhere_is_found() {
    let package = |name: &str, source: &str| format!("[[package]]\nname = \"{name}\"\nsource = \"{source}\"\n");
    let found = |text: &str| lock_findings(&text.parse::<toml::Table>().expect("TOML")).len();
    assert_eq!(found(&package("a", "registry+one").repeat(PACKAGES_MAX)), 0);
    assert_eq!(found(&package("a", "registry+one").repeat(PACKAGES_MAX + 1)), 1);
    assert_eq!(found(&package("openssl-sys", "registry+one")), 1);
    assert_eq!(found(&package("a", "git+one")), 1);
    assert_eq!(found(&[package("a", "registry+one"), package("b", "registry+two")].concat()), 1);
}

#[test]
fn code_is_told_from_comments_and_literals() {
    let text = "a /* x /* y */ z */ b // c\nd(\"e \\\" f\", 'g', '\\'', b'h', r#\"i \" j\"#) <'k> l;";
    let code = code_only(text);
    let left: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    assert_eq!(left, "abd(,,,,)<'k>l;");
    assert_eq!(code.lines().count(), text.lines().count());
}
