//! What of a file may be shown in a message?
//!
//! Secrets written in clear, values under unknown keys, and the user, password and query of a URL become stars of
//! the same length, once, before anything is rendered; references stay readable. In a file with syntax errors every
//! value is masked but those of plain settings.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::config::files::File;
use crate::config::files::Files;
use crate::config::interpolate;
use crate::config::interpolate::Piece;
use crate::config::problem::At;
use crate::config::problem::Step;
use crate::config::trail::Trail;
use crate::config::tree::Kind;
use crate::config::tree::Node;

/// Masks the texts of all files.
pub(crate) fn mask(files: &mut Files) {
    let refused = std::mem::take(&mut files.refused).into_iter().map(|(at, node)| in_place(&at, node));
    let refused: Vec<Node> = refused.collect();
    let Files { files, root, .. } = files;
    let mut marks = vec![Vec::new(); files.len()];
    mark(root, &Trail::Root, false, files, &mut marks);
    refused.iter().for_each(|root| mark(root, &Trail::Root, false, files, &mut marks));
    for (file, mut ranges) in files.iter_mut().zip(marks) {
        if file.broken {
            ranges.extend(suspicious(&file.text, file.is_json()));
        }
        cover(file, ranges);
    }
}

/// A root that holds nothing but `node`, at its place.
fn in_place(at: &At, node: Node) -> Node {
    at.steps().iter().rev().fold(node, |node, step| {
        let span = node.span;
        Node::new(
            None,
            span,
            match step {
                Step::Key(key) => Kind::Table(BTreeMap::from([(key.clone(), node)])),
                Step::Index(_) => Kind::Array(vec![node]),
            },
        )
    })
}

fn mark(node: &Node, at: &Trail<'_>, private: bool, files: &[File], marks: &mut [Vec<Range<usize>>]) {
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
            let hidden = match private {
                true => literals(text, 0..text.len()),
                false if text.contains("://") => {
                    url_secrets(text).into_iter().flat_map(|range| literals(text, range)).collect()
                }
                false => Vec::new(),
            };
            let start = node.span.start;
            if let Some(marks) = marks.get_mut(node.span.file) {
                marks.extend(hidden.into_iter().map(|range| start + range.start..start + range.end));
            }
        }
    }
}

