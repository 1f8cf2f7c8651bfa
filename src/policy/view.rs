//! What does one caller see of one server?
//!
//! The one place where the rules about tools are put together: what is listed and what may be called come from the
//! same two lists, so that a tool is listed if and only if a call of it is not hidden.

use std::sync::Arc;

use crate::config::problem::At;
use crate::mcp::message::Message;
use crate::policy::constraint::Constraint;
use crate::policy::constraint::Mismatch;
use crate::policy::rules::Exclusion;
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
        self.0.is_some_and(|access| access.exclusion(tool).is_none())
    }
}

impl<'p> Access<'p> {
    /// Whether `tool` may be called as `message` does, and the last rule that had a say.
    pub(super) fn judge_tool(self, tool: &str, message: &Message) -> Result<&'p Arc<Reason>, Box<Denial>> {
        if let Some((whose, table, exclusion)) = self.exclusion(tool) {
            return Err(exclusion.denial(tool, whose, table));
        }
        if let Some(matrix) = self.matrix {
            let constraints = matrix.constraints.get(tool).map(Vec::as_slice).unwrap_or_default();
            let arguments = if constraints.is_empty() { None } else { message.arguments() };
            for (index, constraint) in constraints.iter().enumerate() {
                constraint.judge(arguments).map_err(|mismatch| refused(matrix, tool, index, constraint, mismatch))?;
            }
        }
        let listed = self.server.listed.as_ref();
        Ok(self.matrix.map(|matrix| &matrix.reason).or(listed).unwrap_or(self.grant))
    }

    /// The list that excludes `tool`, if one does: the server's has the first word.
    fn exclusion(self, tool: &str) -> Option<(Whose, &'p At, Exclusion)> {
        if let Some(exclusion) = self.server.tools.exclusion(tool) {
            return Some((Whose::Server, &self.server.at, exclusion));
        }
        let matrix = self.matrix?;
        Some((Whose::Agent, &matrix.at, matrix.tools.exclusion(tool)?))
    }
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
