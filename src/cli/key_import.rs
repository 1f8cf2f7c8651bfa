//! `portcullis keys import`: tables for keys that users already have.
//!
//! Keys come on standard input alone, where no list of processes shows them, and none of them is ever printed: mistakes are told
//! by the number of their line. All of them are told, and then nothing is printed for the configuration.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::io::Read;

use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use crate::auth::KEYS_MAX;
use crate::auth::key;
use crate::auth::strength;
use crate::clock;
use crate::config::secret::Secret;

use super::Failure;
use super::keys;
use super::keys::Holder;

/// Bytes that are read.
const INPUT_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Characters of the digest by which a key without a name is called.
const NAME_DIGITS: usize = 12;

/// What is wrong with a comment that may be no comment.
const COMMENT: &str =
    "this looks like a key, and is read as a comment: write a name before a key, or a space after the `#`";

/// Which keys to bring along.
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    #[command(flatten)]
    holder: Holder,
    /// Take 64 hexadecimal digits for the SHA-256 of a key instead of for a key. Those that begin with `sha256:` are digests
    /// anyway.
    #[arg(long)]
    digests: bool,
}

/// One key of the input.
struct Imported {
    name: String,
    digest: String,
    expires: Option<String>,
    is_disabled: bool,
    /// Whether only its digest is known.
    is_unseen: bool,
    /// Whether it may be made from the time.
    may_be_timed: bool,
}

/// The lines or entries of the input, with what is wrong with them.
type Numbered = Vec<(usize, Result<Imported, String>)>;

/// Reads keys from standard input and prints their tables.
pub(super) fn run(import: &Import) -> Result<(), Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = std::io::stdin().take(INPUT_BYTES_MAX + 1).read_to_string(&mut text).map_err(Failure::new)?;
    if read as u64 > INPUT_BYTES_MAX {
        return Err(Failure::new(format!("more than {INPUT_BYTES_MAX} bytes: import the keys in parts")));
    }
    let is_json = text.trim_start().starts_with(['[', '{']);
    let (unit, read) = if is_json { ("entry", entries(&text)?) } else { ("line", lines(&text, import.digests)) };
    let imported = distinct(read);
    let count = imported.iter().filter(|(_, read)| read.is_ok()).count();
    let mistakes: Vec<String> = imported
        .iter()
        .filter_map(|(at, read)| Some(format!("error: {unit} {at}: {}", read.as_ref().err()?)))
        .collect();
    if !mistakes.is_empty() {
        return Err(Failure { code: 1, message: format!("{}\nnothing was imported", mistakes.join("\n")) });
    }
    if count == 0 || count > KEYS_MAX {
        return Err(Failure::new(format!("{count} keys, and from 1 to {KEYS_MAX} are possible")));
    }
    let imported: Vec<Imported> = imported.into_iter().filter_map(|(_, read)| read.ok()).collect();
    let unseen = imported.iter().filter(|imported| imported.is_unseen).count();
    if unseen > 0 {
        eprintln!("warning: of {unseen} keys only the digests are known: make sure that they were made at random");
    }
    let timed = imported.iter().filter(|imported| imported.may_be_timed).count();
    if timed > 0 {
        eprintln!(
            "warning: {timed} of {} keys may be UUIDs that are made from the time, though one in 16 random ones looks so: make \
             sure that they were made at random",
            imported.len()
        );
    }
    super::print(keys::document(imported.iter().map(|imported| (&*imported.name, table(import, imported)))).trim_end())
}

fn table(import: &Import, imported: &Imported) -> toml_edit::Table {
    let mut table = keys::table(&import.holder, &imported.digest);
    if let Some(expires) = &imported.expires {
        table.insert("expires", toml_edit::value(expires));
    }
    if imported.is_disabled {
        table.insert("disabled", toml_edit::value(true));
    }
    table
}

/// What stands on the lines: `KEY`, or `NAME KEY`, with white space or a comma between them.
fn lines(text: &str, digests: bool) -> Numbered {
    let mut read = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty()).map(unquoted);
        let (first, second, third) = (words.next(), words.next(), words.next());
        let is_heading = read.is_empty() && first == Some("name") && matches!(second, Some("key" | "digest"));
        let Some(first) = first.filter(|first| !is_comment(first) && !is_heading) else { continue };
        let one = match (second, third) {
            _ if first.starts_with('#') => Err(COMMENT.to_owned()),
            (_, Some(_)) => Err("more than a name and a key".to_owned()),
            (Some(key), None) => named(first).and_then(|name| imported(Some(name), key, digests)),
            (None, None) => imported(None, first, digests),
        };
        read.push((index + 1, one));
    }
    read
}

/// A word without the quotes that tables put around it.
fn unquoted(word: &str) -> &str {
    let within = |quote: char| word.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(word)
}

fn is_comment(word: &str) -> bool {
    word.starts_with('#') && strength::check(word).is_err()
}

fn named(name: &str) -> Result<String, String> {
    if strength::check(name).is_ok() || key::public_id(name).is_some() {
        return Err("the name looks like a key: write the name first, then the key".to_owned());
    }
    match keys::is_name(name) {
        true => Ok(name.to_owned()),
        false => Err("a name has 1 to 64 letters, digits, `_`, `-` or `.`".to_owned()),
    }
}

