//! Breaks a Quorate cluster on purpose, and checks what its clients saw. See README.md.

mod cgroup;
mod checker;
mod client;
mod cluster;
mod disk;
mod edn;
mod history;
mod nemesis;
mod net;
mod plan;
mod report;
mod run;
mod scenarios;
mod sys;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};

use crate::history::Workload;
use crate::plan::Kind;
use crate::run::{Outcome, Spec, Tools, Verdict};

#[derive(Parser)]
#[command(
    name = "jepsen/run",
    about = "Breaks a Quorate cluster on purpose, and checks what its clients saw"
)]
struct Cli {
    #[command(subcommand)]
    command: Mode,
    /// Where mqbroker and mqnamesrv are
    #[arg(long, global = true, default_value = "target/release")]
    programs: PathBuf,
    /// Where results go
    #[arg(long, global = true, default_value = "jepsen/results")]
    results: PathBuf,
}

#[derive(Subcommand)]
enum Mode {
    /// Each group of faults for a minute or so; at most 8 minutes
    Quick(Choice),
    /// Every workload under every fault; about 3 hours
    Nightly(Choice),
    /// Runs of changing seeds until --minutes are over; goes on where it was stopped
    Soak {
        #[command(flatten)]
        choice: Choice,
        /// How long, all starts together
        #[arg(long, default_value_t = 24 * 60)]
        minutes: u64,
    },
    /// The faults of an earlier run once more
    Replay {
        /// The folder of the run
        run: PathBuf,
    },
    /// Builds with a mistake, which must all be caught (they need `--features known-bad`)
    KnownBad {
        #[command(flatten)]
        choice: Choice,
        /// Only these mistakes
        mistakes: Vec<String>,
    },
    /// Writes the table of all results into jepsen/README.md
    Table,
}

