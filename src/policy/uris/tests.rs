//! What a list of URIs lets through, and what no spelling gets around.

use proptest::prelude::*;

use super::*;
use crate::config::model::Server;

fn blocked(patterns: &[&str]) -> Blocked {
    Blocked::compile(&owned(patterns)).unwrap_or_else(|_| panic!("{patterns:?}"))
}

fn allowed(patterns: &[&str]) -> Allowed {
    Allowed::compile(&owned(patterns)).unwrap_or_else(|_| panic!("{patterns:?}"))
}

fn owned(patterns: &[&str]) -> Vec<String> {
    patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
}

fn uri(text: &str) -> Uri<'_> {
    Uri::read(text).unwrap_or_else(|flaw| panic!("{text}: {flaw}"))
}

fn is_on(pattern: &str, text: &str) -> bool {
    allowed(&[pattern]).has(&uri(text))
}

/// `passes`, the pattern that blocks it, or why it is refused unread.
fn verdict(list: &Blocked, patterns: &[String], text: &str) -> String {
    match Uri::read(text) {
        Err(flaw) => format!("{flaw:?}"),
        Ok(uri) => list.find(&uri).map_or_else(|| "passes".to_owned(), |entry| patterns[entry].clone()),
    }
}

#[test]
fn a_star_stops_at_slashes_and_two_do_not() {
    for (pattern, text, expected) in [
        ("a://b", "a://b", true),
        ("a://b", "a://b/", false),
        ("a://b*", "a://bc", true),
        ("a://b*", "a://b", true),
        ("a://b*", "a://b/c", false),
        ("a://b**", "a://b/c", true),
        ("a://*/c", "a://b/c", true),
        ("a://*/c", "a://b/b/c", false),
        ("a://**/c", "a://b/b/c", true),
        ("a://**/c", "a://c", false),
        ("**", "a://b", true),
        ("***", "a://b/c", true),
        ("*", "a:b", true),
        ("a://b.c", "a://bxc", false),
        ("a://b+(c)[d]{e}|f^$<>", "a://b+(c)[d]{e}|f^$<>", true),
        ("a://日*", "a://日本", true),
        ("a://B", "a://b", false),
        ("a://b*c*d", "a://bXcXd", true),
        ("a://b*c*d", "a://bXd", false),
    ] {
        assert_eq!(is_on(pattern, text), expected, "{pattern} {text}");
    }
}

#[test]
fn what_is_allowed_is_so_for_every_reader() {
    for (pattern, text, expected) in [
        ("x://a/*", "x://a/b", true),
        ("x://a/*", "x://a/b%2Fc", false),
        ("x://a/*", "x://a/b%252Fc", false),
        ("x://a/**", "x://a/b%2Fc", true),
        ("x://a/b%2Fc", "x://a/b%2Fc", true),
        ("x://a/*", "x://a/b%20c", true),
        ("x://a/b c", "x://a/b%20c", false),
        ("x://trusted*/**", "x://trusted/a", true),
        ("x://trusted*/**", "x://trusted@evil/a", false),
        ("x://user@host/**", "x://user@host/a", true),
        ("x://user@host/**", "x://other@host/a", false),
        ("x://host/**", "x://user@host/a", false),
        ("x://a/*/c", "x://a//c", false),
        ("x://a//*", "x://a//c", true),
        ("file:///etc/**", "/etc/a", false),
        ("/etc/**", "/etc/a", true),
        ("notes", "notes", true),
        ("a://b", "a://b?c", false),
    ] {
        assert_eq!(is_on(pattern, text), expected, "{pattern} {text}");
    }
}

#[test]
fn what_is_blocked_is_so_for_any_reader() {
    for (pattern, text, expected) in [
        ("x://a/b", "x://a/b", true),
        ("x://a/b", "x://a/B", true),
        ("x://a/kiss", "x://a/\u{212a}i\u{17f}s", true),
        ("x://a/b", "x://a/bc", false),
        ("x://a/b", "x://a/b/", true),
        ("x://a/b", "x://a/b?c", true),
        ("x://a/b", "x://a/b#c", true),
        ("x://a/b?c", "x://a/b?c#d", true),
        ("x://a/b/**", "x://a/b", true),
        ("x://a/**", "x://u@a/b", true),
        ("x://u@a/**", "x://a/b", false),
        ("x://a/日/**", "x://a/%E6%97%A5/b", true),
        ("x://a/%E6%97%A5/**", "x://a/日/b", true),
        ("x://a/b%2Fc", "x://a/b/c", true),
        ("x://a/b/c", "x://a/b%2Fc", true),
        ("x://a/b c", "x://a/b%2520c", true),
        ("**/secret", "/secret", true),
        ("**/secret", "secret", true),
        ("file:///a/**", "file://host/a/b", true),
        ("file:///a/**", "/a/b", true),
        ("file:///a/**", "view-source:file:///a/b", true),
    ] {
        assert_eq!(blocked(&[pattern]).find(&uri(text)).is_some(), expected, "{pattern} {text}");
    }
}

