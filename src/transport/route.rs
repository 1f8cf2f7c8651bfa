//! Which server does this path lead to, and by which door?
//!
//! Paths are compared segment by segment as they were sent: nothing is decoded or normalised, so a path with `%`,
//! an empty segment or a dot segment leads nowhere. Of several templates that fit, the one whose first difference
//! is a literal segment wins. Beside each path for Streamable HTTP stand the doors of HTTP+SSE: `{base}/sse`,
//! `{base}/events` and `{base}/message`, where the base is the path without a trailing `/v1/stream`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::iter;
use std::sync::Arc;

use crate::config::model::Config;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::config::workspaces;

/// Templates one configuration may have.
const TEMPLATES_MAX: usize = 64;

/// Last segments of the paths on which an HTTP+SSE stream is opened.
const STREAM_SEGMENTS: [&str; 2] = ["sse", "events"];
/// Last segment of the path to which an HTTP+SSE client posts.
const MESSAGE_SEGMENT: &str = "message";

/// How a client comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// Streamable HTTP: one path for everything.
    Streamable,
    /// HTTP+SSE: the path of the stream.
    SseStream,
    /// HTTP+SSE: the path of a client's messages.
    SseMessage,
}

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'p> {
    /// What the path calls the server: a name or an alias, in the caller's workspace.
    pub word: &'p str,
    /// The door the path belongs to.
    pub door: Door,
}

/// Where paths lead.
#[derive(Debug, Default)]
pub struct Routes {
    /// Most literal first.
    templates: Vec<(Vec<Segment>, Door)>,
    /// Names of servers by their aliases.
    aliases: HashMap<String, Arc<str>>,
    fixed: HashMap<String, (Arc<str>, Door)>,
    /// Where keys are minted, if any may be.
    keys: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    Server,
    Prefix,
}

impl Segment {
    fn is(&self, text: &str) -> bool {
        matches!(self, Self::Literal(literal) if literal == text)
    }
}

impl Routes {
    /// Builds the routes, reporting every template that cannot serve.
    pub fn compile(config: &Config, problems: &mut Problems) -> Self {
        let at = At::root().key("routes").key("templates");
        let mut templates = BTreeSet::new();
        for (index, template) in config.routes.templates.iter().enumerate() {
            match parse(template) {
                Ok(segments) => templates.extend(doors(segments)),
                Err((message, help)) => problems.error(&at.index(index), message, help),
            }
        }
        if config.routes.templates.len() > TEMPLATES_MAX {
            problems.error(
                &at,
                format!("{} templates are too many", config.routes.templates.len()),
                format!("write at most {TEMPLATES_MAX}"),
            );
        }
        let aliases =
            config.servers.iter().filter_map(|(name, server)| Some((server.alias.clone()?, name.as_str().into())));
        let words = config.servers.iter().flat_map(|(name, server)| iter::once(name).chain(&server.alias));
        let words: HashSet<&str> = words.map(|name| workspaces::bare(name)).collect();
        let mut routes = Self {
            templates: templates.into_iter().collect(),
            aliases: aliases.collect(),
            fixed: HashMap::new(),
            keys: keys(config, problems),
        };
        for (path, server) in &config.routes.fixed {
            if !path.starts_with('/') || path == "/healthz" {
                problems.error(
                    &At::root().key("routes").key("fixed").key(path),
                    format!("`{path}` cannot be a fixed route"),
                    "write a path that begins with `/` and is not `/healthz`",
                );
            }
            routes.fix(path, server, &words, config);
        }
        routes
    }

    /// Where `path` leads.
    pub fn find<'p>(&'p self, path: &'p str) -> Option<Route<'p>> {
        let (word, door) = match self.fixed.get(path) {
            Some((word, door)) => (&**word, *door),
            None => self.templates.iter().find_map(|(template, door)| Some((fit(template, path)?, *door)))?,
        };
        Some(Route { word, door })
    }

    /// The server that a word of a path stands for in a workspace, `None` for `default`. It need not exist.
    pub fn server<'w>(&'w self, workspace: Option<&str>, word: &'w str) -> Cow<'w, str> {
        let Some(workspace) = workspace else {
            return Cow::Borrowed(self.aliases.get(word).map_or(word, |name| name));
        };
        let name = workspaces::qualified(Some(workspace), word);
        self.aliases.get(&name).map_or(Cow::Owned(name), |server| Cow::Borrowed(server))
    }

    /// Whether keys are minted on `path`; no server is reached there then.
    pub fn mints_at(&self, path: &str) -> bool {
        self.keys.as_deref() == Some(path)
    }

