//! What is HMAC-SHA-256?
//!
//! RFC 2104 over the hash that is in the tree anyway, for keys of one length.

use secrecy::zeroize::Zeroizing;
use sha2::Digest;
use sha2::Sha256;

use crate::seal::KEY_BYTES;

/// Bytes that the hash takes in at once.
const BLOCK_BYTES: usize = 64;

/// The code of `parts`, one after the other, under `key`.
pub(super) fn hmac_sha256(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> [u8; 32] {
    let mut inner = Sha256::new();
    inner.update(*padded(key, 0x36));
    parts.iter().for_each(|part| inner.update(part));
    let mut outer = Sha256::new();
    outer.update(*padded(key, 0x5c));
    outer.update(inner.finalize());
    outer.finalize().into()
}

/// The key at a block's length, every byte mixed with `pad`.
fn padded(key: &[u8; KEY_BYTES], pad: u8) -> Zeroizing<[u8; BLOCK_BYTES]> {
    let mut block = Zeroizing::new([pad; BLOCK_BYTES]);
    block.iter_mut().zip(key).for_each(|(to, from)| *to ^= from);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code in hexadecimal, under a key that is filled up with zeros as HMAC does itself.
    fn code(key: &[u8], parts: &[&[u8]]) -> String {
        let mut filled = [0; KEY_BYTES];
        filled[..key.len()].copy_from_slice(key);
        hmac_sha256(&filled, parts).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_vectors_of_rfc_4231_hold() {
        let counting: Vec<u8> = (1..=25).collect();
        for (key, text, expected) in [
            (&[0x0b; 20][..], &b"Hi There"[..], "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            (&counting, &[0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        ] {
            assert_eq!(code(key, &[text]), expected);
            let (head, tail) = text.split_at(3);
            assert_eq!(code(key, &[head, b"", tail]), expected);
        }
    }
}
