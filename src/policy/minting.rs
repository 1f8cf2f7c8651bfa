//! May this key be minted, and may it still be used?
//!
//! A child stands on a key of the configuration, and holds only as long as that key may mint it. Names that its holder may not know
//! of are told apart from those that do not exist by nothing.

use std::sync::Arc;

use sha2::Digest as _;
use sha2::Sha256;

use crate::config::model::Children;
use crate::config::model::Key;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::config::workspaces;
use crate::policy::Policy;
use crate::policy::Unreachable;
use crate::policy::hash::NameMap;
use crate::policy::names;
use crate::policy::names::Noun;
use crate::policy::rules::AgentRules;
use crate::policy::rules::KeyRules;
use crate::policy::rules::Listed;
use crate::principal::BINDING_BYTES;
use crate::principal::Binding;
use crate::principal::ChildId;
use crate::principal::Left;
use crate::principal::Link;
use crate::principal::Minted;
use crate::principal::Subject;
use crate::principal::id_of;

/// Ids of children of one key that are ended.
pub const REVOKED_MAX: usize = 1_000;
/// Links of one child.
pub const DEPTH_MAX: usize = 8;
/// Seconds that a child may live: a week.
pub const SECONDS_MAX: u64 = 7 * 24 * 60 * 60;
/// Servers that one minting may name.
pub const SERVERS_MAX: usize = 64;
/// Tools that one minting may name on one server: each is tried for every name.
pub const TOOLS_MAX: usize = 64;

/// What the key of a configuration may mint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minting {
    /// What stands for the key's digest.
    pub binding: Binding,
    /// Seconds that a child may live.
    pub seconds_max: u64,
    depth_max: usize,
    /// `None`: any that is configured.
    agents: Option<NameMap<Box<str>, ()>>,
    revoked: Vec<ChildId>,
}

/// Why no key is minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotMinted {
    /// The caller has no key that may mint.
    NoMinter,
    /// As many links follow one another already as may.
    Depth,
    /// There is no such agent, or none that the key may invoke.
    Agent,
    /// There is no such server, or none that the caller reaches.
    Server,
    /// A tool that the caller may not call, or one of a server that is not among those named.
    Tool,
}

impl Minting {
    /// What a key may mint; `None`: nothing. What is wrong with it is added to `problems`.
    pub fn compile(key: &Key, at: &At, problems: &mut Problems) -> Option<Self> {
        let (children, at_of_mint, at) = (&key.children, &at.key("may_mint"), at.key("children"));
        if !key.may_mint {
            if *children != Children::default() {
                problems.warning(
                    &at,
                    "the key mints none, so this has no effect",
                    "add `may_mint = true`, or remove it",
                );
            }
            return None;
        }
        if key.certificate.is_named() {
            let help = "make another key for this, without a certificate";
            problems.error(at_of_mint, "a key with a certificate mints none: they would be good without it", help);
            return None;
        }
        let mut in_range = |name: &str, value: u64, most: u64| {
            if value == 0 || value > most {
                let help = format!("write a number from 1 to {most}");
                problems.error(&at.key(name), format!("`{value}` is out of range"), help);
            }
        };
        in_range("seconds_max", children.seconds_max, SECONDS_MAX);
        in_range("depth_max", children.depth_max as u64, DEPTH_MAX as u64);
        if children.revoked.len() > REVOKED_MAX {
            let message = format!("{} ids, and at most {REVOKED_MAX} are possible", children.revoked.len());
            let help = "remove those whose time is over, or make the key anew, which ends all of them";
            problems.error(&at.key("revoked"), message, help);
        }
        let mut revoked = Vec::new();
        for (index, text) in children.revoked.iter().enumerate().take(REVOKED_MAX) {
            match id_of(text) {
                Some(id) => revoked.push(id),
                None => {
                    let help = "write the 20 digits that follow `#` in the record of the minting";
                    problems.error(&at.key("revoked").index(index), format!("`{text}` is no child's id"), help);
                }
            }
        }
        Some(Self {
            binding: binding_of(&key.digest),
            seconds_max: children.seconds_max,
            depth_max: children.depth_max,
            agents: children.agents.as_ref().map(|names| names.iter().map(|name| (name.as_str().into(), ())).collect()),
            revoked,
        })
    }

    /// Whether a child of this key may still be used, as far as the key says so.
    pub fn upholds(&self, minted: &Minted) -> bool {
        minted.binding == self.binding
            && minted.links.len() <= self.depth_max
            && minted.links.iter().all(|link| self.may_be_for(&link.agent) && !self.revoked.contains(&link.id))
    }

    fn may_be_for(&self, agent: &str) -> bool {
        self.agents.as_ref().is_none_or(|agents| agents.contains_key(agent))
    }
}

/// What stands for a digest in a child.
fn binding_of(digest: &str) -> Binding {
    let whole = Sha256::new().chain_update(b"portcullis child ").chain_update(digest).finalize();
    let mut binding = [0; BINDING_BYTES];
    binding.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    binding
}

