//! What stands in the certificate files that servers name?
//!
//! Read with the configuration, so that a file that changed is a configuration that changed. What the texts mean is for
//! their owner to find out.

use std::path::Path;

use crate::config::bounded::read_regular;
use crate::config::files::File;
use crate::config::model::Config;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::config::secret::Secret;
use crate::config::sources::Sources;

/// Bytes of one file of certificates.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Reads every such file; a relative path starts at the file it stands in.
pub(crate) fn read(config: &mut Config, sources: &Sources, problems: &mut Problems) {
    for (name, server) in &mut config.servers {
        let at = At::root().key("servers").key(name).key("tls");
        let mut text = |key: &str, path: Option<&String>| {
            let (path, at) = (path?, at.key(key));
            let base = sources.file_of(&at).map(File::directory).unwrap_or_default();
            let read = read_regular(&base.join(Path::new(path)), FILE_BYTES_MAX);
            let reported = read.map_err(|error| {
                let help = "write the path of a PEM file; a relative one starts at the file it stands in";
                problems.error(&at, format!("cannot read `{path}`: {error}"), help);
            });
            reported.ok()
        };
        let tls = &mut server.tls;
        tls.ca = text("ca_file", tls.ca_file.as_ref());
        tls.client_cert = text("client_cert_file", tls.client_cert_file.as_ref());
        tls.client_key = text("client_key_file", tls.client_key_file.as_ref()).map(Secret::new);
    }
}
