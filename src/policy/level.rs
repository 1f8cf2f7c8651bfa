//! What does one level of the cascade say?
//!
//! Key, team, organisation, user and agent speak in the same form; a toolset speaks by its own URL. A level answers for every
//! server once it has a list of servers (groups are part of that list), for every tool of a server once it has permissions
//! for that server, and grants the tools of its toolsets. Of what remains it says nothing.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::config::problem::At;
use crate::policy::hash::NameMap;
use crate::policy::names::Names;
use crate::policy::reason::Reason;
use crate::policy::rules::AgentRules;
use crate::policy::rules::ServerIndex;
use crate::policy::rules::Servers;
use crate::policy::rules::ToolsetRules;
use crate::principal::Principal;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The caller's key.
    Key,
    /// One of the caller's teams.
    Team,
    /// The caller's organisation.
    Organisation,
    /// The user the caller is.
    User,
    /// The agent the caller is.
    Agent,
    /// The toolset by whose URL the call came.
    Toolset,
}

impl Speaker {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Team => "team",
            Self::Organisation => "organisation",
            Self::User => "user",
            Self::Agent => "agent",
            Self::Toolset => "toolset",
        }
    }
}

/// The tools of one toolset, by server.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    pub(super) tools: NameMap<ServerIndex, NameMap<Box<str>, ()>>,
}

impl Bundle {
    /// Whether a tool of a server is one of them.
    pub(super) fn has(&self, server: ServerIndex, tool: &str) -> bool {
        self.tools.get(&server).is_some_and(|tools| tools.contains_key(tool))
    }

    pub(super) fn has_any(&self, server: ServerIndex) -> bool {
        self.tools.get(&server).is_some_and(|tools| !tools.is_empty())
    }
}

/// One level.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) speaker: Speaker,
    /// Where its table stands.
    pub(super) at: At,
    /// The list of servers, and the word that it speaks.
    pub(super) servers: Option<(Servers, Arc<Reason>)>,
    /// Permissions for tools.
    pub(super) tools: NameMap<ServerIndex, (Names, Arc<Reason>)>,
    /// Toolsets.
    pub(super) bundles: Vec<(Arc<Bundle>, Arc<Reason>)>,
}

/// What is asked of a level.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question<'q> {
    /// May this tool be named?
    Tool(&'q str),
    /// Is the server granted as such, with all that is no tool?
    Server,
}

/// What a level says of something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word<'p> {
    /// Whether it is granted, or denied.
    pub(super) granted: bool,
    /// By which rule.
    pub(super) reason: &'p Arc<Reason>,
}

impl Level {
    /// A level that says nothing.
    pub(super) fn silent(speaker: Speaker, at: At) -> Self {
        Self { speaker, at, servers: None, tools: NameMap::default(), bundles: Vec::new() }
    }

