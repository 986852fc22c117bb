//! The switch: a thread that carries frames from host to host, and loses, delays, repeats, refuses them as rules say.
//!
//! What it does to which frame is drawn from a seed; which frames there are depends on real threads.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::{HostId, frame, mac};

/// Longest frame, with room.
const FRAME_MAX: usize = 2048;
/// Frames taken from one host before the next one has its turn.
const TURN_FRAMES: usize = 64;
/// Frames that wait on one slow link; further ones are lost, as in a router.
const LINK_FRAMES: u64 = 256;
/// Frames that are held back in all.
const HELD_MAX: usize = 100_000;
/// How long the switch sleeps at most, so that it notices its end.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// What is done to frames.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Effect {
    /// They vanish.
    Drop,
    /// They vanish, and TCP is answered with a reset.
    Refuse,
    /// Some vanish. A share, 0 to 1.
    Lose { share: f64 },
    /// All take so long, and up to `jitter_ms` more. Frames of a link stay in order.
    Delay { ms: u64, jitter_ms: u64 },
    /// Some come twice.
    Duplicate { share: f64 },
    /// Some come so much later, behind others.
    Reorder { share: f64, ms: u64 },
    /// Bytes a second.
    Slow { bytes: u64 },
}

/// An effect on the ways from any of some hosts to any of others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    pub(crate) from: BTreeSet<HostId>,
    pub(crate) to: BTreeSet<HostId>,
    pub(crate) effect: Effect,
}

/// What was seen of a rule.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Frames that it could have met.
    pub(crate) seen: u64,
    /// Frames to which it did something.
    pub(crate) met: u64,
}

/// A running switch.
pub(crate) struct Switch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    rules: Mutex<Rules>,
    stop: AtomicBool,
}

#[derive(Default)]
struct Rules {
    next: u64,
    active: Vec<(u64, Rule, Counts)>,
    /// Where in `active` the rules of a link stand.
    by_link: HashMap<(HostId, HostId), Vec<usize>>,
}

impl Rules {
    fn index(&mut self) {
        self.by_link.clear();
        for (at, (_, rule, _)) in self.active.iter().enumerate() {
            for from in &rule.from {
                for to in rule.to.iter().filter(|to| *to != from) {
                    self.by_link.entry((*from, *to)).or_default().push(at);
                }
            }
        }
    }
}

impl Switch {
    pub(super) fn start(taps: Vec<OwnedFd>, seed: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared { rules: Mutex::default(), stop: AtomicBool::new(false) });
        let mut ports = Ports {
            taps,
            shared: Arc::clone(&shared),
            random: fastrand::Rng::with_seed(seed),
            held: BinaryHeap::new(),
            count: 0,
            links: HashMap::new(),
        };
        let thread = std::thread::Builder::new().name("switch".into()).spawn(move || ports.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Puts rules in force, all at once. Returns their numbers.
    pub(crate) fn add(&self, rules: Vec<Rule>) -> Vec<u64> {
        let mut active = self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut numbers = Vec::new();
        for rule in rules {
            active.next += 1;
            let number = active.next;
            active.active.push((number, rule, Counts::default()));
            numbers.push(number);
        }
        active.index();
        numbers
    }

    /// Takes rules back, and returns what was seen of each.
    pub(crate) fn remove(&self, numbers: &[u64]) -> Vec<Counts> {
        let mut active = self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut active.active).into_iter().partition(|(number, ..)| numbers.contains(number));
        active.active = kept;
        active.index();
        gone.into_iter().map(|(.., counts)| counts).collect()
    }

