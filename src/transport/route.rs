//! Which server does this path lead to?
//!
//! Paths are compared segment by segment as they were sent: nothing is decoded or normalised, so a path with `%`,
//! an empty segment or a dot segment leads nowhere. Of several templates that fit, the one whose first difference
//! is a literal segment wins.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::model::Config;
use crate::config::problem::At;
use crate::config::problem::Problems;

/// Templates one configuration may have.
const TEMPLATES_MAX: usize = 64;

/// Where paths lead.
#[derive(Debug, Default)]
pub struct Routes {
    /// Most literal first.
    templates: Vec<Vec<Segment>>,
    fixed: HashMap<String, Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    Server,
    Prefix,
}

impl Routes {
    /// Builds the routes, reporting every template that cannot serve.
    pub fn compile(config: &Config, problems: &mut Problems) -> Self {
        let at = At::root().key("routes").key("templates");
        let mut templates = Vec::new();
        for (index, template) in config.routes.templates.iter().enumerate() {
            match parse(template) {
                Ok(segments) => templates.push(segments),
                Err((message, help)) => problems.error(&at.index(index), message, help),
            }
        }
        if templates.len() > TEMPLATES_MAX {
            problems.error(
                &at,
                format!("{} templates are too many", templates.len()),
                format!("write at most {TEMPLATES_MAX}"),
            );
        }
        templates.sort();
        let mut fixed = HashMap::new();
        for (path, server) in &config.routes.fixed {
            if !path.starts_with('/') || path.len() < 2 || path == "/healthz" {
                problems.error(
                    &At::root().key("routes").key("fixed").key(path),
                    format!("`{path}` cannot be a fixed route"),
                    "write a path that begins with `/` and is not `/healthz`",
                );
            }
            fixed.insert(path.clone(), Arc::from(server.as_str()));
        }
        Self { templates, fixed }
    }

    /// The name of the server that `path` leads to; the server need not exist.
    pub fn server<'p>(&'p self, path: &'p str) -> Option<&'p str> {
        if let Some(server) = self.fixed.get(path) {
            return Some(server);
        }
        self.templates.iter().find_map(|template| fit(template, path))
    }
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
            assert_eq!(routes.server(path), server, "{path}");
        }
    }

    #[test]
    fn a_literal_segment_beats_a_placeholder() {
        let (routes, _) = routes(&["/{prefix}/{server}", "/mcp/{server}", "/{server}/tools"], &[]);
        assert_eq!(routes.server("/mcp/tools"), Some("tools"));
        assert_eq!(routes.server("/a/tools"), Some("a"));
        assert_eq!(routes.server("/a/b"), Some("b"));
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
