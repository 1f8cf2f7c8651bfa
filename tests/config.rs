//! Does a configuration load, and is a mistake shown where it is?
//!
//! `config_errors/*.toml` are configurations with mistakes; each file's head says what must be reported, no more and
//! no less: `# error: MESSAGE`, `# at: [FILE:]LINE:COLUMN`, `# help: HELP`; `# env: NAME=VALUE` sets a variable.
//! A ```toml block in the documentation is a whole configuration unless its first line is `# fragment`.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use portcullis::config;
use portcullis::config::model::Config;
use portcullis::config::model::Transport;
use portcullis::config::model::UpstreamAuthType;
use portcullis::config::problem::At;
use portcullis::config::problem::Problems;
use portcullis::config::problem::Severity;
use portcullis::snapshot::Snapshot;
use portcullis::snapshot::Source;
use serde_json::Value;

use crate::support::certificates::Authority;

/// The repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A directory of this test's own, empty.
fn directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("portcullis-config-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Loads a text as a main file that stands alone; every variable is set.
fn load_text(name: &str, text: &str) -> Result<Config, config::LoadError> {
    let directory = directory(name);
    let path = directory.join("portcullis.toml");
    std::fs::write(&path, text).unwrap();
    let variables = |_: &str| Some(OsString::from("value"));
    let loaded = config::load_with(&path, &variables, |_, _| ()).map(|(loaded, ())| loaded.config);
    std::fs::remove_dir_all(directory).unwrap();
    loaded
}

fn files_in(directory: &str, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root().join(directory)) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    paths.sort();
    paths
}

// Golden cases

/// One reported mistake as a case's head writes it.
fn report(path: &Path, variables: &BTreeMap<String, String>) -> Vec<String> {
    let lookup = |name: &str| variables.get(name).map(OsString::from);
    let Err(error) = config::load_with(path, &lookup, |_, _| ()) else { return vec!["nothing".to_owned()] };
    let mut reports = Vec::new();
    for problem in error.problems.iter() {
        let word = if problem.severity == Severity::Error { "error" } else { "warning" };
        let place = error.sources.place_of(problem);
        let mut text = format!("# {word}: {}\n", problem.message);
        if let Some(place) = &place {
            let file = place.file.strip_prefix(path.parent().unwrap()).unwrap();
            let file = if place.file == path { String::new() } else { format!("{}:", file.display()) };
            text.push_str(&format!("# at: {file}{}:{}\n", place.line, place.column));
        }
        if !problem.help.is_empty() {
            text.push_str(&format!("# help: {}\n", problem.help));
        }
        let directory = format!("{}/", path.parent().unwrap().display());
        let order = place.map(|place| (place.file != path, place.file, place.line, place.column));
        reports.push((order, text.replace(&directory, "")));
    }
    reports.sort();
    reports.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn every_mistake_is_reported_with_its_place_and_help() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let cases = files_in("tests/config_errors", "toml");
    assert!(cases.len() >= 25);
    for path in cases {
        let text = std::fs::read_to_string(&path).unwrap();
        let setting =
            |line: &str| line.strip_prefix("# env: ")?.split_once('=').map(|(name, value)| (name.into(), value.into()));
        let variables: BTreeMap<String, String> = text.lines().filter_map(setting).collect();
        let is_head =
            |line: &&str| ["# error: ", "# warning: ", "# at: ", "# help: "].iter().any(|it| line.starts_with(it));
        let expected: String = text.lines().filter(is_head).map(|line| format!("{line}\n")).collect();
        let actual = report(&path, &variables).concat();
        if update && expected != actual {
            let body: String = text.lines().filter(|line| !is_head(line)).map(|line| format!("{line}\n")).collect();
            std::fs::write(&path, format!("{actual}{body}")).unwrap();
            continue;
        }
        assert_eq!(expected, actual, "{}", path.display());
    }
}

// What is shipped

#[test]
fn every_file_in_conf_loads_and_names_its_schema() {
    let files = files_in("conf", "toml");
    assert!(files.len() >= 2);
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().next(), Some("#:schema ./portcullis.schema.json"), "{}", path.display());
        config::load_with(&path, &|_| Some("value".into()), compile).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The checks of everybody who makes something of a configuration.
fn compile(config: &Config, problems: &mut Problems) {
    Snapshot::compile(config, &Source::default(), None, problems);
}

