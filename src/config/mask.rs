//! What of a file may be shown in a message?
//!
//! Secrets written in clear, values under unknown keys, and the user, password and query of a URL become stars of
//! the same length, once, before anything is rendered; references stay readable. In a file with syntax errors
//! whatever stands near a word for a secret is masked.

use std::ops::Range;

use crate::config::files::File;
use crate::config::files::Files;
use crate::config::interpolate;
use crate::config::interpolate::Piece;
use crate::config::interpolate::Place;
use crate::config::problem::At;
use crate::config::problem::Step;
use crate::config::tree::Kind;
use crate::config::tree::Node;

/// Masks the texts of all files.
pub(crate) fn mask(files: &mut Files) {
    let Files { files, root, refused, .. } = files;
    let mut marks = vec![Vec::new(); files.len()];
    mark(root, &At::root(), false, files, &mut marks);
    refused.iter().for_each(|(at, node)| mark(node, at, false, files, &mut marks));
    for (file, mut ranges) in files.iter_mut().zip(marks) {
        if file.broken {
            ranges.extend(suspicious(&file.text));
        }
        cover(file, ranges);
    }
}

fn mark(node: &Node, at: &At, private: bool, files: &[File], marks: &mut [Vec<Range<usize>>]) {
    let private = private || node.private || is_secret(at);
    match &node.kind {
        Kind::Table(entries) => {
            entries.iter().for_each(|(key, entry)| mark(entry, &at.key(key), private, files, marks));
        }
        Kind::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| mark(item, &at.index(index), private, files, marks));
        }
        _ => {
            let range = node.span.start..node.span.end;
            let Some(text) = files.get(node.span.file).and_then(|file| file.text.get(range)) else { return };
            let hidden = match (private, interpolate::place(at)) {
                (true, _) => literals(text, 0..text.len()),
                (false, Some(Place::Url)) => {
                    url_secrets(text).into_iter().flat_map(|range| literals(text, range)).collect()
                }
                (false, _) => Vec::new(),
            };
            let start = node.span.start;
            let hidden = hidden.into_iter().map(|range| start + range.start..start + range.end);
            marks.iter_mut().skip(node.span.file).take(1).for_each(|marks| marks.extend(hidden.clone()));
        }
    }
}

/// Whether a text at this place is one that must not be shown. A key's digest is: somebody may have put the key there.
fn is_secret(at: &At) -> bool {
    let words: Vec<&str> = at
        .steps()
        .iter()
        .map(|step| match step {
            Step::Key(key) => key.as_str(),
            Step::Index(_) => "[]",
        })
        .collect();
    match words.as_slice() {
        ["servers", _, "auth", word, ..] => !matches!(*word, "type" | "name"),
        ["servers", _, "headers", ..] | ["seal", ..] | ["keys", _, "digest", ..] => true,
        _ => false,
    }
}

/// The parts of `within` that are no references, without the quotes at the ends.
fn literals(text: &str, within: Range<usize>) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let part = text.get(within.clone()).unwrap_or_default();
    for piece in interpolate::pieces(part) {
        let piece = match piece {
            Piece::Reference { inner, .. } if interpolate::is_reference(inner) => continue,
            Piece::Reference { whole, .. } | Piece::Literal(whole) | Piece::Unclosed(whole) => whole,
        };
        let start = piece.as_ptr().addr() - text.as_ptr().addr();
        let end = start + piece.len();
        let quotes = |text: &str, trimmed: &str| text.len() - trimmed.len();
        let head = if start == 0 { quotes(piece, piece.trim_start_matches(['"', '\''])) } else { 0 };
        let tail = if end == text.len() { quotes(piece, piece.trim_end_matches(['"', '\''])) } else { 0 };
        if start + head < end.saturating_sub(tail) {
            ranges.push(start + head..end - tail);
        }
    }
    ranges
}

/// User and password, and the query, of the URL in `text`.
fn url_secrets(text: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let authority = text.find("://").map_or(0, |found| found + 3);
    let rest = text.get(authority..).unwrap_or_default();
    let path = authority + rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if let Some(at) = text.get(authority..path).and_then(|authority| authority.rfind('@')) {
        ranges.push(authority..authority + at);
    }
    if let Some(query) = text.find('?') {
        ranges.push(query + 1..text.len());
    }
    ranges
}

const SUSPICIOUS: [&str; 12] = [
    "secret", "token", "password", "passwd", "authorization", "cookie", "header", "key", "digest", "auth", "seal", "username",
];

/// In a text that is not understood: what follows a suspicious word, up to the next plain key or table.
fn suspicious(text: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    let (mut in_table, mut in_value) = (false, false);
    for line in text.split_inclusive('\n') {
        let lower = line.to_ascii_lowercase();
        let word = SUSPICIOUS.iter().filter_map(|word| lower.find(word)).min();
        if lower.starts_with('[') && !lower.contains('=') {
            (in_table, in_value) = (word.is_some(), false);
        } else {
            let separator = |from: usize| lower.get(from..).and_then(|rest| rest.find(['=', ':'])).map(|at| from + at + 1);
            let begins_key = separator(0).is_some_and(|at| {
                let key = lower.get(..at - 1).unwrap_or_default().trim().trim_matches(['"', '\'']);
                !key.is_empty() && key.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-. \"'".contains(letter))
            });
            let hidden_from = match word {
                _ if begins_key && in_table => separator(0),
                Some(word) => Some(separator(word).unwrap_or(word)),
                None if in_value && !begins_key => Some(0),
                None => None,
            };
            in_value = hidden_from.is_some();
            ranges.extend(hidden_from.map(|from| start + from..start + line.len()));
        }
        start += line.len();
    }
    ranges
}

/// Replaces every character in `ranges` by as many stars as it has bytes; white space and quotes stay.
fn cover(file: &mut File, mut ranges: Vec<Range<usize>>) {
    if ranges.is_empty() {
        return;
    }
    ranges.sort_by_key(|range| range.start);
    let mut covered = String::with_capacity(file.text.len());
    let mut ranges = ranges.into_iter().peekable();
    for (index, letter) in file.text.char_indices() {
        while ranges.peek().is_some_and(|range| range.end <= index) {
            ranges.next();
        }
        match ranges.peek() {
            Some(range) if range.start <= index && !letter.is_whitespace() => {
                covered.extend(std::iter::repeat_n('*', letter.len_utf8()));
            }
            _ => covered.push(letter),
        }
    }
    file.text = covered;
}
