//! Who says that the tree has this root?
//!
//! Checkpoints are signed notes as in c2sp.org/signed-note and c2sp.org/tlog-checkpoint: three lines of text (origin, size,
//! root), an empty one, and a line with an Ed25519 signature. The key's name is the log's origin.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::ED25519;
use ring::signature::Ed25519KeyPair;
use ring::signature::KeyPair as _;
use ring::signature::UnparsedPublicKey;
use sha2::Digest as _;
use sha2::Sha256;

use crate::audit::evidence::merkle::Hash;
use crate::config;

/// Bytes of a note; ours stay far below.
pub(super) const NOTE_BYTES_MAX: usize = 64 * 1024;
/// The byte by which a key says that it is of Ed25519.
const ALGORITHM: u8 = 1;
/// What begins a line with a signature.
pub(super) const SIGNATURE: &str = "— ";

/// A tree as it was at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the log.
    pub origin: String,
    /// Records in it.
    pub size: u64,
    /// The tree's hash.
    pub root: Hash,
}

impl Checkpoint {
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// What a note says, whoever signed it.
    pub(super) fn unverified(note: &str) -> Option<Self> {
        note.rfind("\n\n").and_then(|end| note.get(..=end)).and_then(Self::read)
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let number: u64 = size.parse().ok()?;
        let is_whole = !origin.is_empty() && number.to_string() == size && lines.all(|line| !line.is_empty());
        let root = STANDARD.decode(root).ok()?.try_into().ok()?;
        is_whole.then(|| Self { origin: origin.to_owned(), size: number, root })
    }
}

/// Why a note is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadNote {
    /// It does not have the form.
    #[error("it does not have the form of what the gateway signs")]
    Form,
    /// It is of another log, or signed by others only.
    #[error("it is not signed by this key")]
    Unsigned,
    /// Somebody changed it.
    #[error("its signature is wrong")]
    Forged,
}

/// A key that signs; it never leaves the gateway.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: VerifyingKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

impl SigningKey {
    /// The key of this seed for the log of this name; without a name, one that follows from the key.
    pub fn from_seed(seed: &[u8; 32], origin: Option<&str>) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().ok()?;
        let origin = match origin {
            Some(origin) => origin.to_owned(),
            None => {
                let digest: [u8; 32] = Sha256::digest(public).into();
                format!("portcullis/{:016x}", u64::from_be_bytes(*digest.first_chunk()?))
            }
        };
        Some(Self { pair, public: VerifyingKey::new(&origin, public)? })
    }

    /// What others verify with.
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// The signed note that says of the log of this key that it has this root.
    pub fn sign(&self, size: u64, root: &Hash) -> String {
        self.sign_text(&Checkpoint { origin: self.public.name.clone(), size, root: *root }.text())
    }

    /// The signed note of a text: whole lines, none of them empty, that nobody can take for those of another kind of note.
    pub(super) fn sign_text(&self, text: &str) -> String {
        let signature = self.pair.sign(text.as_bytes());
        let signed: Vec<u8> = self.public.id().into_iter().chain(signature.as_ref().iter().copied()).collect();
        format!("{text}\n{SIGNATURE}{} {}\n", self.public.name, STANDARD.encode(signed))
    }
}

/// A key that checkpoints are verified with. Its text is the `vkey` that other verifiers of notes take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    name: String,
    public: [u8; 32],
}

impl VerifyingKey {
    /// The key of this name, which is the origin of what it signs: one that has no space, no `+` and nothing that is not printable.
    pub fn new(name: &str, public: [u8; 32]) -> Option<Self> {
        config::is_origin(name).then(|| Self { name: name.to_owned(), public })
    }

    /// The key's name, and the origin of its log.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn typed(&self) -> [u8; 33] {
        let mut typed = [ALGORITHM; 33];
        typed.iter_mut().skip(1).zip(self.public).for_each(|(to, from)| *to = from);
        typed
    }

    fn id(&self) -> [u8; 4] {
        let digest = Sha256::new().chain_update(&self.name).chain_update(b"\n").chain_update(self.typed()).finalize();
        digest.first_chunk().copied().unwrap_or_default()
    }

    /// The checkpoint in a note, if this key signed it. Signatures of others are let be.
    ///
    /// # Errors
    /// See [`BadNote`].
    pub fn open(&self, note: &str) -> Result<Checkpoint, BadNote> {
        let checkpoint = Checkpoint::read(self.open_text(note)?).ok_or(BadNote::Form)?;
        if checkpoint.origin == self.name { Ok(checkpoint) } else { Err(BadNote::Unsigned) }
    }

    /// The text of a note, if this key signed it.
    pub(super) fn open_text<'n>(&self, note: &'n str) -> Result<&'n str, BadNote> {
        let is_text = note.len() <= NOTE_BYTES_MAX && note.chars().all(|char| char == '\n' || char >= ' ');
        let (text, signatures) = note
            .rfind("\n\n")
            .and_then(|end| note.split_at_checked(end + 1))
            .filter(|_| is_text)
            .ok_or(BadNote::Form)?;
        let lines = signatures.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n')).ok_or(BadNote::Form)?;
        let mut is_signed = false;
        for line in lines.split('\n') {
            let (name, signature) =
                line.strip_prefix(SIGNATURE).and_then(|line| line.split_once(' ')).ok_or(BadNote::Form)?;
            let bytes = STANDARD.decode(signature).map_err(|_| BadNote::Form)?;
            let (id, signature) = bytes.split_first_chunk().ok_or(BadNote::Form)?;
            if name == self.name && *id == self.id() {
                let key = UnparsedPublicKey::new(&ED25519, self.public);
                key.verify(text.as_bytes(), signature).map_err(|_| BadNote::Forged)?;
                is_signed = true;
            }
        }
        if is_signed { Ok(text) } else { Err(BadNote::Unsigned) }
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id()), STANDARD.encode(self.typed()))
    }
}

