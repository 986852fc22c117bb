//! Which runs a command makes, and the table of what came of them.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::history::Workload;
use crate::plan::Kind;
use crate::run::Spec;

/// What the command line chose.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) seed: u64,
    /// All if empty.
    pub(crate) workloads: Vec<Workload>,
    /// Those of the command if empty.
    pub(crate) kinds: Vec<Kind>,
    pub(crate) nodes: usize,
    pub(crate) seconds: Option<u64>,
    pub(crate) pace_ms: u64,
}

const PROCESSES: &[Kind] = &[Kind::Kill, Kind::Stop, Kind::Pause, Kind::NamesrvKill];
const PARTITIONS: &[Kind] = &[
    Kind::Halves,
    Kind::LeaderMinority,
    Kind::LeaderMajority,
    Kind::Ring,
    Kind::Bridge,
    Kind::OneWayIn,
    Kind::OneWayOut,
    Kind::FromClients,
    Kind::FromNamesrvs,
    Kind::Refuse,
    Kind::DropResponse,
];
const LINKS: &[Kind] = &[Kind::Loss, Kind::Delay, Kind::Duplicate, Kind::Reorder, Kind::SlowLink];
const CLOCKS: &[Kind] = &[Kind::ClockJump, Kind::ClockSkew, Kind::ClockStrobe, Kind::LeaderMinority];
const DISKS: &[Kind] =
    &[Kind::Power, Kind::IoError, Kind::SyncError, Kind::DiskFull, Kind::SlowDisk, Kind::HungDisk];
const FILES: &[Kind] =
    &[Kind::FlipBit, Kind::Truncate, Kind::ZeroPage, Kind::DeleteIndex, Kind::Wipe, Kind::Segments];
const LIMITS: &[Kind] = &[Kind::Memory, Kind::Files, Kind::Cpu];
const OPERATIONS: &[Kind] = &[Kind::Transfer, Kind::Membership, Kind::RollingRestart, Kind::Segments];

/// All but what is a run of its own.
const EVERYTHING: &[Kind] = Kind::ALL.split_at(Kind::ALL.len() - 1).0;
const FLAPPING: &[Kind] = &[Kind::LightLoss];

/// The groups of a night, and how many seconds of it each gets.
const GROUPS: &[(&str, &[Kind], u64)] = &[
    ("processes", PROCESSES, 600),
    ("partitions", PARTITIONS, 600),
    ("links", LINKS, 480),
    ("clocks", CLOCKS, 300),
    ("disks", DISKS, 600),
    ("files", FILES, 480),
    ("limits", LIMITS, 300),
    ("operations", OPERATIONS, 300),
    ("flapping", FLAPPING, 600),
    ("everything", EVERYTHING, 1200),
];

fn spec(choice: &Choice, name: &str, kinds: &[Kind], seconds: u64, number: u64) -> Spec {
    let workloads =
        if choice.workloads.is_empty() { Workload::ALL.to_vec() } else { choice.workloads.clone() };
    let kinds = kinds.iter().copied().filter(|kind| choice.nodes == 5 || !kind.needs_five());
    Spec {
        name: if choice.nodes == 5 { format!("{name}-5") } else { name.to_owned() },
        seed: choice.seed + number,
        nodes: choice.nodes,
        length_ms: choice.seconds.unwrap_or(seconds) * 1000,
        workloads,
        kinds: kinds.collect(),
        pace_ms: choice.pace_ms,
        known_bad: None,
        settings: Vec::new(),
    }
}

/// One run of the faults that the command line names.
fn chosen(choice: &Choice, name: &str, seconds: u64) -> Vec<Spec> {
    vec![spec(choice, &format!("{name}-chosen"), &choice.kinds, seconds, 0)]
}

