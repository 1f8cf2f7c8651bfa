//! On what was measured, and who else worked there?

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde::Serialize;

/// The machine and what was built on it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    /// Its processor.
    pub(super) processor: String,
    /// Cores that may be used.
    pub(super) cores: usize,
    /// Memory in MiB.
    pub(super) memory_mib: u64,
    /// Kernel release.
    pub(super) kernel: String,
    /// Whether it is a virtual machine, as far as the processor says.
    pub(super) virtual_machine: bool,
    /// File system of the record.
    pub(super) file_system: String,
    /// The compiler.
    pub(super) rustc: String,
}

impl Machine {
    /// This machine; the record is kept in `directory`.
    pub(super) fn here(directory: &Path) -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_default()
        };
        let memory = field(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal");
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().ok();
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
        };
        let directory = directory.to_string_lossy();
        Self {
            processor: field(&processors, "model name"),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory.trim_end_matches(" kB").trim().parse::<u64>().unwrap_or_default() / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            virtual_machine: field(&processors, "flags").split(' ').any(|flag| flag == "hypervisor"),
            file_system: said("stat", &["-f", "-c", "%T", &directory]),
            rustc: said("rustc", &["-V"]),
        }
    }
}

/// How many cores are busy while nothing of ours is: others' work, which disturbs the measurement.
pub fn others_cores() -> f64 {
    let before = busy_ticks();
    thread::sleep(Duration::from_millis(250));
    // Ticks are a hundredth of a second.
    busy_ticks().saturating_sub(before) as f64 / 100.0 / 0.25
}

/// Time that was neither idle nor waiting, over all cores; what a hypervisor took counts.
fn busy_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_ascii_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    [0, 1, 2, 5, 6, 7].iter().filter_map(|index| fields.get(*index)).sum()
}