    pub(crate) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A frame that is due later: when, a number for the order, to whom.
type Held = Reverse<(Instant, u64, HostId, Vec<u8>)>;

/// What a link remembers.
#[derive(Clone, Copy)]
struct LinkState {
    /// When its last delayed frame is due: the next one comes no sooner.
    last_due: Instant,
}

struct Ports {
    taps: Vec<OwnedFd>,
    shared: Arc<Shared>,
    random: fastrand::Rng,
    held: BinaryHeap<Held>,
    count: u64,
    links: HashMap<(HostId, HostId), LinkState>,
}

impl Ports {
    fn run(&mut self) {
        let mut buffer = [0; FRAME_MAX];
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let due = self.held.peek().map(|Reverse((due, ..))| due.saturating_duration_since(now));
            let sleep = due.unwrap_or(SLEEP_MAX).min(SLEEP_MAX);
            let ready: Vec<bool> = {
                let mut polled: Vec<_> =
                    self.taps.iter().map(|tap| PollFd::new(tap, PollFlags::IN)).collect();
                let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(sleep.subsec_nanos()) };
                if poll(&mut polled, Some(&timeout)).is_err() {
                    continue;
                }
                polled.iter().map(|tap| tap.revents().contains(PollFlags::IN)).collect()
            };
            self.deliver(Instant::now());
            for from in (0..ready.len()).filter(|host| ready[*host]) {
                for _ in 0..TURN_FRAMES {
                    let Ok(len) = rustix::io::read(&self.taps[from], &mut buffer) else { break };
                    self.carry(from, &buffer[..len]);
                }
            }
        }
    }

    fn deliver(&mut self, now: Instant) {
        while self.held.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Some(Reverse((_, _, to, frame))) = self.held.pop() else { return };
            self.write(to, &frame);
        }
    }

    fn write(&self, to: HostId, frame: &[u8]) {
        // A host that takes no frames loses them.
        let _ = rustix::io::write(self.taps[to].as_fd(), frame);
    }

    fn carry(&mut self, from: HostId, frame: &[u8]) {
        let Some(destination) = frame::destination(frame) else { return };
        // Neighbours are known from the start, so nothing is broadcast that matters.
        let Some(to) = (0..self.taps.len()).find(|host| mac(*host) == destination) else { return };
        let mut rules = self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let Rules { active, by_link, .. } = &mut *rules;
        let Some(of_link) = by_link.get(&(from, to)) else {
            drop(rules);
            return self.write(to, frame);
        };
        let now = Instant::now();
        let last_due = self.links.get(&(from, to)).map_or(now, |link| link.last_due);
        let (mut due, mut in_order, mut copies) = (now, true, 1);
        for at in of_link {
            let (_, rule, counts) = &mut active[*at];
            counts.seen += 1;
            let met = match rule.effect {
                Effect::Drop => {
                    copies = 0;
                    true
                }
                Effect::Refuse => {
                    copies = 0;
                    if let Some(reset) = frame::reset_for(frame) {
                        let _ = rustix::io::write(self.taps[from].as_fd(), &reset);
                    }
                    true
                }
                Effect::Lose { share } if self.random.f64() < share => {
                    copies = 0;
                    true
                }
                Effect::Delay { ms, jitter_ms } => {
                    due += Duration::from_micros(ms * 1000 + self.random.u64(..=jitter_ms * 1000));
                    true
                }
                Effect::Duplicate { share } if self.random.f64() < share => {
                    copies *= 2;
                    true
                }
                Effect::Reorder { share, ms } if self.random.f64() < share => {
                    due += Duration::from_millis(ms);
                    in_order = false;
                    true
                }
                Effect::Slow { bytes } => {
                    let one = Duration::from_secs_f64(frame.len() as f64 / bytes as f64);
                    if last_due.saturating_duration_since(now) > one * LINK_FRAMES as u32 {
                        copies = 0;
                    }
                    due = due.max(last_due) + one;
                    true
                }
                _ => false,
            };
            counts.met += u64::from(met);
            if copies == 0 {
                return;
            }
        }
        drop(rules);
        if in_order {
            due = due.max(last_due);
            self.links.insert((from, to), LinkState { last_due: due });
        }
        if due <= now {
            (0..copies).for_each(|_| self.write(to, frame));
        } else if self.held.len() < HELD_MAX {
            for _ in 0..copies {
                self.count += 1;
                self.held.push(Reverse((due, self.count, to, frame.to_vec())));
            }
        }
    }
}
