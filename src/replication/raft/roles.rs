//! Who leads, as the rest of the broker sees it, and what a replica looks after every now and then.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::Fatal;

use super::group::{Group, Room};
use super::machine::blocking;
use super::types::Raft;
use crate::model::Term;
use crate::replication::Role;

/// How often a leader looks whether a majority is still there.
const LOOK: Duration = Duration::from_millis(100);
/// Time between two looks at retention, preferred leaders, the vote barrier.
const TEND: Duration = Duration::from_secs(1);
/// How often the other replicas are asked where clients reach them.
const ASK: Duration = Duration::from_secs(3);
/// How soon a leader is asked again where clients reach it.
const ASK_LEADER: Duration = Duration::from_millis(50);
/// How long an entry may wait for a majority before those who wait for it are told. As DLedger's quorum time-out.
const CONFIRM_LIMIT: Duration = Duration::from_millis(2500);
/// A leader that did not hear from a majority for so long says so.
const QUORUM_LOST: Duration = Duration::from_secs(3);
/// How long a replica may take to take over.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(3);
/// How often leadership may move to a preferred replica.
const PREFER_INTERVAL: Duration = Duration::from_secs(10);

/// Publishes the role until the replica stops.
pub(super) async fn run(group: Arc<Group>, raft: Raft) {
    let mut stop = group.stop.subscribe();
    let mut server = raft.server_metrics();
    let mut applied = group.shared.applied_term.subscribe();
    let mut addresses = group.addresses.subscribe();
    let failed = raft.metrics();
    loop {
        publish(&group, &raft);
        let is_over = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => true,
            changed = server.changed() => changed.is_err(),
            changed = applied.changed() => changed.is_err(),
            changed = addresses.changed() => changed.is_err(),
            () = tokio::time::sleep(LOOK) => false,
        };
        // At the end, too: a Raft that ends by itself says nothing but this.
        if let Err(error @ (Fatal::StorageError(_) | Fatal::Panicked)) =
            &failed.borrow_watched().running_state
        {
            group.shared.store.poison(format!("Raft stopped: {error}"));
        }
        if is_over {
            break;
        }
    }
    let term = group.role.borrow().term();
    group.role.send_replace(Role::Follower { term, leader: None });
}

fn publish(group: &Group, raft: &Raft) {
    let role = role_now(group, raft);
    group.role.send_if_modified(|known| {
        if *known == role {
            return false;
        }
        if known.is_leader() && !matches!(role, Role::Leader(term) if term == known.term()) {
            group.shared.metadata.forget_noted(None);
        }
        tracing::info!(group = group.settings.group, id = group.settings.id, ?role, "the role changed");
        group.leader_changes.fetch_add(1, Ordering::Relaxed);
        *known = role;
        true
    });
}

fn role_now(group: &Group, raft: &Raft) -> Role {
    let (state, term, leader) = {
        let server = raft.server_metrics();
        let server = server.borrow_watched();
        (server.state, Term(server.vote.leader_id.term), server.current_leader)
    };
    // The metrics must not be borrowed any more: `followed_at` borrows them, too, and would wait for ever for a Raft task
    // that wants to change them in between.
    if state == ServerState::Leader {
        let heard = group.followed_at(raft, term).is_some_and(|at| at.elapsed() < QUORUM_LOST);
        // Everything of the terms before is applied when an entry of the own term is.
        if heard && *group.shared.applied_term.borrow() == term.0 {
            return Role::Leader(term);
        }
        return Role::Follower { term, leader: None };
    }
    let other = leader.filter(|id| *id != group.settings.id);
    Role::Follower { term, leader: other.and_then(|id| group.client_address(id)) }
}

/// Asks the others where clients reach them, so that the address of a new leader is known when it leads.
pub(super) async fn learn_addresses(group: Arc<Group>) {
    let mut stop = group.stop.subscribe();
    loop {
        let questions = group.others().into_iter().map(|id| learn_address(&group, id));
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = futures_util::future::join_all(questions) => {}
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(ASK) => {}
        }
    }
}

async fn learn_address(group: &Group, id: u64) {
    let Some(address) = group.raft_address(id) else { return };
    if let Ok(answer) = group.ask(id, &address).await
        && !answer.client_address.is_empty()
    {
        group.addresses.send_if_modified(|known| {
            let before = known.insert(id, answer.client_address.clone());
            before.as_ref() != Some(&answer.client_address)
        });
    }
}