pub(crate) fn quick(choice: &Choice) -> Vec<Spec> {
    if !choice.kinds.is_empty() {
        return chosen(choice, "quick", 60);
    }
    let runs: [(&str, Vec<Kind>, u64); 4] = [
        ("quick-processes", [PROCESSES, &[Kind::Transfer, Kind::Duplicate]].concat(), 50),
        (
            "quick-partitions",
            vec![
                Kind::LeaderMinority,
                Kind::LeaderMajority,
                Kind::Bridge,
                Kind::OneWayIn,
                Kind::OneWayOut,
                Kind::FromClients,
                Kind::Kill,
                Kind::ClockJump,
            ],
            60,
        ),
        (
            "quick-disks",
            vec![Kind::Power, Kind::IoError, Kind::DiskFull, Kind::HungDisk, Kind::Loss, Kind::Delay],
            50,
        ),
        (
            "quick-files",
            vec![Kind::FlipBit, Kind::Truncate, Kind::ZeroPage, Kind::Wipe, Kind::Segments, Kind::Halves],
            50,
        ),
    ];
    let runs = runs.iter().zip(0..);
    runs.map(|((name, kinds, seconds), number)| spec(choice, name, kinds, *seconds, number)).collect()
}

pub(crate) fn nightly(choice: &Choice) -> Vec<Spec> {
    if !choice.kinds.is_empty() {
        return chosen(choice, "nightly", 600);
    }
    let mut specs = Vec::new();
    for nodes in [choice.nodes, 8 - choice.nodes] {
        let choice = Choice { nodes, ..choice.clone() };
        for (name, kinds, seconds) in GROUPS {
            let number = specs.len() as u64;
            specs.push(spec(&choice, &format!("nightly-{name}"), kinds, *seconds, number));
        }
    }
    specs
}

/// The run of a soak with that number: the groups in turn.
pub(crate) fn soak(choice: &Choice, number: u64) -> Spec {
    if !choice.kinds.is_empty() {
        return spec(choice, "soak-chosen", &choice.kinds, 600, number);
    }
    let (name, kinds, _) = GROUPS[number as usize % GROUPS.len()];
    let nodes = if (number as usize / GROUPS.len()) % 3 == 2 { 8 - choice.nodes } else { choice.nodes };
    spec(&Choice { nodes, ..choice.clone() }, &format!("soak-{name}"), kinds, 600, number)
}

/// Returns how many seconds runs of soaks have taken.
pub(crate) fn soaked(results: &Path) -> Result<u64> {
    let all = read_all(results)?;
    let soaks = all.iter().filter(|run| text(run, "name").starts_with("soak-"));
    Ok(soaks.map(|run| run["seconds"].as_f64().unwrap_or(0.0)).sum::<f64>() as u64)
}

/// The mistakes that builds with `--features known-bad` can make, and the runs that are to catch each.
pub(crate) fn known_bad(choice: &Choice) -> Vec<(&'static str, Vec<Spec>)> {
    let mistakes: [(&str, Vec<Kind>, u64); 7] = [
        ("ack-before-commit", vec![Kind::Kill, Kind::LeaderMinority], 60),
        ("skip-sync", vec![Kind::Power], 60),
        ("vote-not-saved", vec![Kind::Kill], 60),
        ("truncation-not-written", vec![Kind::LeaderMinority, Kind::Kill], 90),
        ("offsets-from-a-side-table", vec![Kind::Kill, Kind::Transfer], 60),
        ("uncommitted-reads", vec![Kind::LeaderMinority, Kind::Pause], 90),
        ("lower-term-accepted", vec![Kind::LeaderMinority, Kind::Pause, Kind::FromNamesrvs], 90),
    ];
    let chosen = mistakes.into_iter().map(|(mistake, kinds, seconds)| {
        let runs = (0..3).map(|number| {
            let mut one = spec(choice, &format!("bad-{mistake}"), &kinds, seconds, number);
            one.known_bad = Some(mistake.to_owned());
            one
        });
        (mistake, runs.collect())
    });
    chosen.collect()
}

fn read_all(results: &Path) -> Result<Vec<serde_json::Value>> {
    let mut all = Vec::new();
    let Ok(entries) = std::fs::read_dir(results) else { return Ok(all) };
    for entry in entries {
        let path = entry?.path().join("results.json");
        if let Ok(bytes) = std::fs::read(&path) {
            all.push(serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?);
        }
    }
    all.sort_by_key(|run| (text(run, "name"), run["spec"]["seed"].as_u64()));
    Ok(all)
}

fn text(run: &serde_json::Value, key: &str) -> String {
    run[key].as_str().unwrap_or_default().to_owned()
}

const BEGIN: &str = "<!-- results: jepsen/run table -->";
const END: &str = "<!-- end of results -->";

