//! With what was counted?
//!
//! The same source gives other counts with another compiler, another C compiler or library, another valgrind, and on a
//! processor that offers other instructions: counts are compared only where all of that is the same.

use std::process::Command;

use serde::Deserialize;
use serde::Serialize;

/// Everything but the source that counts depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Toolchain {
    /// `rustc -V`.
    rustc: String,
    /// The first line of `cc --version`.
    cc: String,
    /// The C library.
    libc: String,
    /// `valgrind --version`; `None` where it is not installed.
    pub(crate) valgrind: Option<String>,
    /// The architecture, and those of its features that some code here chooses by.
    cpu: String,
    /// How much the compiler optimises.
    profile: String,
}

impl Toolchain {
    /// Of this machine, and of this build.
    pub(crate) fn here() -> Self {
        Self {
            rustc: said("rustc", &["-V"]).unwrap_or_default(),
            cc: said("cc", &["--version"]).unwrap_or_default(),
            libc: said("getconf", &["GNU_LIBC_VERSION"]).unwrap_or_default(),
            valgrind: said("valgrind", &["--version"]),
            cpu: cpu(),
            profile: env!("PROFILE_OF_BUILD").to_owned(),
        }
    }

    /// What differs from `other`, for people.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let none = || "none".to_owned();
        let pairs = [
            ("rustc", self.rustc.clone(), other.rustc.clone()),
            ("cc", self.cc.clone(), other.cc.clone()),
            ("libc", self.libc.clone(), other.libc.clone()),
            ("valgrind", self.valgrind.clone().unwrap_or_else(none), other.valgrind.clone().unwrap_or_else(none)),
            ("cpu", self.cpu.clone(), other.cpu.clone()),
            ("profile", self.profile.clone(), other.profile.clone()),
        ];
        let differs = pairs.into_iter().filter(|(_, then, now)| then != now);
        differs.map(|(what, then, now)| format!("{what}: baseline `{then}`, here `{now}`")).collect()
    }
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
}

/// Valgrind shows programs an older processor than there is, but never more than there is.
#[cfg(target_arch = "x86_64")]
fn cpu() -> String {
    let found = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("aes", is_x86_feature_detected!("aes")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("lzcnt", is_x86_feature_detected!("lzcnt")),
    ];
    let found: Vec<&str> = found.into_iter().filter(|(_, found)| *found).map(|(name, _)| name).collect();
    format!("x86_64 {}", found.join(" "))
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> String {
    std::env::consts::ARCH.to_owned()
}
