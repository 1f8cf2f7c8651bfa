//! How is a child written into its text?
//!
//! `version | binding (16 bytes) | expires (8) | links (1)`, and for each link `id (10) | agent | servers | tools`: servers are a byte that says
//! whether any are named, their number and their names; tools are the number of servers, and for each its name, a number and so many
//! names. Nothing may follow: one child has one encoding.

use std::sync::Arc;

use crate::principal::Binding;
use crate::principal::Link;
use crate::principal::Minted;
use crate::seal::pack::Reader;
use crate::seal::pack::put_text;

const VERSION: u8 = 1;

/// What a child says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) binding: Binding,
    pub(super) links: Vec<Link>,
    pub(super) expires: u64,
}

/// The bytes of `minted`; `None` where there is more of something than can be written.
pub(super) fn encode(minted: &Minted) -> Option<Vec<u8>> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&minted.binding);
    bytes.extend_from_slice(&minted.expires.to_be_bytes());
    bytes.push(count(minted.links.len())?);
    for link in &minted.links {
        bytes.extend_from_slice(&link.id);
        put_text(&mut bytes, &link.agent);
        match &link.servers {
            None => bytes.push(0),
            Some(servers) => {
                bytes.push(1);
                put_texts(&mut bytes, servers)?;
            }
        }
        bytes.push(count(link.tools.len())?);
        for (server, tools) in &link.tools {
            put_text(&mut bytes, server);
            put_texts(&mut bytes, tools)?;
        }
    }
    Some(bytes)
}

fn count(count: usize) -> Option<u8> {
    u8::try_from(count).ok()
}

fn put_texts(bytes: &mut Vec<u8>, texts: &[Arc<str>]) -> Option<()> {
    bytes.push(count(texts.len())?);
    texts.iter().for_each(|text| put_text(bytes, text));
    Some(())
}

/// What was encoded; `None` unless every byte is accounted for.
pub(super) fn decode(bytes: &[u8]) -> Option<Told> {
    let mut reader = Reader(bytes);
    if reader.byte()? != VERSION {
        return None;
    }
    let (binding, expires) = (reader.array()?, u64::from_be_bytes(reader.array()?));
    let links = (0..reader.byte()?).map(|_| link(&mut reader)).collect::<Option<Vec<_>>>()?;
    (reader.is_at_end() && !links.is_empty()).then_some(Told { binding, links, expires })
}

fn link(reader: &mut Reader<'_>) -> Option<Link> {
    let (id, agent) = (reader.array()?, reader.text()?.into());
    let servers = match reader.byte()? {
        0 => None,
        1 => Some(texts(reader)?),
        _ => return None,
    };
    let tools =
        (0..reader.byte()?).map(|_| Some((reader.text()?.into(), texts(reader)?))).collect::<Option<Vec<_>>>()?;
    Some(Link { id, agent, servers, tools })
}

fn texts(reader: &mut Reader<'_>) -> Option<Vec<Arc<str>>> {
    (0..reader.byte()?).map(|_| reader.text().map(Arc::from)).collect()
}
