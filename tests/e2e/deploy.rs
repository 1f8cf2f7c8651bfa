//! Do the dashboards and alerts of `deploy/` ask for what a gateway tells?

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::certificates::Authority;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

const PREFIX: &str = "portcullis_";

fn is_of_a_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Every name of a metric in a text; of a histogram, the histogram's.
fn named(text: &str) -> BTreeSet<String> {
    let starts = text.match_indices(PREFIX).map(|(at, _)| at);
    let alone = starts.filter(|at| !text[..*at].ends_with(is_of_a_name));
    alone.map(|at| text[at..].split(|c| !is_of_a_name(c)).next().unwrap_or_default()).map(family).collect()
}

fn family(name: &str) -> String {
    let histogram = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end));
    histogram.unwrap_or(name).to_owned()
}

/// A gateway with a certificate, for there are series about it. What has no series yet is named by the one that counts
/// how often it was refused one.
async fn told() -> BTreeSet<String> {
    let directory = gateway::fresh_directory();
    let authority = Authority::new(&directory, "ca");
    authority.issue("own", "DNS:localhost", 30);
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&format!(
        "[listen.tls]\ncertificates = [{{ cert_file = \"{}\", key_file = \"{}\" }}]\n[servers.open]\nurl = \"{}\"\naccess = \"public\"\n",
        authority.path("own.pem"),
        authority.path("own.key"),
        upstream.url()
    ));
    let text = gateway.metrics().await;
    fs::remove_dir_all(&directory).unwrap();
    named(&text)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_that_dashboards_and_alerts_name_exists() {
    let told = told().await;
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    for (folder, at_least) in [("prometheus", 15), ("grafana", 25)] {
        let mut asked = BTreeSet::new();
        for file in fs::read_dir(deploy.join(folder)).unwrap() {
            asked.append(&mut named(&fs::read_to_string(file.unwrap().path()).unwrap()));
        }
        assert!(asked.len() >= at_least, "{folder} asks for {asked:?}");
        let unknown: Vec<_> = asked.difference(&told).collect();
        assert!(unknown.is_empty(), "{folder} asks for what no gateway tells: {unknown:?}");
    }
}

#[test]
fn names_are_read_as_prometheus_reads_them() {
    let text = "rate(portcullis_a_seconds_bucket{x=\"1\"}[5m]) portcullis:b:rate5m xportcullis_c portcullis_d_total 1";
    let expected = ["portcullis_a_seconds", "portcullis_d_total"].map(str::to_owned);
    assert_eq!(named(text), expected.into_iter().collect());
}
