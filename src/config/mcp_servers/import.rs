//! How does an `mcpServers` file read as TOML?
//!
//! Unlike an include, an import goes on where it can: names are made to fit, what is not served is left out, and
//! secrets become references; each is noted.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

use crate::config::bounded::read_text;
use crate::config::files::FILE_BYTES_MAX;
use crate::config::files::File;
use crate::config::files::Files;
use crate::config::json_tree;
use crate::config::load::LoadError;
use crate::config::mask;
use crate::config::mcp_servers::KEYS;
use crate::config::mcp_servers::conceal::Concealer;
use crate::config::mcp_servers::conceal::scheme;
use crate::config::mcp_servers::include::include;
use crate::config::mcp_servers::take_servers;
use crate::config::names::SERVER_NAME_MAX;
use crate::config::names::check_server_name;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::config::problem::Span;
use crate::config::shape;
use crate::config::shape::Shape;
use crate::config::sources::Sources;
use crate::config::trail::Trail;
use crate::config::tree::Kind;
use crate::config::tree::Node;

/// The servers of an `mcpServers` file, ready to be written as TOML. Nothing in it looked like a secret.
#[derive(Debug, Default)]
pub struct Import {
    servers: toml::Table,
    /// What was changed, left out, or is for the operator to do; for people.
    pub notes: Vec<String>,
}

impl Import {
    /// The names of the servers, as they are written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.servers.keys().map(String::as_str)
    }
}

/// Reads an `mcpServers` file for `portcullis import`. Only what cannot be understood at all is an error.
pub fn read(path: &Path) -> Result<Import, LoadError> {
    let mut problems = Problems::new();
    let mut notes = Vec::new();
    let text = read_text(path, FILE_BYTES_MAX).unwrap_or_else(|error| {
        problems.error(&At::root(), format!("cannot read `{}`: {error}", path.display()), "");
        String::new()
    });
    let mut root = match problems.has_errors() {
        true => None,
        false => json_tree::read(0, &text, &mut problems),
    };
    let broken = root.is_none();
    let servers = root.as_mut().and_then(|root| take_servers(root, &mut problems));
    let empty = Node::new(None, Span { file: 0, start: 0, end: 0 }, Kind::Table(BTreeMap::new()));
    let mut left_out = Vec::new();
    let root = match servers {
        Some(mut servers) => {
            left_out = leave_out(&mut servers, &mut notes);
            let tables = BTreeMap::from([("mcpServers".to_owned(), servers)]);
            include(Node { kind: Kind::Table(tables), ..empty }, &mut problems)
        }
        None => empty,
    };
    let refused = left_out.into_iter().map(|node| (At::root(), Node { private: true, ..node })).collect();
    let file = File { path: path.to_path_buf(), text, broken };
    let mut files = Files { files: vec![file], root, refused, incomplete: broken, digests: Vec::new() };
    shape::check(&mut files.root, Shape::of_configuration(), &Trail::Root, &mut problems);
    mask::mask(&mut files);
    let value = files.root.take_value();
    if problems.has_errors() {
        return Err(LoadError { sources: Sources::new(files, Vec::new()), problems });
    }
    let mut import = Import { servers: toml::Table::new(), notes };
    if let Some(toml::Value::Table(servers)) = value.and_then(|mut value| value.as_table_mut()?.remove("servers")) {
        servers.into_iter().for_each(|(name, server)| import.add(&name, server));
    }
    Ok(import)
}

/// The servers as `[servers.NAME]` tables, the notes as comments above them. It loads as a configuration.
pub fn to_toml(import: &Import) -> String {
    let mut text = String::new();
    for note in &import.notes {
        let line: String = note.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        text.push_str(&format!("# {line}\n"));
    }
    if !import.notes.is_empty() {
        text.push('\n');
    }
    let servers = toml::Table::from_iter([("servers".to_owned(), toml::Value::Table(import.servers.clone()))]);
    text.push_str(&servers.to_string());
    text
}

