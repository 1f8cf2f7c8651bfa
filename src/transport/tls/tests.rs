//! Names, validity, and mistakes that need no file. What is in files is tested with the real program, in `e2e::tls`.

use super::*;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::sign::CertifiedKey;

use crate::config::model::CertificateFiles;
use crate::config::problem::Severity;

/// A key made for tests alone, and its certificate for `localhost`, valid from 2020 to 2120: DER in base64.
const KEY: &str = include_str!("../../../tests/certificates/localhost.key").trim_ascii();
const CERTIFICATE: &str = include_str!("../../../tests/certificates/localhost.crt").trim_ascii();

const DAY: i64 = 86_400;

fn facts(hosts: &[&str]) -> Certificate {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    Certificate { name: hosts.concat(), not_before: 10 * DAY, not_after: 20 * DAY, sha256: [7; 32], hosts }
}

/// Certificates for these names, and which of them each is.
fn certificates(hosts: &[&[&str]]) -> (ByName, Vec<Arc<CertifiedKey>>) {
    let provider = rustls::crypto::ring::default_provider();
    let loaded: Vec<Loaded> = hosts
        .iter()
        .map(|hosts| {
            let der = STANDARD.decode(CERTIFICATE).unwrap().into();
            let key = STANDARD.decode(KEY).unwrap().try_into().unwrap();
            let key = Arc::new(CertifiedKey::from_der(vec![der], key, &provider).unwrap());
            Loaded { facts: facts(hosts), key }
        })
        .collect();
    let keys = loaded.iter().map(|loaded| Arc::clone(&loaded.key)).collect();
    (ByName::new(loaded), keys)
}

#[test]
fn a_name_finds_its_certificate_and_a_strange_one_the_first() {
    let (by_name, keys) =
        certificates(&[&["first.example"], &["a.example", "*.example"], &["*.deep.example"], &["a.example"], &[]]);
    let found = |name: Option<&str>| -> Vec<usize> {
        let position = |key: &Arc<CertifiedKey>| keys.iter().position(|it| Arc::ptr_eq(it, key)).unwrap();
        by_name.find(name).iter().map(position).collect()
    };
    let table: [(&str, &[usize]); 9] = [
        ("first.example", &[0]),
        ("FIRST.Example", &[0]),
        ("a.example", &[1, 3]),
        ("b.example", &[1]),
        ("x.deep.example", &[2]),
        ("deep.example", &[1]),
        ("x.y.example", &[0]),
        ("example", &[0]),
        ("other.test", &[0]),
    ];
    for (name, expected) in table {
        assert_eq!(found(Some(name)), expected, "{name}");
    }
    assert_eq!(found(None), [0]);
}

#[test]
fn a_certificate_serves_from_its_first_second_to_its_last() {
    let judge = |now: i64, served: &[Certificate]| {
        let mut problems = Problems::new();
        let valid = certificate::is_valid(&facts(&["a.example"]), now, served, &At::root(), &mut problems);
        let told: Vec<_> = problems.iter().map(|problem| (problem.severity, problem.message.clone())).collect();
        (valid, told)
    };
    assert_eq!(judge(10 * DAY, &[]), (true, vec![]));
    assert_eq!(judge(20 * DAY, &[]), (true, vec![]));
    let early = "the certificate of `a.example` is not valid before Jan 11 00:00:00 1970 +00:00";
    assert_eq!(judge(10 * DAY - 1, &[]), (false, vec![(Severity::Error, early.into())]));
    let late = "the certificate of `a.example` expired on Jan 21 00:00:00 1970 +00:00";
    assert_eq!(judge(20 * DAY + 1, &[]), (false, vec![(Severity::Error, late.into())]));
    // Otherwise no key could be taken away on the day on which a certificate was forgotten.
    assert_eq!(judge(20 * DAY + 1, &[facts(&[])]), (true, vec![(Severity::Warning, late.into())]));
}

#[test]
fn what_does_not_fit_together_is_told_without_a_look_at_the_files() {
    let told = |tls: ListenTls| {
        let mut problems = Problems::new();
        check(&tls, &At::root(), &mut problems);
        problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>()
    };
    let one = || vec![CertificateFiles { cert_file: "a".into(), key_file: "b".into() }];
    assert_eq!(told(ListenTls::default()), Vec::<String>::new());
    assert_eq!(told(ListenTls { certificates: one(), ..ListenTls::default() }), Vec::<String>::new());
    for handshake_timeout_ms in [0, HANDSHAKE_MS_MAX + 1] {
        let tls = ListenTls { handshake_timeout_ms, ..ListenTls::default() };
        assert_eq!(told(tls), [format!("`{handshake_timeout_ms}` is out of range")]);
    }
    let tls = ListenTls { certificates: vec![one().remove(0); CERTIFICATES_MAX + 1], ..ListenTls::default() };
    assert_eq!(told(tls), ["more than 1000 certificates"]);
    let tls = ListenTls { certificates: one(), client_auth: ClientAuth::Request, ..ListenTls::default() };
    assert_eq!(told(tls), ["there is nothing to verify client certificates with"]);
    let tls = ListenTls { certificates: one(), client_ca_file: Some("c".into()), ..ListenTls::default() };
    assert_eq!(told(tls), ["clients are not asked for certificates"]);
}