/// One key or digest.
fn imported(name: Option<String>, text: &str, digests: bool) -> Result<Imported, String> {
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let written = match text.strip_prefix(key::IMPORTED_PREFIX) {
        Some(hex) => Some(hex),
        None => Some(text).filter(|_| digests),
    };
    let (digest, is_unseen) = match written {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            (format!("{}{}", key::IMPORTED_PREFIX, hex.to_ascii_lowercase()), true)
        }
        Some(_) => return Err("a digest is the 64 hexadecimal digits of a SHA-256".to_owned()),
        None if text.starts_with(key::MINTED_PREFIX) => {
            return Err(format!(
                "what begins with `{}` is opened as a minted key, and never looked up",
                key::MINTED_PREFIX
            ));
        }
        None if key::is_digest(text) => (text.to_owned(), false),
        None if key::public_id(text).is_some() => (key::digest(text), false),
        None => {
            strength::check(text).map_err(|weak| weak.to_string())?;
            (key::imported_digest(text), false)
        }
    };
    if is_hex && !is_unseen {
        eprintln!("note: 64 hexadecimal digits are taken for a key; with `--digests`, for the digest of one");
    }
    let digits = |digest: &str| digest.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    let from = digest.find([':', '_']).map_or(0, |at| at + 1);
    let of_digest: String = digits(digest.get(from..).unwrap_or_default()).chars().take(NAME_DIGITS).collect();
    let name = name.unwrap_or_else(|| format!("imported-{of_digest}"));
    let may_be_timed = !is_unseen && strength::may_be_timed(text);
    Ok(Imported { name, digest, expires: None, is_disabled: false, is_unseen, may_be_timed })
}

/// A list of keys as LiteLLM gives it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listed {
    Keys(Vec<ListedKey>),
    Answer { keys: Vec<ListedKey> },
}

/// One of them. `token` is the SHA-256 of the key in hex.
#[derive(Deserialize)]
struct ListedKey {
    token: Option<Secret>,
    key: Option<Secret>,
    #[serde(alias = "name")]
    key_alias: Option<String>,
    expires: Option<String>,
    blocked: Option<bool>,
    /// What else narrows it there, by its name.
    #[serde(flatten)]
    more: HashMap<String, serde_json::Value>,
}

/// What narrows a key at LiteLLM, and is not taken over.
const LEFT_OUT: [&str; 8] = [
    "allowed_routes",
    "budget_duration",
    "max_budget",
    "max_parallel_requests",
    "object_permission",
    "rpm_limit",
    "team_id",
    "tpm_limit",
];

impl ListedKey {
    /// What of that the entry says.
    fn left_out(&self) -> impl Iterator<Item = &'static str> {
        LEFT_OUT.into_iter().filter(|name| self.more.get(*name).is_some_and(says_something))
    }
}

fn says_something(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => false,
        serde_json::Value::Array(items) => !items.is_empty(),
        serde_json::Value::Object(entries) => entries.values().any(says_something),
        serde_json::Value::String(text) => !text.is_empty(),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) => true,
    }
}

/// Warns of what the entries say and their tables will not.
fn warn_of_left_out(keys: &[ListedKey]) {
    let wider = keys.iter().filter(|listed| listed.left_out().next().is_some()).count();
    if wider > 0 {
        let named: BTreeSet<&str> = keys.iter().flat_map(ListedKey::left_out).collect();
        let named = named.into_iter().collect::<Vec<_>>().join(", ");
        eprintln!(
            "warning: {wider} of {} entries are narrowed there in ways that are not taken over: {named}; add what is still to hold, \
             such as `mcp_servers`, `team` and `limits`",
            keys.len()
        );
    }
}

fn entries(text: &str) -> Result<Numbered, Failure> {
    // What serde says of a value might show it.
    let listed: Listed = serde_json::from_str(text)
        .map_err(|_| Failure::new("this is no list of keys: write `[{ \"name\": \"..\", \"key\": \"..\" }]`"))?;
    let (Listed::Keys(keys) | Listed::Answer { keys }) = listed;
    warn_of_left_out(&keys);
    Ok(keys.iter().enumerate().map(|(index, listed)| (index + 1, entry(listed))).collect())
}

fn entry(listed: &ListedKey) -> Result<Imported, String> {
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.') { letter } else { '-' };
    let name =
        listed.key_alias.as_ref().map(|alias| named(&alias.chars().map(letter).collect::<String>())).transpose()?;
    let read = match (&listed.token, &listed.key) {
        (Some(digest), None) => imported(name, digest.expose(), true)?,
        (None, Some(key)) => imported(name, key.expose(), false)?,
        _ => return Err("either `token`, a digest, or `key`".to_owned()),
    };
    if listed.expires.as_deref().is_some_and(|expires| clock::seconds_of(expires).is_none()) {
        return Err("`expires` is no time: write it as RFC 3339 does".to_owned());
    }
    Ok(Imported { expires: listed.expires.clone(), is_disabled: listed.blocked == Some(true), ..read })
}

/// The same, with a mistake for what was there already.
fn distinct(read: Numbered) -> Numbered {
    let (mut names, mut digests) = (HashMap::new(), HashMap::new());
    let mut first = |imported: Imported, at: usize| {
        if let Some(other) = digests.insert(imported.digest.clone(), at) {
            return Err(format!("the same key as {other}"));
        }
        match names.insert(imported.name.clone(), at) {
            Some(other) => Err(format!("the same name as {other}")),
            None => Ok(imported),
        }
    };
    read.into_iter().map(|(at, read)| (at, read.and_then(|imported| first(imported, at)))).collect()
}