    /// A fixed path and its doors. A door never hides what is written in the file: another fixed path, or the path of
    /// a server that is called `sse`, say.
    fn fix(&mut self, path: &str, server: &str, words: &HashSet<&str>, config: &Config) {
        let server: Arc<str> = Arc::from(server);
        let (base, last) = path.rsplit_once('/').unwrap_or(("", path));
        let (base, door) =
            if STREAM_SEGMENTS.contains(&last) { (base, Door::SseStream) } else { (path, Door::Streamable) };
        let base = if base == "/" { "" } else { base.strip_suffix("/v1/stream").unwrap_or(base) };
        let doors = STREAM_SEGMENTS.map(|segment| (segment, Door::SseStream));
        for (segment, door) in doors.into_iter().chain([(MESSAGE_SEGMENT, Door::SseMessage)]) {
            let path = format!("{base}/{segment}");
            let is_server = self.find(&path).is_some_and(|route| words.contains(route.word));
            if !is_server && !config.routes.fixed.contains_key(&path) {
                self.fixed.entry(path).or_insert_with(|| (Arc::clone(&server), door));
            }
        }
        self.fixed.insert(path.to_owned(), (server, door));
    }
}

/// The path on which keys are minted; `None`: no key may.
fn keys(config: &Config, problems: &mut Problems) -> Option<Box<str>> {
    let (path, at) = (&config.routes.keys, At::root().key("routes").key("keys"));
    let is_plain =
        path.strip_prefix('/').is_some_and(|rest| !rest.is_empty() && !rest.contains(['{', '}', '%', '?', '#']));
    if !is_plain || path == "/healthz" || path.starts_with("/.well-known/") {
        problems.error(&at, format!("`{path}` cannot be the path of keys"), "write a path such as `/v1/mcp/keys`");
    } else if config.routes.fixed.contains_key(path) {
        problems.error(&at, format!("`{path}` leads to a server"), "choose another path for one of them");
    }
    config.keys.values().any(|key| key.may_mint).then(|| path.as_str().into())
}

/// The paths of HTTP+SSE that go with a path.
#[must_use]
pub fn message_path(stream_path: &str) -> String {
    let base = stream_path.rsplit_once('/').map_or("", |(base, _)| base);
    format!("{base}/{MESSAGE_SEGMENT}")
}

/// A template with the doors that go with it.
fn doors(mut segments: Vec<Segment>) -> Vec<(Vec<Segment>, Door)> {
    let mut doors = Vec::with_capacity(4);
    if segments.last().is_some_and(|last| STREAM_SEGMENTS.iter().any(|segment| last.is(segment))) {
        segments.pop();
    } else {
        doors.push((segments.clone(), Door::Streamable));
        if let [base @ .., version, stream] = segments.as_slice()
            && version.is("v1")
            && stream.is("stream")
        {
            segments.truncate(base.len());
        }
    }
    let streams = STREAM_SEGMENTS.map(|segment| (segment, Door::SseStream));
    for (segment, door) in streams.into_iter().chain([(MESSAGE_SEGMENT, Door::SseMessage)]) {
        let segments = segments.iter().cloned().chain([Segment::Literal(segment.to_owned())]);
        doors.push((segments.collect(), door));
    }
    doors
}

/// Splits a template into segments.
fn parse(template: &str) -> Result<Vec<Segment>, (String, &'static str)> {
    let bad = |help| Err((format!("`{template}` is not a route template"), help));
    let Some(path) = template.strip_prefix('/') else { return bad("begin with `/`, as in `/mcp/{server}`") };
    let mut segments = Vec::new();
    for segment in path.split('/') {
        segments.push(match segment {
            "{server}" => Segment::Server,
            "{prefix}" => Segment::Prefix,
            "" | "." | ".." => return bad("write no empty, `.` or `..` segment"),
            literal if literal.contains(['{', '}', '%', '?', '#']) => {
                return bad("a segment is `{server}`, `{prefix}` or plain text");
            }
            literal => Segment::Literal(literal.to_owned()),
        });
    }
    match segments.iter().filter(|segment| **segment == Segment::Server).count() {
        1 => Ok(segments),
        _ => bad("name `{server}` exactly once"),
    }
}