    /// What the level says of something on a server; `None`: nothing.
    pub(super) fn say(&self, server: ServerIndex, question: Question<'_>) -> Option<Word<'_>> {
        let mut permissions = None;
        if let Question::Tool(tool) = question {
            // Toolsets grant whatever the list says.
            if let Some((_, reason)) = self.bundles.iter().find(|(bundle, _)| bundle.has(server, tool)) {
                return Some(Word { granted: true, reason });
            }
            permissions = self.tools.get(&server).map(|(names, reason)| (names.find(tool).is_some(), reason));
        }
        match (&self.servers, permissions) {
            // Permissions grant no server that the list leaves out.
            (Some((list, reason)), _) if !list.has(server) => Some(Word { granted: false, reason }),
            (_, Some((granted, reason))) => Some(Word { granted, reason }),
            (Some((_, reason)), None) => Some(Word { granted: true, reason }),
            (None, None) => None,
        }
    }

    /// Whether the level grants any tool of the server.
    fn grants_a_tool(&self, server: ServerIndex) -> bool {
        let is_listed = self.servers.as_ref().map(|(list, _)| list.has(server));
        let by_name = match self.tools.get(&server) {
            Some((names, _)) => is_listed != Some(false) && !names.is_empty(),
            None => is_listed == Some(true),
        };
        by_name || self.bundles.iter().any(|(bundle, _)| bundle.has_any(server))
    }

    /// Whether the level has an answer for every tool of the server.
    fn answers_for_tools(&self, server: ServerIndex) -> bool {
        self.servers.is_some() || self.tools.contains_key(&server)
    }

    /// The rule that opens the server, for what names nothing on it.
    fn opening(&self, server: ServerIndex) -> Option<&Arc<Reason>> {
        let listed = self.servers.as_ref().filter(|(list, _)| list.has(server)).map(|(_, reason)| reason);
        let permitted = || self.tools.get(&server).map(|(_, reason)| reason);
        let bundled = || self.bundles.iter().find(|(bundle, _)| bundle.has_any(server)).map(|(_, reason)| reason);
        listed.or_else(bundled).or_else(permitted)
    }
}

/// A team: its level, and that of its organisation.
#[derive(Debug)]
pub(super) struct Team {
    pub(super) level: Arc<Level>,
    pub(super) organisation: Option<Arc<Level>>,
}

/// The levels that are no key's own.
#[derive(Default)]
pub(super) struct Levels {
    pub(super) teams: NameMap<Box<str>, Team>,
    pub(super) organisations: NameMap<Box<str>, Arc<Level>>,
    pub(super) users: NameMap<Box<str>, Arc<Level>>,
    pub(super) agents: NameMap<Box<str>, Arc<AgentRules>>,
    pub(super) toolsets: NameMap<Box<str>, ToolsetRules>,
}

/// Levels that speak with one voice: several teams, or the organisations of several teams, grant if any grants.
#[derive(Clone, Copy)]
enum Voice<'p> {
    One(&'p Level),
    Teams(Claimed<'p>),
    TheirOrganisations(Claimed<'p>),
}

impl<'p> Voice<'p> {
    fn each(self, mut visit: impl FnMut(&'p Level)) {
        match self {
            Self::One(level) => visit(level),
            Self::Teams(claimed) => claimed.teams().for_each(|team| visit(&team.level)),
            Self::TheirOrganisations(claimed) => {
                claimed.teams().filter_map(|team| team.organisation.as_deref()).for_each(visit);
            }
        }
    }

    /// What is said: a grant if any level grants, else a denial if any denies.
    fn say(self, server: ServerIndex, question: Question<'_>) -> Option<Word<'p>> {
        if let Self::One(level) = self {
            return level.say(server, question);
        }
        let mut said: Option<Word<'p>> = None;
        self.each(|level| {
            let word = level.say(server, question);
            if said.is_none_or(|said| !said.granted && word.is_some_and(|word| word.granted)) {
                said = word.or(said);
            }
        });
        said
    }
}

/// What a token says of its bearer, and the levels that this configuration has for it.
#[derive(Clone, Copy)]
pub(super) struct Claimed<'p> {
    pub(super) levels: &'p Levels,
    pub(super) principal: &'p Principal,
}

impl<'p> Claimed<'p> {
    fn teams(&self) -> impl Iterator<Item = &'p Team> + use<'p> {
        let levels = self.levels;
        self.principal.teams.iter().filter_map(move |name| levels.teams.get(&**name))
    }

    /// The agent that the bearer is, if this configuration has it.
    pub(super) fn agent(&self) -> Option<&'p AgentRules> {
        self.levels.agents.get(&**self.principal.agent.as_ref()?).map(|agent| &**agent)
    }
}

/// The levels that one caller has, in the order in which they are asked.
#[derive(Clone, Copy)]
pub(super) struct Cascade<'p> {
    /// Those of a key: its own, then those of whom it belongs to. Each is a voice.
    pub(super) levels: &'p [Arc<Level>],
    /// What a token says in their place.
    pub(super) claimed: Option<Claimed<'p>>,
    /// That of the toolset by whose URL the call came.
    pub(super) toolset: Option<&'p Level>,
    /// Whether all that say something must grant, instead of the first.
    pub(super) intersects: bool,
}

impl<'p> Cascade<'p> {
    /// Shows every voice in its order, until one is enough.
    fn try_each<B>(&self, mut visit: impl FnMut(Voice<'p>) -> ControlFlow<B>) -> Option<B> {
        for level in self.levels {
            if let ControlFlow::Break(end) = visit(Voice::One(level)) {
                return Some(end);
            }
        }
        if let Some(claimed) = self.claimed {
            let (levels, principal) = (claimed.levels, claimed.principal);
            let organisation = match &principal.organisation {
                Some(name) => levels.organisations.get(&**name).map(|level| Voice::One(level)),
                None => Some(Voice::TheirOrganisations(claimed)),
            };
            let user = principal.user.as_ref().and_then(|name| levels.users.get(&**name));
            let user = user.map(|level| Voice::One(level));
            let agent = claimed.agent().map(|agent| Voice::One(&agent.level));
            for voice in [Some(Voice::Teams(claimed)), organisation, user, agent].into_iter().flatten() {
                if let ControlFlow::Break(end) = visit(voice) {
                    return Some(end);
                }
            }
        }
        visit(Voice::One(self.toolset?)).break_value()
    }

    /// What the levels say together; `None`: nothing, which grants nothing.
    pub(super) fn say(&self, server: ServerIndex, question: Question<'_>) -> Option<Word<'p>> {
        let mut said = None;
        let decided = self.try_each(|voice| match voice.say(server, question) {
            Some(word) if !self.intersects || !word.granted => ControlFlow::Break(word),
            word => {
                said = said.or(word);
                ControlFlow::Continue(())
            }
        });
        decided.or(said)
    }

    /// Why the server is within reach at all: it is granted as such, or some tool of it.
    ///
    /// # Errors
    /// It is not; with the rule that decides, where there is one.
    pub(super) fn reach(&self, server: ServerIndex) -> Result<&'p Arc<Reason>, Option<&'p Arc<Reason>>> {
        let whole = self.say(server, Question::Server);
        if let Some(word) = whole.filter(|word| word.granted) {
            return Ok(word.reason);
        }
        let denied = whole.map(|word| word.reason);
        let mut opening = None;
        let decided = self.try_each(|voice| {
            let (mut grants, mut answers) = (None, false);
            voice.each(|level| {
                if grants.is_none() && level.grants_a_tool(server) {
                    grants = level.opening(server);
                }
                answers |= level.answers_for_tools(server);
            });
            match grants {
                Some(reason) if !self.intersects => return ControlFlow::Break(Ok(reason)),
                // No later level opens what this one answers for.
                None if answers => return ControlFlow::Break(Err(denied)),
                _ => {}
            }
            opening = opening.or(grants);
            ControlFlow::Continue(())
        });
        decided.unwrap_or_else(|| opening.ok_or(denied))
    }

    /// Each level in the order in which they are asked, with what it says.
    pub(super) fn consult(&self, server: ServerIndex, question: Question<'_>) -> Vec<(&'p Level, Option<Word<'p>>)> {
        let mut consulted = Vec::new();
        self.try_each::<()>(|voice| {
            voice.each(|level| consulted.push((level, level.say(server, question))));
            ControlFlow::Continue(())
        });
        consulted
    }
}