impl Policy {
    /// Whether a caller may mint this: the rule that says so, and for how many seconds at most.
    ///
    /// # Errors
    /// Why not.
    pub fn may_mint(&self, subject: Subject<'_>, link: &Link) -> Result<(At, u64), NotMinted> {
        let name = subject.principal.key.as_deref().ok_or(NotMinted::NoMinter)?;
        let key = self.keys.get(name).ok_or(NotMinted::NoMinter)?;
        let minting = key.minting.as_ref().ok_or(NotMinted::NoMinter)?;
        // Also whether the caller is turned off, or no longer what it was.
        self.caller(subject).map_err(|_| NotMinted::NoMinter)?;
        if subject.principal.minted.as_ref().map_or(0, |minted| minted.links.len()) >= minting.depth_max {
            return Err(NotMinted::Depth);
        }
        if !minting.may_be_for(&link.agent) || self.agent_of(link).is_err() {
            return Err(NotMinted::Agent);
        }
        let named = link.servers.iter().flatten().chain(link.tools.iter().map(|(server, _)| server));
        if named.into_iter().any(|server| !self.reaches(subject, server)) {
            return Err(NotMinted::Server);
        }
        for (server, tools) in &link.tools {
            let view = self.view(subject, server);
            // What patterns stand for nobody can say yet; they narrow whatever it is.
            let is_hidden = |tool: &Arc<str>| !tool.contains('*') && !view.lists(tool);
            if tools.iter().any(is_hidden) || (link.leaves(server) == Left::Nothing && !tools.is_empty()) {
                return Err(NotMinted::Tool);
            }
        }
        Ok((key.at.key("may_mint"), minting.seconds_max))
    }

    /// Whether all agents that a child is for are there and not turned off. Without them it has ended, as it does with its key.
    pub fn knows_agents_of(&self, minted: &Minted) -> bool {
        minted.links.iter().all(|link| self.agent_of(link).is_ok())
    }

    /// Whether a child is upheld: by the key that it stands on, its time, and the agents that it is for.
    pub(super) fn check_minted(&self, key: &KeyRules, minted: &Minted, now: u64) -> Result<(), Unreachable> {
        let is_upheld = key.minting.as_ref().is_some_and(|minting| minting.upholds(minted));
        if !is_upheld || now >= minted.expires {
            return Err(Unreachable::NotGranted(Some(key.at.key("may_mint"))));
        }
        // A digest may have moved to another workspace, where nothing in the child means anything.
        let workspace = minted.parent.workspace.as_deref();
        if minted.links.iter().any(|link| workspaces::split(&link.agent).0 != workspace) {
            return Err(Unreachable::Unknown);
        }
        minted.links.iter().try_for_each(|link| self.agent_of(link).map(drop))
    }

    /// The rules of the agent that a link is for. Without them it would be less restricted than its author meant.
    fn agent_of(&self, link: &Link) -> Result<&AgentRules, Unreachable> {
        match self.levels.agents.get(&*link.agent) {
            None => Err(Unreachable::NotGranted(Some(At::root().key("agents")))),
            Some(agent) if agent.disabled => Err(Unreachable::Disabled(agent.level.at.clone())),
            Some(agent) => Ok(agent),
        }
    }
}

/// What is left of a server to a child.
pub(super) fn leaves_any(minted: &Minted, server: &str) -> bool {
    minted.links.iter().all(|link| link.leaves(server) != Left::Nothing)
}

/// Whether something on a server is left to a child.
pub(super) fn leaves(minted: &Minted, server: &str, listed: Listed<'_>) -> bool {
    minted.links.iter().all(|link| match (link.leaves(server), listed) {
        (Left::All, _) => true,
        (Left::Tools(tools), Listed::Tool(name)) => tools.iter().any(|tool| names::is_about(tool, name)),
        (Left::Tools(_), Listed::Resource(_) | Listed::Prompt(_)) | (Left::Nothing, _) => false,
    })
}

/// What is wrong with a text that should be a tool's name or pattern.
///
/// # Errors
/// It is empty, too long, or begins or ends with white space.
pub fn check_tool(entry: &str) -> Result<(), String> {
    names::check(entry, Noun::Tool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(children: Children) -> Vec<String> {
        let key = Key { may_mint: true, children, ..Key::default() };
        let mut problems = Problems::new();
        Minting::compile(&key, &At::root(), &mut problems);
        problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect()
    }

    #[test]
    fn what_a_key_may_mint_has_its_bounds() {
        let revoked = |count: usize| Children { revoked: vec!["00".repeat(10); count], ..Children::default() };
        assert_eq!(problems(revoked(REVOKED_MAX)), [""; 0]);
        assert_eq!(problems(revoked(REVOKED_MAX + 1)), ["children.revoked: 1001 ids, and at most 1000 are possible"]);
        let most = Children { seconds_max: SECONDS_MAX, depth_max: DEPTH_MAX, ..Children::default() };
        assert_eq!(problems(most.clone()), [""; 0]);
        let more = Children { seconds_max: SECONDS_MAX + 1, depth_max: DEPTH_MAX + 1, ..most };
        assert_eq!(problems(more).len(), 2);
        assert_eq!(problems(Children { seconds_max: 0, depth_max: 0, ..Children::default() }).len(), 2);
    }

    #[test]
    fn another_digest_is_another_key() {
        let of = |digest: &str| {
            let key = Key { may_mint: true, digest: digest.into(), ..Key::default() };
            Minting::compile(&key, &At::root(), &mut Problems::new()).unwrap().binding
        };
        assert_eq!(of("pk1_a"), of("pk1_a"));
        assert_ne!(of("pk1_a"), of("pk1_b"));
        assert_eq!(Minting::compile(&Key::default(), &At::root(), &mut Problems::new()), None);
    }
}
