//! Simulations: groups whose network, disks, clocks and threads a seed drives, in virtual time.
//!
//! Real are the store and its files (on `/dev/shm`), everything of `replication/raft`, openraft, tonic and h2. The same
//! seed gives the same run, to the byte and the millisecond: see `system` for time and randomness, `net` and `disk` for
//! what they drive. Each seed has a process of its own, since tokio counts its runtimes in a global variable which its
//! random numbers begin with.
//!
//! `QUORATE_SEED=<n> cargo test sim` runs one seed and prints its trace, `QUORATE_SIM_SEEDS=<n> cargo test sim` so many;
//! `QUORATE_SIM_FIRST=<n>` says where they begin.

mod clients;
mod disk;
mod faults;
mod invariants;
mod ledger;
pub(in crate::replication::raft) mod net;
mod observer;
mod system;
mod trace;
mod world;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::cluster::{Content, Shape, within};
use crate::replication::FlushMode;
use clients::Clients;
use faults::Faults;
use trace::Trace;
use world::World;

/// Seeds of one run of the tests.
const SEEDS: u64 = 200;
/// Time between two looks at everything.
const LOOK: Duration = Duration::from_millis(5);
/// A simulation that takes longer, in real time, does not end.
const REAL_LIMIT: Duration = Duration::from_secs(300);

/// Seeds that once found something.
const ONCE_BAD: [u64; 4] = [40, 1180, 1503, 3631];

/// How a process of one seed is told which.
const CHILD: &str = "QUORATE_SIM_CHILD";
const VERBOSE: &str = "QUORATE_SIM_VERBOSE";

#[test]
fn simulations_of_200_seeds_keep_all_promises() {
    if number("QUORATE_SEED").is_some() {
        return;
    }
    let first = number("QUORATE_SIM_FIRST").unwrap_or(0);
    let count = number("QUORATE_SIM_SEEDS").unwrap_or(SEEDS);
    run_all((first..first + count).collect());
}

#[test]
fn simulations_that_once_failed_keep_all_promises() {
    if number("QUORATE_SEED").is_none() {
        run_all(ONCE_BAD.to_vec());
    }
}

#[test]
fn a_seed_of_a_simulation_gives_the_same_trace_again() {
    if number("QUORATE_SEED").is_some() {
        return;
    }
    for seed in [3, 8] {
        let runs = [run_one(seed, true), run_one(seed, true)].map(|run| {
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            String::from_utf8(run.stdout).unwrap()
        });
        assert!(runs[0].lines().count() > 1000, "{}", runs[0]);
        let differs = runs[0].lines().zip(runs[1].lines()).enumerate().find(|(_, (one, two))| one != two);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(runs[0].lines().count(), runs[1].lines().count(), "seed {seed}");
    }
}

/// Runs one simulation in this process, if its environment says which.
#[test]
fn one_simulation() {
    let Some(seed) = number(CHILD) else {
        if let Some(seed) = number("QUORATE_SEED") {
            let run = run_one(seed, true);
            // Not kept back as what a test prints is.
            std::io::stdout().write_all(&[run.stdout, run.stderr].concat()).unwrap();
            assert!(run.status.success(), "QUORATE_SEED={seed}");
        }
        return;
    };
    // A thread without a past: what it has of its own depends on the seed alone.
    let folder = folder(seed);
    let path = folder.path().to_owned();
    std::thread::spawn(move || simulate(seed, path)).join().unwrap();
    drop(folder);
    // What is left of the runtime may wait for what will never come.
    std::process::exit(0);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Runs one seed in a process of its own.
fn run_one(seed: u64, verbose: bool) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "replication::raft::tests::sim::one_simulation", "--nocapture", "--quiet"])
        .env(CHILD, seed.to_string())
        .stdin(Stdio::null());
    if verbose {
        command.env(VERBOSE, "1");
    }
    command.output().unwrap()
}

/// Runs seeds, as many at a time as there are processors.
fn run_all(seeds: Vec<u64>) {
    let next = AtomicU64::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(seed) = seeds.get(usize::try_from(at).unwrap()) else { return };
                    let run = run_one(*seed, false);
                    if !run.status.success() {
                        eprintln!("{}", String::from_utf8_lossy(&run.stderr));
                        failed.lock().unwrap().push(*seed);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    assert!(failed.is_empty(), "failed: QUORATE_SEED={failed:?}");
}

/// Runs one seed on this thread, from its start to its end.
fn simulate(seed: u64, folder: PathBuf) {
    // So that no path differs from one run to the next.
    std::env::set_current_dir(&folder).unwrap();
    let verbose = number(VERBOSE).is_some();
    let trace = Trace::new(verbose);
    report_panics(seed, trace.clone(), folder);
    system::simulate(seed);
    let log = trace.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || log.clone())
        .with_ansi(false)
        .without_time()
        .with_env_filter("info,openraft=error")
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .on_thread_unpark(follow_time)
        .build()
        .unwrap();
    runtime.block_on(async {
        let start = tokio::time::Instant::now();
        START.with(|known| known.set(Some(start)));
        Simulation::new(seed, trace.clone()).run().await;
    });
    if verbose {
        println!("{}", trace.text());
    }
    println!("seed {seed}: {} ms, digest {:08x}", system::now().as_millis(), trace.digest());
    // What is left of it may wait for what will never come.
    std::mem::forget(runtime);
}

thread_local! {
    static START: std::cell::Cell<Option<tokio::time::Instant>> = const { std::cell::Cell::new(None) };
}

/// Has the clocks of the system follow tokio's, which goes on while all tasks wait.
fn follow_time() {
    if let Some(start) = START.get() {
        system::set_now(start.elapsed());
    }
}

