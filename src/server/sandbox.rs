//! What may this process touch, once it serves?
//!
//! The kernel's Landlock lets it read and write below certain directories and nowhere else, run no program, and gain no
//! privilege. They follow from the configuration: its own files, what they refer to, the gateway's directories, and what the
//! system needs to resolve names and verify certificates. Where the kernel cannot do all of it, what it can is done, and said.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::OnceLock;

use landlock::ABI;
use landlock::Access;
use landlock::AccessFs;
use landlock::BitFlags;
use landlock::CompatLevel;
use landlock::Compatible;
use landlock::RestrictSelfAttr;
use landlock::RestrictionStatus;
use landlock::Ruleset;
use landlock::RulesetAttr;
use landlock::RulesetCreatedAttr;
use landlock::RulesetError;
use landlock::RulesetStatus;
use landlock::Scope;
use landlock::path_beneath_rules;

use crate::config::Loaded;
use crate::config::model::Config;
use crate::config::sources::Sources;
use crate::telemetry::access::Destination;

use super::StartError;

/// The newest form of Landlock whose rights are known here; kernels before it have fewer.
const KNOWN: ABI = ABI::V6;

/// Read to resolve names, verify certificates and count cores; a directory that is missing is no loss.
const SYSTEM: &[&str] = &[
    "/etc",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share",
    "/usr/local/share",
    "/lib",
    "/lib64",
    "/run/systemd",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
    "/var/lib/ca-certificates",
    "/proc",
    "/sys/fs/cgroup",
    "/dev/urandom",
    "/dev/random",
];

/// What is in force, for who has to explain a refusal of the system. A process has one sandbox and never leaves it.
static IN_FORCE: OnceLock<Sandbox> = OnceLock::new();

/// Directories this process may touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Files below these may be read.
    readable: BTreeSet<PathBuf>,
    /// Files below these may be read, made, written, renamed and removed.
    writable: BTreeSet<PathBuf>,
}

impl Sandbox {
    /// What a configuration asks for; `None` if it wants no sandbox.
    pub fn of(loaded: &Loaded) -> Option<Self> {
        let config = &loaded.config;
        if !config.sandbox.enabled {
            return None;
        }
        let mut readable: BTreeSet<PathBuf> = SYSTEM.iter().map(PathBuf::from).filter(|path| path.exists()).collect();
        let mut files = files_of(&loaded.sources, Some(config));
        if let Some(candidate) = &config.policy.shadow_file {
            // What is wrong with it may be mended while this process runs.
            files.extend(match crate::config::load(Path::new(candidate)) {
                Ok(candidate) => files_of(&candidate.sources, Some(&candidate.config)),
                Err(error) => files_of(&error.sources, None),
            });
        }
        // They may lead elsewhere, where others keep them up to date.
        let resolving = ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"].map(PathBuf::from);
        for file in files.into_iter().chain(resolving) {
            readable.extend(directory_of(&file));
        }
        for variable in ["CREDENTIALS_DIRECTORY", "SSL_CERT_DIR", "SSL_CERT_FILE"] {
            let paths = env::var_os(variable).map(|paths| env::split_paths(&paths).collect::<Vec<_>>());
            readable.extend(paths.unwrap_or_default().into_iter().filter_map(|path| path.canonicalize().ok()));
        }
        Some(Self { readable, writable: writable(config) })
    }

    /// Confines this process, for ever, and says so: this thread, all that it will start, and, where the kernel can (Landlock
    /// 8), those there are already. Those are the allocator's own, which began before `main`.
    ///
    /// # Errors
    /// The kernel has Landlock and did not do as asked.
    pub fn enforce(self) -> Result<(), StartError> {
        let status = self.confine(true)?;
        let landlock = match status.ruleset {
            RulesetStatus::FullyEnforced => "in force",
            RulesetStatus::PartiallyEnforced => "in force as far as this kernel can",
            RulesetStatus::NotEnforced => "not in force: this kernel has no Landlock",
        };
        tracing::info!(landlock, all_threads = status.all_threads, no_new_privs = status.no_new_privs, "sandbox");
        if status.ruleset != RulesetStatus::NotEnforced {
            let _ = IN_FORCE.set(self);
        }
        Ok(())
    }

    /// The same for this thread alone.
    ///
    /// # Errors
    /// As [`Sandbox::enforce`].
    pub fn enforce_here(&self) -> Result<(), StartError> {
        self.confine(false).map(drop)
    }

