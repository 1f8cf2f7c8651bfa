//! Which configuration does the demo run under?
//!
//! A file like any other, written to be read: it is the shortest that shows servers, keys, permissions and a
//! constraint at work. Held against the model by a test.

use std::path::Path;

/// The demo's keys, by name.
pub const KEYS: [&str; 2] = ["analyst", "developer"];

/// What differs from run to run.
#[derive(Debug)]
pub struct Demo<'d> {
    /// Address of the data listener.
    pub data: &'d str,
    /// Address of the admin listener.
    pub admin: &'d str,
    /// Directory of the record.
    pub audit_directory: &'d Path,
    /// Directory of the gateway's own state.
    pub state_directory: &'d Path,
    /// URLs of the `files` server's replicas.
    pub files: &'d [String],
    /// URL of the `database` server.
    pub database: &'d str,
    /// Digests of the keys, by name, in the order of [`KEYS`].
    pub digests: [(&'d str, String); KEYS.len()],
}

/// The configuration's text.
pub fn to_toml(demo: &Demo<'_>) -> String {
    let directory = |path: &Path| quoted(&literal(&path.to_string_lossy()));
    let endpoints: String =
        demo.files.iter().map(|url| format!("  {{ url = {} }},\n", quoted(&literal(url)))).collect();
    let digest = |name: &str| {
        let found = demo.digests.iter().find(|(key, _)| *key == name);
        quoted(found.map_or("", |(_, digest)| digest))
    };
    TEMPLATE
        .replace("@DATA@", &quoted(demo.data))
        .replace("@ADMIN@", &quoted(demo.admin))
        .replace("@AUDIT@", &directory(demo.audit_directory))
        .replace("@STATE@", &directory(demo.state_directory))
        .replace("@ENDPOINTS@\n", &endpoints)
        .replace("@DATABASE@", &quoted(&literal(demo.database)))
        .replace("@ANALYST@", &digest("analyst"))
        .replace("@DEVELOPER@", &digest("developer"))
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A text in which nothing is replaced: `${` would be.
fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

const TEMPLATE: &str = r#"# What `portcullis demo` runs under: two MCP servers, two callers, and what each of them may do.

[listen]
data = @DATA@     # agents connect here: /mcp/files, /mcp/database
admin = @ADMIN@   # /metrics, /livez, /readyz: on loopback only, for nobody authenticates there

[audit]
directory = @AUDIT@   # every request is on record here before a byte of it goes to a server

[state]
directory = @STATE@   # what must survive a restart, such as the key that seals session ids


# Two replicas of one server. A session stays on the replica where it began.
[servers.files]
endpoints = [
@ENDPOINTS@
]

[servers.database]
url = @DATABASE@
blocked_tools = ["drop_table"]   # nobody may, whatever a key or an agent is granted


# A key is in no file, only its digest: `portcullis keys create` makes both.
# It says which servers can be reached; what may be called there is its agent's affair.
[keys.analyst]
digest = @ANALYST@
mcp_servers = ["database", "files"]
agent = "analyst"

[keys.developer]
digest = @DEVELOPER@
mcp_servers = ["*"]
agent = "developer"


# The analyst reads. What is not in `allowed_tools` is neither listed nor callable.
[agents.analyst.servers.files]
allowed_tools = ["list_files", "read_file"]

[agents.analyst.servers.database]
allowed_tools = ["list_tables", "execute_query", "long_query", "ask"]
blocked_tools = ["drop_table", "delete_rows"]

# Each constraint of a tool must hold for a call to pass. A pattern is searched in the argument's text,
# case-sensitive, and anchored only where it says so.
[agents.analyst.servers.database.argument_constraints]
execute_query = [
  { arg = "sql", pattern = '^\s*SELECT', description = "SELECT queries only" },
  { arg = "sql", pattern = '^[^;]*;?\s*$', description = "one statement at a time" },
]
long_query = [
  { arg = "sql", pattern = '^\s*SELECT', description = "SELECT queries only" },
]


# The developer may do everything but delete files. On `database`, which has no entry here, only the server's own
# `blocked_tools` restrict.
[agents.developer.servers.files]
blocked_tools = ["delete_file"]
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Config;

    /// The demo's configuration with these directories, read back.
    fn read_back(directory: &str) -> Config {
        let files = ["http://127.0.0.1:4001/mcp".to_owned(), "http://127.0.0.1:4002/mcp".to_owned()];
        let text = to_toml(&Demo {
            data: "127.0.0.1:8080",
            admin: "127.0.0.1:9090",
            audit_directory: &Path::new(directory).join("audit"),
            state_directory: &Path::new(directory).join("state"),
            files: &files,
            database: "http://127.0.0.1:4003/mcp",
            digests: KEYS.map(|name| (name, format!("digest of {name}"))),
        });
        assert!(!text.contains('@'), "{text}");
        toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn it_is_what_its_text_says() {
        let config = read_back("/tmp/demo");
        assert_eq!(config.listen.data, "127.0.0.1:8080");
        assert_eq!(config.audit.directory, "/tmp/demo/audit");
        assert_eq!(config.state.directory, "/tmp/demo/state");
        let urls: Vec<&str> = config.servers["files"].endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect();
        assert_eq!(urls, ["http://127.0.0.1:4001/mcp", "http://127.0.0.1:4002/mcp"]);
        assert_eq!(config.servers["database"].url.as_deref(), Some("http://127.0.0.1:4003/mcp"));
        assert_eq!(config.keys["developer"].digest, "digest of developer");
        assert!(KEYS.iter().all(|key| config.agents.contains_key(config.keys[*key].agent.as_ref().unwrap())));
        let analyst = &config.agents["analyst"].servers["database"];
        assert_eq!(analyst.argument_constraints["execute_query"][0].pattern.as_deref(), Some(r"^\s*SELECT"));
        assert_eq!(config.agents["developer"].servers["files"].blocked_tools, ["delete_file"]);
    }

    #[test]
    fn an_odd_directory_is_written_so_that_it_is_read_back() {
        let odd = "/tmp/it's \"odd\" \\ here";
        assert_eq!(read_back(odd).audit.directory, format!("{odd}/audit"));
        assert_eq!(read_back("/tmp/${env:HOME}").state.directory, "/tmp/$${env:HOME}/state");
    }
}
