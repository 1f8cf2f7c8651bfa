//! Which methods does the protocol know, who may send them, and since when?
//!
//! What is not in the table is unknown. A method whose senders changed has a row for each span of revisions.

use crate::mcp::revision::Revision;
use crate::mcp::revision::Revision::V2024_11_05 as R1;
use crate::mcp::revision::Revision::V2025_06_18 as R3;
use crate::mcp::revision::Revision::V2025_11_25 as R4;
use crate::mcp::revision::Revision::V2026_07_28 as R5;

/// Who a message is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Towards {
    /// Sent by a client.
    Server,
    /// Sent by a server.
    Client,
    /// Both sides may send it.
    Both,
}

/// Whether an answer is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Has an id and is answered.
    Request,
    /// Has none.
    Notification,
}

/// A method over a span of revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// Its name on the wire.
    pub name: &'static str,
    /// Who receives it.
    pub towards: Towards,
    /// Request or notification.
    pub form: Form,
    /// The first revision of the span.
    pub first: Revision,
    /// The last revision of the span.
    pub last: Revision,
}

/// Where the parameters of a method say what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `params.name`
    Name,
    /// `params.uri`
    Uri,
    /// `params.taskId`
    Task,
    /// `params.ref`: a prompt's `name` or a resource's `uri`.
    Reference,
}

/// The row for a method that is sent towards one side in a revision.
pub fn find(name: &str, towards: Towards, revision: Revision) -> Option<&'static Method> {
    METHODS.iter().find(|method| {
        method.name == name
            && (method.towards == towards || method.towards == Towards::Both)
            && (method.first..=method.last).contains(&revision)
    })
}

/// Whether any revision knows the method.
pub fn is_known(name: &str) -> bool {
    METHODS.iter().any(|method| method.name == name)
}

/// Whether the method is known and must have an id.
pub fn is_request(name: &str) -> bool {
    METHODS.iter().any(|method| method.name == name && method.form == Form::Request)
}

/// Where the method says what it is about; `None` if it is about nothing in particular.
pub fn target(name: &str) -> Option<Target> {
    match name {
        "tools/call" | "prompts/get" => Some(Target::Name),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => Some(Target::Uri),
        "tasks/get" | "tasks/update" | "tasks/cancel" | "tasks/result" => Some(Target::Task),
        "completion/complete" => Some(Target::Reference),
        _ => None,
    }
}

/// Whether `Mcp-Name` repeats the target of the method in 2026-07-28.
pub fn is_named_in_header(name: &str) -> bool {
    matches!(name, "tools/call" | "prompts/get" | "resources/read" | "tasks/get" | "tasks/update" | "tasks/cancel")
}

const fn request(name: &'static str, towards: Towards, first: Revision, last: Revision) -> Method {
    Method { name, towards, form: Form::Request, first, last }
}

const fn notification(name: &'static str, towards: Towards, first: Revision, last: Revision) -> Method {
    Method { name, towards, form: Form::Notification, first, last }
}

