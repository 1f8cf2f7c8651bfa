//! How did a walk come to the value it looks at?
//!
//! The same as an [`At`], but made of borrowed parts on the stack: a walk over ten thousand keys makes an `At` for
//! the few that have a problem only.

use crate::config::problem::At;

/// A value's place during a walk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trail<'t> {
    /// The top of the configuration.
    Root,
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
            Trail::Key(before, key) => before.at().key(key),
            Trail::Index(before, index) => before.at().index(*index),
        }
    }

    /// Its steps as words, `[]` for any position in an array.
    pub(crate) fn words(&self) -> Vec<&'t str> {
        let mut words = Vec::with_capacity(8);
        let mut trail = *self;
        loop {
            trail = match trail {
                Trail::Root => break,
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
}
