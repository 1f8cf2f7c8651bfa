//! What does one caller see of one server?
//!
//! The one place where the rules about tools, resources and prompts are put together: what is listed and what may be
//! named come from the same lists, so that something is listed if and only if a request for it is not hidden.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::config::problem::At;
use crate::mcp::capabilities::ClientRequest;
use crate::mcp::message::Message;
use crate::mcp::uri;
use crate::mcp::uri::Uri;
use crate::mcp::uri::UriFlaw;
use crate::policy::constraint::ArgumentDenial;
use crate::policy::constraint::Failure;
use crate::policy::level::Cascade;
use crate::policy::level::Levels;
use crate::policy::level::Question;
use crate::policy::minting;
use crate::policy::reason::Reason;
use crate::policy::report::REPORTED_AGENTS_MAX;
use crate::policy::rules::Exclusion;
use crate::policy::rules::Listed;
use crate::policy::rules::Matrix;
use crate::policy::rules::Placed;
use crate::policy::rules::ServerIndex;
use crate::policy::rules::ServerRules;
use crate::policy::rules::ToolsetRules;
use crate::policy::verdict::Denial;
use crate::policy::verdict::DenialKind;
use crate::policy::verdict::Whose;
use crate::policy::verdict::shown;
use crate::principal::Minted;

/// What a caller sees of a server. Cheap to copy; nothing is looked up again but the tool.
#[derive(Clone, Copy)]
pub struct View<'p>(Option<Access<'p>>);

/// The rules for a caller on a server that keeps it out by nothing. What is granted is asked of the cascade.
#[derive(Clone, Copy)]
pub(super) struct Access<'p> {
    /// The levels that the caller has.
    pub(super) cascade: Cascade<'p>,
    /// The server's position.
    pub(super) index: ServerIndex,
    /// What holds for everybody.
    pub(super) server: &'p ServerRules,
    /// The table of the caller's key, which could have a list: the place of a denial where no list speaks.
    pub(super) own: Option<&'p At>,
    /// The toolset by whose URL the call came.
    pub(super) toolset: Option<&'p ToolsetRules>,
    /// What holds for the caller's agent.
    pub(super) matrix: Option<&'p Matrix>,
    /// What holds for the agents that the caller says it is: for denials alone.
    pub(super) reported: [Option<&'p Matrix>; REPORTED_AGENTS_MAX],
    /// What narrows it, if the caller's key was minted by another.
    pub(super) child: Option<Child<'p>>,
}

/// What narrows the rules for a child: its links, and the matrices of the agents that they are for.
#[derive(Clone, Copy)]
pub(super) struct Child<'p> {
    pub(super) minted: &'p Minted,
    pub(super) levels: &'p Levels,
}

impl<'p> View<'p> {
    /// A view of nothing, if `access` is none.
    pub(super) fn new(access: Option<Access<'p>>) -> Self {
        Self(access)
    }

    /// Whether the caller sees `tool`, and so may call it as far as its arguments permit.
    pub fn lists(self, tool: &str) -> bool {
        self.sees(Listed::Tool(tool))
    }

    /// Whether the caller sees the resource at `uri`, and so may read it.
    pub fn reads(self, uri: &str) -> bool {
        Uri::read(uri).is_ok_and(|uri| self.sees(Listed::Resource(&uri)))
    }

    /// Whether the caller sees a template of resources. What its expansions lead to is judged when they are read.
    pub fn lists_template(self, uri_template: &str) -> bool {
        self.0.is_some_and(|access| access.judge_template(uri_template).is_ok())
    }

    /// Whether the caller sees `prompt`, and so may use it.
    pub fn gets(self, prompt: &str) -> bool {
        self.sees(Listed::Prompt(prompt))
    }

    /// Whether the server may ask this of the caller.
    pub fn relays(self, asked: ClientRequest) -> bool {
        self.0.is_some_and(|access| access.server.relays.has(asked))
    }

    fn sees(self, listed: Listed<'_>) -> bool {
        self.0.is_some_and(|access| access.sees(listed))
    }
}