static METHODS: &[Method] = &[
    request("tools/call", Towards::Server, R1, R5),
    request("tools/list", Towards::Server, R1, R5),
    request("initialize", Towards::Server, R1, R4),
    notification("notifications/initialized", Towards::Server, R1, R4),
    request("server/discover", Towards::Server, R5, R5),
    request("ping", Towards::Both, R1, R4),
    request("resources/list", Towards::Server, R1, R5),
    request("resources/templates/list", Towards::Server, R1, R5),
    request("resources/read", Towards::Server, R1, R5),
    request("resources/subscribe", Towards::Server, R1, R4),
    request("resources/unsubscribe", Towards::Server, R1, R4),
    request("prompts/list", Towards::Server, R1, R5),
    request("prompts/get", Towards::Server, R1, R5),
    request("completion/complete", Towards::Server, R1, R5),
    request("logging/setLevel", Towards::Server, R1, R4),
    request("tasks/get", Towards::Both, R4, R4),
    request("tasks/get", Towards::Server, R5, R5),
    request("tasks/cancel", Towards::Both, R4, R4),
    request("tasks/cancel", Towards::Server, R5, R5),
    request("tasks/result", Towards::Both, R4, R4),
    request("tasks/list", Towards::Both, R4, R4),
    request("tasks/update", Towards::Server, R5, R5),
    request("subscriptions/listen", Towards::Server, R5, R5),
    request("sampling/createMessage", Towards::Client, R1, R4),
    request("elicitation/create", Towards::Client, R3, R4),
    request("roots/list", Towards::Client, R1, R4),
    notification("notifications/roots/list_changed", Towards::Server, R1, R4),
    // In 2026-07-28 a client cancels by closing the stream; the notification is left to stdio.
    notification("notifications/cancelled", Towards::Both, R1, R4),
    notification("notifications/progress", Towards::Both, R1, R4),
    notification("notifications/progress", Towards::Client, R5, R5),
    notification("notifications/message", Towards::Client, R1, R5),
    notification("notifications/tools/list_changed", Towards::Client, R1, R5),
    notification("notifications/prompts/list_changed", Towards::Client, R1, R5),
    notification("notifications/resources/list_changed", Towards::Client, R1, R5),
    notification("notifications/resources/updated", Towards::Client, R1, R5),
    notification("notifications/elicitation/complete", Towards::Client, R4, R4),
    notification("notifications/tasks/status", Towards::Both, R4, R4),
    notification("notifications/tasks", Towards::Client, R5, R5),
    notification("notifications/subscriptions/acknowledged", Towards::Client, R5, R5),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The revisions in which a side may be sent a method.
    fn known(name: &str, towards: Towards) -> Vec<&'static str> {
        Revision::ALL
            .into_iter()
            .filter(|revision| find(name, towards, *revision).is_some())
            .map(Revision::as_str)
            .collect()
    }

    #[test]
    fn tools_are_called_in_every_revision_and_only_by_clients() {
        assert_eq!(known("tools/call", Towards::Server).len(), 5);
        assert_eq!(known("tools/call", Towards::Client), Vec::<&str>::new());
    }

    #[test]
    fn what_the_stateless_revision_removed_is_unknown_to_it() {
        for name in ["initialize", "ping", "logging/setLevel", "resources/subscribe", "tasks/result", "tasks/list"] {
            assert_eq!(find(name, Towards::Server, R5), None, "{name}");
            assert!(find(name, Towards::Server, R4).is_some(), "{name}");
        }
        assert_eq!(find("notifications/cancelled", Towards::Server, R5), None);
    }

    #[test]
    fn what_the_stateless_revision_added_is_unknown_before() {
        for name in ["server/discover", "subscriptions/listen", "tasks/update"] {
            assert_eq!(known(name, Towards::Server), ["2026-07-28"], "{name}");
        }
    }

    #[test]
    fn both_sides_ping_and_only_servers_elicit() {
        assert_eq!(known("ping", Towards::Server), known("ping", Towards::Client));
        assert_eq!(known("elicitation/create", Towards::Client), ["2025-06-18", "2025-11-25"]);
        assert_eq!(known("elicitation/create", Towards::Server), Vec::<&str>::new());
    }

    #[test]
    fn names_are_exact() {
        for name in ["Tools/call", "tools/call ", "tools", "", "ui/open"] {
            assert!(!is_known(name), "{name:?}");
        }
        assert!(is_known("notifications/tasks"));
    }

    #[test]
    fn a_method_has_one_row_in_a_revision_and_direction() {
        for method in METHODS {
            for revision in Revision::ALL {
                for towards in [Towards::Server, Towards::Client] {
                    let found = METHODS.iter().filter(|other| {
                        other.name == method.name
                            && (other.towards == towards || other.towards == Towards::Both)
                            && (other.first..=other.last).contains(&revision)
                    });
                    assert!(found.count() <= 1, "{}", method.name);
                }
            }
        }
    }

    #[test]
    fn what_has_a_target_is_a_request() {
        for method in METHODS {
            assert_eq!(is_request(method.name), !method.name.starts_with("notifications/"), "{}", method.name);
            assert!(is_request(method.name) || target(method.name).is_none(), "{}", method.name);
        }
    }

    #[test]
    fn the_header_repeats_only_what_the_parameters_name() {
        for method in METHODS {
            assert!(!is_named_in_header(method.name) || target(method.name).is_some(), "{}", method.name);
        }
        assert!(!is_named_in_header("completion/complete"));
    }
}
