//! In which profile is this built? Only Cargo's folder says its name.

fn main() {
    // `<target>/<profile>/build/<package>/out`
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    let folder = std::path::Path::new(&out).ancestors().nth(3).and_then(|path| path.file_name());
    let profile = folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let level = std::env::var("OPT_LEVEL").unwrap_or_default();
    println!("cargo::rustc-env=PROFILE_OF_BUILD={profile}, opt-level {level}");
    println!("cargo::rerun-if-changed=build.rs");
}
