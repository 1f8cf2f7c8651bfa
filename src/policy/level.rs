//! What does one level of the cascade say?
//!
//! Key, team, organisation, user and agent speak in the same form; a toolset speaks by its own URL. A level answers for every
//! server once it has a list of servers (groups are part of that list), for every tool of a server once it has permissions
//! for that server, and grants the tools of its toolsets. Of what remains it says nothing.

use std::sync::Arc;

use crate::config::problem::At;
use crate::policy::hash::NameMap;
use crate::policy::names::Names;
use crate::policy::reason::Reason;
use crate::policy::rules::ServerIndex;
use crate::policy::rules::Servers;

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

/// The levels that speak with one voice: several teams, or the organisations of several teams, grant if any grants.
#[derive(Clone, Copy)]
pub(super) enum Voice<'p> {
    /// Nobody.
    None,
    /// One level.
    One(&'p Level),
    /// Several, by the names of the caller's teams.
    Teams(&'p NameMap<Box<str>, Team>, &'p [Arc<str>]),
    /// The organisations of the caller's teams.
    TheirOrganisations(&'p NameMap<Box<str>, Team>, &'p [Arc<str>]),
}

/// A team: its level, and that of its organisation.
#[derive(Debug)]
pub(super) struct Team {
    pub(super) level: Arc<Level>,
    pub(super) organisation: Option<Arc<Level>>,
}

impl<'p> Voice<'p> {
    /// One level, if there is one.
    pub(super) fn of(level: Option<&'p Level>) -> Self {
        level.map_or(Self::None, Self::One)
    }

    fn each(self, mut visit: impl FnMut(&'p Level)) {
        match self {
            Self::None => {}
            Self::One(level) => visit(level),
            Self::Teams(teams, names) => {
                names.iter().filter_map(|name| teams.get(&**name)).for_each(|team| visit(&team.level));
            }
            Self::TheirOrganisations(teams, names) => {
                let of = |name: &'p Arc<str>| teams.get(&**name)?.organisation.as_deref();
                names.iter().filter_map(of).for_each(visit);
            }
        }
    }

    /// What is said: a grant if any level grants, else a denial if any denies.
    fn say(self, server: ServerIndex, question: Question<'_>) -> Option<Word<'p>> {
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

/// The levels that one caller has, in the order in which they are asked.
#[derive(Clone, Copy)]
pub(super) struct Cascade<'p> {
    pub(super) voices: [Voice<'p>; 6],
    /// Whether all that say something must grant, instead of the first.
    pub(super) intersects: bool,
}

impl<'p> Cascade<'p> {
    /// What the levels say together; `None`: nothing, which grants nothing.
    pub(super) fn say(&self, server: ServerIndex, question: Question<'_>) -> Option<Word<'p>> {
        let mut said = None;
        for voice in self.voices {
            let Some(word) = voice.say(server, question) else { continue };
            if !self.intersects || !word.granted {
                return Some(word);
            }
            said = said.or(Some(word));
        }
        said
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
        let mut opening = None;
        for voice in self.voices {
            let (mut grants, mut answers) = (None, false);
            voice.each(|level| {
                if grants.is_none() && level.grants_a_tool(server) {
                    grants = level.opening(server);
                }
                answers |= level.answers_for_tools(server);
            });
            if grants.is_some() && !self.intersects {
                return grants.ok_or(None);
            }
            if answers && grants.is_none() {
                // No later level opens what this one answers for.
                return Err(whole.map(|word| word.reason));
            }
            opening = opening.or(grants);
        }
        opening.ok_or(whole.map(|word| word.reason))
    }

    /// Each level in the order in which they are asked, with what it says.
    pub(super) fn consult(&self, server: ServerIndex, question: Question<'_>) -> Vec<(&'p Level, Option<Word<'p>>)> {
        let mut consulted = Vec::new();
        for voice in self.voices {
            voice.each(|level| consulted.push((level, level.say(server, question))));
        }
        consulted
    }
}