/// Whether a text at this place is one that must not be shown. A key's digest is: somebody may have put the key there.
fn is_secret(at: &Trail<'_>) -> bool {
    match at.words().as_slice() {
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

/// In a text that is not understood: every value but those of plain settings, and whatever may go on with a value
/// that is hidden.
fn suspicious(text: &str, is_json: bool) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    let (mut in_hidden_table, mut in_hidden_value) = (false, false);
    for line in text.split_inclusive('\n') {
        if let Some(table) = header(line).filter(|_| !is_json) {
            in_hidden_table = table.split('.').any(|word| is_hidden_word(word.trim()));
            in_hidden_value = false;
        } else {
            let hidden_from = match assignment(line, if is_json { ':' } else { '=' }) {
                Some((_, value)) if is_json => value,
                Some((key, _)) if is_plain(key) && !in_hidden_table && !in_hidden_value => line.len(),
                Some((_, value)) if !in_hidden_value => {
                    in_hidden_value = !is_closed(line.get(value..).unwrap_or_default());
                    value
                }
                _ => 0,
            };
            if line.get(hidden_from..).is_some_and(|hidden| hidden.contains(char::is_alphanumeric)) {
                ranges.push(start + hidden_from..start + line.len());
            }
        }
        start += line.len();
    }
    ranges
}

/// The name in a table's header, if it is one beyond doubt.
fn header(line: &str) -> Option<&str> {
    let name = line.trim().strip_prefix('[')?.trim_start_matches('[').trim_end_matches(']').trim();
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "_-. ".contains(letter);
    (!name.is_empty() && name.chars().all(is_name)).then_some(name)
}

/// The key of a line `key = value`, and where the value begins.
fn assignment(line: &str, separator: char) -> Option<(&str, usize)> {
    let (key, _) = line.split_once(separator)?;
    let value = key.len() + separator.len_utf8();
    let key = key.trim_matches(|letter: char| letter.is_whitespace() || "{,".contains(letter));
    let is_key = |letter: char| letter.is_ascii_alphanumeric() || "_-.$".contains(letter);
    let bare = match separator {
        ':' => key.strip_prefix('"').and_then(|key| key.strip_suffix('"'))?,
        _ => key,
    };
    (!bare.is_empty() && bare.chars().all(is_key)).then_some((bare, value))
}

/// Whether the value of this key may be shown: a plain setting's, by its name.
fn is_plain(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or_default();
    PLAIN.contains(&last) && !key.split('.').any(is_hidden_word)
}

const PLAIN: [&str; 22] = [
    "include",
    "data",
    "admin",
    "threads",
    "templates",
    "denial_form",
    "explain_to_client",
    "directory",
    "level",
    "format",
    "transport",
    "type",
    "access",
    "allowed_tools",
    "blocked_tools",
    "weight",
    "mcp_servers",
    "team",
    "agent",
    "pattern",
    "timeout_ms",
    "sse_read_timeout_ms",
];

/// Whether this part of a path leads to secrets.
fn is_hidden_word(word: &str) -> bool {
    matches!(word, "auth" | "headers" | "seal")
}

/// Whether a value ends on its line: brackets and quotes in pairs.
fn is_closed(value: &str) -> bool {
    let count = |letter: char| value.matches(letter).count();
    count('[') == count(']') && count('{') == count('}') && count('"') % 2 == 0 && count('\'') % 2 == 0
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A broken text as it may be shown.
    fn shown(text: &str, is_json: bool) -> String {
        let mut file = File { path: "a".into(), text: text.to_owned(), broken: true };
        let ranges = suspicious(text, is_json);
        cover(&mut file, ranges);
        file.text
    }

    #[test]
    fn in_a_broken_file_only_plain_settings_keep_their_value() {
        for (text, expected) in [
            ("[listen]\ndata = \"x\n", "[listen]\ndata = \"x\n"),
            ("secret = \"x\"\n", "secret = ***\n"),
            ("url = \"x\"\n", "url = ***\n"),
            ("auth = { type = \"a\" }\n", "auth = * **** * *** *\n"),
            ("auth.type = \"a\"\n", "auth.type = ***\n"),
            ("[a.headers]\ndata = \"x\"\n[b]\ndata = \"x\"\n", "[a.headers]\ndata = ***\n[b]\ndata = \"x\"\n"),
            ("keys = [\n \"x\",\n]\ndata = 1\n[b]\ndata = 1\n", "keys = [\n ****\n]\n**** * *\n[b]\ndata = 1\n"),
            ("s = \"\"\"\nabc=\n", "s = \"\"\"\n****\n"),
            ("just text\n", "**** ****\n"),
            ("# note = 1\n", "* **** * *\n"),
        ] {
            assert_eq!(shown(text, false), expected, "{text}");
        }
    }

    #[test]
    fn in_a_broken_json_file_no_value_is_shown() {
        for (text, expected) in [
            ("  \"a\": \"x\",\n", "  \"a\": ****\n"),
            ("{\"a\": {\"b\": 1}}\n", "{\"a\": ***** ***\n"),
            ("  \"Bearer x:y\"\n", "  ******* ****\n"),
            ("  }\n", "  }\n"),
        ] {
            assert_eq!(shown(text, true), expected, "{text}");
        }
    }

    #[test]
    fn of_a_url_user_and_query_are_hidden() {
        let hidden = |text: &str| {
            let ranges = url_secrets(text).into_iter().flat_map(|range| literals(text, range)).collect();
            let mut file = File { path: "a".into(), text: text.to_owned(), broken: false };
            cover(&mut file, ranges);
            file.text
        };
        assert_eq!(hidden("\"https://h.example/mcp\""), "\"https://h.example/mcp\"");
        assert_eq!(hidden("\"https://u:p@h/mcp?k=v&${env:X}\""), "\"https://***@h/mcp?****${env:X}\"");
        assert_eq!(hidden("\"https://h/a@b\""), "\"https://h/a@b\"");
    }

    #[test]
    fn a_mask_has_the_length_of_what_it_hides() {
        let mut file = File { path: "a".into(), text: "a = \"äé😀\"".into(), broken: false };
        let length = file.text.len();
        cover(&mut file, vec![4..5, 5..length - 1]);
        assert_eq!((file.text.len(), file.text.as_str()), (length, "a = *********\""));
    }
}