impl<'p> Access<'p> {
    /// Shows what holds for each agent that has a part in it, then for those that the caller says it is, until one is enough.
    pub(super) fn each_matrix<B>(&self, mut visit: impl FnMut(&'p Matrix) -> ControlFlow<B>) -> ControlFlow<B> {
        self.each_acting(&mut visit)?;
        for matrix in self.reported.iter().map_while(|matrix| *matrix) {
            visit(matrix)?;
        }
        ControlFlow::Continue(())
    }

    /// Shows what holds for each agent that has a part in it, until one is enough.
    pub(super) fn each_acting<B>(&self, mut visit: impl FnMut(&'p Matrix) -> ControlFlow<B>) -> ControlFlow<B> {
        if let Some(matrix) = self.matrix {
            visit(matrix)?;
        }
        let Some(child) = self.child else { return ControlFlow::Continue(()) };
        let agents = child.minted.links.iter().filter_map(|link| child.levels.agents.get(&*link.agent));
        for matrix in agents.filter_map(|agent| agent.matrices.get(&self.index)) {
            visit(matrix)?;
        }
        ControlFlow::Continue(())
    }

    /// The last of the acting agents' matrices of which `find` finds something.
    fn last_acting<T>(&self, mut find: impl FnMut(&'p Matrix) -> Option<T>) -> Option<T> {
        let mut last = None;
        let ControlFlow::Continue(()) = self.each_acting::<Infallible>(|matrix| {
            last = find(matrix).or(last.take());
            ControlFlow::Continue(())
        });
        last
    }

    /// The rule that lets a child be minted: the place of what it is denied as a child.
    fn minted_at(&self) -> Option<At> {
        self.own.map(|at| at.key("may_mint"))
    }

    /// Whether `tool` may be called as `message` does, and the last rule that had a say.
    pub(super) fn judge_tool(&self, tool: &str, message: &Message) -> Result<&'p Arc<Reason>, Box<Denial>> {
        let reason = self.judge(Listed::Tool(tool))?;
        let judged = self.each_matrix(|matrix| match judge_arguments(matrix, tool, message) {
            Ok(()) => ControlFlow::Continue(()),
            Err(denial) => ControlFlow::Break(denial),
        });
        match judged {
            ControlFlow::Continue(()) => Ok(self.last_acting(|matrix| Some(&matrix.reason)).unwrap_or(reason)),
            ControlFlow::Break(denial) => Err(denial),
        }
    }

    /// Whether the resource at `uri` may be read, and the last rule that had a say.
    pub(super) fn judge_resource(&self, uri: &str) -> Result<&'p Arc<Reason>, Box<Denial>> {
        let uri = Uri::read(uri).map_err(|flaw| match self.reach() {
            Ok(_) => ambiguous(uri, flaw),
            Err(at) => self.out_of_reach(at),
        })?;
        self.judge(Listed::Resource(&uri))
    }

    /// Whether a template of resources may be named. It is held against the lists as what may come of it; one that is
    /// on a list of allowed URIs letter by letter is allowed as well.
    pub(super) fn judge_template(&self, template: &str) -> Result<&'p Arc<Reason>, Box<Denial>> {
        let Some(sample) = uri::sample(template) else { return self.judge_resource(template) };
        match self.judge_resource(&sample) {
            Err(denial) if matches!(denial.kind(), DenialKind::ResourceNotAllowed { .. }) => {
                self.judge_resource(template)
            }
            judged => judged,
        }
    }

