//! What do hostile peers achieve? `scripts/soak` builds everything and calls it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use load_tests::attack::Attack;
use load_tests::attack::Ground;
use load_tests::verdict::Report;

/// Attacks a gateway on loopback, each attack another one, and says what was seen. Ends with failure if a claim does not hold.
#[derive(Debug, Parser)]
struct Options {
    /// The attacks, in this order; absent: all of them.
    #[arg(value_enum)]
    attacks: Vec<Attack>,
    /// Seconds instead of minutes: whether everything works, not how well.
    #[arg(long)]
    quick: bool,
    /// Directory with the programs `portcullis` and `upstream`.
    #[arg(long)]
    programs: PathBuf,
    /// Directory for configurations, records and logs, on a real disk. It must not exist.
    #[arg(long)]
    scratch: PathBuf,
    /// What happens when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// File for the figures, as JSON.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Cores that others may use before times are doubted.
const OTHERS_CORES_MAX: f64 = 0.2;
/// Seconds that one attack takes, at most.
const SECONDS_MAX: u64 = 300;

fn main() -> ExitCode {
    let options = Options::parse();
    assert!(!options.scratch.exists(), "the scratch directory {} exists", options.scratch.display());
    let attacks = if options.attacks.is_empty() { Attack::ALL.to_vec() } else { options.attacks };
    let ground =
        Ground { programs: options.programs, scratch: options.scratch, is_quick: options.quick, seed: options.seed };
    let reports = load_tests::process::end_all_after(SECONDS_MAX * attacks.len() as u64)
        .and_then(|()| raise_descriptors())
        .and_then(|()| if ground.is_quick { all_at_once(&attacks, &ground) } else { one_by_one(&attacks, &ground) });
    load_tests::verdict::end(reports, options.out.as_deref())
}

/// What is to be measured has the machine for itself.
fn one_by_one(attacks: &[Attack], ground: &Ground) -> io::Result<Vec<Report>> {
    let run = |attack: &Attack| {
        eprintln!("attack: {attack:?}");
        let others = load_tests::measure::others_cores();
        let mut report = attack.run(ground)?;
        if others > OTHERS_CORES_MAX {
            report.doubt(format!(
                "others used {others:.1} cores of the machine before: what is said of times may be theirs"
            ));
        }
        Ok(report)
    };
    attacks.iter().map(run).collect()
}

/// Where seconds must do, most of them are spent waiting.
fn all_at_once(attacks: &[Attack], ground: &Ground) -> io::Result<Vec<Report>> {
    thread::scope(|scope| {
        let running: Vec<_> = attacks.iter().map(|attack| scope.spawn(|| attack.run(ground))).collect();
        let joined = |report: thread::ScopedJoinHandle<'_, io::Result<Report>>| {
            report.join().map_err(|_| io::Error::other("an attack panicked"))?
        };
        running.into_iter().map(joined).collect()
    })
}

/// An attacker needs as many descriptors as there are.
fn raise_descriptors() -> io::Result<()> {
    use rustix::process::Resource;
    use rustix::process::Rlimit;
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(rustix::process::setrlimit(Resource::Nofile, raised)?)
}
