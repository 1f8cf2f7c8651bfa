//! Which texts of another program's file are secrets, and what is written in their place?
//!
//! In doubt a text is one: a reference too many costs the operator a variable, a secret too many in a file more.

use std::collections::BTreeSet;

use crate::config::interpolate;
use crate::config::interpolate::Piece;

/// A word this long with letters and digits looks made by a machine.
const RANDOM_LETTERS_MIN: usize = 16;

const SECRET_WORDS: [&str; 9] =
    ["auth", "token", "key", "secret", "password", "cookie", "credential", "session", "sig"];

/// Makes references for one server's secrets.
pub(crate) struct Concealer<'n> {
    /// The server's name.
    pub(crate) server: &'n str,
    /// Variables handed out so far.
    pub(crate) variables: BTreeSet<String>,
    /// What the operator must know.
    pub(crate) notes: &'n mut Vec<String>,
}

impl Concealer<'_> {
    /// A header's value as it is written to the TOML file.
    pub(crate) fn header(&mut self, name: &str, value: &str) -> String {
        if has_reference(value) {
            return translate(value);
        }
        if !is_secret_word(name) && !looks_random(value) {
            return translate(value);
        }
        let (scheme, _) = scheme(value);
        format!("{scheme}{}", self.variable(name, &format!("the value of its header `{name}`")))
    }

    /// A bearer token as it is written to the TOML file.
    pub(crate) fn bearer(&mut self, token: &str) -> String {
        match has_reference(token) {
            true => translate(token),
            false => self.variable("token", "its bearer token"),
        }
    }

    /// A URL as it is written to the TOML file: user, password, query values and segments that look like secrets go.
    pub(crate) fn url(&mut self, url: &str) -> String {
        let mut written = String::new();
        let mut name = "url".to_owned();
        let start = url.find("://").map_or(0, |at| at + 3);
        let (scheme, rest) = url.split_at_checked(start).unwrap_or_default();
        written.push_str(scheme);
        let (authority, path) =
            rest.split_at_checked(rest.find(['/', '?', '#']).unwrap_or(rest.len())).unwrap_or_default();
        match authority.rsplit_once('@') {
            Some((user, host)) if !has_reference(user) => {
                let user = self.variable("user", "user and password of its URL");
                written.push_str(&format!("{user}@{}", translate(host)));
            }
            _ => written.push_str(&translate(authority)),
        }
        for part in path.split_inclusive(['/', '?', '&', '=', '#']) {
            let (text, separator) = match part.strip_suffix(['/', '?', '&', '=', '#']) {
                Some(text) => (text, part.get(text.len()..).unwrap_or_default()),
                None => (part, ""),
            };
            let is_query_value = name.ends_with('=');
            let secret = looks_random(text) || (is_query_value && !text.is_empty() && is_secret_word(&name));
            match secret && !has_reference(text) {
                true => written.push_str(&self.variable(name.trim_end_matches('='), "a part of its URL")),
                false => written.push_str(&translate(text)),
            }
            written.push_str(separator);
            name = if separator == "=" { format!("{text}=") } else { "url".to_owned() };
        }
        written
    }

    /// A reference to a new variable for this server, noted.
    fn variable(&mut self, what: &str, meaning: &str) -> String {
        let base = variable_name(&format!("{}_{what}", self.server));
        let mut name = base.clone();
        let mut number = 2;
        while !self.variables.insert(name.clone()) {
            name = format!("{base}_{number}");
            number += 1;
        }
        self.notes.push(format!("server `{}`: set the environment variable `{name}` to {meaning}", self.server));
        format!("${{env:{name}}}")
    }
}

fn variable_name(text: &str) -> String {
    let upper =
        text.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' });
    let name: String = upper.collect();
    if name.starts_with(|letter: char| letter.is_ascii_digit()) { format!("MCP_{name}") } else { name }
}

