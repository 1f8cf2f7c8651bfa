//! Where do the gateway's own directories lie?

use std::path::Path;

use crate::config::files::File;
use crate::config::model::Config;
use crate::config::problem::At;
use crate::config::sources::Sources;

/// Makes the directories absolute: a relative one starts at the file it stands in, a default at the main file.
pub(crate) fn anchor(config: &mut Config, sources: &Sources) {
    let directory = |table: &str, path: &str| {
        let base = sources.file_of(&At::root().key(table).key("directory")).map(File::directory).unwrap_or_default();
        let joined = base.join(Path::new(path));
        std::path::absolute(&joined).unwrap_or(joined).to_string_lossy().into_owned()
    };
    config.state.directory = directory("state", &config.state.directory);
    config.audit.directory = directory("audit", &config.audit.directory);
}
