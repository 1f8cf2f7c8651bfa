//! Deciding calls, under configurations of several sizes: what a call costs must not depend on them.

use std::hint::black_box;
use std::rc::Rc;

use portcullis::mcp::revision::Revision;
use portcullis::policy::Policy;
use portcullis::principal::Subject;

use super::Case;
use super::rules;
use super::rules::Calls;
use super::rules::Scale;

/// Sizes between which the cost is compared: the smallest, and what the budget speaks of.
pub(crate) const SMALL: Scale = Scale { keys: 10, servers: 5, tools_per_server: 10 };
/// 10,000 keys, 500 servers, 5,000 tools.
pub(crate) const LARGE: Scale = Scale { keys: 10_000, servers: 500, tools_per_server: 10 };

/// Each verdict under the smallest and the large configuration.
pub(crate) fn cases() -> Vec<Case> {
    [SMALL, LARGE].into_iter().flat_map(at).collect()
}

/// Each verdict under one configuration.
pub(crate) fn at(scale: Scale) -> Vec<Case> {
    let policy = Rc::new(scale.policy());
    let name = |what| format!("decide, {what}, {scale}");
    let view = Rc::clone(&policy);
    let caller = rules::principal("key_000000");
    vec![
        decided(name("no constraint"), &policy, scale.calls("tool_3"), true),
        decided(name("3 constraints"), &policy, scale.calls("execute_query"), true),
        decided(name("blocked tool"), &policy, scale.calls("drop_table"), false),
        Case::new(name("one tool of a list"), 500, move || {
            assert!(black_box(view.view(Subject::of(&caller), "server_1").lists(black_box("tool_3"))));
        }),
    ]
}

/// What [`decided`] costs without deciding.
pub(crate) fn moved(scale: Scale) -> Case {
    let mut calls = scale.calls("tool_3");
    Case::new("the loop itself", 500, move || {
        let (principal, call) = calls.next();
        black_box(principal);
        let taken = black_box(call.take().unwrap());
        *call = Some(taken);
    })
}

/// The plain decision under one configuration: for curves.
pub(crate) fn plain(scale: Scale) -> Case {
    decided(String::new(), &Rc::new(scale.policy()), scale.calls("tool_3"), true)
}

/// Decides one call after the other.
pub(crate) fn decided(name: String, policy: &Rc<Policy>, mut calls: Calls, permitted: bool) -> Case {
    let policy = Rc::clone(policy);
    Case::new(name, 500, move || decide_next(&policy, &mut calls, permitted))
}

/// Decides the next of `calls`.
pub(crate) fn decide_next(policy: &Policy, calls: &mut Calls, permitted: bool) {
    let (principal, call) = calls.next();
    let (back, allowed) = match policy.decide(Subject::of(principal), Revision::V2025_11_25, call.take().unwrap()) {
        Ok(permitted) => (permitted.into_call(), true),
        Err(denied) => (denied.call, false),
    };
    assert_eq!(black_box(allowed), permitted);
    *call = Some(back);
}