/// A leading word such as `Bearer `, and the rest.
pub(crate) fn scheme(value: &str) -> (&str, &str) {
    match value.split_once(' ') {
        Some((word, _)) if ["bearer", "basic", "token"].contains(&word.to_ascii_lowercase().as_str()) => {
            value.split_at_checked(word.len() + 1).unwrap_or(("", value))
        }
        _ => ("", value),
    }
}

fn is_secret_word(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

fn looks_random(text: &str) -> bool {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '_' | '-' | '+')).any(|word| {
        word.len() >= RANDOM_LETTERS_MIN
            && word.contains(|letter: char| letter.is_ascii_digit())
            && word.contains(|letter: char| letter.is_ascii_alphabetic())
    })
}

fn has_reference(text: &str) -> bool {
    interpolate::pieces(text).iter().any(|piece| matches!(piece, Piece::Reference { .. }))
}

/// The text with other programs' references (`${NAME}`, `${NAME:-default}`, `${input:name}`) in our form.
fn translate(text: &str) -> String {
    let mut written = String::new();
    for piece in interpolate::pieces(text) {
        match piece {
            Piece::Literal(literal) => written.push_str(&literal.replace("${", "$${")),
            Piece::Unclosed(rest) => written.push_str(&rest.replace("${", "$${")),
            Piece::Reference { whole, inner } if interpolate::is_reference(inner) => written.push_str(whole),
            Piece::Reference { inner, .. } => {
                let name = inner.strip_prefix("input:").unwrap_or(inner);
                let name = name.split_once(":-").map_or(name, |(name, _)| name);
                let name = if inner.starts_with("input:") { variable_name(name) } else { name.to_owned() };
                written.push_str(&format!("${{env:{name}}}"));
            }
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written for a header and a URL of server `web`, and the variables to set.
    fn conceal(header: (&str, &str), url: &str) -> (String, String, Vec<String>) {
        let mut notes = Vec::new();
        let mut concealer = Concealer { server: "web", variables: BTreeSet::new(), notes: &mut notes };
        let written = (concealer.header(header.0, header.1), concealer.url(url));
        (written.0, written.1, concealer.variables.into_iter().collect())
    }

    #[test]
    fn a_secret_in_a_header_becomes_a_reference() {
        for (name, value, written) in [
            ("Authorization", "Basic dTpw", "Basic ${env:WEB_AUTHORIZATION}"),
            ("X-Api-Key", "k", "${env:WEB_X_API_KEY}"),
            ("X-Tenant", "a1b2c3d4e5f6a7b8", "${env:WEB_X_TENANT}"),
            ("X-Tenant", "acme", "acme"),
            ("X-Api-Key", "${MY_KEY}", "${env:MY_KEY}"),
            ("X-Api-Key", "${input:my-key}", "${env:MY_KEY}"),
            ("X-Api-Key", "${MY_KEY:-none}", "${env:MY_KEY}"),
            ("Accept", "a${b", "a$${b"),
        ] {
            assert_eq!(conceal((name, value), "http://h/").0, written, "{name}: {value}");
        }
    }

    #[test]
    fn a_secret_in_a_url_becomes_a_reference() {
        for (url, written) in [
            ("https://h.example/mcp", "https://h.example/mcp"),
            ("https://h.example/mcp?api_key=abc&x=1", "https://h.example/mcp?api_key=${env:WEB_API_KEY}&x=1"),
            ("https://u:p@h.example:8443/mcp", "https://${env:WEB_USER}@h.example:8443/mcp"),
            ("https://h.example/s/a1b2c3d4e5f6a7b8/mcp", "https://h.example/s/${env:WEB_URL}/mcp"),
            ("https://h.example/${TENANT}/mcp", "https://h.example/${env:TENANT}/mcp"),
        ] {
            assert_eq!(conceal(("Accept", "x"), url).1, written);
        }
    }

    #[test]
    fn two_secrets_never_share_a_variable() {
        let (_, _, variables) = conceal(("token", "x"), "http://h/?token=a&token=b");
        assert_eq!(variables, ["WEB_TOKEN", "WEB_TOKEN_2", "WEB_TOKEN_3"]);
    }
}
