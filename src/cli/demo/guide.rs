//! What does the demo tell the person who started it?
//!
//! Every command is complete, can be pasted into a shell as it stands, and does what the text beside it says.

use std::path::Path;

use serde_json::json;

/// What the text names.
#[derive(Debug)]
pub struct Guide<'g> {
    /// URL of the data listener, without a path.
    pub data_url: &'g str,
    /// URL of the admin listener, without a path.
    pub admin_url: &'g str,
    /// Directory of the record.
    pub audit_directory: &'g Path,
    /// The key named `analyst`.
    pub analyst_key: &'g str,
    /// The key named `developer`.
    pub developer_key: &'g str,
}

/// The whole text, lines to be printed.
pub fn text(guide: &Guide<'_>) -> String {
    let Guide { data_url, admin_url, analyst_key, developer_key, .. } = guide;
    let records = shell(&guide.audit_directory.to_string_lossy());
    let allowed = query(guide, "SELECT name, country FROM customers LIMIT 2");
    let stopped = query(guide, "DELETE FROM customers");
    let add = |name: &str, server: &str, key: &str| {
        let url = shell(&format!("{data_url}/mcp/{server}"));
        format!(
            "  claude mcp add --transport http {name} {url} --header {}",
            shell(&format!("Authorization: Bearer {key}"))
        )
    };
    let add_database = add("demo-database", "database", analyst_key);
    let add_files = add("demo-files", "files", developer_key);
    format!(
        r#"Portcullis stands in front of two sample MCP servers until you press Ctrl-C.

  files      {data_url}/mcp/files      two replicas; list, read, write, delete
  database   {data_url}/mcp/database   tables of a small shop

Two keys, made for this run:

  analyst    {analyst_key}   reads files; in the database, SELECT only
  developer  {developer_key}   everything but deleting files and dropping tables

Let an agent use them:

{add_database}
{add_files}

Or try it here. The analyst asks, and is answered:

{allowed}

The same tool, but no SELECT: stopped by the analyst's argument constraint, and the database never hears of it:

{stopped}

Both are on record, the first as an intent and its result, the second as a refusal with its reason:

  cat {records}/*.jsonl | tail -n 3

How it is doing:

  curl -sS {admin}/metrics | grep '^portcullis_'
"#,
        admin = shell(admin_url),
    )
}

/// A call of `execute_query` by the analyst, in the revision that needs no session.
fn query(guide: &Guide<'_>, sql: &str) -> String {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({"name": "execute_query", "arguments": {"sql": sql}, "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    let headers = [
        format!("Authorization: Bearer {}", guide.analyst_key),
        "Content-Type: application/json".into(),
        "Accept: application/json, text/event-stream".into(),
        "MCP-Protocol-Version: 2026-07-28".into(),
        "Mcp-Method: tools/call".into(),
        "Mcp-Name: execute_query".into(),
    ];
    let headers: String = headers.iter().map(|header| format!("    -H {} \\\n", shell(header))).collect();
    let url = shell(&format!("{}/mcp/database", guide.data_url));
    format!("  curl -sS -w '\\n' {url} \\\n{headers}    -d {}", shell(&body))
}

/// A word of the shell: as it is if that is safe, else in single quotes.
fn shell(word: &str) -> String {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"/:._-,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_safe) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn sample() -> String {
        text(&Guide {
            data_url: "http://127.0.0.1:8080",
            admin_url: "http://127.0.0.1:9090",
            audit_directory: Path::new("/tmp/it's here/audit"),
            analyst_key: "ptc_analyst",
            developer_key: "ptc_developer",
        })
    }

    /// The arguments a shell makes of each command that begins with `program`.
    fn arguments(text: &str, program: &str) -> Vec<Vec<String>> {
        let commands = text.replace("\\\n", " ");
        let commands = commands.lines().filter(|line| line.trim_start().starts_with(program));
        let parse = |line: &str| {
            let line = line.split(" | ").next().unwrap();
            let script = format!("{program}() {{ for word in \"$@\"; do printf '%s\\0' \"$word\"; done; }}\n{line}");
            let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
            let words = String::from_utf8(output.stdout).unwrap();
            words.split_terminator('\0').map(str::to_owned).collect()
        };
        commands.map(parse).collect()
    }

    #[test]
    fn each_call_is_a_whole_request_of_the_revision_without_sessions() {
        let text = sample();
        let calls = arguments(&text, "curl");
        let calls: Vec<&Vec<String>> = calls.iter().filter(|words| words.contains(&"-d".into())).collect();
        assert_eq!(calls.len(), 2, "{text}");
        for (words, sql) in
            calls.into_iter().zip(["SELECT name, country FROM customers LIMIT 2", "DELETE FROM customers"])
        {
            let body: serde_json::Value = serde_json::from_str(words.last().unwrap()).unwrap();
            assert_eq!(body["params"]["arguments"]["sql"], sql);
            assert_eq!(body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
            for word in
                ["http://127.0.0.1:8080/mcp/database", "Authorization: Bearer ptc_analyst", "Mcp-Name: execute_query"]
            {
                assert!(words.iter().any(|other| other == word), "{word}: {words:?}");
            }
        }
    }

    #[test]
    fn each_client_command_carries_its_key() {
        let text = sample();
        let commands = arguments(&text, "claude");
        assert_eq!(commands.len(), 2, "{text}");
        assert_eq!(commands[0][2..6], ["--transport", "http", "demo-database", "http://127.0.0.1:8080/mcp/database"]);
        assert_eq!(commands[1].last().unwrap(), "Authorization: Bearer ptc_developer");
        assert!(text.contains(r"cat '/tmp/it'\''s here/audit'/*.jsonl"), "{text}");
    }
}
