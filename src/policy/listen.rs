//! Which of the resources that a client wants to hear of may it hear of?
//!
//! `subscriptions/listen` names them in `params.notifications.resourceSubscriptions`. It goes out without those that the
//! caller does not see, so that the server's acknowledgement tells what was agreed on, and no update of the others comes.

use crate::mcp::cut;
use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::mcp::message::Message;
use crate::mcp::names;
use crate::mcp::splice::Splice;
use crate::policy::view::Access;

/// Resources of one subscription; those after them are left out.
pub(super) const RESOURCES_MAX: usize = 1_000;

const KEY: &str = "resourceSubscriptions";

/// What to cut out of a `subscriptions/listen`, in the order of the spans: resources the caller does not see, and what
/// is no list of resources but might be read as one.
pub(super) fn unseen(access: &Access<'_>, message: &Message) -> Vec<Splice> {
    let Some(wanted) = message.params().and_then(|params| params.get("notifications")) else { return Vec::new() };
    let mut cuts =
        cut::members(
            wanted,
            |key, value| {
                if key == KEY { value.kind() == Kind::Array } else { !names::is_variant(key, KEY) }
            },
        );
    if let Some(resources) = wanted.get(KEY) {
        let mut count = 0;
        cuts.extend(cut::items(resources, |resource| {
            count += 1;
            count <= RESOURCES_MAX && is_seen(access, resource)
        }));
    }
    cuts.sort_by_key(|splice| splice.span.start);
    cuts
}

fn is_seen(access: &Access<'_>, resource: Value<'_>) -> bool {
    resource.text().is_some_and(|uri| access.judge_resource(uri).is_ok())
}
