//! Which resources may nobody read where the operator says nothing else?
//!
//! Files that hold secrets, wherever they are, and the addresses under which clouds hand out credentials. An operator's
//! own list takes the place of this one; it cannot know the names that an attacker gives such an address.

/// The default of a server's `blocked_resources`.
pub(super) const RESOURCES: [&str; 29] = [
    // The system's own files, and what is mounted into containers.
    "file:///etc/**",
    "file:///private/etc/**",
    "file:///proc/**",
    "file:///sys/**",
    "file:///dev/**",
    "file:///root/**",
    "file:///run/**",
    "file:///var/run/**",
    "**/etc/passwd",
    "**/etc/shadow",
    // Keys and passwords of people and programs.
    "**/.env",
    "**/.env.*",
    "**/.ssh/**",
    "**/id_rsa",
    "**/id_ed25519",
    "**/id_ecdsa",
    "**/id_dsa",
    "**/.aws/credentials",
    "**/.kube/config",
    "**/.docker/config.json",
    "**/.netrc",
    "**/.pgpass",
    "**/.git-credentials",
    // Metadata services of clouds: link-local addresses and the names of some.
    "*://169.254.**",
    "*://[fd00:ec2:**",
    "*://[fe80:**",
    "*://100.100.100.200**",
    "*://metadata/**",
    "*://metadata.google.internal**",
];
