//! Which entries of a list have nobody asked for yet?
//!
//! Each name that is asked for takes out the entries it is on the list by, so that a record however long is gone through without
//! keeping what was in it.

use std::collections::HashMap;

use crate::policy;

/// The entries of a list that are left, each with the number of its rule.
#[derive(Debug, Default)]
pub(super) struct Entries {
    exact: HashMap<String, Vec<usize>>,
    globs: Vec<(String, usize)>,
}

impl Entries {
    /// One more entry, as it is written.
    pub(super) fn add(&mut self, entry: &str, rule: usize) {
        if entry.contains('*') {
            self.globs.push((entry.to_owned(), rule));
        } else {
            self.exact.entry(entry.to_owned()).or_default().push(rule);
        }
    }

    /// Takes out every entry that is about a name.
    pub(super) fn take(&mut self, name: &str) -> Vec<usize> {
        let mut taken = self.exact.remove(name).unwrap_or_default();
        self.globs.retain(|(glob, rule)| {
            let is_about = policy::is_about(glob, name);
            taken.extend(is_about.then_some(*rule));
            !is_about
        });
        taken
    }
}