/// Puts the table between its marks in `jepsen/README.md`.
pub(crate) fn write_table(results: &Path) -> Result<()> {
    let path = Path::new("jepsen/README.md");
    let readme = std::fs::read_to_string(path)?;
    let (before, rest) = readme.split_once(BEGIN).context("the README lacks the begin of the table")?;
    let (_, after) = rest.split_once(END).context("the README lacks the end of the table")?;
    let table = table(&read_all(results)?);
    std::fs::write(path, format!("{before}{BEGIN}\n{table}{END}{after}"))?;
    print!("{table}");
    Ok(())
}

/// One line for each name: its seeds together, by commit.
fn table(runs: &[serde_json::Value]) -> String {
    let mut text_of = String::from(
        "| runs | commit | seeds | minutes | acknowledged | faults | leader changes | longest stall | verdicts |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let mut groups: Vec<((String, String), Vec<&serde_json::Value>)> = Vec::new();
    for run in runs.iter().filter(|run| !text(run, "name").starts_with("bad-")) {
        let key = (text(run, "name"), text(run, "program"));
        match groups.iter_mut().find(|(of, _)| *of == key) {
            Some((_, runs)) => runs.push(run),
            None => groups.push((key, vec![run])),
        }
    }
    let number = |run: &serde_json::Value, key: &str| run[key].as_f64().unwrap_or(0.0);
    let faults = |run: &serde_json::Value| {
        let windows = run["windows"].as_array().map_or(&[][..], Vec::as_slice);
        windows.iter().filter(|window| window["ineffective"].is_null()).count()
    };
    let mut line = |name: &str, commit: &str, seeds: &str, runs: &[&serde_json::Value]| {
        let sum = |key: &str| runs.iter().map(|run| number(run, key)).sum::<f64>();
        let worst = runs.iter().map(|run| number(run, "longest-stall")).fold(0.0, f64::max);
        let verdicts: Vec<_> = ["pass", "fail", "unknown"]
            .into_iter()
            .map(|verdict| (verdict, runs.iter().filter(|run| text(run, "verdict") == verdict).count()))
            .filter(|(_, count)| *count > 0)
            .map(|(verdict, count)| format!("{count} {verdict}"))
            .collect();
        let _ = writeln!(
            text_of,
            "| {name} | {commit} | {seeds} | {:.0} | {} | {} | {} | {worst:.1} s | {} |",
            sum("seconds") / 60.0,
            sum("acknowledged"),
            runs.iter().map(|run| faults(run)).sum::<usize>(),
            sum("leader-changes"),
            verdicts.join(", ")
        );
    };
    for ((name, commit), runs) in &groups {
        let seeds: Vec<_> = runs.iter().map(|run| run["spec"]["seed"].to_string()).collect();
        line(name, commit, &seeds.join(" "), runs);
    }
    let all: Vec<_> = groups.iter().flat_map(|(_, runs)| runs.iter().copied()).collect();
    line("**all**", "", "", &all);
    text_of.push_str(&recoveries(&all));
    text_of
}

/// How long it took until somebody was acknowledged after faults that hit the leader, by kind.
fn recoveries(runs: &[&serde_json::Value]) -> String {
    let mut by_kind: std::collections::BTreeMap<String, Vec<f64>> = std::collections::BTreeMap::new();
    for run in runs {
        for pair in run["recoveries"].as_array().map_or(&[][..], Vec::as_slice) {
            let (Some(kind), Some(seconds)) = (pair[0].as_str(), pair[1].as_f64()) else { continue };
            by_kind.entry(kind.to_owned()).or_default().push(seconds);
        }
    }
    let mut text = String::from(
        "\nSeconds from the begin of a fault that hit the leader to the first acknowledgement of a send that began \
         after it:\n\n| fault | times | p50 | p90 | p99 | worst |\n|---|---|---|---|---|---|\n",
    );
    for (kind, mut seconds) in by_kind {
        seconds.sort_by(f64::total_cmp);
        let at = |share: f64| seconds[((seconds.len() as f64 * share) as usize).min(seconds.len() - 1)];
        let _ = writeln!(
            text,
            "| {kind} | {} | {:.2} | {:.2} | {:.2} | {:.2} |",
            seconds.len(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        );
    }
    text
}
