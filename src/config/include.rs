//! Which files does an `include` name?
//!
//! `*` stands for any text within a file name, never in a directory, and never for a dot at the front (editors
//! leave such files behind). A plain name must exist; a pattern may match nothing, but its directory must exist.

use std::path::Path;
use std::path::PathBuf;

/// Files one configuration is read from.
pub(crate) const FILES_MAX: usize = 1000;

/// Why an `include` names no files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IncludeError {
    #[error("`*` stands in a directory's name")]
    StarInDirectory,
    #[error("it names no file")]
    NoName,
    #[error("it matches more than {FILES_MAX} files")]
    TooMany,
    #[error("cannot read directory `{0}`: {1}")]
    Directory(String, std::io::Error),
}

/// The files that `pattern`, written in a file of `base`, names, sorted.
pub(crate) fn expand(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, IncludeError> {
    let path = base.join(pattern);
    let (Some(name), Some(directory)) = (path.file_name().and_then(|name| name.to_str()), path.parent()) else {
        return Err(IncludeError::NoName);
    };
    let written = Path::new(pattern).parent().unwrap_or(Path::new(""));
    if written.to_string_lossy().contains('*') {
        return Err(IncludeError::StarInDirectory);
    }
    if !name.contains('*') {
        return Ok(vec![path]);
    }
    let unreadable = |error| IncludeError::Directory(directory.display().to_string(), error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?.file_name();
        if entry.to_str().is_some_and(|entry| !entry.starts_with('.') && matches(name, entry)) {
            found.push(directory.join(entry));
        }
        if found.len() > FILES_MAX {
            return Err(IncludeError::TooMany);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether `name` has the form `pattern`, where `*` is any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = tail.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, name) in
            [("*.toml", "a.toml"), ("a*b*c", "abc"), ("a*b*c", "axxbyybzc"), ("*", "x"), ("*aa", "aaa")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.toml", "a.tom"), ("a*b*c", "acb"), ("a*a", "a"), ("*.toml", "toml")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_star_in_a_directory_is_refused() {
        assert!(matches!(expand(Path::new("/"), "a*/b.toml"), Err(IncludeError::StarInDirectory)));
        assert!(matches!(expand(Path::new("/"), ".."), Err(IncludeError::NoName)));
    }

    #[test]
    fn a_pattern_in_a_directory_that_is_not_there_is_refused() {
        assert!(matches!(expand(Path::new("/nonexistent"), "*.toml"), Err(IncludeError::Directory(..))));
    }
}
