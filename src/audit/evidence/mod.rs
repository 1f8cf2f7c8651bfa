//! Can somebody else see that the record is the one that was kept?
//!
//! Over the lines stands a Merkle tree, and a key signs its root at least once a second. Whoever has the public key and one
//! checkpoint finds out any change of what came before it, without trusting the gateway's machine. Forms are in docs/audit.md.

mod base;
mod checkpoints;
mod find;
mod grow;
mod merkle;
mod nodes;
mod notary;
mod note;
mod proof;
mod read;
mod retain;
mod verify;
mod walk;

#[cfg(test)]
pub(super) use crate::audit::evidence::base::Base;
pub use crate::audit::evidence::find::Place;
pub use crate::audit::evidence::find::find;
#[cfg(test)]
pub(super) use crate::audit::evidence::merkle::Frontier;
pub use crate::audit::evidence::merkle::Hash;
#[cfg(test)]
pub(super) use crate::audit::evidence::merkle::leaf_hash;
pub(super) use crate::audit::evidence::nodes::forget_attempts;
pub use crate::audit::evidence::notary::CHECKPOINT_RECORDS_MAX;
pub(super) use crate::audit::evidence::notary::Notary;
#[cfg(test)]
pub(super) use crate::audit::evidence::notary::ROUND_RECORDS_MAX;
pub(super) use crate::audit::evidence::notary::SignedTo;
pub use crate::audit::evidence::notary::Signing;
pub use crate::audit::evidence::notary::SigningError;
pub use crate::audit::evidence::note::BadNote;
pub use crate::audit::evidence::note::BadVerifyingKey;
pub use crate::audit::evidence::note::Checkpoint;
pub use crate::audit::evidence::note::SigningKey;
pub use crate::audit::evidence::note::VerifyingKey;
pub use crate::audit::evidence::proof::BadProof;
pub use crate::audit::evidence::proof::NoProof;
pub use crate::audit::evidence::proof::Proved;
pub use crate::audit::evidence::proof::check_proof;
pub use crate::audit::evidence::proof::prove_continued;
pub use crate::audit::evidence::proof::prove_record;
pub use crate::audit::evidence::read::Period;
pub use crate::audit::evidence::read::Reader;
pub(super) use crate::audit::evidence::retain::Removal;
pub use crate::audit::evidence::verify::Fault;
pub use crate::audit::evidence::verify::Known;
pub use crate::audit::evidence::verify::Report;
pub use crate::audit::evidence::verify::verify;
pub use crate::audit::evidence::verify::verify_allowing;
pub use crate::audit::evidence::walk::Verified;
pub use crate::audit::evidence::walk::removed;
pub(super) use crate::audit::evidence::walk::start;
pub use crate::audit::evidence::walk::verify_chain;
