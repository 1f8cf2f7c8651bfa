//! Tests of compiling and deciding. What the language means case by case is in `tests/decisions/`.

use bytes::Bytes;

use crate::call::Action;
use crate::call::Call;
use crate::config::model::Config;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::mcp::document::Limits;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::revision::Revision;
use crate::mcp::splice::Splice;
use crate::mcp::uri::UriFlaw;
use crate::policy::About;
use crate::policy::ArgumentDenial;
use crate::policy::ClientRequest;
use crate::policy::DENIALS;
use crate::policy::Denial;
use crate::policy::DenialKind;
use crate::policy::Mismatch;
use crate::policy::NAMES;
use crate::policy::Policy;
use crate::policy::Reason;
use crate::policy::Restriction;
use crate::policy::Speaker;
use crate::policy::Told;
use crate::policy::Whose;
use crate::policy::compile::AGENTS_MAX;
use crate::policy::compile::CONSTRAINTS_MAX;
use crate::policy::compile::ORGANISATIONS_MAX;
use crate::policy::compile::SERVERS_MAX;
use crate::policy::compile::TEAMS_MAX;
use crate::policy::compile::TOOLSETS_MAX;
use crate::policy::compile::USERS_MAX;
use crate::policy::constraints::CHOICES_MAX;
use crate::policy::is_served;
use crate::policy::listen::RESOURCES_MAX;
use crate::policy::reason::ReasonKind;
use crate::policy::reason::Rule;
use crate::principal::Principal;
use crate::principal::Subject;

const CONFIG: &str = r#"
    [servers.db]
    blocked_tools = ["drop_*"]
    [servers.docs]
    access = "public"
    [servers.hidden]
    [keys.ci]
    mcp_servers = ["db"]
    agent = "a"
    [keys.silent]
    [agents.a.servers.db]
    allowed_tools = ["query", "list", "drop_table"]
    argument_constraints.query = [{ arg = "sql", pattern = '^SELECT', description = "SELECT only" }]
"#;

fn compile(config: &str) -> (Policy, Vec<String>) {
    let config: Config = toml::from_str(config).unwrap();
    let mut problems = Problems::new();
    let policy = Policy::compile(&config, &mut problems);
    (policy, problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect())
}

fn key(name: &str) -> Principal {
    Principal::of_key(name)
}

fn call(server: &str, body: &str) -> Call {
    let message = Message::read(Bytes::copy_from_slice(body.as_bytes()), &Limits::default()).unwrap();
    Call { server: server.into(), action: Action::Message(message), opened: Vec::new(), task_tool: None }
}

/// The verdict's name and what a client is told, under [`CONFIG`].
fn decide(principal: &Principal, revision: Revision, call: Call) -> (&'static str, Option<Told>) {
    let (policy, problems) = compile(CONFIG);
    assert_eq!(
        problems,
        ["servers.docs.access: callers need no key here, and whoever holds a session's id holds the session"]
    );
    match policy.decide(Subject::of(principal), revision, call) {
        Ok(permitted) => (permitted.reason().name(), None),
        Err(denied) => (denied.denial.name(), Some(denied.denial.told())),
    }
}

