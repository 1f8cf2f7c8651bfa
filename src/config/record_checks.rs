//! Can the record be kept and signed as it is written?

use crate::config::model::Config;
use crate::config::problem::At;
use crate::config::problem::Problems;

/// Bytes of a log's name.
const ORIGIN_BYTES_MAX: usize = 128;

/// Whether a log can have this name in its checkpoints.
pub fn is_origin(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'+';
    !name.is_empty() && name.len() <= ORIGIN_BYTES_MAX && name.bytes().all(is_plain)
}

/// Reports what is wrong with how the record is signed and how long it is kept.
pub(crate) fn check(config: &Config, problems: &mut Problems) {
    let at = At::root().key("audit");
    if let Some(origin) = config.audit.origin.as_deref().filter(|origin| !is_origin(origin)) {
        problems.error(
            &at.key("origin"),
            format!("`{origin}` cannot be a log's name"),
            "write up to 128 printable ASCII characters without spaces and `+`, such as `gateway-1.example/audit`",
        );
    }
    let kept =
        [("retention_days", config.audit.retention_days), ("retention_bytes_max", config.audit.retention_bytes_max)];
    for (key, _) in kept.into_iter().filter(|(_, value)| *value == Some(0)) {
        problems.error(&at.key(key), "no record would be kept", "write at least 1, or leave the key out");
    }
}
