//! What a change of the role sets in motion, and services that run on the leader only.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;

use super::Broker;
use super::context::Context;
use crate::replication::{LeaderPermit, Role};

/// Waits until the role changes. A role whose source is gone never does: that of a broker without replicas, or of one
/// that stops.
pub(crate) async fn changed(role: &mut watch::Receiver<Role>) {
    if role.changed().await.is_err() {
        pending().await
    }
}

/// Waits until the role is as wanted, in the same way.
pub(crate) async fn becomes(role: &mut watch::Receiver<Role>, wanted: impl FnMut(&Role) -> bool) {
    if role.wait_for(wanted).await.is_err() {
        pending().await
    }
}

/// Follows the role until told to stop. What only the leader gives away is gone when another one may lead: it would
/// contradict what that one gives.
pub(crate) async fn watch(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let mut role = broker.context.role();
    let mut led = role.borrow_and_update().is_leader();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = changed(&mut role) => {}
        }
        let leads = role.borrow_and_update().is_leader();
        if led != leads {
            broker.locks.clear();
            broker.resets.clear();
        }
        led = leads;
    }
}

/// Runs a service whenever this replica leads, from the first moment on; drops it when the permit ends. A service that
/// is done is not run again in the same term. Told to stop, the service ends by itself.
pub(crate) async fn while_leading<F>(
    context: Arc<Context>,
    mut stop: watch::Receiver<bool>,
    service: impl Fn(Arc<Context>, LeaderPermit, watch::Receiver<bool>) -> F,
) where
    F: Future<Output = ()>,
{
    let mut role = context.role();
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = becomes(&mut role, Role::is_leader) => {}
        }
        let Ok(permit) = context.replication.permit() else {
            tokio::task::yield_now().await;
            continue;
        };
        let run = service(Arc::clone(&context), permit, stop.clone());
        let run_and_stop = async {
            run.await;
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            biased;
            () = becomes(&mut role, |role| *role != Role::Leader(permit.term())) => {}
            () = run_and_stop => return,
        }
    }
}