/// URIs, and the pattern of the default list that blocks them or what becomes of them.
const BY_DEFAULT: &[(&str, &str)] = &[
    // What it is for.
    ("file:///etc/passwd", "file:///etc/**"),
    ("file:///etc", "file:///etc/**"),
    ("file:///ETC/hosts", "file:///etc/**"),
    ("file:///etc/passwd?x", "file:///etc/**"),
    ("file://host/etc/hosts", "file:///etc/**"),
    ("file:///private/etc/hosts", "file:///private/etc/**"),
    ("file:///proc/self/environ", "file:///proc/**"),
    ("file:///sys/class", "file:///sys/**"),
    ("file:///dev/sda", "file:///dev/**"),
    ("file:///root/a", "file:///root/**"),
    ("file:///run/secrets/token", "file:///run/**"),
    ("file:///var/run/secrets/kubernetes.io/serviceaccount/token", "file:///var/run/**"),
    ("file:///app/.env", "**/.env"),
    ("file:///app/.env?x", "**/.env"),
    ("file:///app/.env%20", "**/.env"),
    ("file:///app/.env.local", "**/.env.*"),
    ("repo://o/r/.env", "**/.env"),
    ("repo://o%2Fr%2F.env", "**/.env"),
    (".env", "**/.env"),
    ("app/.env", "**/.env"),
    ("file:///home/a/.ssh/config", "**/.ssh/**"),
    ("file:///home/a/.ssh", "**/.ssh/**"),
    ("file:///home/a/keys/id_rsa", "**/id_rsa"),
    ("file:///home/a/keys/id_ed25519", "**/id_ed25519"),
    ("file:///home/a/keys/id_ecdsa", "**/id_ecdsa"),
    ("sftp://host/home/a/.aws/credentials", "**/.aws/credentials"),
    ("file:///home/a/.kube/config", "**/.kube/config"),
    ("file:///home/a/.docker/config.json", "**/.docker/config.json"),
    ("file:///home/a/.netrc", "**/.netrc"),
    ("file:///home/a/.git-credentials", "**/.git-credentials"),
    ("sftp://host/etc/shadow", "**/etc/shadow"),
    ("/etc/hosts", "file:///etc/**"),
    ("etc/hosts", "file:///etc/**"),
    ("//etc/hosts", "file:///etc/**"),
    ("http://169.254.169.254/latest/meta-data/", "*://169.254.**"),
    ("https://169.254.169.254", "*://169.254.**"),
    ("http://169.254.170.2/v2/credentials", "*://169.254.**"),
    ("http://169.254.169.254:8080/", "*://169.254.**"),
    ("gopher://169.254.169.254/_GET", "*://169.254.**"),
    ("gopher://a@2852039166/_GET", "*://169.254.**"),
    ("169.254.169.254/latest", "*://169.254.**"),
    ("http://[fd00:ec2::254]/latest", "*://[fd00:ec2:**"),
    ("http://100.100.100.200/latest", "*://100.100.100.200**"),
    ("http://metadata.google.internal/computeMetadata/v1/", "*://metadata.google.internal**"),
    ("http://metadata/computeMetadata/v1/", "*://metadata/**"),
    // What resolves to something else.
    ("file:///data/../etc/passwd", "Dots"),
    ("file:///data/%2e%2e/etc/passwd", "Encoding"),
    ("file:///data/..%2Fetc/passwd", "Encoding"),
    ("file:///%65tc/passwd", "Encoding"),
    ("file:///%2565tc/passwd", "file:///etc/**"),
    ("file://localhost/etc/passwd", "Host"),
    ("file:/etc/passwd", "Slashes"),
    ("file:////etc/passwd", "Slashes"),
    ("FILE:///etc/passwd", "Scheme"),
    ("file:\\\\\\etc\\passwd", "Backslash"),
    ("http://a@169.254.169.254/", "User"),
    ("http://0xa9fea9fe/", "Host"),
    ("http://[::ffff:169.254.169.254]/", "Host"),
    ("http://169.254.169.254:80/", "Port"),
    ("http://169.254.169.254./", "Host"),
    ("http://METADATA.google.internal/", "Host"),
    // What it must leave alone.
    ("test://static-resource", "passes"),
    ("test://template/123/data", "passes"),
    ("demo://resource/static/document/x.md", "passes"),
    ("note:///Name", "passes"),
    ("ui://widget/x.html", "passes"),
    ("postgres://user@host/db/table/schema", "passes"),
    ("github://repos/owner%2Frepo/contents/src", "passes"),
    ("urn:x:y", "passes"),
    ("file:///data/etc/notes.txt", "passes"),
    ("file:///home/a/project/etcetera", "passes"),
    ("file:///srv/environment.md", "passes"),
    ("file:///srv/a.env", "passes"),
    ("https://example.com/metadata/", "passes"),
    ("https://example.com/a?b=file", "passes"),
    ("http://10.0.0.1:3000/a", "passes"),
    ("config", "passes"),
];