#[test]
fn every_toml_block_in_the_documentation_loads() {
    let mut blocks = 0;
    for path in files_in("docs", "md").into_iter().chain(files_in("", "md")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for block in text.split("\n```toml\n").skip(1) {
            let block = block.split("\n```").next().unwrap();
            let problems = load_block(block, compile);
            assert!(problems.is_empty(), "{}:\n{block}\n{problems}", path.display());
            blocks += 1;
        }
    }
    assert!(blocks > 0);
}

/// What is wrong with a block; a fragment may refer to servers and agents that stand elsewhere.
fn load_block(block: &str, owners: fn(&Config, &mut Problems)) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let directory = directory(&format!("block-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let path = directory.join("portcullis.toml");
    std::fs::create_dir(directory.join("policy.d")).unwrap();
    for (name, text) in [
        ("clients.json", r#"{"mcpServers":{}}"#),
        ("seal.key", "value"),
        ("token", "value"),
        ("ca.pem", "value"),
        ("gateway.pem", "value"),
        ("gateway.key", "value"),
        ("portcullis.toml", block),
    ] {
        std::fs::write(directory.join(name), text).unwrap();
    }
    if block.contains("cert_file") {
        let authority = Authority::new(&directory, "clients-ca");
        authority.issue("mcp.example.com", "DNS:mcp.example.com", 30);
    }
    let variables = |name: &str| match name {
        "CREDENTIALS_DIRECTORY" => Some(directory.clone().into_os_string()),
        _ => Some("value".into()),
    };
    let found = match config::load_with(&path, &variables, owners) {
        Ok(_) => String::new(),
        Err(error) => {
            let is_fragment = block.starts_with("# fragment\n");
            let elsewhere = |message: &str| is_fragment && message.starts_with("there is no ");
            if error.problems.iter().all(|problem| elsewhere(&problem.message)) {
                String::new()
            } else {
                error.to_string()
            }
        }
    };
    std::fs::remove_dir_all(directory).unwrap();
    found
}

#[test]
fn the_committed_schema_is_the_models() {
    let committed = std::fs::read_to_string(root().join("conf/portcullis.schema.json")).unwrap();
    let committed: Value = serde_json::from_str(&committed).unwrap();
    assert!(committed == config::schema(), "run: portcullis schema > conf/portcullis.schema.json");
}

// The reference against the model

/// The schema of what stands at a place, references followed.
fn follow<'s>(schema: &'s Value, root: &'s Value) -> &'s Value {
    let target = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref")).and_then(Value::as_str);
    match target {
        Some(target) => follow(root.pointer(target.trim_start_matches('#')).unwrap(), root),
        None => schema,
    }
}

/// Every key of the model, as `servers.*.endpoints[].url`.
fn keys_of_schema(schema: &Value, path: &str, root: &Value, keys: &mut BTreeSet<String>) {
    // The tables of a workspace are those of the top level.
    if path == ".workspaces.*" {
        return;
    }
    let schema = follow(schema, root);
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        keys_of_schema(schema, &path, root, keys);
        keys.insert(path);
    }
    if schema["additionalProperties"].is_object() {
        keys_of_schema(&schema["additionalProperties"], &format!("{path}.*"), root, keys);
    }
    if schema["items"].is_object() {
        keys_of_schema(&schema["items"], &format!("{path}[]"), root, keys);
    }
}

/// Every key of a configuration, and every value that is not the model's default.
fn keys_of_file(value: &Value, schema: &Value, path: &str, root: &Value, found: &mut (BTreeSet<String>, Vec<String>)) {
    let schema = follow(schema, root);
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let property = schema["properties"].get(key);
                let path = property.map_or(format!("{path}.*"), |_| format!("{path}.{key}"));
                let path = path.strip_prefix(".workspaces.*").map_or(path.clone(), String::from);
                if let Some(default) = property.and_then(|property| property.get("default"))
                    && default != value
                    && !value.is_object()
                {
                    found.1.push(format!("{path} is shown as {value}, its default is {default}"));
                }
                keys_of_file(value, property.unwrap_or(&schema["additionalProperties"]), &path, root, found);
                if property.is_some() {
                    found.0.insert(path);
                }
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|item| keys_of_file(item, &schema["items"], &format!("{path}[]"), root, found));
        }
        _ => {}
    }
}