/// The segment that stands for the server, if the template fits the whole path.
fn fit<'p>(template: &[Segment], path: &'p str) -> Option<&'p str> {
    let mut server = None;
    let mut segments = path.strip_prefix('/')?.split('/');
    for expected in template {
        let segment = segments.next().filter(|segment| !segment.is_empty())?;
        match expected {
            Segment::Literal(literal) if literal == segment => {}
            Segment::Literal(_) => return None,
            Segment::Server => server = Some(segment),
            Segment::Prefix => {}
        }
    }
    if segments.next().is_some() { None } else { server }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(templates: &[&str], fixed: &[(&str, &str)]) -> (Routes, Vec<String>) {
        let mut config = Config::default();
        if !templates.is_empty() {
            config.routes.templates = templates.iter().map(ToString::to_string).collect();
        }
        config.routes.fixed = fixed.iter().map(|(path, server)| (path.to_string(), server.to_string())).collect();
        let mut problems = Problems::new();
        let routes = Routes::compile(&config, &mut problems);
        (routes, problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect())
    }

    #[test]
    fn the_default_templates_lead_to_servers() {
        let (routes, problems) = routes(&[], &[("/mcp", "ref")]);
        assert_eq!(problems, Vec::<String>::new());
        for (path, server) in [
            ("/mcp/github", Some("github")),
            ("/gateway/mcp/github", Some("github")),
            ("/github/mcp", Some("github")),
            ("/acme/github/v1/stream", Some("github")),
            ("/mcp", Some("ref")),
            ("/gateway/mcp", Some("gateway")),
            ("/mcp/", None),
            ("//mcp/github", None),
            ("/mcp//github", None),
            ("/mcp/github/", None),
            ("/acme/github/v1/stream/x", None),
            ("/", None),
            ("/elsewhere/a/b", None),
        ] {
            assert_eq!(routes.find(path).map(|route| route.word), server, "{path}");
        }
    }

    #[test]
    fn every_path_family_has_the_doors_of_http_sse() {
        let (routes, problems) = routes(&[], &[("/all", "ref"), ("/one/sse", "one"), ("/", "root")]);
        assert_eq!(problems, Vec::<String>::new());
        let (stream, message) = (Door::SseStream, Door::SseMessage);
        for (path, server, door) in [
            ("/mcp/github", "github", Door::Streamable),
            ("/mcp/github/sse", "github", stream),
            ("/mcp/github/events", "github", stream),
            ("/mcp/github/message", "github", message),
            ("/gateway/mcp/github/sse", "github", stream),
            ("/gateway/mcp/github/message", "github", message),
            ("/github/mcp/events", "github", stream),
            ("/github/mcp/message", "github", message),
            ("/acme/github/events", "github", stream),
            ("/acme/github/sse", "github", stream),
            ("/acme/github/message", "github", message),
            ("/acme/github/v1/stream", "github", Door::Streamable),
            ("/gateway/mcp/sse", "sse", Door::Streamable),
            ("/all", "ref", Door::Streamable),
            ("/all/sse", "ref", stream),
            ("/all/message", "ref", message),
            ("/one/sse", "one", stream),
            ("/one/message", "one", message),
            ("/", "root", Door::Streamable),
            ("/sse", "root", stream),
            ("/events", "root", stream),
            ("/message", "root", message),
        ] {
            assert_eq!(routes.find(path), Some(Route { word: server, door }), "{path}");
            if door == stream {
                let message_path = message_path(path);
                assert_eq!(routes.find(&message_path), Some(Route { word: server, door: message }), "{message_path}");
            }
        }
        for path in ["/acme/github/message/", "/mcp/github/sse/sse", "/acme/github/v1", "/one"] {
            assert_eq!(routes.find(path), None, "{path}");
        }
    }

    #[test]
    fn a_door_of_a_fixed_path_hides_nothing_that_is_configured() {
        let mut config = Config::default();
        config.routes.fixed = [("/mcp", "ref"), ("/mcp/events", "other")]
            .map(|(path, server)| (path.to_owned(), server.to_owned()))
            .into();
        let names = |config: &Config| {
            let routes = Routes::compile(config, &mut Problems::new());
            ["/mcp/sse", "/mcp/events", "/mcp/message"].map(|path| routes.find(path).map(|route| route.word.to_owned()))
        };
        assert_eq!(names(&config), ["ref", "other", "ref"].map(|name| Some(name.to_owned())));
        config.servers.insert("sse".to_owned(), crate::config::model::Server::default());
        assert_eq!(names(&config), ["sse", "other", "ref"].map(|name| Some(name.to_owned())));
    }

    #[test]
    fn an_alias_leads_where_the_name_does() {
        let mut config = Config::default();
        let server = crate::config::model::Server { alias: Some("gh".to_owned()), ..Default::default() };
        config.servers.insert("github".to_owned(), server);
        let routes = Routes::compile(&config, &mut Problems::new());
        for path in ["/mcp/gh", "/mcp/github", "/gh/mcp/sse", "/acme/gh/events"] {
            let word = routes.find(path).unwrap().word.to_owned();
            assert_eq!(routes.server(None, &word), "github", "{path}");
            assert_ne!(routes.server(Some("acme"), &word), "github", "{path}: of no other workspace");
        }
    }

    #[test]
    fn a_literal_segment_beats_a_placeholder() {
        let (routes, _) = routes(&["/{prefix}/{server}", "/mcp/{server}", "/{server}/tools"], &[]);
        assert_eq!(routes.find("/mcp/tools").map(|route| route.word), Some("tools"));
        assert_eq!(routes.find("/a/tools").map(|route| route.word), Some("a"));
        assert_eq!(routes.find("/a/b").map(|route| route.word), Some("b"));
    }

    #[test]
    fn templates_that_cannot_serve_are_reported() {
        let (_, problems) =
            routes(&["mcp/{server}", "/a//{server}", "/{server}/{server}", "/mcp", "/x{y}/{server}"], &[("mcp", "a")]);
        assert_eq!(problems.len(), 6, "{problems:?}");
        let many: Vec<String> = (0..65).map(|index| format!("/p{index}/{{server}}")).collect();
        let (_, problems) = super::tests::routes(&many.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        assert_eq!(problems, ["routes.templates: 65 templates are too many"]);
    }
}
