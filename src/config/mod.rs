//! What does the operator want?
//!
//! Files become one [`model::Config`] of plain values; every mistake on the way has a place and a help. What needs
//! work (patterns, keys, addresses) is built by its owner's `compile`, which reports in the same form.
//! Nothing else reads the configuration.

pub mod mcp_servers;
pub mod model;
pub mod problem;
pub mod secret;
pub mod sources;
pub mod workspaces;

mod access;
pub(crate) mod bounded;
mod certificates;
mod directories;
mod files;
mod front;
mod include;
mod interpolate;
mod issuers;
mod json_tree;
mod known_agents;
mod limit_checks;
mod limits;
mod load;
mod mask;
mod merge;
mod model_servers;
mod money;
mod names;
pub(crate) mod nearest;
mod number;
pub(crate) mod pem;
mod record_checks;
mod schema;
mod sensitive;
mod shape;
mod toml_tree;
mod trail;
mod tree;

pub use known_agents::KNOWN_AGENTS;
pub use known_agents::known_agent;
pub use load::LoadError;
pub use load::Loaded;
pub use load::load;
pub use load::load_and;
pub use load::load_with;
pub use names::ServerNameError;
pub use names::check_names;
pub use names::check_server_name;
pub use record_checks::is_origin;
pub use schema::schema;