/// Whether a line of the reference is a key without a default, behind a `# `.
fn commented_key(line: &str) -> Option<&str> {
    let assignment = line.strip_prefix("# ")?;
    let (key, _) = assignment.split_once(" = ")?;
    let is_key = key.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-\"/".contains(letter));
    is_key.then_some(assignment)
}

#[test]
fn the_reference_has_every_key_of_the_model_and_no_other_with_its_default() {
    let text = std::fs::read_to_string(root().join("conf/reference.toml")).unwrap();
    let whole: String = text.lines().map(|line| format!("{}\n", commented_key(line).unwrap_or(line))).collect();
    // Everything at once excludes itself for the owners: one server has either form of auth.
    let problems = load_block(&whole, |_, _| ());
    assert!(problems.is_empty(), "{problems}");

    let schema = config::schema();
    let mut keys = BTreeSet::new();
    keys_of_schema(&schema, "", &schema, &mut keys);
    assert!(keys.len() > 60);
    for text in [&text, &whole] {
        let value = serde_json::to_value(toml::from_str::<toml::Value>(text).unwrap()).unwrap();
        let mut found = (BTreeSet::new(), Vec::new());
        keys_of_file(&value, &schema, "", &schema, &mut found);
        assert!(found.1.is_empty(), "{:#?}", found.1);
        if text == &whole {
            assert_eq!(found.0, keys);
        }
    }
}