#[test]
fn the_default_list_blocks_secrets_and_nothing_else() {
    let patterns = Server::default().blocked_resources;
    let list = Blocked::compile(&patterns).unwrap_or_else(|_| panic!("the default list compiles"));
    for (text, expected) in BY_DEFAULT {
        assert_eq!(verdict(&list, &patterns, text), *expected, "{text}");
    }
}

fn report(patterns: &[String]) -> Vec<String> {
    let mut problems = Problems::new();
    let (mut lists, at) = (UriLists::default(), At::root().key("t"));
    lists.blocked(patterns, None, &at, &mut problems);
    lists.allowed(patterns, None, &at, &mut problems);
    let count = problems.iter().count();
    // What is known is told again wherever it stands, and once at one place.
    lists.blocked(patterns, None, &at, &mut problems);
    assert_eq!(problems.iter().count(), count);
    problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect()
}

#[test]
fn a_list_and_its_entries_have_limits() {
    let many = |count: usize| (0..count).map(|i| format!("a://{i}/**")).collect::<Vec<_>>();
    assert_eq!(report(&many(URI_ENTRIES_MAX)), [""; 0]);
    assert_eq!(report(&many(URI_ENTRIES_MAX + 1)), ["t: 1001 entries, and at most 1000 are possible"]);
    let long = |bytes: usize| vec![format!("a:{}", "b".repeat(bytes - 2))];
    assert_eq!(report(&long(URI_ENTRY_BYTES_MAX)), [""; 0]);
    assert_eq!(
        report(&long(URI_ENTRY_BYTES_MAX + 1)),
        ["t[0]: a pattern of 1025 bytes, and at most 1024 are possible"]
    );
    assert_eq!(report(&owned(&["a", "", " b"])).len(), 2);
    // Each `/a` begins a count of segments anew, and all counts go on side by side.
    let growing = |segments: usize| owned(&["x://y", &format!("**/a{}/b", "/*".repeat(segments))]);
    assert_eq!(report(&growing(4)), [""; 0]);
    assert_eq!(report(&growing(30)), ["t[1]: the pattern grows too large when compiled"]);
}

#[test]
fn a_list_is_compiled_once_kept_over_reloads_and_counted() {
    let at = At::root();
    let mut problems = Problems::new();
    let patterns = owned(&["a://b/**"]);
    let mut first = UriLists::default();
    let list = first.blocked(&patterns, None, &at, &mut problems);
    assert!(Arc::ptr_eq(&list, &first.blocked(&patterns, None, &at, &mut problems)));
    let mut second = UriLists::default();
    assert!(Arc::ptr_eq(&list, &second.blocked(&patterns, Some(&first), &at, &mut problems)));
    let allowed = first.allowed(&patterns, None, &at, &mut problems);
    assert!(Arc::ptr_eq(&allowed, &second.allowed(&patterns, Some(&first), &at, &mut problems)));
    assert_eq!(first.tables_bytes, second.tables_bytes);
    assert!(!problems.has_errors());
    second.admit(1, second.tables_bytes, &at, &mut problems);
    assert!(problems.has_errors());
}

#[test]
fn a_pattern_that_no_resource_can_match_is_told() {
    for pattern in ["FILE:///a/**", "file:/a/**", "file:a", "file:///a/../b", "c:\\**", "https://a@b/**", "x:///%41*"] {
        let found = report(&owned(&[pattern]));
        assert!(found.len() == 1 && found[0].contains("matches no resource: "), "{pattern} {found:?}");
    }
    for pattern in [
        "**",
        "*",
        "file:**",
        "file:///**",
        "https:**",
        "https://*.a.b/**",
        "http://127.0.0.*/a",
        "http://a:*/b",
        "**/.env",
        "*://[fd00:**",
        "http://[fd00:**",
        "x://u@h/**",
        "/etc/**",
        "note:///a b",
        "https://*",
        "**.md",
    ] {
        assert_eq!(report(&owned(&[pattern])), [""; 0], "{pattern}");
    }
    assert_eq!(report(&Server::default().blocked_resources), [""; 0]);
}

/// What somebody does to a URI so that a lenient server still finds the file.
#[derive(Debug, Clone, Copy)]
enum Trick {
    Encode(usize),
    EncodeAll,
    LowerHex,
    Twice,
    Dot,
    UpAndDown,
    Slash,
    Backslash,
    EncodedSlash,
    Capital(usize),
    Query,
    Fragment,
    Parameter,
    EndDot,
    EndSlash,
    Wide(usize),
    Host,
    Outer,
    NoScheme,
}

