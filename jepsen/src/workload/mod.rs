//! What clients do while faults happen. Each workload notes what it asked for and what came of it.

pub(crate) mod log;
pub(crate) mod queue;
pub(crate) mod register;
pub(crate) mod routes;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::history::Histories;

/// What workloads know of the cluster.
#[derive(Debug)]
pub(crate) struct Servers {
    /// Where clients reach each voter.
    pub(crate) brokers: Vec<String>,
    pub(crate) namesrvs: Vec<String>,
}

/// What each task of a workload has.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) histories: Arc<Histories>,
    pub(crate) servers: Arc<Servers>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Context {
    pub(crate) fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits for the end of the run.
    pub(crate) fn over(&self) -> impl Future<Output = ()> + use<> {
        let mut stop = self.stop.clone();
        async move {
            let _ = stop.wait_for(|stop| *stop).await;
        }
    }

    /// Waits a while, or less if the run ends.
    pub(crate) async fn pause(&mut self, time: Duration) {
        let _ = tokio::time::timeout(time, self.stop.wait_for(|stop| *stop)).await;
    }
}