/// Takes out what is not served or not known, and notes it.
fn leave_out(servers: &mut Node, notes: &mut Vec<String>) -> Vec<Node> {
    let mut out = Vec::new();
    let Some(servers) = servers.entries_mut() else { return out };
    let has_command = |server: &Node| matches!(&server.kind, Kind::Table(entries) if entries.contains_key("command"));
    let (commands, served): (BTreeMap<_, _>, _) =
        std::mem::take(servers).into_iter().partition(|(_, server)| has_command(server));
    *servers = served;
    for (name, server) in commands {
        notes.push(format!("server `{name}` is left out: a server started by a command is not served yet"));
        out.push(server);
    }
    for (name, server) in servers {
        let Some(entries) = server.entries_mut() else { continue };
        let (unknown, known): (BTreeMap<_, _>, _) =
            std::mem::take(entries).into_iter().partition(|(key, _)| !KEYS.iter().any(|(known, _)| known == key));
        *entries = known;
        for (key, entry) in unknown {
            notes.push(format!("server `{name}`: `{key}` is left out: it means nothing here"));
            out.push(entry);
        }
    }
    out
}

impl Import {
    /// Adds a server whose form is checked already.
    fn add(&mut self, written: &str, server: toml::Value) {
        let toml::Value::Table(mut server) = server else { return };
        let name = self.name_for(written);
        if name != written {
            self.notes.push(format!("server `{written}` is called `{name}` here"));
        }
        let mut concealer = Concealer { server: &name, variables: BTreeSet::new(), notes: &mut self.notes };
        if let Some(toml::Value::String(url)) = server.get_mut("url") {
            *url = concealer.url(url);
        }
        if let Some(toml::Value::Table(mut headers)) = server.remove("headers") {
            let authorization = headers.keys().find(|name| name.eq_ignore_ascii_case("authorization")).cloned();
            if let Some(token) = authorization.as_ref().and_then(|name| bearer_token(headers.get(name)?)) {
                let secret = concealer.bearer(token);
                let auth = [("type".to_owned(), "bearer".into()), ("secret".to_owned(), secret.into())];
                server.insert("auth".to_owned(), toml::Value::Table(auth.into_iter().collect()));
                authorization.map(|name| headers.remove(&name));
            }
            for (name, value) in &mut headers {
                if let toml::Value::String(value) = value {
                    *value = concealer.header(name, value);
                }
            }
            if !headers.is_empty() {
                server.insert("headers".to_owned(), toml::Value::Table(headers));
            }
        }
        self.servers.insert(name, toml::Value::Table(server));
    }

    /// A server name that is allowed, free, and as near to `written` as can be.
    fn name_for(&self, written: &str) -> String {
        let mut name = String::new();
        for letter in written.to_ascii_lowercase().chars() {
            match letter {
                'a'..='z' | '0'..='9' => name.push(letter),
                '_' if !name.is_empty() && !name.ends_with(['_', '-']) => name.push('_'),
                _ if !name.is_empty() && !name.ends_with(['_', '-']) => name.push('-'),
                _ => {}
            }
        }
        name.truncate(SERVER_NAME_MAX);
        let name = name.trim_end_matches(['_', '-']).to_owned();
        let name = if name.is_empty() { "server".to_owned() } else { name };
        let numbered = (2..).map(|number: usize| {
            let suffix = format!("-{number}");
            let kept: String = name.chars().take(SERVER_NAME_MAX - suffix.len()).collect();
            format!("{kept}{suffix}")
        });
        let free = |name: &String| check_server_name(name).is_ok() && !self.servers.contains_key(name);
        std::iter::once(written.to_owned()).chain([name.clone()]).chain(numbered).find(free).unwrap_or(name)
    }
}

/// The token of a value such as `Bearer TOKEN`.
fn bearer_token(value: &toml::Value) -> Option<&str> {
    let (scheme, token) = scheme(value.as_str()?);
    scheme.eq_ignore_ascii_case("bearer ").then_some(token)
}
