//! What stands in the certificate files that servers name?
//!
//! Read with the configuration, so that a file that changed is a configuration that changed. What the texts mean is for
//! their owner to find out.

use std::path::Path;

use crate::config::files::File;
use crate::config::model::Config;
use crate::config::pem;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::config::sources::Sources;

/// Reads every such file; a relative path starts at the file it stands in.
pub(crate) fn read(config: &mut Config, sources: &Sources, problems: &mut Problems) {
    for (name, server) in &mut config.servers {
        let at = At::entry("servers", name).key("tls");
        let beside = |at: &At, path: &str| {
            let base = sources.file_of(at).map(File::directory).unwrap_or_default();
            base.join(Path::new(path))
        };
        let mut text = |key: &str, path: Option<&String>| {
            let (path, at) = (path?, at.key(key));
            pem::text(&beside(&at, path), path, &at, problems)
        };
        let tls = &mut server.tls;
        tls.ca = text("ca_file", tls.ca_file.as_ref());
        tls.client_cert = text("client_cert_file", tls.client_cert_file.as_ref());
        let at = at.key("client_key_file");
        let key = tls.client_key_file.as_ref();
        tls.client_key = key.and_then(|path| pem::secret(&beside(&at, path), path, &at, problems));
    }
}
