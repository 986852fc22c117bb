//! The threads of a replica's disk in a simulation: tasks, whose turns come when the seed says so.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::trace::Trace;
use crate::env::{Bell, Job, Simulation, Turn, Work};

/// How many turns work gets that is to end.
const LAST_TURNS: usize = 1000;

/// How long the disk takes, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Speed {
    pub(super) write: (u64, u64),
    pub(super) sync: (u64, u64),
}

pub(super) const QUICK: Speed = Speed { write: (0, 1), sync: (0, 4) };

/// The threads of one replica's process.
#[derive(Clone)]
pub(super) struct DiskThreads(Arc<Inner>);

struct Inner {
    id: usize,
    random: Mutex<fastrand::Rng>,
    speed: Mutex<Speed>,
    paused: watch::Sender<bool>,
    trace: Trace,
}

impl fmt::Debug for DiskThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DiskThreads").field(&self.0.id).finish()
    }
}

impl DiskThreads {
    pub(super) fn new(id: usize, random: fastrand::Rng, trace: Trace) -> Self {
        Self(Arc::new(Inner {
            id,
            random: Mutex::new(random),
            speed: Mutex::new(QUICK),
            paused: watch::channel(false).0,
            trace,
        }))
    }

    pub(super) fn pause(&self, paused: bool) {
        self.0.paused.send_replace(paused);
    }

    pub(super) fn set_speed(&self, speed: Speed) {
        *self.0.speed.lock().unwrap() = speed;
    }

    /// Waits as long as a turn takes to come.
    async fn turn(&self, name: &str) {
        let ms = {
            let speed = *self.0.speed.lock().unwrap();
            let (least, most) = if name == "log-writer" { speed.write } else { speed.sync };
            self.0.random.lock().unwrap().u64(least..=most)
        };
        tokio::time::sleep(Duration::from_millis(ms)).await;
        let _ = self.0.paused.subscribe().wait_for(|paused| !paused).await;
    }
}

impl Simulation for DiskThreads {
    fn start(&self, name: &str, bell: &Bell, work: Work) -> Box<dyn FnOnce() + Send + Sync> {
        let work = Arc::new(Mutex::new(Some(work)));
        let rung = Arc::new(Notify::new());
        {
            let rung = Arc::clone(&rung);
            bell.wakes(move || rung.notify_one());
        }
        let (threads, name) = (self.clone(), name.to_owned());
        let (given, wakes) = (Arc::clone(&work), bell.clone());
        tokio::spawn(async move {
            loop {
                threads.turn(&name).await;
                wakes.has_rung();
                let turn = turn(&given);
                threads
                    .0
                    .trace
                    .numbers("turn", &[threads.0.id as u64, u64::from(crc32fast::hash(name.as_bytes()))]);
                match turn {
                    Turn::Wait => rung.notified().await,
                    Turn::WaitAtMost(limit) => drop(tokio::time::timeout(limit, rung.notified()).await),
                    Turn::Over => return,
                }
            }
        });
        Box::new(move || {
            let is_over = (0..LAST_TURNS).any(|_| turn(&work) == Turn::Over);
            assert!(is_over, "work that is to end goes on");
        })
    }

    fn later(&self, work: Box<dyn FnOnce() + Send>) -> Job {
        let threads = self.clone();
        let done = tokio::spawn(async move {
            threads.turn("later").await;
            threads.0.trace.numbers("later", &[threads.0.id as u64]);
            work();
        });
        Box::pin(async move { done.await.unwrap() })
    }
}

type Given = Mutex<Option<Work>>;

fn turn(work: &Given) -> Turn {
    let mut work: MutexGuard<'_, Option<Work>> = work.lock().unwrap_or_else(PoisonError::into_inner);
    let turn = work.as_mut().map_or(Turn::Over, |work| work());
    if turn == Turn::Over {
        *work = None;
    }
    turn
}
