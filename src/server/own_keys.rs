//! Which keys does the gateway make for itself?
//!
//! One that seals session ids and one that signs checkpoints of the record. They are made at the first start, in the state directory,
//! unless the configuration names others.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::audit;
use crate::audit::evidence::Signing;
use crate::audit::evidence::SigningKey;
use crate::audit::evidence::VerifyingKey;
use crate::config::model::Config;
use crate::disk::replace::replace;
use crate::seal;
use crate::seal::Keyring;
use crate::server::StartError;

/// Name of the file in the state directory that holds the sealing key the gateway made for itself.
const SEAL_KEY_FILE: &str = "seal.key";
/// The same of the key that signs checkpoints.
const AUDIT_KEY_FILE: &str = "audit.key";
/// Name of the file beside it that says what to verify with.
const AUDIT_PUBLIC_FILE: &str = "audit.pub";
/// Name of the file beside it that repeats the newest checkpoint.
const AUDIT_COPY_FILE: &str = "audit.checkpoint";

/// The sealing key in the state directory, made on the first start.
pub(super) fn keyring(state: &Path) -> Result<Keyring, StartError> {
    let path = state.join(SEAL_KEY_FILE);
    let key = own_key(&path)?;
    Keyring::new(vec![key]).map_err(|error| StartError::State { path, error: io::Error::other(error.to_string()) })
}

/// How the record is kept and signed. What it is verified with is written into the state directory.
pub(super) fn audit_settings(config: &Config) -> Result<audit::Settings, StartError> {
    let state = Path::new(&config.state.directory);
    let key = signing_key(config, own_key)?;
    let path = state.join(AUDIT_PUBLIC_FILE);
    let text = format!("{}\n", key.public());
    if std::fs::read_to_string(&path).ok().as_deref() != Some(&*text) {
        let refuse = |error| StartError::State { path: path.clone(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(refuse)?;
        replace(&path, text.as_bytes()).map_err(refuse)?;
    }
    let retention = audit::Retention { days: config.audit.retention_days, bytes_max: config.audit.retention_bytes_max };
    let settings = audit::Settings::new(
        PathBuf::from(&config.audit.directory),
        config.audit.level,
        config.audit.segment_bytes_max,
    );
    let signing = Some(Signing { key: Arc::new(key), copy: state.join(AUDIT_COPY_FILE) });
    Ok(audit::Settings { signing, retention, ..settings })
}

/// What the record of a configuration's gateway is verified with, once that has a key.
///
/// # Errors
/// There is no key yet, or it cannot be read.
pub fn audit_key(config: &Config) -> Result<VerifyingKey, StartError> {
    signing_key(config, existing_key).map(|key| key.public().clone())
}

fn signing_key(
    config: &Config,
    read: impl Fn(&Path) -> Result<[u8; seal::KEY_BYTES], StartError>,
) -> Result<SigningKey, StartError> {
    let own = Path::new(&config.state.directory).join(AUDIT_KEY_FILE);
    let (path, seed) = match &config.audit.key_file {
        Some(path) => (PathBuf::from(path), existing_key(Path::new(path))?),
        None => (own.clone(), read(&own)?),
    };
    let key = SigningKey::from_seed(&seed, config.audit.origin.as_deref());
    key.ok_or_else(|| StartError::State { path, error: io::Error::other("it cannot sign") })
}

/// The key in a file, which is made if it is missing.
fn own_key(path: &Path) -> Result<[u8; seal::KEY_BYTES], StartError> {
    let refuse = |error: io::Error| StartError::State { path: path.to_owned(), error };
    if !path.exists() {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(refuse)?;
        }
        let key = seal::generate_key().map_err(|error| refuse(io::Error::other(error.to_string())))?;
        replace(path, seal::key_text(&key).expose().as_bytes()).map_err(refuse)?;
    }
    existing_key(path)
}

fn existing_key(path: &Path) -> Result<[u8; seal::KEY_BYTES], StartError> {
    let refuse = |error: io::Error| StartError::State { path: path.to_owned(), error };
    let text = std::fs::read_to_string(path).map_err(refuse)?;
    seal::parse_key(text.trim()).map_err(|error| refuse(io::Error::other(error.to_string())))
}
