//! What does one caller see of one server?
//!
//! The one place where the rules about tools, resources and prompts are put together: what is listed and what may be
//! named come from the same lists, so that something is listed if and only if a request for it is not hidden.

use std::sync::Arc;

use crate::config::problem::At;
use crate::mcp::capabilities::ClientRequest;
use crate::mcp::message::Message;
use crate::mcp::uri;
use crate::mcp::uri::Uri;
use crate::mcp::uri::UriFlaw;
use crate::policy::constraint::Constraint;
use crate::policy::constraint::Mismatch;
use crate::policy::rules::Exclusion;
use crate::policy::rules::Listed;
use crate::policy::rules::Matrix;
use crate::policy::rules::ServerRules;
use crate::policy::verdict::ArgumentDenial;
use crate::policy::verdict::Denial;
use crate::policy::verdict::DenialKind;
use crate::policy::verdict::Reason;
use crate::policy::verdict::Whose;
use crate::policy::verdict::shown;

/// What a caller sees of a server. Cheap to copy; nothing is looked up again but the tool.
#[derive(Clone, Copy)]
pub struct View<'p>(Option<Access<'p>>);

/// The rules for a caller on a server that is within reach.
#[derive(Clone, Copy)]
pub(super) struct Access<'p> {
    /// Why the server is within reach.
    pub(super) grant: &'p Arc<Reason>,
    /// What holds for everybody.
    pub(super) server: &'p ServerRules,
    /// What holds for the caller's agent.
    pub(super) matrix: Option<&'p Matrix>,
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
        self.0.is_some_and(|access| access.exclusion(listed).is_none())
    }
}

impl<'p> Access<'p> {
    /// Whether `tool` may be called as `message` does, and the last rule that had a say.
    pub(super) fn judge_tool(self, tool: &str, message: &Message) -> Result<&'p Arc<Reason>, Box<Denial>> {
        let reason = self.judge(Listed::Tool(tool))?;
        let Some(matrix) = self.matrix else { return Ok(reason) };
        let constraints = matrix.constraints.get(tool).map(Vec::as_slice).unwrap_or_default();
        let arguments = if constraints.is_empty() { None } else { message.arguments() };
        for (index, constraint) in constraints.iter().enumerate() {
            constraint.judge(arguments).map_err(|mismatch| refused(matrix, tool, index, constraint, mismatch))?;
        }
        Ok(&matrix.reason)
    }

    /// Whether the resource at `uri` may be read, and the last rule that had a say.
    pub(super) fn judge_resource(self, uri: &str) -> Result<&'p Arc<Reason>, Box<Denial>> {
        let uri = Uri::read(uri).map_err(|flaw| ambiguous(uri, flaw))?;
        self.judge(Listed::Resource(&uri))
    }

    /// Whether a template of resources may be named. It is held against the lists as what may come of it; one that is
    /// on a list of allowed URIs letter by letter is allowed as well.
    pub(super) fn judge_template(self, template: &str) -> Result<&'p Arc<Reason>, Box<Denial>> {
        let Some(sample) = uri::sample(template) else { return self.judge_resource(template) };
        match self.judge_resource(&sample) {
            Err(denial) if matches!(denial.kind(), DenialKind::ResourceNotAllowed { .. }) => {
                self.judge_resource(template)
            }
            judged => judged,
        }
    }

    /// Whether something may be named, and the last rule that had a say.
    pub(super) fn judge(self, listed: Listed<'_>) -> Result<&'p Arc<Reason>, Box<Denial>> {
        if let Some((whose, table, exclusion)) = self.exclusion(listed) {
            return Err(exclusion.denial(listed, whose, table));
        }
        let by_agent = self.matrix.and_then(|matrix| matrix.lists.reason(listed));
        Ok(by_agent.or(self.server.lists.reason(listed)).unwrap_or(self.grant))
    }

    /// The list that excludes something, if one does: the server's has the first word.
    fn exclusion(self, listed: Listed<'_>) -> Option<(Whose, &'p At, Exclusion)> {
        if let Some(exclusion) = self.server.lists.exclusion(listed) {
            return Some((Whose::Server, &self.server.at, exclusion));
        }
        let matrix = self.matrix?;
        Some((Whose::Agent, &matrix.at, matrix.lists.exclusion(listed)?))
    }
}

fn ambiguous(uri: &str, flaw: UriFlaw) -> Box<Denial> {
    Denial::new(DenialKind::ResourceAmbiguous { uri: shown(uri), flaw }, None)
}

fn refused(matrix: &Matrix, tool: &str, index: usize, constraint: &Constraint, mismatch: Mismatch) -> Box<Denial> {
    let at = matrix.at.key("argument_constraints").key(tool).index(index);
    let argument = ArgumentDenial {
        tool: shown(tool),
        arg: constraint.path.to_string(),
        pattern: constraint.pattern.text().to_owned(),
        description: constraint.description.to_string(),
        mismatch,
    };
    Denial::new(DenialKind::Argument(Box::new(argument)), Some(at))
}