    /// Makes the gateway's directories first, since what is not there cannot be allowed; whether they can be used is found out
    /// later, by who uses them.
    fn confine(&self, all_threads: bool) -> Result<RestrictionStatus, StartError> {
        for directory in &self.writable {
            let _ = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        }
        self.restrict(all_threads).map_err(|error| {
            StartError::System(format!("the sandbox: {error}; mend it, or write `sandbox.enabled = false`"))
        })
    }

    fn restrict(&self, all_threads: bool) -> Result<RestrictionStatus, RulesetError> {
        let all = AccessFs::from_all(KNOWN);
        let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
        let write = read
            | AccessFs::WriteFile
            | AccessFs::Truncate
            | AccessFs::MakeReg
            | AccessFs::MakeDir
            | AccessFs::MakeSock
            | AccessFs::RemoveFile;
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)?
            .scope(Scope::Signal)?
            .create()?
            .add_rules(path_beneath_rules(&self.readable, read))?
            .add_rules(path_beneath_rules(&self.writable, write))?
            .add_rules(path_beneath_rules(["/dev/null"], read | AccessFs::WriteFile))?
            .all_threads(all_threads)?
            .restrict_self()
    }

    /// In one line, for people.
    pub fn describe(&self) -> String {
        let list = |paths: &BTreeSet<PathBuf>| {
            let own: Vec<String> = paths
                .iter()
                .filter(|path| !SYSTEM.iter().any(|system| path.as_path() == Path::new(system)))
                .map(|path| path.display().to_string())
                .collect();
            own.join(", ")
        };
        let (reads, writes) = (list(&self.readable), list(&self.writable));
        format!("reads below {reads} and what the system needs, writes below {writes}, runs no program")
    }
}

/// What to add to the error of a reload, if the sandbox may be its cause.
pub(super) fn hint(error: &str) -> Option<String> {
    let sandbox = IN_FORCE.get().filter(|_| error.contains("Permission denied"))?;
    let mut text = String::from("note: the sandbox of the running process ");
    let _ = write!(
        text,
        "{}\n  = help: move the file there, or let another process begin with the new places: `portcullis upgrade`, or a restart",
        sandbox.describe()
    );
    Some(text)
}

fn writable(config: &Config) -> BTreeSet<PathBuf> {
    let sockets = [&config.listen.data, &config.listen.admin];
    let sockets = sockets.into_iter().filter_map(|address| address.strip_prefix("unix:"));
    let sockets = sockets.filter_map(|path| Path::new(path).parent()).map(Path::to_path_buf);
    let own = [&config.state.directory, &config.audit.directory].into_iter().map(PathBuf::from);
    let access = Destination::read(&config.log.access).ok();
    let access = access.and_then(|access| access.file()?.parent().map(Path::to_path_buf));
    own.chain(sockets).chain(access).collect()
}

/// The files of a configuration, and those that it names, in a part that is included or anywhere else.
fn files_of(sources: &Sources, config: Option<&Config>) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = sources.files().map(Path::to_path_buf).collect();
    let main = files.first().cloned();
    files.extend(files.clone().iter().flat_map(|file| named_in(file)));
    if let (Some(main), Some(config)) = (main, config) {
        files.extend(config.include.iter().map(|path| beside(&main, path)));
        files.extend(meant(config));
    }
    files
}

/// Files that a configuration file names: in references, and in values of keys that end in `_file`.
fn named_in(file: &Path) -> Vec<PathBuf> {
    let Ok(text) = fs::read_to_string(file) else { return Vec::new() };
    let references = text.split("${file:").skip(1).filter_map(|rest| rest.split_once('}')).map(|(path, _)| path);
    let mut named: Vec<PathBuf> = references.map(|path| beside(file, path)).collect();
    if let Ok(table) = text.parse::<toml::Table>() {
        collect(&toml::Value::Table(table), false, &mut |path| named.push(beside(file, path)));
    }
    named
}