fn method(server: &str, method: &str, has_id: bool, revision: Revision) -> (&'static str, Option<Told>) {
    let id = if has_id { r#""id":1,"# } else { "" };
    let params = match method {
        "tools/call" => r#","params":{"name":"list"}"#,
        "tasks/get" | "tasks/cancel" | "tasks/result" | "tasks/update" => r#","params":{"taskId":"t"}"#,
        "resources/read" => r#","params":{"uri":"a:b"}"#,
        _ => "",
    };
    decide(&key("ci"), revision, call(server, &format!(r#"{{"jsonrpc":"2.0",{id}"method":"{method}"{params}}}"#)))
}

#[test]
fn every_kind_of_action_needs_the_server() {
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let end =
        |server: &str| Call { server: server.into(), action: Action::EndSession, opened: Vec::new(), task_tool: None };
    for principal in [key("ci"), key("silent"), key("removed"), Principal::public()] {
        for server in ["db", "docs", "hidden", "nowhere"] {
            let expected = match (principal.key.as_deref(), server) {
                (Some("ci"), "db") => ("key_servers", None),
                (None | Some("ci" | "silent"), "docs") => ("public", None),
                (_, "nowhere") => ("server_unknown", Some(Told::Hidden)),
                _ => ("server_not_granted", Some(Told::Hidden)),
            };
            let calls = [end(server), call(server, response), call(server, notification), call(server, list)];
            for call in calls {
                assert_eq!(decide(&principal, Revision::V2025_11_25, call), expected, "{} {server}", principal.id);
            }
        }
    }
}

#[test]
fn a_method_is_known_in_its_revision_and_form_only() {
    let unknown = ("method_unknown", Some(Told::MethodUnknown));
    let (old, new) = (Revision::V2025_11_25, Revision::V2026_07_28);
    assert_eq!(method("db", "ping", true, old), ("key_servers", None));
    assert_eq!(method("db", "ping", true, new), unknown);
    assert_eq!(method("db", "server/discover", true, new), ("key_servers", None));
    assert_eq!(method("db", "server/discover", true, old), unknown);
    assert_eq!(method("db", "resources/read", true, old), ("key_servers", None));
    assert_eq!(method("db", "tools/call", true, old), ("agent_tools", None));
    assert_eq!(method("db", "elicitation/create", true, old), unknown);
    assert_eq!(method("db", "Tools/list", true, old), unknown);
    assert_eq!(method("db", "notifications/none", false, old), unknown);
    // A message in the wrong form is not even read; policy does not depend on that.
    assert!(is_served(MessageKind::Request, "tools/call", old) && is_served(MessageKind::Request, "tools/call", new));
    assert!(!is_served(MessageKind::Notification, "tools/call", old));
    assert!(is_served(MessageKind::Notification, "notifications/initialized", old));
    assert!(!is_served(MessageKind::Request, "notifications/initialized", old));
}

#[test]
fn tasks_are_reached_by_their_ids_and_never_listed() {
    let (unknown, known) = (("method_unknown", Some(Told::MethodUnknown)), ("key_servers", None));
    let (old, new) = (Revision::V2025_11_25, Revision::V2026_07_28);
    for (name, by_old, by_new) in [
        ("tasks/get", known, known),
        ("tasks/cancel", known, known),
        ("tasks/result", known, unknown),
        ("tasks/update", unknown, known),
        ("tasks/list", unknown, unknown),
        ("subscriptions/listen", unknown, known),
    ] {
        assert_eq!((method("db", name, true, old), method("db", name, true, new)), (by_old, by_new), "{name}");
    }
    assert_eq!(method("db", "notifications/tasks/status", false, old), known);
    assert_eq!(method("db", "notifications/tasks/status", false, new), unknown);
}

#[test]
fn a_view_shows_what_may_be_named_and_relays_what_may_be_asked() {
    let (policy, _) = compile(
        r#"
        [servers.db]
        blocked_prompts = ["secret"]
        allowed_resources = ["note:///**", "a://{b}/c"]
        client_requests = { elicitation = "deny" }
        [keys.ci]
        mcp_servers = ["*"]
    "#,
    );
    let (caller, removed) = (key("ci"), key("removed"));
    let view = policy.view(Subject::of(&caller), "db");
    assert!(view.gets("review") && !view.gets("secret"));
    assert!(view.reads("note:///a") && !view.reads("note:///../a") && !view.reads("file:///a") && !view.reads(""));
    assert!(
        view.lists_template("note:///{id}") && view.lists_template("a://{b}/c") && view.lists_template("note:///a")
    );
    assert!(!view.lists_template("a://{b}/d") && !view.lists_template("note:///../{id}"));
    assert!(view.relays(ClientRequest::Sampling) && view.relays(ClientRequest::Roots));
    assert!(!view.relays(ClientRequest::Elicitation));
    let nothing = policy.view(Subject::of(&removed), "db");
    assert!(!nothing.gets("review") && !nothing.reads("note:///a") && !nothing.lists_template("note:///{id}"));
    assert!(!nothing.relays(ClientRequest::Sampling));
}

#[test]
fn without_substitutions_the_received_buffer_is_sent() {
    let (policy, _) = compile(CONFIG);
    let ping = || call("db", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let permit = |call| policy.decide(Subject::of(&key("ci")), Revision::V2025_11_25, call);
    let permitted = permit(ping()).unwrap();
    let received = permitted.call().message().unwrap().body().clone();
    assert_eq!(permitted.body().unwrap().as_ptr(), received.as_ptr());
    let end = Call { server: "db".into(), action: Action::EndSession, opened: Vec::new(), task_tool: None };
    assert_eq!(permit(end).unwrap().body(), None);
}

#[test]
fn all_substitutions_are_made_at_once_and_none_that_contradict() {
    let (policy, _) = compile("[servers.db]\nclient_requests.sampling = \"deny\"\n[keys.ci]\nmcp_servers = [\"*\"]");
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"TOKEN","_meta":{"io.modelcontextprotocol/clientCapabilities":{"sampling":{}}}}}"#;
    let send = |at: usize, length: usize| {
        let opened = vec![Splice { span: at..at + length, replacement: "c".into() }];
        let call = Call { opened, ..call("db", body) };
        policy.decide(Subject::of(&key("ci")), Revision::V2026_07_28, call).map(|permitted| permitted.body().unwrap())
    };
    let cursor = body.find("TOKEN").unwrap();
    let expected = body.replace("TOKEN", "c").replace(r#""sampling":{}"#, "");
    assert_eq!(send(cursor, 5).unwrap(), expected);
    let denied = send(body.find("sampling").unwrap(), 3).unwrap_err();
    assert_eq!((denied.denial.name(), denied.denial.told()), ("contradiction", Told::Refused));
}

#[test]
fn what_was_judged_is_not_changed() {
    let (policy, _) = compile(CONFIG);
    for (method, params, changed, expected) in [
        ("tools/call", r#"{"name":"list","arguments":{"a":"TOKEN"}}"#, "TOKEN", Err("contradiction")),
        ("tools/call", r#"{"name":"list","arguments":{}}"#, "list\"", Err("contradiction")),
        ("resources/read", r#"{"uri":"a:TOKEN"}"#, "TOKEN", Err("contradiction")),
        ("prompts/get", r#"{"name":"TOKEN"}"#, "TOKEN", Err("contradiction")),
        ("tools/call", r#"{"name":"list","requestState":"TOKEN"}"#, "TOKEN", Ok("agent_tools")),
        ("tasks/get", r#"{"taskId":"TOKEN"}"#, "TOKEN", Ok("key_servers")),
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        let at = body.find("params").unwrap() + body[body.find("params").unwrap()..].find(changed).unwrap();
        let opened = vec![Splice { span: at..at + changed.len(), replacement: "x".into() }];
        let verdict =
            policy.decide(Subject::of(&key("ci")), Revision::V2025_11_25, Call { opened, ..call("db", &body) });
        let found = verdict.as_ref().map(|it| it.reason().name()).map_err(|denied| denied.denial.name());
        assert_eq!(found, expected, "{params}");
    }
}

#[test]
fn a_subscription_has_a_limited_number_of_resources() {
    let (policy, _) = compile(CONFIG);
    let sent = |count: usize| {
        let resources = vec![r#""a:b""#; count].join(",");
        let params = format!(r#"{{"notifications":{{"resourceSubscriptions":[{resources}]}}}}"#);
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{params}}}"#);
        let permitted = policy.decide(Subject::of(&key("ci")), Revision::V2026_07_28, call("db", &body)).unwrap();
        let sent = permitted.body().unwrap();
        std::str::from_utf8(&sent).unwrap().matches("a:b").count()
    };
    assert_eq!((sent(RESOURCES_MAX), sent(RESOURCES_MAX + 1)), (RESOURCES_MAX, RESOURCES_MAX));
}

#[test]
fn a_denial_says_what_it_is_about() {
    let (policy, _) = compile(CONFIG);
    let about = |server: &str, method: &str, params: &str| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        let denied = policy.decide(Subject::of(&key("ci")), Revision::V2025_11_25, call(server, &body)).unwrap_err();
        (denied.denial.about(), denied.denial.to_string())
    };
    let (of, text) = about("db", "resources/read", r#"{"uri":"file:///etc/a"}"#);
    assert_eq!(of, About::Resource);
    assert_eq!(text, "the server's list blocks resource `file:///etc/a` (servers.db.blocked_resources[0])");
    let (of, text) = about("db", "resources/read", r#"{"uri":"file:///a/../b"}"#);
    assert_eq!(of, About::Resource);
    assert_eq!(text, "resource `file:///a/../b` may be read as another one: it has a `.` or `..` segment");
    assert_eq!(about("db", "tools/call", r#"{"name":"drop_x"}"#).0, About::Tool);
    assert_eq!(about("db", "x", "{}").0, About::Method);
    assert_eq!(about("hidden", "x", "{}").0, About::Server);
}

#[test]
fn an_unknown_method_does_not_tell_whether_a_server_exists() {
    let hidden = method("hidden", "no/such", true, Revision::V2025_11_25).1;
    assert_eq!(hidden, Some(Told::Hidden));
    assert_eq!(method("nowhere", "no/such", true, Revision::V2025_11_25).1, hidden);
}

#[test]
fn a_denial_shows_the_rule_but_neither_values_nor_what_cannot_be_seen() {
    let (policy, _) = compile(CONFIG);
    let body =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"query","arguments":{"sql":"S3CRET"}}}"#;
    let denied = policy.decide(Subject::of(&key("ci")), Revision::V2025_11_25, call("db", body)).unwrap_err();
    let shown = denied.denial.to_string();
    let at = "agents.a.servers.db.argument_constraints.query[0]";
    assert_eq!(shown, format!("argument `sql` of tool `query` does not match `^SELECT`: SELECT only ({at})"));
    assert_eq!(denied.denial.public_explanation().as_deref(), Some("argument `sql`: SELECT only"));
    assert!(!format!("{:?}", denied.denial).contains("S3CRET"));
    assert_eq!(denied.call.tool(), Some("query"));

    let call = Call {
        server: format!("a\u{202e}\n{}", "x".repeat(500)).into(),
        action: Action::EndSession,
        opened: Vec::new(),
        task_tool: None,
    };
    let shown = policy.decide(Subject::of(&key("ci")), Revision::V2025_11_25, call).unwrap_err().denial.to_string();
    assert!(shown.starts_with(r"there is no server `a\u{202e}\nxx") && shown.chars().count() < 200, "{shown}");
}

#[test]
fn a_permission_names_the_last_rule_that_had_a_say() {
    let (policy, _) = compile(CONFIG);
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list"}}"#;
    let permitted = policy.decide(Subject::of(&key("ci")), Revision::V2025_11_25, call("db", body)).unwrap();
    assert_eq!(permitted.reason().to_string(), "the agent's tool matrix allows it (agents.a.servers.db)");
    assert_eq!(permitted.call().tool(), Some("list"));
    assert_eq!(permitted.into_call().message().unwrap().body(), body.as_bytes());
}

#[test]
fn a_key_whose_agent_does_not_exist_is_granted_nothing() {
    let config =
        "[servers.db]\n[servers.open]\naccess = \"public\"\n[keys.ci]\nmcp_servers = [\"*\"]\nagent = \"gone\"";
    let (policy, _) = compile(config);
    assert!(!policy.reaches(Subject::of(&key("ci")), "db"));
    assert!(policy.reaches(Subject::of(&key("ci")), "open"));
}

#[test]
fn reusing_patterns_changes_neither_policy_nor_problems() {
    let before: Config = toml::from_str(CONFIG).unwrap();
    let mistakes = r#"
        [servers.db]
        [keys.ci]
        mcp_servers = ["db"]
        agent = "a"
        [agents.a.servers.db.argument_constraints]
        query = [{ arg = "sql", pattern = '^SELECT' }, { arg = "sql", pattern = '(' }, { arg = "x", pattern = '(' }]
    "#;
    for text in [CONFIG, mistakes] {
        let after: Config = toml::from_str(text).unwrap();
        let (mut fresh_problems, mut reused_problems) = (Problems::new(), Problems::new());
        let previous = Policy::compile(&before, &mut Problems::new());
        let fresh = Policy::compile(&after, &mut fresh_problems);
        let reused = Policy::compile_reusing(&after, Some(&previous), &mut reused_problems);
        assert!(fresh_problems.iter().eq(reused_problems.iter()));
        assert_eq!(fresh_problems.has_errors(), text == mistakes);
        for sql in ["SELECT", "DROP"] {
            let arguments = format!(r#"{{"sql":"{sql}","x":1}}"#);
            let params = format!(r#"{{"name":"query","arguments":{arguments}}}"#);
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
            let verdict = |policy: &Policy| {
                let decided = policy.decide(Subject::of(&key("ci")), Revision::V2025_11_25, call("db", &body));
                decided.map(|permitted| permitted.reason().clone()).map_err(|denied| denied.denial)
            };
            assert_eq!(verdict(&fresh), verdict(&reused));
            assert_eq!(verdict(&fresh).is_ok(), sql == "SELECT");
        }
    }
}

#[test]
fn a_configuration_has_limits() {
    let constraints = |count: usize| {
        let list = vec![r#"{ arg = "a", pattern = "x" }"#; count].join(",");
        compile(&format!("[servers.db]\n[agents.a.servers.db]\nargument_constraints.t = [{list}]")).1
    };
    assert_eq!(constraints(CONSTRAINTS_MAX), [""; 0]);
    let at = "agents.a.servers.db.argument_constraints.t";
    assert_eq!(constraints(CONSTRAINTS_MAX + 1), [format!("{at}: 65 entries, and at most 64 are possible")]);
    let choices = |key: &str, count: usize| {
        let list = vec![r#""a""#; count].join(",");
        let constraint = format!(r#"{{ arg = "a", {key} = [{list}] }}"#);
        compile(&format!("[servers.db]\n[agents.a.servers.db]\nargument_constraints.t = [{constraint}]")).1
    };
    for key in ["one_of", "path_within", "url_hosts"] {
        assert_eq!(choices(key, CHOICES_MAX), [""; 0], "{key}");
        let [told] = &choices(key, CHOICES_MAX + 1)[..] else { panic!("{key}: one mistake") };
        assert_eq!(told, &format!("{at}[0].{key}: 1001 entries, and at most 1000 are possible"));
    }
    let tables = |table: &str, count: usize| {
        let text = (0..count).map(|i| format!("[{table}.n{i}]\n"));
        compile(&text.collect::<String>()).1.iter().filter(|told| told.contains("entries")).count()
    };
    for (table, max) in [
        ("servers", SERVERS_MAX),
        ("agents", AGENTS_MAX),
        ("teams", TEAMS_MAX),
        ("organisations", ORGANISATIONS_MAX),
        ("users", USERS_MAX),
        ("toolsets", TOOLSETS_MAX),
    ] {
        assert_eq!((tables(table, max), tables(table, max + 1)), (0, 1), "{table}");
    }
}

#[test]
fn a_set_of_servers_spans_any_number_of_them() {
    let mut text: String = (0..200).map(|i| format!("[servers.s{i:03}]\n")).collect();
    text.push_str("[keys.odd]\nmcp_servers = [");
    text.extend((1..200).step_by(2).map(|i| format!("\"s{i:03}\",")));
    text.push_str("]\n[keys.all]\nmcp_servers = [\"*\"]");
    let (policy, _) = compile(&text);
    for i in 0..200 {
        let name = format!("s{i:03}");
        assert_eq!(policy.reaches(Subject::of(&key("odd")), &name), i % 2 == 1, "{name}");
        assert!(policy.reaches(Subject::of(&key("all")), &name));
    }
    assert!(!policy.reaches(Subject::of(&key("all")), "s200"));
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table is read row by row")]
fn every_name_of_a_verdict_is_on_the_list_once() {
    let place = || At::root().key("x");
    let text = String::new;
    let reasons = [
        ReasonKind::Public,
        ReasonKind::ServerTools,
        ReasonKind::AgentTools,
        ReasonKind::ServerResources,
        ReasonKind::AgentResources,
        ReasonKind::ServerPrompts,
        ReasonKind::AgentPrompts,
    ];
    let mut reasons = reasons.to_vec();
    for speaker in [Speaker::Key, Speaker::Team, Speaker::Organisation, Speaker::User, Speaker::Agent] {
        let rules = [Rule::Servers, Rule::ToolPermissions, Rule::Toolsets];
        reasons.extend(rules.map(|rule| ReasonKind::Granted(speaker, rule)));
    }
    reasons.push(ReasonKind::Granted(Speaker::Toolset, Rule::Toolsets));
    let mut names: Vec<&str> = reasons.into_iter().map(|kind| Reason { kind, at: place() }.name()).collect();
    let mut kinds = vec![
        DenialKind::ServerUnknown { server: text() },
        DenialKind::ServerNotGranted { server: text() },
        DenialKind::MethodUnknown { method: text() },
        DenialKind::ResourceAmbiguous { uri: text(), flaw: UriFlaw::Dots },
        DenialKind::Contradiction,
        DenialKind::ScopeMissing { needed: vec!["mcp".into()] },
        DenialKind::CallerDisabled,
        DenialKind::ParameterNotAllowed { tool: text(), parameter: text() },
        DenialKind::NotInToolset { what: text(), about: About::Tool },
    ];
    for about in [About::Tool, About::Resource, About::Prompt] {
        kinds.push(DenialKind::NotGranted { what: text(), about });
    }
    for by in [
        Restriction::Disabled,
        Restriction::Source,
        Restriction::User,
        Restriction::Agent,
        Restriction::AgentBlocked,
        Restriction::AgentReports,
        Restriction::Time,
        Restriction::AgentSource,
        Restriction::AgentTime,
    ] {
        kinds.push(DenialKind::KeptOut { server: text(), by });
    }
    for whose in [Whose::Server, Whose::Agent] {
        kinds.push(DenialKind::ToolNotAllowed { tool: text(), whose });
        kinds.push(DenialKind::ToolBlocked { tool: text(), whose });
        kinds.push(DenialKind::ResourceNotAllowed { uri: text(), whose });
        kinds.push(DenialKind::ResourceBlocked { uri: text(), whose });
        kinds.push(DenialKind::PromptNotAllowed { prompt: text(), whose });
        kinds.push(DenialKind::PromptBlocked { prompt: text(), whose });
    }
    for mismatch in [
        Mismatch::Missing,
        Mismatch::Null,
        Mismatch::NotScalar,
        Mismatch::Unreachable,
        Mismatch::Ambiguous,
        Mismatch::NotFound,
        Mismatch::Found,
        Mismatch::NotListed,
        Mismatch::OutOfRange,
        Mismatch::TooLong,
        Mismatch::OutsidePath,
        Mismatch::OtherHost,
        Mismatch::Forbidden,
        Mismatch::TooMany,
    ] {
        let (tool, arg, expected, description, message) = (text(), text(), text(), text(), None);
        let denial = ArgumentDenial { tool, arg, expected, description, message, mismatch };
        kinds.push(DenialKind::Argument(Box::new(denial)));
    }
    let mut denials: Vec<&str> = kinds.into_iter().map(|kind| Denial::new(kind, Some(place())).name()).collect();
    names.extend(&denials);
    let (mut listed, mut listed_denials) = (NAMES.to_vec(), DENIALS.to_vec());
    denials.sort_unstable();
    listed_denials.sort_unstable();
    assert_eq!(denials, listed_denials);
    names.sort_unstable();
    listed.sort_unstable();
    assert_eq!(names, listed);
}