    /// Why the server is within reach: some tool of it, or all of it.
    ///
    /// # Errors
    /// It is not; with the rule that decides, where there is one.
    pub(super) fn reach(&self) -> Result<&'p Arc<Reason>, Option<At>> {
        if let Some(toolset) = self.toolset.filter(|toolset| !toolset.bundle.has_any(self.index)) {
            return Err(Some(toolset.at.clone()));
        }
        if self.child.is_some_and(|child| !minting::leaves_any(child.minted, &self.server.name)) {
            return Err(self.minted_at());
        }
        let reach = self.cascade.reach(self.index);
        reach.or_else(|denied| {
            self.server.public.as_ref().ok_or_else(|| denied.map(|reason| &reason.at).or(self.own).cloned())
        })
    }

    /// Why something on the server is granted. What is open to everybody is open to every caller.
    fn grant(&self, listed: Listed<'_>) -> Result<&'p Arc<Reason>, Option<&'p Arc<Reason>>> {
        let question = match listed {
            Listed::Tool(tool) => Question::Tool(tool),
            Listed::Resource(_) | Listed::Prompt(_) => Question::Server,
        };
        match self.cascade.say(self.index, question) {
            Some(word) if word.granted => Ok(word.reason),
            said => self.server.public.as_ref().ok_or(said.map(|word| word.reason)),
        }
    }

    /// The toolset that the call came by, if something is not in it. A toolset is tools.
    fn outside(&self, listed: Listed<'_>) -> Option<&'p ToolsetRules> {
        self.toolset.filter(|toolset| match listed {
            Listed::Tool(tool) => !toolset.bundle.has(self.index, tool),
            Listed::Resource(_) | Listed::Prompt(_) => true,
        })
    }

    /// The denial of a server of which nothing is granted.
    fn out_of_reach(&self, at: Option<At>) -> Box<Denial> {
        Denial::new(DenialKind::ServerNotGranted { server: self.server.name.to_string() }, at)
    }

    /// The denial of what is not granted.
    fn not_granted(&self, listed: Listed<'_>, by: Option<At>) -> Box<Denial> {
        match self.reach() {
            Err(at) => self.out_of_reach(at),
            Ok(_) => {
                let (about, what) = listed.shown();
                Denial::new(DenialKind::NotGranted { what, about }, by)
            }
        }
    }

    /// Whether something may be named, and the last rule that had a say.
    pub(super) fn judge(&self, listed: Listed<'_>) -> Result<&'p Arc<Reason>, Box<Denial>> {
        let grant = self.grant(listed).map_err(|by| self.not_granted(listed, by.map(|reason| reason.at.clone())))?;
        if self.is_narrowed(listed) {
            return Err(self.not_granted(listed, self.minted_at()));
        }
        if let Some(toolset) = self.outside(listed) {
            let (about, what) = listed.shown();
            return Err(Denial::new(DenialKind::NotInToolset { what, about }, Some(toolset.at.clone())));
        }
        if let Some((whose, table, exclusion)) = self.exclusion(listed) {
            return Err(exclusion.denial(listed, whose, table));
        }
        let by_agent = self.last_acting(|matrix| matrix.lists.reason(listed));
        Ok(by_agent.or(self.server.lists.reason(listed)).unwrap_or(grant))
    }

    /// The same as [`Access::judge`], without a reason.
    fn sees(&self, listed: Listed<'_>) -> bool {
        let is_granted = self.grant(listed).is_ok() && !self.is_narrowed(listed);
        is_granted && self.outside(listed).is_none() && self.exclusion(listed).is_none()
    }

    /// Whether a child was left without it.
    fn is_narrowed(&self, listed: Listed<'_>) -> bool {
        self.child.is_some_and(|child| !minting::leaves(child.minted, &self.server.name, listed))
    }

    /// The list that excludes something, if one does: the server's has the first word.
    fn exclusion(&self, listed: Listed<'_>) -> Option<(Whose, &'p At, Exclusion)> {
        if let Some(exclusion) = self.server.lists.exclusion(listed) {
            return Some((Whose::Server, &self.server.at, exclusion));
        }
        let excluded = self.each_matrix(|matrix| match matrix.lists.exclusion(listed) {
            Some(exclusion) => ControlFlow::Break((Whose::Agent, &matrix.at, exclusion)),
            None => ControlFlow::Continue(()),
        });
        excluded.break_value()
    }
}

/// Whether a matrix permits the arguments of a call of `tool`.
fn judge_arguments(matrix: &Matrix, tool: &str, message: &Message) -> Result<(), Box<Denial>> {
    let constraints = matrix.constraints.get(tool).map(Vec::as_slice).unwrap_or_default();
    let parameters = matrix.parameters.get(tool);
    let is_free = constraints.is_empty() && parameters.is_none();
    let arguments = if is_free { None } else { message.arguments() };
    if let (Some(parameters), Some(arguments)) = (parameters, arguments)
        && let Some((name, _)) = arguments.entries().find(|(name, _)| !parameters.contains_key(*name))
    {
        let kind = DenialKind::ParameterNotAllowed { tool: shown(tool), parameter: shown(name) };
        return Err(Denial::new(kind, Some(matrix.at.key("allowed_params").key(tool))));
    }
    for placed in constraints {
        placed.constraint.judge(arguments).map_err(|failure| refused(tool, placed, failure))?;
    }
    Ok(())
}

fn ambiguous(uri: &str, flaw: UriFlaw) -> Box<Denial> {
    Denial::new(DenialKind::ResourceAmbiguous { uri: shown(uri), flaw }, None)
}

fn refused(tool: &str, placed: &Placed, (mismatch, expected): Failure<'_>) -> Box<Denial> {
    let constraint = &placed.constraint;
    let argument = ArgumentDenial {
        tool: shown(tool),
        arg: constraint.path.to_string(),
        expected: expected.to_owned(),
        description: constraint.description.to_string(),
        message: constraint.message.as_deref().map(str::to_owned),
        mismatch,
    };
    Denial::new(DenialKind::Argument(Box::new(argument)), Some(placed.at.clone()))
}
