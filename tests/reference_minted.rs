//! Is a key that was minted never wider than who minted it?
//!
//! Random chains of children stand on the keys of random configurations. What a child may do is held against a naive evaluator: what
//! its key may do, and what each link leaves, and what each link's agent may do. So nothing is permitted to a child that is not
//! permitted to whoever minted it, and a link that says nothing takes nothing away but what its agent may not do.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use portcullis::config::model::Children;
use portcullis::config::model::Config;
use portcullis::config::problem::At;
use portcullis::config::problem::Problems;
use portcullis::policy::DEPTH_MAX;
use portcullis::policy::Minting;
use portcullis::policy::NotMinted;
use portcullis::policy::Policy;
use portcullis::principal::Link;
use portcullis::principal::Minted;
use portcullis::principal::Principal;
use portcullis::principal::Subject;

use crate::reference_policy;
use crate::reference_policy::AGENTS;
use crate::reference_policy::Asked;
use crate::reference_policy::ENTRIES;
use crate::reference_policy::KEYS;
use crate::reference_policy::Of;
use crate::reference_policy::SERVERS;
use crate::support::random::Random;

const CONFIGS: usize = 1_500;
const CALLS_PER_CONFIG: usize = 50;
const TIME_MAX: Duration = Duration::from_secs(60);

#[test]
fn a_child_may_do_what_its_key_may_and_every_link_leaves() {
    let mut random = Random(0x5851_f42d_4c95_7f2d);
    let started = Instant::now();
    let (mut compared, mut permitted, mut narrowed, mut minted) = (0, 0, 0, 0);
    for _ in 0..CONFIGS {
        let mut config = random.config();
        for key in config.keys.values_mut() {
            key.may_mint = true;
            key.children = Children { depth_max: DEPTH_MAX, ..Children::default() };
        }
        let mut problems = Problems::new();
        let policy = Policy::compile(&config, &mut problems);
        assert!(!problems.has_errors(), "{:?}", problems.iter().next());
        for _ in 0..CALLS_PER_CONFIG {
            let mut asked = random.call();
            let key = random.of(&KEYS[..3]);
            asked.key = Some(key);
            let mut holder = Principal::of_key(key);
            let mut expected = reference_policy::evaluate(&config, &asked) == "permitted";
            for _ in 0..=random.below(3) {
                let link = link(&mut random);
                let may_mint = policy.may_mint(Subject::of(&holder), &link);
                minted += usize::from(may_mint.is_ok());
                assert_eq!(
                    may_mint.map(drop),
                    naive_minting(&policy, &config, &holder, &link),
                    "{link:?}\n{config:#?}"
                );
                let child = child(&config, &holder, link.clone());
                let before = expected;
                expected &= leaves(&link, &asked) && agent_permits(&config, &link, &asked);
                narrowed += usize::from(before && !expected);
                let found = reference_policy::decide_for(&policy, &child, &asked) == "permitted";
                assert_eq!(found, expected, "{asked:?}\n{child:#?}\n{config:#?}");
                let is_wider = found && reference_policy::decide_for(&policy, &holder, &asked) != "permitted";
                assert!(!is_wider, "{asked:?}\n{child:#?}\n{config:#?}");
                assert!(
                    !policy.reaches(Subject::of(&child), asked.server)
                        || policy.reaches(Subject::of(&holder), asked.server)
                );
                holder = child;
                compared += 1;
            }
            permitted += usize::from(expected);
        }
        if started.elapsed() > TIME_MAX {
            break;
        }
    }
    // A comparison that only ever sees one verdict would compare nothing.
    assert!(
        compared > 20_000 && permitted > compared / 100 && narrowed > compared / 50 && minted > compared / 10,
        "{compared} {permitted} {narrowed} {minted}"
    );
}

fn link(random: &mut Random) -> Link {
    let servers = (!random.one_in(3)).then(|| (0..random.below(4)).map(|_| random.of(&SERVERS).into()).collect());
    let tools = (0..random.below(3)).map(|_| {
        let entries = (0..random.below(4)).map(|_| Arc::from(random.of(&ENTRIES))).collect();
        (random.of(&SERVERS).into(), entries)
    });
    let mut tools: Vec<(Arc<str>, Vec<Arc<str>>)> = tools.collect();
    tools.dedup_by(|one, other| one.0 == other.0);
    let agent = if random.one_in(20) { "nobody" } else { random.of(&AGENTS) };
    let mut id = [0; 10];
    id.fill_with(|| u8::try_from(random.below(256)).unwrap());
    Link { id, agent: agent.into(), servers, tools }
}

fn child(config: &Config, holder: &Principal, link: Link) -> Principal {
    let minted = match &holder.minted {
        Some(before) => {
            let mut minted = (**before).clone();
            minted.links.push(link);
            minted
        }
        None => {
            let key = &config.keys[&**holder.key.as_ref().unwrap()];
            let minting = Minting::compile(key, &At::root(), &mut Problems::new()).unwrap();
            Minted { parent: Arc::new(holder.clone()), binding: minting.binding, links: vec![link], expires: u64::MAX }
        }
    };
    Principal::of_child(minted)
}

/// What a link leaves, as a reader of it would say.
fn leaves(link: &Link, asked: &Asked) -> bool {
    let is_left = link.servers.as_ref().is_none_or(|servers| servers.iter().any(|server| &**server == asked.server));
    match link.tools.iter().find(|(server, _)| &**server == asked.server) {
        None => is_left,
        Some((_, entries)) => match &asked.of {
            Of::Tool(tool, _) => is_left && entries.iter().any(|entry| reference_policy::glob(entry, tool)),
            Of::Prompt(_) | Of::Resource(_) => false,
        },
    }
}

fn agent_permits(config: &Config, link: &Link, asked: &Asked) -> bool {
    let Some(agent) = config.agents.get(&*link.agent) else { return false };
    let Some(server) = config.servers.get(asked.server) else { return false };
    reference_policy::judge(server, agent.servers.get(asked.server), asked) == "permitted"
}

/// Whether a link may be minted, told by what its holder may do.
fn naive_minting(policy: &Policy, config: &Config, holder: &Principal, link: &Link) -> Result<(), NotMinted> {
    // A holder who is nobody any more reaches nothing.
    if holder
        .minted
        .as_ref()
        .is_some_and(|minted| minted.links.iter().any(|link| !config.agents.contains_key(&*link.agent)))
    {
        return Err(NotMinted::NoMinter);
    }
    if !config.agents.contains_key(&*link.agent) {
        return Err(NotMinted::Agent);
    }
    let mut named = link.servers.iter().flatten().chain(link.tools.iter().map(|(server, _)| server));
    if named.any(|server| !policy.reaches(Subject::of(holder), server)) {
        return Err(NotMinted::Server);
    }
    let is_left = |server: &Arc<str>| link.servers.as_ref().is_none_or(|servers| servers.contains(server));
    for (server, entries) in &link.tools {
        let view = policy.view(Subject::of(holder), server);
        let is_hidden = |entry: &Arc<str>| !entry.contains('*') && !view.lists(entry);
        if entries.iter().any(is_hidden) || (!entries.is_empty() && !is_left(server)) {
            return Err(NotMinted::Tool);
        }
    }
    Ok(())
}