/// A folder in memory, if the machine has one.
fn folder(seed: u64) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix(&format!("quorate-sim-{seed}-")).tempdir_in(parent).unwrap()
}

/// Ends the process at the first panic, wherever it is, with the plan and the last lines.
fn report_panics(seed: u64, trace: Trace, folder: PathBuf) {
    std::thread::spawn(|| {
        std::thread::sleep(REAL_LIMIT);
        eprintln!("a simulation does not end");
        std::process::exit(102);
    });
    std::panic::set_hook(Box::new(move |panic| {
        if number(VERBOSE).is_some() {
            println!("{}", trace.text());
        }
        let text = trace.report();
        eprintln!("FAILED: QUORATE_SEED={seed} at {} ms\n{text}{panic}", system::now().as_millis());
        let _ = crate::env::Disk::real().remove_folder(&folder);
        std::process::exit(101);
    }));
}

struct Simulation {
    random: fastrand::Rng,
    world: Arc<World>,
}

impl Simulation {
    fn new(seed: u64, trace: Trace) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        // Without syncs only processes end, never hosts.
        let flush = if random.u8(..8) == 0 { FlushMode::Async } else { FlushMode::Sync };
        let shape = Shape {
            nodes: if random.u8(..5) == 0 { 5 } else { 3 },
            segment_bytes: *random.choice([16 << 10, 32 << 10, 64 << 10].iter()).unwrap(),
            flush,
            checkpoint_ms: *random.choice([20, 100, 400, 10_000].iter()).unwrap(),
            clean_ms: *random.choice([50, 300].iter()).unwrap(),
            election_ms: *random.choice([(80, 160), (80, 160), (200, 400)].iter()).unwrap(),
        };
        let retains_little = random.bool();
        trace.plan(&format!("{shape:?}, retains little {retains_little}"));
        let world = Arc::new(World::new(shape, retains_little, trace, random.fork()));
        Self { random, world }
    }

    async fn run(mut self) {
        let world = Arc::clone(&self.world);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                world.look();
            }
        });
        for id in self.world.ids() {
            self.world.start(id, None).await;
        }
        self.until("a leader", || self.world.leader_now().is_some()).await;
        let (clients, mut tasks) = Clients::start(&self.world, &mut self.random);
        let mut faults = Faults::new(Arc::clone(&self.world), self.random.fork());
        let strikes = tokio::spawn(faults::strike_cutters(Arc::clone(&self.world), self.random.fork()));
        faults.run(self.random.usize(4..14)).await;
        strikes.abort();
        faults.heal().await;
        self.take_back_in(faults.removed()).await;
        self.send_surely("last").await;
        clients.over.store(true, Ordering::Relaxed);
        within("all answers come", async { while tasks.join_next().await.transpose().unwrap().is_some() {} })
            .await;
        self.check(&clients).await;
        if self.random.u8(..4) == 0 {
            self.world.trace.plan("all end and start again");
            for id in self.world.ids() {
                self.world.stop(id).await;
            }
            for id in self.world.ids() {
                self.world.start(id, None).await;
            }
            self.send_surely("very last").await;
            self.check(&clients).await;
        }
        self.world.trace.line(&clients.counts());
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let waited = async {
            while !is_so() {
                tokio::time::sleep(LOOK).await;
            }
        };
        within(what, waited).await;
    }

    async fn take_back_in(&self, removed: Option<usize>) {
        let Some(id) = removed else { return };
        self.world.trace.plan(&format!("n{id} is taken back in for good"));
        let taken = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let Some((leader, _)) = self.world.leader_now() else { continue };
                let status = leader.replication.status().unwrap();
                match status.members.iter().find(|member| member.id == id as u64) {
                    Some(member) if member.voter => return,
                    Some(_) => drop(leader.replication.remove_peer(id as u64).await),
                    None if leader.id != id => {
                        drop(leader.replication.add_peer(id as u64, &format!("n{id}:7000")).await);
                    }
                    None => {}
                }
            }
        };
        within("a voter is taken back in", taken).await;
    }

    /// Sends until it is acknowledged.
    async fn send_surely(&self, text: &str) {
        let sent = async {
            loop {
                if let Some((leader, _)) = self.world.leader_now()
                    && leader.send("A", text).await.is_ok()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within("a message is acknowledged", sent).await;
    }

    /// Waits until all replicas have applied the same, and checks that they hold what was committed.
    async fn check(&self, clients: &Clients) {
        let running = self.world.running();
        assert_eq!(running.len(), self.world.shape.nodes, "all run");
        let is_settled = || {
            let status: Vec<_> = running.iter().map(|node| node.replication.status().unwrap()).collect();
            let last = status.iter().map(|status| status.last_index).max();
            running.iter().all(|node| node.metadata.noted().is_empty() && node.group().barrier().is_none())
                && status.iter().all(|status| {
                    Some(status.applied_index) == last && status.applied_index == status.committed_index
                })
        };
        self.until("all have the same", is_settled).await;
        self.world.look();
        let observer = self.world.observer.lock().unwrap();
        for node in &running {
            let content = Content::of(node);
            content.check_queues(node);
            for (position, stored) in &content.messages {
                assert_eq!(
                    observer.ledger.messages.get(position),
                    Some(stored),
                    "n{} at {position}",
                    node.id
                );
            }
            let committed = observer.ledger.messages.range(content.min..).count();
            assert_eq!(content.messages.len(), committed, "n{} has all that is retained", node.id);
            assert_eq!(node.metadata.image(), running[0].metadata.image(), "n{}", node.id);
            assert_eq!(node.store().log().committed(), running[0].store().log().committed(), "n{}", node.id);
        }
        clients.check(&observer.ledger);
    }
}
