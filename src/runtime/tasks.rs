//! By which tool was this task made?
//!
//! A client's token says so. A server's message that names the task of its own accord does not, and must be given the very token
//! that the client has: so it is remembered here, as long as there is room. What is forgotten is treated as a task of which it was
//! never known.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::session::Task;

/// Tasks that are remembered; one more makes the oldest be forgotten.
const TASKS_MAX: usize = 65_536;

/// What is remembered of tasks.
#[derive(Debug, Default)]
pub struct TaskTools {
    /// Draws a task's number by a key that nobody knows, so that nobody makes two of one number.
    numbers: RandomState,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    tools: HashMap<u64, Arc<str>>,
    /// The oldest first.
    order: VecDeque<u64>,
}

impl TaskTools {
    /// Remembers by which tool a task was made, if it says so.
    pub fn note(&self, task: &Task) {
        let Some(tool) = &task.tool else { return };
        let number = self.number(task);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.tools.insert(number, Arc::clone(tool)).is_none() {
            known.order.push_back(number);
        }
        if known.order.len() > TASKS_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.tools.remove(&oldest);
        }
    }

    /// The tool that a task was made by, if that is remembered.
    pub fn tool_of(&self, task: &Task) -> Option<Arc<str>> {
        let number = self.number(task);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).tools.get(&number).cloned()
    }

    fn number(&self, task: &Task) -> u64 {
        self.numbers.hash_one((&task.server, task.endpoint, &task.upstream_id, &task.principal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, tool: Option<&str>) -> Task {
        let (server, principal) = ("a".into(), "key:ci".into());
        Task { server, endpoint: 1, upstream_id: id.into(), principal, tool: tool.map(Arc::from) }
    }

    #[test]
    fn a_task_is_known_by_all_that_names_it() {
        let tasks = TaskTools::default();
        tasks.note(&task("t", Some("x")));
        tasks.note(&task("u", None));
        assert_eq!(tasks.tool_of(&task("t", None)).as_deref(), Some("x"));
        let others = [
            task("u", None),
            Task { endpoint: 2, ..task("t", None) },
            Task { server: "b".into(), ..task("t", None) },
            Task { principal: "key:dev".into(), ..task("t", None) },
        ];
        assert!(others.iter().all(|other| tasks.tool_of(other).is_none()));
    }

    #[test]
    fn the_oldest_is_forgotten_where_there_is_no_room() {
        let tasks = TaskTools::default();
        for number in 0..=TASKS_MAX {
            tasks.note(&task(&number.to_string(), Some("x")));
            tasks.note(&task(&number.to_string(), Some("x")));
        }
        assert!(tasks.tool_of(&task("0", None)).is_none() && tasks.tool_of(&task("1", None)).is_some());
        assert!(tasks.tool_of(&task(&TASKS_MAX.to_string(), None)).is_some());
        assert_eq!(tasks.known.lock().unwrap().tools.len(), TASKS_MAX);
    }
}