/// Asks a leader where clients reach it, as soon as there is one of which that is not known: it has just been added to
/// the group, or it started after the last question.
pub(super) async fn learn_leader(group: Arc<Group>, raft: Raft) {
    let mut stop = group.stop.subscribe();
    let mut server = raft.server_metrics();
    loop {
        let leader = server.borrow_watched().current_leader;
        let unknown = leader.filter(|id| group.client_address(*id).is_none());
        let ask_or_wait = async {
            match unknown {
                Some(id) => {
                    learn_address(&group, id).await;
                    tokio::time::sleep(ASK_LEADER).await;
                    true
                }
                None => server.changed().await.is_ok(),
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            go_on = ask_or_wait => if !go_on { return },
        }
    }
}

/// Looks after what is due every now and then.
pub(super) async fn tend(group: Arc<Group>, raft: Raft) {
    let mut stop = group.stop.subscribe();
    let mut preferred_since = tokio::time::Instant::now();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(TEND) => {}
        }
        if let Some(limit) = group.shared.clock.instant().checked_sub(CONFIRM_LIMIT) {
            group.shared.waiting.give_up(limit);
        }
        if let Err(error) = lift_barrier(&group, &raft).await {
            tracing::error!(%error, "the mark that this replica may not vote was not removed; tried again");
        }
        if let Err(error) = retain(&group, &raft).await {
            tracing::error!(%error, "old segments not deleted; tried again");
        }
        hand_over_if_full(&group, &raft).await;
        if preferred_since.elapsed() >= PREFER_INTERVAL && prefer(&group, &raft).await {
            preferred_since = tokio::time::Instant::now();
        }
    }
}

/// Lets a replica vote again that has got back what it lost.
async fn lift_barrier(group: &Arc<Group>, raft: &Raft) -> std::io::Result<()> {
    let Some(index) = group.barrier() else { return Ok(()) };
    if group.shared.applied().is_none_or(|applied| applied.index() < index.0) {
        return Ok(());
    }
    let shared = Arc::clone(&group.shared);
    blocking(group.shared.threads(), move || shared.files.remove_barrier()).await?;
    *group.barrier.lock().unwrap_or_else(PoisonError::into_inner) = None;
    group.allow_elections(raft);
    tracing::info!(%index, "the log is whole again: this replica votes");
    Ok(())
}

/// Lets go of the segments that retention wants to go, once a snapshot says what they left behind.
async fn retain(group: &Arc<Group>, raft: &Raft) -> std::io::Result<()> {
    let shared = Arc::clone(&group.shared);
    let wanted = shared.store.wanted_min();
    if wanted <= shared.store.log().min() {
        return Ok(());
    }
    let there = blocking(group.shared.threads(), move || {
        let there = shared.files.has_snapshot(wanted)?;
        if there {
            shared.set_floor(wanted);
        }
        Ok(there)
    });
    if there.await? {
        raft.trigger().snapshot().await.map_err(std::io::Error::other)?;
    }
    Ok(())
}

/// Hands over to a replica whose disk has room when the one of this leader has none: it would only refuse messages.
async fn hand_over_if_full(group: &Group, raft: &Raft) {
    if !group.shared.store.is_full() || !group.role.borrow().is_leader() {
        return;
    }
    // Where all are full, leading elsewhere is no better.
    let Some(successor) = group.successor(raft, Room::Needed).await else { return };
    if let Err(error) = group.hand_over(raft, successor, HAND_OVER_LIMIT).await {
        tracing::warn!(%error, "a leader with a full disk is not rid of the leadership; tried again");
    }
}

/// Hands over to a replica that is preferred and has all of the log. Returns whether it tried.
async fn prefer(group: &Group, raft: &Raft) -> bool {
    if !group.role.borrow().is_leader() {
        return false;
    }
    let list = &group.settings.preferred_leaders;
    let own = list.iter().position(|id| *id == group.settings.id).unwrap_or(list.len());
    let candidates = group.candidates(raft);
    let Some(better) = list[..own].iter().copied().find(|id| candidates.contains(id)) else { return false };
    if group.has_room(better).await != Some(true) {
        return false;
    }
    match group.hand_over(raft, better, HAND_OVER_LIMIT).await {
        Ok(leader) if leader == better => {}
        Ok(leader) => tracing::warn!(peer = better, leader, "the preferred leader did not take over"),
        Err(error) => tracing::warn!(%error, "the preferred leader did not take over"),
    }
    true
}