/// The text is no key, or of a kind that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no key for checkpoints: those look like `name+01234567+base64`")]
pub struct BadVerifyingKey;

impl FromStr for VerifyingKey {
    type Err = BadVerifyingKey;

    fn from_str(text: &str) -> Result<Self, BadVerifyingKey> {
        let text = text.trim();
        let read = || {
            let (name, rest) = text.split_once('+')?;
            let (_, typed) = rest.split_once('+')?;
            let typed: [u8; 33] = STANDARD.decode(typed).ok()?.try_into().ok()?;
            let key = Self::new(name, typed.last_chunk().copied()?)?;
            // Also says that the id and the kind are right.
            (key.to_string() == text).then_some(key)
        };
        read().ok_or(BadVerifyingKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32], Some("example.com/log")).unwrap()
    }

    #[test]
    fn the_example_of_the_format_is_read() {
        // A note and a key that the specification's reference implementation made.
        let key: VerifyingKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
        assert_eq!(key.name(), "PeterNeumann");
        let note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\
            — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        // The signature holds, the text is no checkpoint.
        assert_eq!(key.open(note), Err(BadNote::Form));
        assert_eq!(key.open(&note.replace("answer", "Answer")), Err(BadNote::Forged));
    }

    #[test]
    fn what_is_signed_reads_back_and_names_its_log() {
        let key = key();
        let note = key.sign(17, &[3; 32]);
        let lines: Vec<&str> = note.lines().collect();
        assert_eq!(lines[..4], ["example.com/log", "17", "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=", ""]);
        assert_eq!(lines.len(), 5);
        let checkpoint = key.public().open(&note).unwrap();
        assert_eq!((checkpoint.size, checkpoint.root, &*checkpoint.origin), (17, [3; 32], "example.com/log"));
        assert_eq!(key.public().to_string().parse(), Ok(key.public().clone()));
        let own = SigningKey::from_seed(&[7; 32], None).unwrap();
        assert!(own.public().name().starts_with("portcullis/"), "{}", own.public());
        assert_eq!(own.public().open(&note), Err(BadNote::Unsigned));
        assert!(!format!("{key:?}").contains(&STANDARD.encode([7; 32])));
    }

    #[test]
    fn a_signature_of_somebody_else_neither_helps_nor_hurts() {
        let (key, other) = (key(), SigningKey::from_seed(&[8; 32], Some("witness")).unwrap());
        let note = key.sign(1, &[0; 32]);
        let witnessed = format!("{note}{}", other.sign(1, &[0; 32]).lines().last().unwrap().to_owned() + "\n");
        assert!(key.public().open(&witnessed).is_ok());
        assert_eq!(other.public().open(&witnessed), Err(BadNote::Forged), "it signed another text");
        assert_eq!(other.public().open(&note), Err(BadNote::Unsigned));
    }

    #[test]
    fn any_bit_that_is_flipped_is_found() {
        let key = key();
        let note = key.sign(123_456, &[0xa5; 32]).into_bytes();
        for bit in 0..note.len() * 8 {
            let mut bad = note.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let opened = std::str::from_utf8(&bad).ok().and_then(|note| key.public().open(note).ok());
            assert_eq!(opened, None, "bit {bit}");
        }
        let long = format!("{}{}", key.sign(1, &[0; 32]), "— a AAAAAAAA\n".repeat(NOTE_BYTES_MAX / 10));
        assert_eq!(key.public().open(&long), Err(BadNote::Form), "too long, whatever is signed in it");
        for cut in 0..note.len() {
            let opened = std::str::from_utf8(&note[..cut]).ok().and_then(|note| key.public().open(note).ok());
            assert_eq!(opened, None, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let good = key().public().to_string();
        for bad in
            ["", "a", "a+b+c", "a b+00000000+AAAA", &good.replace("+", "-"), &good.replace("log+", "lag+"), &good[1..]]
        {
            assert_eq!(bad.parse::<VerifyingKey>(), Err(BadVerifyingKey), "{bad}");
        }
        assert!(SigningKey::from_seed(&[7; 32], Some("a b")).is_none());
        assert!(SigningKey::from_seed(&[7; 32], Some(&"a".repeat(129))).is_none());
    }
}
