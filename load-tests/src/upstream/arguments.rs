//! What does a message say, as far as the upstream looks?
//!
//! One pass, nothing copied that is not escaped.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A message of a client.
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) method: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) params: Option<Params<'a>>,
}

/// Parameters of a message.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Params<'a> {
    #[serde(borrow, default)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) arguments: Option<&'a RawValue>,
    #[serde(borrow, rename = "_meta")]
    pub(super) meta: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "protocolVersion")]
    pub(super) protocol_version: Cow<'a, str>,
}

/// What of the arguments changes the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Arguments<'a> {
    pub(super) bytes: Option<usize>,
    pub(super) ms: Option<u64>,
    pub(super) events: Option<usize>,
    pub(super) spacing_ms: Option<u64>,
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
}

impl Params<'_> {
    /// The arguments; what cannot be read counts as absent.
    pub(super) fn arguments(&self) -> Arguments<'_> {
        self.arguments.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }

    /// The token that progress is told under, as it was written.
    pub(super) fn progress_token(&self) -> &str {
        #[derive(Deserialize)]
        struct Meta<'a> {
            #[serde(borrow, rename = "progressToken")]
            token: Option<&'a RawValue>,
        }
        let meta: Option<Meta<'_>> = self.meta.and_then(|raw| serde_json::from_str(raw.get()).ok());
        meta.and_then(|meta| meta.token).map_or("0", RawValue::get)
    }

    /// Whether the message is of the modern era.
    pub(super) fn is_modern(&self) -> bool {
        self.meta.is_some_and(|meta| meta.get().contains("io.modelcontextprotocol/protocolVersion"))
    }
}