#[test]
fn every_key_of_the_reference_has_a_comment() {
    let text = std::fs::read_to_string(root().join("conf/reference.toml")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.windows(2) {
        let is_key = commented_key(pair[1]).is_some() || (!pair[1].starts_with('#') && pair[1].contains(" = "));
        // The entries of maps are explained where the map begins.
        let has_comment = (pair[0].starts_with("# ") && commented_key(pair[0]).is_none()) || pair[0].starts_with('[');
        assert!(!is_key || has_comment, "{}", pair[1]);
    }
}

#[test]
fn the_model_has_nothing_that_loses_places() {
    let files =
        ["model.rs", "model_servers.rs", "front.rs", "access.rs", "limits.rs"].map(|file| format!("src/config/{file}"));
    let model: String = files.map(|file| std::fs::read_to_string(root().join(file)).unwrap()).concat();
    let code: String = model.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    assert!(code.contains("deny_unknown_fields"));
    for word in ["flatten", "untagged", "tag ="] {
        assert!(!code.contains(word), "{word}");
    }
}

// Behaviour as seen from outside

#[test]
fn synonyms_of_transports_and_of_ways_to_authenticate_work() {
    let load = |key: &str, word: &str| {
        load_text("synonyms", &format!("[servers.a]\nurl = \"http://h/\"\n{key} = \"{word}\"\n"))
    };
    for word in ["streamable-http", "streamable_http", "http"] {
        assert_eq!(load("transport", word).unwrap().servers["a"].transport, Some(Transport::StreamableHttp));
        assert_eq!(load("type", word).unwrap().servers["a"].r#type, Some(Transport::StreamableHttp));
    }
    for (word, meaning) in [
        ("bearer", UpstreamAuthType::Bearer),
        ("bearer_token", UpstreamAuthType::Bearer),
        ("header", UpstreamAuthType::Header),
        ("api_key", UpstreamAuthType::Header),
    ] {
        assert_eq!(load("auth.type", word).unwrap().servers["a"].auth.r#type, meaning);
    }
    assert!(load("transport", "https").is_err());
}

#[test]
fn references_are_replaced_and_directories_start_at_their_file() {
    let directory = directory("references");
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    std::fs::create_dir(directory.join("sub")).unwrap();
    write(
        "portcullis.toml",
        "include = [\"sub/*.toml\"]\n[servers.a]\nurl = \"https://${env:HOST}/${env:HOST}$${x}\"\n[servers.a.auth]\ntype = \"basic\"\nusername = \"u-${cred:user}\"\nsecret = \"${file:password}\"\n",
    );
    write(
        "sub/more.toml",
        "[state]\ndirectory = \"${env:HOST}/state\"\n[servers.b]\nurl = \"http://h/\"\nheaders.X-Key = \"k ${file:password}\"\n",
    );
    write("password", "top\nsecret\r\n\n");
    write("sub/password", "below\n");
    write("user", "u${env:HOST}");
    let variables = |name: &str| match name {
        "HOST" => Some("h.example".into()),
        "CREDENTIALS_DIRECTORY" => Some(directory.clone().into_os_string()),
        _ => None,
    };
    let (loaded, ()) = config::load_with(&directory.join("portcullis.toml"), &variables, |_, _| ()).unwrap();
    let config = loaded.config;
    assert_eq!(config.servers["a"].url.as_deref(), Some("https://h.example/h.example${x}"));
    assert_eq!(config.servers["a"].auth.secret.as_ref().unwrap().expose(), "top\nsecret");
    assert_eq!(config.servers["a"].auth.username.as_ref().unwrap(), "u-u${env:HOST}");
    assert_eq!(config.servers["b"].headers["X-Key"].expose(), "k below");
    assert_eq!(Path::new(&config.state.directory), directory.join("sub/h.example/state"));
    assert_eq!(Path::new(&config.audit.directory), directory.join("audit"));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_workspace_is_read_as_the_top_level_is_and_may_stand_in_several_files() {
    let directory = directory("workspaces");
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    let main = "include = [\"more.toml\"]\n[workspaces.acme.servers.a]\nurl = \"https://${env:HOST}/\"\n\
                auth = { type = \"bearer\", secret = \"${file:token}\" }\n";
    write("portcullis.toml", main);
    write(
        "more.toml",
        "[servers.a]\nurl = \"http://h/\"\n[workspaces.acme.servers.b]\nurl = \"http://h/\"\nalias = \"c\"\n",
    );
    write("token", "hidden-token\n");
    let variables = |name: &str| (name == "HOST").then(|| "h.example".into());
    let load = || config::load_with(&directory.join("portcullis.toml"), &variables, |_, _| ());
    let (loaded, ()) = load().unwrap();
    let servers = &loaded.config.servers;
    assert_eq!(servers.keys().collect::<Vec<_>>(), ["a", "acme/a", "acme/b"]);
    assert_eq!(servers["acme/a"].url.as_deref(), Some("https://h.example/"));
    assert_eq!(servers["acme/a"].auth.secret.as_ref().unwrap().expose(), "hidden-token");
    assert_eq!(servers["acme/b"].alias.as_deref(), Some("acme/c"));
    let place = loaded.sources.locate(&At::entry("servers", "acme/b").key("alias")).unwrap();
    assert!(place.to_string().ends_with("more.toml:5:9"), "{place}");
    // An entry stands in one file; and what is secret at the top level is secret here.
    write(
        "more.toml",
        "[workspaces.acme.servers.a]\nurl = \"http://h/\"\nauth = { tipe = 1, secret = \"hidden-token\" }\n",
    );
    let error = load().unwrap_err().to_string();
    assert!(error.contains("`workspaces.acme.servers.a` is defined twice") && !error.contains("hidden"), "{error}");
    write("more.toml", "");
    write("portcullis.toml", "[workspaces.acme.servers.a]\nauth = { tipe = 1, secret = \"hidden-token\" }\n");
    let error = load().unwrap_err().to_string();
    assert!(error.contains("unknown key `tipe`") && error.contains("****") && !error.contains("hidden"), "{error}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn owners_mistakes_stand_beside_those_of_the_file_and_what_only_follows_is_not_told() {
    let directory = directory("owners");
    let path = directory.join("portcullis.toml");
    std::fs::write(&path, "[servers.a]\nurl = 5\n[servers.b]\nurl = \"nonsense\"\n").unwrap();
    let error = config::load_with(&path, &|_| None, |config, problems| {
        let servers = config::problem::At::root().key("servers");
        assert_eq!(config.servers["a"].url, None);
        problems.error(&servers.key("a"), "it has no URL", "");
        problems.error(&servers.key("b").key("url"), "it is not a URL", "write one");
        problems.warning(&servers.key("b").key("headers"), "it has no headers", "");
    })
    .unwrap_err();
    let text = error.to_string();
    let expected = [
        "`servers.a.url` must be a text",
        "it is not a URL",
        "portcullis.toml:4:7",
        "help: write one",
        "warning: it has no headers",
        "portcullis.toml:3:10",
    ];
    for part in expected {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("it has no URL"), "{text}");
    std::fs::remove_dir_all(directory).unwrap();
}

/// Values that must be in no message.
const CANARY: &str = "CANARY-7f3a";

#[test]
fn no_message_shows_a_secret() {
    let directory = directory("canary");
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text.replace("CANARY", CANARY)).unwrap();
    write("secret.txt", "CANARY\n");
    let variables = |name: &str| match name {
        "CREDENTIALS_DIRECTORY" => Some(directory.clone().into_os_string()),
        "UNSET" => None,
        _ => Some(OsString::from(CANARY)),
    };
    let servers = "[servers.a]\nurl = \"https://${env:A}/${env:UNSET}\"\n\
        [servers.b]\nurl = \"https://user:CANARY@h.example/mcp?key=CANARY\"\nauth = { type = \"beerer\", secret = \"CANARY\" }\n\
        headers = { X-A = \"CANARY\", X-B = 5, X-C = \"CANARY ${file:secret.txt} ${CANARY}\", X-D = \"CANARY${\" }\n\
        [servers.c]\nurl = \"http://h/\"\nauth = { type = \"basic\", usrname = \"CANARY\", secret = \"${cred:secret.txt}${env:UNSET}\", pass = { word = [\"CANARY\"] } }\n\
        [seal]\nkeys = [\"${env:A}${env:UNSET}\", \"CANARY\", 7]\n\
        [keys.k]\ndigest = \"CANARY\"\nkey = \"CANARY\"\nagnt = \"x\"\n";
    let cases = [
        ("form.toml", servers.to_owned()),
        ("twice.toml", "include = [\"twice.part\"]\n[servers.a]\nurl = \"http://h/\"\n".to_owned()),
        ("one_line.toml", "include = [\"one_line.json\"]\n".to_owned()),
        ("json.toml", "include = [\"broken.json\"]\n".to_owned()),
        ("open.toml", "[servers.a]\nauth.secret = \"CANARY\n".to_owned()),
        ("open_list.toml", "[seal]\nkeys = [\n  \"CANARY\",\n  \"CANARY\n]\n".to_owned()),
        (
            "open_inline.toml",
            "[servers.a]\nurl = \"http://h/\"\nheaders = { X-A = \"CANARY\", X-B = \"CANARY }\n".to_owned(),
        ),
        ("open_headers.toml", "[servers.a.headers]\nX-A = \"CANARY\nX-B = CANARY\n".to_owned()),
    ];
    write("twice.part", "[servers]\na = { url = \"http://h/\", auth = { secret = \"CANARY\" } }\n");
    write(
        "one_line.json",
        r#"{"mcpServers":{"a":{"command":"x","env":{"T":"CANARY"}},"b":{"url":"http://h/","headers":{"A":"CANARY"},"t":"CANARY"}}}"#,
    );
    write(
        "broken.json",
        "{\"mcpServers\":{\"a\":{\"headers\":{\n\"Authorization\":\"CANARY\",\n\"X\": \"CANARY\", }}}}",
    );
    for (name, text) in cases {
        write(name, &text);
        let error = config::load_with(&directory.join(name), &variables, |_, _| ()).unwrap_err();
        let (text, debug) = (error.to_string(), format!("{error:?}"));
        assert!(text.contains("error: "));
        assert!(!text.contains(CANARY) && !debug.contains(CANARY), "{name}\n{text}\n{debug}");
    }
    // An owner that puts a value into its message does not give it away either.
    write("owner.toml", "[servers.a]\nurl = \"https://${env:A}/mcp\"\n");
    let error = config::load_with(&directory.join("owner.toml"), &variables, |config, problems| {
        let url = config.servers["a"].url.clone().unwrap();
        assert!(url.contains(CANARY));
        problems.error(
            &config::problem::At::root().key("servers").key("a").key("url"),
            format!("`{url}` is not a URL"),
            url,
        );
    })
    .unwrap_err();
    assert!(!error.to_string().contains(CANARY) && !format!("{error:?}").contains(CANARY), "{error}");
    assert!(error.to_string().contains("`https://${env:A}/mcp` is not a URL"), "{error}");
    std::fs::remove_dir_all(directory).unwrap();
}

// Limits

#[test]
fn a_file_that_is_too_large_is_refused() {
    let directory = directory("large");
    let path = directory.join("a.toml");
    let mebibytes = |count: usize| format!("#{}", " ".repeat(count * 1024 * 1024 - 1));
    std::fs::write(&path, mebibytes(16)).unwrap();
    assert!(config::load(&path).is_ok());
    std::fs::write(&path, mebibytes(16) + "\n").unwrap();
    assert!(config::load(&path).unwrap_err().to_string().contains("larger than 16777216 bytes"));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn too_many_included_files_are_refused() {
    let directory = directory("many");
    let path = directory.join("a.toml");
    std::fs::create_dir(directory.join("d")).unwrap();
    std::fs::write(&path, "include = [\"d/0*.toml\", \"d/1*.toml\"]\n").unwrap();
    let write = |index: usize| std::fs::write(directory.join(format!("d/{}{index:04}.toml", index % 2)), "").unwrap();
    (0..999).for_each(write);
    assert_eq!(config::load(&path).unwrap().sources.files().count(), 1000);
    write(999);
    assert!(config::load(&path).unwrap_err().to_string().contains("more than 1000 files are included"));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_damaged_file_is_never_a_panic_and_never_shows_a_secret() {
    let mut text = std::fs::read_to_string(root().join("conf/reference.toml")).unwrap();
    text = text.lines().map(|line| format!("{}\n", commented_key(line).unwrap_or(line))).collect();
    text = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    text = text
        .replace("${env:EXAMPLE_TOKEN}", CANARY)
        .replace("\"acme\"", &format!("\"{CANARY}\""))
        .replace("${file:seal.key}", CANARY);
    text += &format!("[workspaces.canary.servers.a.headers]\nX-Key = \"{CANARY}\"\n");
    assert_eq!(text.matches(CANARY).count(), 4);
    let directory = directory("damaged");
    let path = directory.join("a.toml");
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let (mut refused, bits) =
        (0, ["\"", "[", "]", "{", "}", "=", "\n", "'", "\"\"\"", ".", ",", "#", "${", "ä", "[[x]]\n", "\0"]);
    for _ in 0..500 {
        let mut damaged = text.clone();
        for _ in 0..=random(3) {
            let place =
                (0..=random(damaged.len().max(1))).rev().find(|place| damaged.is_char_boundary(*place)).unwrap();
            match random(3) {
                0 => damaged.truncate(place),
                1 => damaged.insert_str(place, bits[random(bits.len())]),
                _ => drop((place < damaged.len()).then(|| damaged.remove(place))),
            }
        }
        std::fs::write(&path, &damaged).unwrap();
        if let Err(error) = config::load_with(&path, &|_| Some("value".into()), |_, _| ()) {
            let shown = error.to_string();
            // Damage within a secret leaves pieces of it; the first piece is telling enough.
            assert!(!shown.contains(&CANARY[..6]), "{shown}\n{damaged}");
            refused += 1;
        }
    }
    assert!(refused > 200, "{refused}");
    std::fs::remove_dir_all(directory).unwrap();
}

// `mcpServers` files

#[test]
fn an_included_mcp_servers_file_adds_servers() {
    let directory = directory("include-json");
    std::fs::write(directory.join("a.toml"), "include = [\"c.json\"]\n").unwrap();
    let json = r#"{"$schema":"x","mcpServers":{"github":{"url":"https://g/","type":"http","transport":"streamable-http",
        "headers":{"X-A":"${env:A}"},"timeout":5000,"sseReadTimeout":70000},"plain":{"url":"http://p/","headers":null}}}"#;
    std::fs::write(directory.join("c.json"), json).unwrap();
    let (loaded, ()) = config::load_with(&directory.join("a.toml"), &|_| Some("v".into()), |_, _| ()).unwrap();
    let github = &loaded.config.servers["github"];
    assert_eq!(
        (github.url.as_deref(), github.timeout_ms, github.sse_read_timeout_ms),
        (Some("https://g/"), 5000, 70_000)
    );
    assert_eq!((github.transport, github.r#type), (Some(Transport::StreamableHttp), Some(Transport::StreamableHttp)));
    assert_eq!(github.headers["X-A"].expose(), "v");
    assert_eq!(loaded.config.servers["plain"].timeout_ms, 30_000);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn an_imported_mcp_servers_file_prints_toml_that_loads_and_no_secret() {
    let directory = directory("import");
    let path = directory.join("claude.json");
    let json = r#"{"inputs":[],"mcpServers":{
        "Git Hub__X":{"type":"http","url":"https://g.example/mcp","headers":{"authorization":"Bearer CANARY","X-Trace":"on"},"timeout":5000},
        "mcp":{"url":"https://m.example/mcp?api_key=CANARY","headers":{"X-Api-Key":"CANARY"}},
        "files":{"command":"npx","env":{"TOKEN":"CANARY"}},
        "b":{"url":"https://b.example/mcp","disabled":false,"headers":{"Authorization":"Bearer ${B_TOKEN}"}}}}"#;
    std::fs::write(&path, json.replace("CANARY", CANARY)).unwrap();
    let import = config::mcp_servers::read(&path).unwrap();
    assert_eq!(import.names().collect::<Vec<_>>(), ["b", "git-hub_x", "mcp-2"]);
    let toml = config::mcp_servers::to_toml(&import);
    assert!(!toml.contains(CANARY) && !format!("{import:?}").contains(CANARY), "{toml}");
    for part in [
        "`files` is left out",
        "`disabled` is left out",
        "`Git Hub__X` is called `git-hub_x`",
        "`mcp` is called `mcp-2`",
        "`GIT_HUB_X_TOKEN`",
        "`MCP_2_X_API_KEY`",
        "`MCP_2_API_KEY`",
    ] {
        assert!(import.notes.iter().any(|note| note.contains(part)), "{part}\n{:#?}", import.notes);
    }
    let config = load_text("imported", &toml).unwrap();
    let server = &config.servers["git-hub_x"];
    assert_eq!((server.url.as_deref(), server.timeout_ms), (Some("https://g.example/mcp"), 5000));
    assert_eq!((server.auth.r#type, server.headers["X-Trace"].expose()), (UpstreamAuthType::Bearer, "on"));
    assert_eq!(config.servers["mcp-2"].url.as_deref(), Some("https://m.example/mcp?api_key=value"));
    assert!(toml.contains("${env:B_TOKEN}"));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn an_import_of_something_else_is_refused() {
    let directory = directory("import-other");
    let path = directory.join("a.json");
    let cases = [
        ("{", "EOF while parsing"),
        ("[]", "no `mcpServers` table"),
        (r#"{"mcpServers":{"a":{"url":5,"headers":{"A":"CANARY"}}}}"#, "must be a text"),
        (r#"{"mcpServers":{"a":{"type":"websocket"}}}"#, "is not a value of"),
    ];
    for (json, message) in cases {
        std::fs::write(&path, json).unwrap();
        let text = config::mcp_servers::read(&path).unwrap_err().to_string();
        assert!(text.contains(message) && text.contains("a.json:1:") && !text.contains("CANARY"), "{text}");
    }
    assert!(
        config::mcp_servers::read(&directory.join("absent.json")).unwrap_err().to_string().contains("No such file")
    );
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn limits_that_refuse_everything_or_nothing_are_mistakes_where_they_stand() {
    for (lines, message, help) in [
        ("target_bytes_max = 0", "`0` is out of range", "write a number from 1 to 1048576"),
        ("connections_per_address_max = 0", "`0` is out of range", "write a number from 1 to 10000000"),
        ("accepts_per_address_max = 1000001", "`1000001` is out of range", "write a number from 1 to 1000000"),
        ("requests_per_connection_max = 0", "`0` is out of range", "write a number from 1 to 1000000000"),
        ("body_bytes_per_second_min = 0", "`0` is out of range", "write a number from 1 to 1073741824"),
        ("answer_bytes_per_second_min = 0", "`0` is out of range", "write a number from 1 to 1073741824"),
        ("queue_delay_ms_max = 60001", "`60001` is out of range", "write a number from 1 to 60000"),
        (
            "buffered_bytes_max = 1000",
            "there is no room for a single request of `body_bytes_max`",
            "write at least 5592408, or lower `body_bytes_max`",
        ),
    ] {
        let problems = load_block(&format!("[listen]\n{lines}\n"), compile);
        let place = format!("portcullis.toml:2:{}", lines.find('=').unwrap() + 3);
        for part in [message, help, &place] {
            assert!(problems.contains(part), "{lines}: {part}\n{problems}");
        }
    }
}
