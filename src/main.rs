//! The `portcullis` program.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // One TLS provider for the whole process, chosen before anything asks for one.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: another TLS provider was installed first");
        return ExitCode::FAILURE;
    }
    // Faults that a test asks for through the environment; the feature is not in a released binary.
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    portcullis::cli::run()
}
