//! Threads for work that blocks on the disk. A simulation puts itself in their place, so that such work runs when its seed
//! says so.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a thread does after a turn of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Waits for its bell.
    Wait,
    /// Waits for its bell, but not longer than this.
    WaitAtMost(Duration),
    /// Ends.
    Over,
}

/// Does what there is to do.
pub type Work = Box<dyn FnMut() -> Turn + Send>;

/// A piece of work whose end can be awaited.
pub type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a simulation does in the place of threads.
pub trait Simulation: Debug + Send + Sync {
    /// Gives turns to `work`, one at once, then whenever `bell` rings. Returns what gives it turns until it is over.
    fn start(&self, name: &str, bell: &Bell, work: Work) -> Box<dyn FnOnce() + Send + Sync>;

    /// Returns what does `work` some time later.
    fn later(&self, work: Box<dyn FnOnce() + Send>) -> Job;
}

/// Where work that blocks on the disk is done. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Threads(Option<Arc<dyn Simulation>>);

impl Threads {
    /// Returns the threads of a simulation.
    pub fn simulated(simulation: Arc<dyn Simulation>) -> Self {
        Self(Some(simulation))
    }

    /// Returns the simulation, if these are not real threads.
    pub fn simulation(&self) -> Option<&dyn Simulation> {
        self.0.as_deref()
    }

    /// Starts a thread that gives `work` one turn at once, then one whenever `bell` rings.
    pub fn start(&self, name: &str, bell: &Bell, mut work: Work) -> io::Result<Thread> {
        if let Some(simulation) = &self.0 {
            return Ok(Thread(Kind::Simulated(simulation.start(name, bell, work))));
        }
        let bell = bell.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let _ = bell.0.wakes.set(Wakes::Thread(std::thread::current()));
            loop {
                match work() {
                    Turn::Wait => bell.wait(),
                    Turn::WaitAtMost(limit) => bell.wait_at_most(limit),
                    Turn::Over => return,
                }
            }
        });
        Ok(Thread(Kind::Real(thread?)))
    }
}

/// A thread, which goes on when this is dropped.
pub struct Thread(Kind);

enum Kind {
    Real(JoinHandle<()>),
    Simulated(Box<dyn FnOnce() + Send + Sync>),
}

impl Thread {
    /// Waits until the work is over. Blocks.
    pub fn join(self) {
        match self.0 {
            Kind::Real(thread) => drop(thread.join()),
            Kind::Simulated(finish) => finish(),
        }
    }
}

impl Debug for Thread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Thread").finish_non_exhaustive()
    }
}

/// Wakes one thread. If it does not wait, its next wait ends at once. Clones wake the same thread.
#[derive(Clone, Default)]
pub struct Bell(Arc<Inner>);

#[derive(Default)]
struct Inner {
    rung: AtomicBool,
    wakes: OnceLock<Wakes>,
}

enum Wakes {
    Thread(std::thread::Thread),
    Simulated(Box<dyn Fn() + Send + Sync>),
}

impl Bell {
    /// Wakes the thread. Cheap if it was rung since the last wait.
    pub fn ring(&self) {
        if self.0.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        match self.0.wakes.get() {
            Some(Wakes::Thread(thread)) => thread.unpark(),
            Some(Wakes::Simulated(wake)) => wake(),
            // The thread is just starting, and begins with a turn.
            None => {}
        }
    }

    /// For a simulation: calls `wake` when the bell rings, once until [`Bell::has_rung`] is asked.
    pub fn wakes(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.wakes.set(Wakes::Simulated(Box::new(wake)));
    }

    /// Returns whether it rang since this was last asked.
    pub fn has_rung(&self) -> bool {
        self.0.rung.swap(false, Ordering::AcqRel)
    }

    fn wait(&self) {
        while !self.has_rung() {
            std::thread::park();
        }
    }

    fn wait_at_most(&self, limit: Duration) {
        if !self.has_rung() {
            // It may also return for no reason: a turn that comes early does no harm.
            std::thread::park_timeout(limit);
            self.has_rung();
        }
    }
}

impl Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_turn_follows_each_ring_until_the_work_is_over() {
        let (bell, (turns, seen)) = (Bell::default(), mpsc::channel());
        let mut left = 3;
        let work = Box::new(move || {
            left -= 1;
            turns.send(left).unwrap();
            if left == 0 { Turn::Over } else { Turn::Wait }
        });
        // Rung before the thread runs: that is one turn more or none.
        bell.ring();
        let thread = Threads::default().start("t", &bell, work).unwrap();
        while seen.recv().unwrap() > 0 {
            bell.ring();
        }
        thread.join();
    }

    #[test]
    fn turns_come_without_a_ring_when_the_time_is_over() {
        let mut left = 3;
        let work = Box::new(move || {
            left -= 1;
            if left == 0 { Turn::Over } else { Turn::WaitAtMost(Duration::from_millis(1)) }
        });
        Threads::default().start("t", &Bell::default(), work).unwrap().join();
    }
}
