//! Do the seeds of the fuzz targets, and what is one or two strokes away from them, keep the rules?
//!
//! The same functions as in `fuzz/`, without a fuzzer: whatever a fuzzer finds is kept as a seed and stays found.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;

use portcullis::mcp;
use portcullis::policy;
use portcullis::server;
use portcullis::session;
use portcullis::transport;

/// A target: its name, what must hold, and how many variations of each seed are tried.
type Target = (&'static str, fn(&[u8]), u64);

const TARGETS: [Target; 11] = [
    ("front", transport::fuzzing::front, 400),
    ("head", transport::fuzzing::head, 400),
    ("chunks", transport::fuzzing::chunks, 400),
    ("scan", mcp::fuzzing::scan, 400),
    ("sse", mcp::fuzzing::sse, 400),
    ("headers", mcp::fuzzing::headers, 400),
    ("arguments", mcp::fuzzing::arguments, 400),
    ("lists", mcp::fuzzing::lists, 400),
    ("token", session::fuzzing::token, 100),
    ("uri", policy::fuzzing::uri, 400),
    ("configuration", server::fuzzing::configuration, 10),
];

/// Every seed of a target, with what it must hold in order to fail.
#[track_caller]
fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 8, "{target} has {} seeds", seeds.len());
    seeds
}

/// A sequence of numbers that looks random and is the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }
}

/// Bytes that parsers are sensitive to.
const SHARP: &[u8] = b"\r\n\0\t :;,\"\\{}[]%/.?#=+-0159aAfFxX\x7f\x80\xc3\xff";

/// A seed with one to three changes: a byte put in, taken out or replaced, a piece doubled, or the end cut off.
fn varied(seed: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(bytes.len());
        let sharp = SHARP[numbers.below(SHARP.len())];
        match numbers.below(6) {
            0 => bytes.insert(at, sharp),
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            2 if !bytes.is_empty() => bytes[at] = sharp,
            3 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
            4 => {
                let end = at + numbers.below(bytes.len() - at + 1);
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

#[test]
fn seeds_and_their_variations_keep_the_rules() {
    for (target, check, variations) in TARGETS {
        let hold = |what: &str, input: &[u8]| {
            let held = catch_unwind(AssertUnwindSafe(|| check(input)));
            assert!(
                held.is_ok(),
                "{target}, {what}: keep this as a seed and mend it: {:?}",
                String::from_utf8_lossy(input)
            );
        };
        for (path, seed) in seeds(target) {
            hold(&path.display().to_string(), &seed);
            let mut numbers = Numbers(seed.len() as u64 + 1);
            for variation in 0..variations {
                hold(&format!("variation {variation} of {}", path.display()), &varied(&seed, &mut numbers));
            }
        }
    }
}

#[test]
fn every_target_has_seeds_and_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut targets: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    targets.sort();
    let mut replayed: Vec<&str> = TARGETS.iter().map(|(target, ..)| *target).collect();
    replayed.sort_unstable();
    assert_eq!(targets, replayed);
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).unwrap();
    for target in &targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
    }
}

#[test]
fn a_rule_that_is_broken_is_noticed() {
    let broken = |input: &[u8]| assert!(!input.contains(&0));
    assert!(catch_unwind(|| broken(b"a\0")).is_err() && catch_unwind(|| broken(b"a")).is_ok());
    let mut numbers = Numbers(1);
    let variations: Vec<Vec<u8>> = (0..100).map(|_| varied(b"GET / HTTP/1.1\r\n", &mut numbers)).collect();
    assert!(variations.iter().filter(|variation| variation.as_slice() != b"GET / HTTP/1.1\r\n").count() > 80);
    assert!(variations.iter().any(|variation| variation.len() > 16) && variations.iter().any(Vec::is_empty));
}
