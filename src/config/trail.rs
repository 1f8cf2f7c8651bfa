//! How did a walk come to the value it looks at?
//!
//! The same as an [`At`], but made of borrowed parts on the stack: a walk over ten thousand keys makes an `At` for
//! the few that have a problem only.

use crate::config::problem::At;
use crate::config::workspaces;

/// A value's place during a walk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trail<'t> {
    /// The top of the configuration.
    Root,
    /// The entry of a table of entries that has this qualified name.
    Entry(&'t str, &'t str),
    /// The value under this key of the table before it.
    Key(&'t Trail<'t>, &'t str),
    /// The element at this position of the array before it.
    Index(&'t Trail<'t>, usize),
}

impl<'t> Trail<'t> {
    /// The value under `key` of this table.
    pub(crate) fn key(&'t self, key: &'t str) -> Trail<'t> {
        Trail::Key(self, key)
    }

    /// The element at `index` of this array.
    pub(crate) fn index(&'t self, index: usize) -> Trail<'t> {
        Trail::Index(self, index)
    }

    /// The same to keep.
    pub(crate) fn at(&self) -> At {
        match self {
            Trail::Root => At::root(),
            Trail::Entry(table, name) => At::entry(table, name),
            Trail::Key(before, key) => before.at().key(key),
            Trail::Index(before, index) => before.at().index(*index),
        }
    }

    /// Its steps as words, `[]` for any position in an array. The tables of a workspace are those of the top level: which one it
    /// is, is left out.
    pub(crate) fn words(&self) -> Vec<&'t str> {
        let mut words = Vec::with_capacity(8);
        let mut trail = *self;
        loop {
            trail = match trail {
                Trail::Root => break,
                Trail::Entry(table, name) => {
                    words.extend([workspaces::bare(name), table]);
                    break;
                }
                Trail::Key(before, key) => {
                    words.push(key);
                    *before
                }
                Trail::Index(before, _) => {
                    words.push("[]");
                    *before
                }
            };
        }
        words.reverse();
        if words.len() > 2 && words.first() == Some(&"workspaces") {
            words.drain(..2);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_leads_to_the_same_place() {
        let (servers, a, endpoints) = (Trail::Root.key("servers"), "a", "endpoints");
        let (a, first) = (servers.key(a), 0);
        let endpoints = a.key(endpoints);
        let first = endpoints.index(first);
        assert_eq!(first.at(), At::root().key("servers").key("a").key("endpoints").index(0));
        assert_eq!(first.words(), ["servers", "a", "endpoints", "[]"]);
        assert_eq!((Trail::Root.at(), Trail::Root.words().len()), (At::root(), 0));
    }

    #[test]
    fn what_stands_in_a_workspace_has_its_place_there_and_the_words_of_the_top_level() {
        let (workspaces, acme) = (Trail::Root.key("workspaces"), "acme");
        let acme = workspaces.key(acme);
        assert_eq!(acme.words(), ["workspaces", "acme"]);
        let servers = acme.key("servers");
        let walked = servers.key("a");
        let named = Trail::Entry("servers", "acme/a");
        assert_eq!((walked.at(), walked.words()), (named.at(), named.words()));
        assert_eq!((named.at().to_string(), named.words()), ("workspaces.acme.servers.a".into(), vec!["servers", "a"]));
    }
}
