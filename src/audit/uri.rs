//! How does a resource's URI stand in a record?
//!
//! As the client wrote it, so that it is found by the text that was sent: nothing is decoded or normalised. Only what
//! may be a secret gives way to `…`: userinfo, values of the query, a query's name that could be a value, the fragment.

use std::borrow::Cow;

/// Stands for what was left out.
const HIDDEN: char = '…';
/// Bytes of a query's name; a longer one could be a credential that lost its name.
const QUERY_NAME_BYTES_MAX: usize = 32;

/// The URI without what may be a secret.
pub fn concealed(uri: &str) -> Cow<'_, str> {
    if !uri.contains(['@', '?', '#']) {
        return Cow::Borrowed(uri);
    }
    let (rest, fragment) = cut(uri, '#');
    let (rest, query) = cut(rest, '?');
    let mut out = String::new();
    push_place(&mut out, rest);
    if let Some(query) = query {
        out.push('?');
        push_query(&mut out, query);
    }
    if fragment.is_some() {
        out.extend(['#', HIDDEN]);
    }
    Cow::Owned(out)
}

/// What stands before the first `mark`, and what after it.
fn cut(text: &str, mark: char) -> (&str, Option<&str>) {
    text.split_once(mark).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// Scheme, authority and path. Where an authority ends readers disagree about `\`, so what is between `//` and the last
/// `@` before the first `/` is hidden whichever of them is right.
fn push_place(out: &mut String, place: &str) {
    let Some((scheme, rest)) = place.split_once("//") else {
        out.push_str(place);
        return;
    };
    let (authority, path) = rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""));
    out.push_str(scheme);
    out.push_str("//");
    match authority.rsplit_once('@') {
        Some((_, host)) => {
            out.extend([HIDDEN, '@']);
            out.push_str(host);
        }
        None => out.push_str(authority),
    }
    out.push_str(path);
}

fn push_query(out: &mut String, query: &str) {
    for (position, pair) in query.split('&').enumerate() {
        if position > 0 {
            out.push('&');
        }
        match pair.split_once('=') {
            Some((name, _)) if name.len() <= QUERY_NAME_BYTES_MAX => {
                out.push_str(name);
                out.extend(['=', HIDDEN]);
            }
            _ => out.push(HIDDEN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_resource_stands_as_it_was_written() {
        for uri in [
            "file:///etc/passwd",
            "file:///srv/../etc/%70asswd",
            "FILE:///C:\\Users\\x\\.ssh\\id_rsa",
            "http://169.254.169.254/latest/meta-data/",
            "urn:isbn:0451450523",
            "postgres://db.internal:5432/customers",
            "",
            "//",
        ] {
            assert_eq!(concealed(uri), uri);
        }
        assert_eq!(concealed("mailto:someone@example.com"), "mailto:someone@example.com");
        assert_eq!(concealed("https://example.com/@scope/package"), "https://example.com/@scope/package");
    }

    #[test]
    fn what_may_be_a_secret_is_left_out() {
        for (uri, shown) in [
            ("postgres://admin:hunter2@db/customers", "postgres://…@db/customers"),
            ("https://a@b:c@host/x@y", "https://…@host/x@y"),
            ("https://user:pa\\ss@host", "https://…@host"),
            ("https://x/y?token=abc&page=2", "https://x/y?token=…&page=…"),
            ("https://x/y?abcdef", "https://x/y?…"),
            ("https://x?u:p@q=1", "https://x?u:p@q=…"),
            ("https://x/y#access_token=abc", "https://x/y#…"),
            ("https://x/y#a?b=c", "https://x/y#…"),
            ("x:?", "x:?…"),
        ] {
            assert_eq!(concealed(uri), shown);
        }
        let name = "n".repeat(QUERY_NAME_BYTES_MAX);
        assert_eq!(concealed(&format!("x:?{name}=1&{name}n=1")), format!("x:?{name}=…&…"));
    }
}
