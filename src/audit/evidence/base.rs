//! What stands for the records that retention removed?
//!
//! The file `base` in the audit directory: how many they were, the last one's number and digest, and the complete trees
//! over them. Nobody need believe it: with a wrong one no later root comes out, and a record of kind `removed` must bear it out.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use crate::audit::chain::Tip;
use crate::audit::evidence::merkle::Frontier;
use crate::audit::evidence::merkle::Hash;
use crate::disk::replace::replace;

/// Name of the file.
const FILE: &str = "base";

/// Where what is kept of a log begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::audit) struct Base {
    /// Records removed.
    pub(in crate::audit) leaves: u64,
    /// The last of them.
    pub(in crate::audit) tip: Tip,
    /// The complete trees over them.
    pub(in crate::audit) nodes: Vec<Hash>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    leaves: u64,
    seq: u64,
    prev: String,
    nodes: Vec<String>,
}

impl Base {
    /// What an audit directory's file says; `None` where nothing was removed.
    pub(super) fn read(audit: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(audit.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the file `base` cannot be understood");
        let read = || {
            let written: Written = serde_json::from_str(&text).ok()?;
            let nodes = written.nodes.iter().map(|node| hash(node)).collect::<Option<Vec<Hash>>>()?;
            let base =
                Self { leaves: written.leaves, tip: Tip { seq: written.seq, hash: hash(&written.prev)? }, nodes };
            base.frontier().map(|_| base)
        };
        read().map(Some).ok_or_else(bad)
    }

    /// Puts it in place of the last.
    pub(in crate::audit) fn write(&self, audit: &Path) -> io::Result<()> {
        let written = Written {
            leaves: self.leaves,
            seq: self.tip.seq,
            prev: hex(&self.tip.hash),
            nodes: self.nodes.iter().map(hex).collect(),
        };
        let mut text = serde_json::to_string(&written)?;
        text.push('\n');
        replace(&audit.join(FILE), text.as_bytes())
    }

    pub(super) fn frontier(&self) -> Option<Frontier> {
        Frontier::new(self.leaves, self.nodes.clone())
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash(text: &str) -> Option<Hash> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|pair| {
            let digits = std::str::from_utf8(pair).ok()?;
            // Upper case would be a second way to write the same.
            let is_lower = pair.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
            u8::from_str_radix(digits, 16).ok().filter(|_| is_lower)
        })
        .collect();
    bytes.filter(|_| rest.is_empty())?.try_into().ok()
}