/// Files of certificates and keys that the configuration names by absolute paths, once references in them are replaced.
fn meant(config: &Config) -> impl Iterator<Item = PathBuf> {
    let tls = &config.listen.tls;
    let pairs = tls.certificates.iter().flat_map(|files| [&files.cert_file, &files.key_file]);
    let servers = config.servers.values().map(|server| &server.tls);
    let servers = servers.flat_map(|tls| [&tls.ca_file, &tls.client_cert_file, &tls.client_key_file]);
    let single = tls.client_ca_file.iter().chain(&config.policy.shadow_file);
    pairs.chain(single).chain(servers.flatten()).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn collect(value: &toml::Value, is_file: bool, found: &mut impl FnMut(&str)) {
    match value {
        toml::Value::String(path) if is_file => found(path),
        toml::Value::Array(items) => items.iter().for_each(|item| collect(item, is_file, found)),
        toml::Value::Table(table) => {
            table.iter().for_each(|(key, value)| collect(value, key.ends_with("_file"), found));
        }
        _ => {}
    }
}

/// A path as it is meant in a file.
fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

/// The directories a file is found in: as it is named, and where it really is. A new file under the old name is found too.
/// The root directory holds everything, so a file there is allowed alone.
fn directory_of(file: &Path) -> Vec<PathBuf> {
    let named = match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new(".").canonicalize().ok(),
        Some(parent) => parent.canonicalize().ok(),
        None => None,
    };
    let real = file.canonicalize().ok().and_then(|file| file.parent().map(Path::to_path_buf));
    let directories = named.into_iter().chain(real);
    directories.map(|directory| if directory == Path::new("/") { file.to_owned() } else { directory }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(name: &str, text: &str, further: &[(&str, &str)]) -> (PathBuf, Option<Sandbox>) {
        let directory = env::temp_dir().join(format!("portcullis-sandbox-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        for (path, text) in [("main/portcullis.toml", text)].iter().chain(further) {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let loaded =
            crate::config::load(&directory.join("main/portcullis.toml")).unwrap_or_else(|error| panic!("{error}"));
        (directory, Sandbox::of(&loaded))
    }

    #[test]
    fn what_a_configuration_names_may_be_read_and_its_own_directories_written() {
        let text = "include = [\"../parts/*.toml\"]\n[listen]\nadmin = \"unix:/run/p/admin.sock\"\n[seal]\nkeys = [\"${file:../secrets/key}\"]\n[state]\ndirectory = \"s\"\n[log]\naccess = \"/var/log/p/access.log\"\n";
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let (directory, sandbox) = sandbox("named", text, &[("parts/a.toml", ""), ("secrets/key", key)]);
        let sandbox = sandbox.unwrap();
        for below in ["main", "parts", "secrets"] {
            assert!(sandbox.readable.contains(&directory.join(below)), "{below}: {sandbox:?}");
        }
        let own = ["main/s", "main/audit"].map(|path| directory.join(path));
        let writable: Vec<_> = own.into_iter().chain(["/run/p", "/var/log/p"].map(PathBuf::from)).collect();
        assert_eq!(sandbox.writable, writable.into_iter().collect());
        assert!(sandbox.describe().contains("/secrets") && !sandbox.describe().contains("/usr/lib"));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_a_candidate_names_may_be_read_whether_or_not_it_loads() {
        for candidate in [
            "include = [\"../parts/*.toml\"]\n[seal]\nkeys = [\"${file:../secrets/key}\"]\n",
            "[wrong]\na = \"${file:../secrets/key}\"\n",
        ] {
            let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
            let further = [("candidate/c.toml", candidate), ("secrets/key", key), ("parts/a.toml", "")];
            let (directory, sandbox) =
                sandbox("candidate", "[policy]\nshadow_file = \"../candidate/c.toml\"\n", &further);
            let sandbox = sandbox.unwrap();
            for below in ["candidate", "secrets"] {
                assert!(sandbox.readable.contains(&directory.join(below)), "{below}: {sandbox:?}");
            }
            assert_eq!(sandbox.readable.contains(&directory.join("parts")), candidate.contains("parts"));
            fs::remove_dir_all(directory).unwrap();
        }
    }

    #[test]
    fn keys_that_name_files_are_found_wherever_they_stand() {
        let table =
            "a_file = \"one\"\nb = \"no\"\n[[c]]\nd_file = [\"two\", \"three\"]\n".parse::<toml::Table>().unwrap();
        let mut found = Vec::new();
        collect(&toml::Value::Table(table), false, &mut |path| found.push(path.to_owned()));
        assert_eq!(found, ["one", "two", "three"]);
    }

    #[test]
    fn a_file_in_the_root_directory_opens_nothing_else() {
        assert_eq!(directory_of(Path::new("/portcullis.toml")), [Path::new("/portcullis.toml")]);
        assert!(directory_of(Path::new("/")).is_empty());
    }

    #[test]
    fn one_that_is_not_wanted_is_none() {
        let (directory, sandbox) = sandbox("off", "[sandbox]\nenabled = false\n", &[]);
        assert_eq!(sandbox, None);
        fs::remove_dir_all(directory).unwrap();
    }
}
