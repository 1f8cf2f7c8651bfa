//! Where do the directories and files lie that the gateway uses itself?

use std::path::Path;

use crate::config::files::File;
use crate::config::model::Config;
use crate::config::problem::At;
use crate::config::sources::Sources;

/// Makes the paths absolute: a relative one starts at the file it stands in, a default at the main file.
pub(crate) fn anchor(config: &mut Config, sources: &Sources) {
    let anchored = |at: &At, path: &str| {
        let base = sources.file_of(at).map(File::directory).unwrap_or_default();
        let joined = base.join(Path::new(path));
        std::path::absolute(&joined).unwrap_or(joined).to_string_lossy().into_owned()
    };
    let directory = |table: &str, path: &str| anchored(&At::root().key(table).key("directory"), path);
    config.state.directory = directory("state", &config.state.directory);
    config.audit.directory = directory("audit", &config.audit.directory);
    let at = At::root().key("audit").key("key_file");
    config.audit.key_file = config.audit.key_file.take().map(|path| anchored(&at, &path));
    let at = At::root().key("policy").key("shadow_file");
    config.policy.shadow_file = config.policy.shadow_file.take().map(|path| anchored(&at, &path));
    let at = At::root().key("listen").key("tls");
    let tls = &mut config.listen.tls;
    for (index, files) in tls.certificates.iter_mut().enumerate() {
        let at = at.key("certificates").index(index);
        files.cert_file = anchored(&at.key("cert_file"), &files.cert_file);
        files.key_file = anchored(&at.key("key_file"), &files.key_file);
    }
    tls.client_ca_file = tls.client_ca_file.take().map(|path| anchored(&at.key("client_ca_file"), &path));
}
