//! Where in a URI stands what?
//!
//! The cuts of RFC 3986 and nothing more; what the parts say is judged elsewhere.

/// A URI cut after its scheme, at most: `scheme`, `:`, `rest`.
pub(super) fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut characters = scheme.chars();
    let is_scheme = characters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && characters.all(|next| next.is_ascii_alphanumeric() || matches!(next, '+' | '.' | '-'));
    is_scheme.then_some((scheme, rest))
}

/// A URI with an authority, cut around it: `scheme://`, `authority`, `/path?query#fragment`.
pub(super) fn authority(text: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = scheme(text)?;
    let rest = rest.strip_prefix("//")?;
    let (head, _) = text.split_at_checked(scheme.len() + 3)?;
    let (authority, path) = rest.split_at_checked(rest.find(['/', '?', '#']).unwrap_or(rest.len()))?;
    Some((head, authority, path))
}

/// An authority cut at its last `@`.
pub(super) fn user(authority: &str) -> Option<(&str, &str)> {
    authority.rsplit_once('@')
}

/// Where a query or a fragment begins, or else the text ends.
pub(super) fn path_end(text: &str) -> usize {
    text.find(['?', '#']).unwrap_or(text.len())
}
