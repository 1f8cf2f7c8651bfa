//! What is a key that another key minted?
//!
//! A child stands on a key of the configuration and narrows it, link by link: each link was minted by the one before, for one agent,
//! and may name the servers and tools that are left. All links must agree, so a child is never wider than who minted it.

use std::sync::Arc;

use crate::principal::Principal;

/// Bytes that stand for the digest of a key.
pub const BINDING_BYTES: usize = 16;
/// Bytes of the id of a child.
pub const ID_BYTES: usize = 10;

/// What stands for the digest of a key: another digest, another key.
pub type Binding = [u8; BINDING_BYTES];
/// The id of one child, by which it can be ended alone. It is no secret.
pub type ChildId = [u8; ID_BYTES];

/// Servers by name, each with tools by name or pattern.
pub type LeftTools = Vec<(Arc<str>, Vec<Arc<str>>)>;

/// A key that another key minted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minted {
    /// The caller who holds the key that it stands on.
    pub parent: Arc<Principal>,
    /// The digest that this key had.
    pub binding: Binding,
    /// From the key's own child down to this one; never empty.
    pub links: Vec<Link>,
    /// When it ends: seconds since 1970. Never later than any of those before it.
    pub expires: u64,
}

/// One minting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Which child it is.
    pub id: ChildId,
    /// The agent that it is for; its qualified name, as those of servers.
    pub agent: Arc<str>,
    /// The servers that are left; `None`: all.
    pub servers: Option<Vec<Arc<str>>>,
    /// The tools that are left on a server, `*` standing for any text. Of such a server nothing but tools is left. A server that is
    /// not named keeps all.
    pub tools: LeftTools,
}

/// What a link leaves of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left<'l> {
    /// Nothing.
    Nothing,
    /// These tools.
    Tools(&'l [Arc<str>]),
    /// All.
    All,
}

impl Link {
    /// What is left of a server.
    pub fn leaves(&self, server: &str) -> Left<'_> {
        if self.servers.as_ref().is_some_and(|servers| !servers.iter().any(|left| &**left == server)) {
            return Left::Nothing;
        }
        match self.tools.iter().find(|(of, _)| &**of == server) {
            None => Left::All,
            Some((_, tools)) if tools.is_empty() => Left::Nothing,
            Some((_, tools)) => Left::Tools(tools),
        }
    }

    /// Its agent and its id, as records have them: `reviewer#0123456789abcdef0123`.
    pub fn name(&self) -> String {
        // What comes before is the workspace: no agent's name has a `/`.
        let agent = self.agent.rsplit('/').next().unwrap_or_default();
        format!("{}#{}", agent, id_text(&self.id))
    }
}

impl Minted {
    /// The child itself.
    pub fn last(&self) -> Option<&Link> {
        self.links.last()
    }

    /// Everybody in it, from the key on: `key:NAME`, then each link's agent and id.
    pub fn chain(&self) -> Vec<String> {
        std::iter::once(self.parent.id.to_string()).chain(self.links.iter().map(Link::name)).collect()
    }
}

/// An id as it is written: hexadecimal digits.
pub fn id_text(id: &ChildId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id that is written so.
pub fn id_of(text: &str) -> Option<ChildId> {
    let is_plain = text.len() == 2 * ID_BYTES && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut id = [0; ID_BYTES];
    for (at, byte) in id.iter_mut().enumerate().filter(|_| is_plain) {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    is_plain.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_in_one_spelling_alone() {
        let id = [0, 1, 15, 16, 171, 255, 7, 8, 9, 10];
        let text = id_text(&id);
        assert_eq!((text.as_str(), id_of(&text)), ("00010f10abff0708090a", Some(id)));
        for wrong in
            ["", "00010F10ABFF0708090A", "00010f10abff0708090", "00010f10abff0708090a0", "+0010f10abff0708090a"]
        {
            assert_eq!(id_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_link_leaves_what_it_names_and_of_the_rest_what_it_says() {
        let link = Link {
            servers: Some(vec!["a".into(), "b".into(), "c".into()]),
            tools: vec![("b".into(), vec!["get_*".into()]), ("c".into(), Vec::new()), ("d".into(), vec!["x".into()])],
            ..Link::default()
        };
        assert_eq!([link.leaves("a"), link.leaves("c"), link.leaves("d")], [Left::All, Left::Nothing, Left::Nothing]);
        assert_eq!(link.leaves("b"), Left::Tools(&["get_*".into()]));
        let all = Link { servers: None, ..link };
        assert_eq!(all.leaves("z"), Left::All);
        assert_eq!(all.leaves("d"), Left::Tools(&["x".into()]));
    }
}
