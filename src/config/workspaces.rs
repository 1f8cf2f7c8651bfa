//! To which workspace does a name belong?
//!
//! What stands at the top of the configuration is the workspace `default`. Once read, everything stands there, under a name that
//! says where it belongs: `acme/github` is the server `github` of workspace `acme`, `github` that of `default`. What is named
//! inside a workspace is named so as well, so that nothing in one can mean anything in another, and nobody behind this module
//! need know of workspaces to keep them apart.

use std::collections::BTreeMap;

use crate::config::access::GrantsMut;
use crate::config::model::Access;
use crate::config::model::Config;
use crate::config::model::Server;
use crate::config::model::Workspace;
use crate::config::names::check_workspace_name;
use crate::config::problem::At;
use crate::config::problem::Problems;

/// The workspace of what stands at the top, and of callers who show nothing.
pub const DEFAULT: &str = "default";
/// Workspaces of one configuration.
pub const WORKSPACES_MAX: usize = 1_000;

/// The name by which the whole configuration knows what is called `name` in a workspace; `None`: in `default`.
pub fn qualified(workspace: Option<&str>, name: &str) -> String {
    match workspace {
        Some(workspace) => format!("{workspace}/{name}"),
        // A user may be called so, and must not be taken for another workspace's.
        None if name.contains('/') => format!("{DEFAULT}/{name}"),
        None => name.to_owned(),
    }
}

/// The workspace that a qualified name says, `None` for `default`, and what is called so there.
pub fn split(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((DEFAULT, bare)) => (None, bare),
        Some((workspace, bare)) => (Some(workspace), bare),
        None => (None, name),
    }
}

/// What a qualified name is called in its workspace.
pub fn bare(name: &str) -> &str {
    split(name).1
}

/// Brings everything to the top, under qualified names. Of `workspaces` the names remain.
pub fn join(config: &mut Config, problems: &mut Problems) {
    let at = At::root().key("workspaces");
    if config.workspaces.len() > WORKSPACES_MAX {
        let message = format!("{} workspaces, and at most {WORKSPACES_MAX} are possible", config.workspaces.len());
        problems.error(&at, message, "remove what is no longer used");
    }
    let mut joined = Workspace::default();
    let top = Workspace {
        servers: std::mem::take(&mut config.servers),
        keys: std::mem::take(&mut config.keys),
        teams: std::mem::take(&mut config.teams),
        organisations: std::mem::take(&mut config.organisations),
        users: std::mem::take(&mut config.users),
        agents: std::mem::take(&mut config.agents),
        toolsets: std::mem::take(&mut config.toolsets),
    };
    Scope(None).join(top, &mut joined);
    for (name, workspace) in &mut config.workspaces {
        // What is in a workspace that cannot be is reported once it can.
        if check_workspace_name(name, &at.key(name), problems) {
            check_public(&workspace.servers, &at.key(name).key("servers"), problems);
            Scope(Some(name)).join(std::mem::take(workspace), &mut joined);
        }
    }
    config.servers = joined.servers;
    config.keys = joined.keys;
    config.teams = joined.teams;
    config.organisations = joined.organisations;
    config.users = joined.users;
    config.agents = joined.agents;
    config.toolsets = joined.toolsets;
}

/// Callers without credentials are in `default`: nobody would come in.
fn check_public(servers: &BTreeMap<String, Server>, at: &At, problems: &mut Problems) {
    for (name, _) in servers.iter().filter(|(_, server)| server.access == Access::Public) {
        problems.error(
            &at.key(name).key("access"),
            "callers without credentials are in the workspace `default`, and cannot come here",
            "move the server to the top level, or grant it to somebody",
        );
    }
}

/// The workspace within which names are meant.
struct Scope<'w>(Option<&'w str>);

impl Scope<'_> {
    fn join(&self, from: Workspace, into: &mut Workspace) {
        self.entries(from.servers, &mut into.servers, |server| {
            server.alias.iter_mut().for_each(|alias| self.name(alias));
            self.names(Some(&mut server.access_groups));
            self.names(server.allowed_users.as_mut());
            self.names(server.allowed_agents.as_mut());
            self.names(Some(&mut server.blocked_agents));
        });
        self.entries(from.keys, &mut into.keys, |key| {
            self.level(key.grants_mut());
            let owners = [&mut key.team, &mut key.organisation, &mut key.user, &mut key.agent];
            owners.into_iter().flatten().for_each(|owner| self.name(owner));
            self.tables(&mut key.mcp_rpm_limit);
            self.names(key.children.agents.as_mut());
        });
        self.entries(from.teams, &mut into.teams, |team| {
            self.level(team.grants_mut());
            team.organisation.iter_mut().for_each(|organisation| self.name(organisation));
            self.tables(&mut team.mcp_rpm_limit);
        });
        self.entries(from.organisations, &mut into.organisations, |organisation| self.level(organisation.grants_mut()));
        self.entries(from.users, &mut into.users, |user| self.level(user.grants_mut()));
        self.entries(from.agents, &mut into.agents, |agent| {
            self.level(agent.grants_mut());
            self.tables(&mut agent.servers);
        });
        self.entries(from.toolsets, &mut into.toolsets, |toolset| self.tables(&mut toolset.tools));
    }

    fn entries<T>(&self, from: BTreeMap<String, T>, into: &mut BTreeMap<String, T>, mut each: impl FnMut(&mut T)) {
        into.extend(from.into_iter().map(|(name, mut entry)| {
            each(&mut entry);
            (qualified(self.0, &name), entry)
        }));
    }

    fn level(&self, grants: GrantsMut<'_>) {
        // `*` means all servers that the caller's workspace has; policy sees to that.
        let named = grants.servers.into_iter().flatten().filter(|name| *name != "*");
        named.for_each(|name| self.name(name));
        self.names(grants.access_groups);
        self.names(grants.toolsets);
        self.tables(grants.tool_permissions);
    }

    fn names(&self, names: Option<&mut Vec<String>>) {
        names.into_iter().flatten().for_each(|name| self.name(name));
    }

    fn name(&self, name: &mut String) {
        if self.0.is_some() || name.contains('/') {
            *name = qualified(self.0, name);
        }
    }

    fn tables<T>(&self, tables: &mut BTreeMap<String, T>) {
        let from = std::mem::take(tables);
        self.entries(from, tables, |_| ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_one_workspace_is_one_of_another() {
        for (workspace, name) in [
            (None, "a"),
            (None, "acme/a"),
            (None, "default/a"),
            (None, "/a"),
            (Some("acme"), "a"),
            (Some("acme"), "b/c"),
        ] {
            assert_eq!(split(&qualified(workspace, name)), (workspace, name));
        }
        assert_eq!((bare("acme/a"), bare("a"), bare("default/acme/a")), ("a", "a", "acme/a"));
    }

    #[test]
    fn there_is_a_limit_to_workspaces() {
        let found = |count: usize| {
            let workspaces = (0..count).map(|index| (format!("w{index}"), Workspace::default())).collect();
            let mut problems = Problems::new();
            join(&mut Config { workspaces, ..Config::default() }, &mut problems);
            problems.has_errors()
        };
        assert!(!found(WORKSPACES_MAX));
        assert!(found(WORKSPACES_MAX + 1));
    }
}