#[derive(Args, Clone)]
struct Choice {
    /// The seed of the first run; those that follow count up
    #[arg(long)]
    seed: Option<u64>,
    /// Only these workloads: log, queue, topics, kv, offsets, routes
    #[arg(long, value_delimiter = ',', value_name = "WORKLOAD,...")]
    only: Vec<String>,
    /// Only these faults, in one run
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    nemesis: Vec<String>,
    /// Voters: 3 or 5
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Seconds of faults in each run
    #[arg(long)]
    seconds: Option<u64>,
    /// Milliseconds between two sends of each of the eight senders
    #[arg(long, default_value_t = 20)]
    pace: u64,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    if let Mode::Table = cli.command {
        scenarios::write_table(&cli.results)?;
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(&cli.results)?;
    disk::unmount_leftovers(&cli.results.canonicalize()?);
    let tools = tools(&cli.programs)?;
    let good = match cli.command {
        Mode::Quick(choice) => run_all(scenarios::quick(&choice_of(&choice)?), &cli.results, &tools)?,
        Mode::Nightly(choice) => run_all(scenarios::nightly(&choice_of(&choice)?), &cli.results, &tools)?,
        Mode::Soak { choice, minutes } => soak(&choice_of(&choice)?, minutes, &cli.results, &tools)?,
        Mode::Replay { run } => replay(&run, &cli.results, &tools)?,
        Mode::KnownBad { choice, mistakes } => {
            known_bad(&choice_of(&choice)?, &mistakes, &cli.results, &tools)?
        }
        Mode::Table => unreachable!("handled above"),
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn choice_of(choice: &Choice) -> Result<scenarios::Choice> {
    ensure!(matches!(choice.nodes, 3 | 5), "--nodes {}: 3 or 5", choice.nodes);
    let workloads = choice.only.iter().map(|name| {
        Workload::parse(name)
            .with_context(|| format!("--only {name}: log, queue, topics, kv, offsets, routes"))
    });
    let kinds = choice.nemesis.iter().map(|name| {
        let all: Vec<_> = Kind::ALL.into_iter().map(Kind::name).collect();
        Kind::parse(name).with_context(|| format!("--nemesis {name}: one of {}", all.join(", ")))
    });
    Ok(scenarios::Choice {
        seed: choice.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000)),
        workloads: workloads.collect::<Result<_>>()?,
        kinds: kinds.collect::<Result<_>>()?,
        nodes: choice.nodes,
        seconds: choice.seconds,
        pace_ms: choice.pace,
    })
}

fn tools(programs: &std::path::Path) -> Result<Tools> {
    for program in ["mqbroker", "mqnamesrv"] {
        ensure!(programs.join(program).exists(), "{} has no {program}; build it first", programs.display());
    }
    if let Err(reason) = disk::is_possible() {
        bail!("{reason}; run as root on a Debian machine, where jepsen/run installs what it needs");
    }
    let commit = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output()?;
    let java = workload::queue::build(&PathBuf::from("jepsen/java-worker"))?;
    Ok(Tools {
        programs: programs.canonicalize()?,
        java: Some(java),
        porcupine: build_porcupine()?,
        commit: String::from_utf8_lossy(&commit.stdout).trim().to_owned(),
    })
}

/// Builds the second opinion.
fn build_porcupine() -> Result<PathBuf> {
    let program = std::path::absolute("target/porcupine")?;
    let built = std::process::Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir("jepsen/porcupine")
        .status()
        .context("run go (Debian package golang-go)")?;
    ensure!(built.success(), "jepsen/porcupine cannot be built");
    Ok(program)
}

fn run_all(specs: Vec<Spec>, results: &std::path::Path, tools: &Tools) -> Result<bool> {
    let mut outcomes = Vec::new();
    for spec in specs {
        outcomes.push(run_one(&spec, None, results, tools)?);
    }
    Ok(summary(&outcomes))
}

fn run_one(
    spec: &Spec,
    plan: Option<Vec<plan::Fault>>,
    results: &std::path::Path,
    tools: &Tools,
) -> Result<Outcome> {
    let mut folder = results.join(format!("{}-{}", spec.name, spec.seed));
    for again in 2.. {
        if !folder.exists() {
            break;
        }
        folder = results.join(format!("{}-{}-{again}", spec.name, spec.seed));
    }
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    println!(
        "== {} seed {}: {} s of faults, {} nodes",
        spec.name,
        spec.seed,
        spec.length_ms / 1000,
        spec.nodes
    );
    let outcome = run::run(spec, plan, &folder, tools)?;
    print(&outcome);
    Ok(outcome)
}

fn print(outcome: &Outcome) {
    println!(
        "   {}: {} acknowledged, {} faults, {} leader changes, longest stall {:.1} s; {}/timeline.html",
        outcome.verdict.name().to_uppercase(),
        outcome.acknowledged,
        outcome.effective_faults(),
        outcome.leader_changes,
        outcome.longest_stall,
        outcome.folder
    );
    for (anomaly, finding) in &outcome.findings.0 {
        println!("   {anomaly}: {}", finding.count);
        for example in finding.examples.iter().take(3) {
            println!("     {}", example.chars().take(400).collect::<String>());
        }
    }
    for reason in &outcome.not_covered {
        println!("   not covered: {reason}");
    }
}

fn summary(outcomes: &[Outcome]) -> bool {
    let count = |verdict: Verdict| outcomes.iter().filter(|outcome| outcome.verdict == verdict).count();
    let acknowledged: usize = outcomes.iter().map(|outcome| outcome.acknowledged).sum();
    let faults: usize = outcomes.iter().map(Outcome::effective_faults).sum();
    println!(
        "== {} passed, {} failed, {} unknown; {acknowledged} acknowledged operations, {faults} faults",
        count(Verdict::Pass),
        count(Verdict::Fail),
        count(Verdict::Unknown)
    );
    count(Verdict::Pass) == outcomes.len()
}

/// The time that is used up stands in the results.
fn soak(choice: &scenarios::Choice, minutes: u64, results: &std::path::Path, tools: &Tools) -> Result<bool> {
    let mut good = true;
    for number in 0.. {
        let spec = scenarios::soak(choice, number);
        if results.join(format!("{}-{}", spec.name, spec.seed)).join("results.json").exists() {
            continue;
        }
        if scenarios::soaked(results)? >= minutes * 60 {
            break;
        }
        let outcome = run_one(&spec, None, results, tools)?;
        good &= summary(&[outcome]);
    }
    Ok(good)
}

fn replay(run: &std::path::Path, results: &std::path::Path, tools: &Tools) -> Result<bool> {
    let read = |name: &str| {
        let path = run.join(name);
        std::fs::read(&path).with_context(|| format!("{} is not the folder of a run: {name}", run.display()))
    };
    let spec: Spec = serde_json::from_slice(&read("spec.json")?)?;
    let plan = serde_json::from_slice(&read("plan.json")?)?;
    let outcome = run_one(&spec, Some(plan), results, tools)?;
    Ok(summary(&[outcome]))
}

/// Every mistake must be caught by one of its runs.
fn known_bad(
    choice: &scenarios::Choice,
    only: &[String],
    results: &std::path::Path,
    tools: &Tools,
) -> Result<bool> {
    let mut missed = Vec::new();
    for (mistake, specs) in scenarios::known_bad(choice) {
        if !only.is_empty() && !only.iter().any(|name| name == mistake) {
            continue;
        }
        let started = std::time::Instant::now();
        let mut caught = None;
        for spec in specs {
            let outcome = run_one(&spec, None, results, tools)?;
            if outcome.verdict == Verdict::Fail {
                let names: Vec<_> = outcome.findings.0.keys().copied().collect();
                caught = Some(names.join(", "));
                break;
            }
        }
        match caught {
            Some(names) => println!("== {mistake}: CAUGHT after {} s: {names}", started.elapsed().as_secs()),
            None => {
                println!("== {mistake}: MISSED after {} s", started.elapsed().as_secs());
                missed.push(mistake);
            }
        }
    }
    Ok(missed.is_empty())
}