fn trick() -> impl Strategy<Value = Trick> {
    use Trick::*;
    prop_oneof![
        (0_usize..40).prop_map(Encode),
        (0_usize..40).prop_map(Capital),
        (0_usize..40).prop_map(Wide),
        prop::sample::select(vec![
            EncodeAll,
            LowerHex,
            Twice,
            Dot,
            UpAndDown,
            Slash,
            Backslash,
            EncodedSlash,
            Query,
            Fragment,
            Parameter,
            EndDot,
            EndSlash,
            Host,
            Outer,
            NoScheme,
        ]),
    ]
}

fn played(text: &str, trick: Trick) -> String {
    let encode = |character: char| {
        let mut buffer = [0; 4];
        character.encode_utf8(&mut buffer).bytes().map(|byte| format!("%{byte:02X}")).collect::<String>()
    };
    // Only the path is played with, except where a trick says so.
    let (head, path) = text.split_at(text.find("file://").map_or(0, |at| at + 7).min(text.len()));
    let at = |nth: usize, replace: &dyn Fn(char) -> String| {
        let count = path.chars().count().max(1);
        let each = path.chars().enumerate();
        each.map(|(i, it)| if i == nth % count { replace(it) } else { it.to_string() }).collect::<String>()
    };
    match trick {
        Trick::Encode(nth) => format!("{head}{}", at(nth, &encode)),
        Trick::EncodeAll => format!("{head}{}", path.chars().map(encode).collect::<String>()),
        Trick::LowerHex => format!("{head}{}", path.replace("%2F", "%2f").replace("%2E", "%2e")),
        Trick::Twice => format!("{head}{}", path.replace('%', "%25")),
        Trick::Dot => format!("{head}{}", path.replacen('/', "/./", 1)),
        Trick::UpAndDown => format!("{head}{}", path.replacen('/', "/x/../", 1)),
        Trick::Slash => format!("{head}{}", path.replacen('/', "//", 1)),
        Trick::Backslash => format!("{head}{}", path.replacen('/', "\\", 2)),
        Trick::EncodedSlash => format!("{head}{}", path.replacen('/', "%2F", 2)),
        Trick::Capital(nth) => format!("{head}{}", at(nth, &|it| it.to_uppercase().to_string())),
        Trick::Query => format!("{text}?a=b"),
        Trick::Fragment => format!("{text}#a"),
        Trick::Parameter => format!("{text};a=b"),
        Trick::EndDot => format!("{text}."),
        Trick::EndSlash => format!("{text}/"),
        Trick::Wide(nth) => format!(
            "{head}{}",
            at(nth, &|it| match it {
                '!'..='~' if it != '%' => char::from_u32(u32::from(it) + 0xFEE0).unwrap().to_string(),
                _ => it.to_string(),
            })
        ),
        Trick::Host => text.replacen("file:///", "file://somewhere/", 1),
        Trick::Outer => format!("view-source:{text}"),
        Trick::NoScheme => path.to_owned(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn no_chain_of_tricks_reaches_a_blocked_file(tricks in prop::collection::vec(trick(), 0..5)) {
        thread_local!(static LIST: Blocked = blocked(&["file:///vault/**", "**/key.pem"]));
        let text = tricks.iter().fold("file:///vault/a/key.pem".to_owned(), |text, trick| played(&text, *trick));
        let passes = LIST.with(|list| Uri::read(&text).is_ok_and(|uri| list.find(&uri).is_none()));
        prop_assert!(!passes, "{} by {:?}", text, tricks);
    }

    #[test]
    fn a_pattern_matches_what_trying_every_split_matches(
        pattern in "[ab/*]{0,8}", text in "[ab/]{0,8}",
    ) {
        fn tried(pattern: &str, text: &str) -> bool {
            let splits = || (0..=text.len()).map(|cut| text.split_at(cut));
            if let Some(rest) = pattern.strip_prefix("**") {
                return splits().any(|(_, after)| tried(rest, after));
            }
            match pattern.chars().next() {
                None => text.is_empty(),
                Some('*') => splits().any(|(taken, after)| !taken.contains('/') && tried(&pattern[1..], after)),
                Some(first) => text.strip_prefix(first).is_some_and(|rest| tried(&pattern[1..], rest)),
            }
        }
        let entry = Entry { position: 7, spellings: vec![pattern.clone()] };
        let set = UriSet::compile(&[entry], Case::Exact).unwrap_or_default();
        prop_assert_eq!(set.find(&text).unwrap(), tried(&pattern, &text).then_some(7));
    }
}
