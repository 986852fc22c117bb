//! Taking part in a group: at once after a restart, carefully with an empty store.
//!
//! A replica whose store is empty could have lost it. It would then forget what it voted for and acknowledged, so it must
//! not take part under its old place. Each store has an identity, made with its folder, and the membership holds it: the
//! group tells a new store from the old one. A group is made only when all its members answer that they are new, or hold
//! nothing: the one that began may have lost its power before the first entry was synced.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::group::Group;
use super::machine::blocking;
use super::server::Local as _;
use super::types::{Member, Raft};
use super::wire;
use crate::replication::GroupSettings;

/// Time between two rounds of questions.
const ROUND: Duration = Duration::from_millis(100);
/// How long the members of a group take to start one after the other. Whoever waits longer for others says so to a
/// human.
const STARTING: Duration = Duration::from_secs(10);

/// Takes part in the group as soon as that is safe.
pub(super) async fn run(group: Arc<Group>) {
    let mut stop = group.stop.subscribe();
    let known = {
        let joined = group.replica.lock().unwrap_or_else(PoisonError::into_inner).joined;
        joined || group.shared.entries.last().is_some() || group.shared.applied().is_some()
    };
    if known {
        if group.barrier().is_some() {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = super::mend::fetch_lost(&group) => {}
            }
        }
        match group.take_part().await {
            // Its process or its power may have ended between the mark and the first entry's sync.
            Ok(raft) => match raft.is_initialized().await {
                Ok(false) => {}
                Ok(true) | Err(_) => return,
            },
            // openraft may have been waiting for an entry to be mended when the replica was stopped.
            Err(_) if *stop.borrow() => return,
            Err(error) => {
                group.shared.store.poison(error.to_string());
                return;
            }
        }
    }
    let mut said = Said { since: Instant::now(), last: None };
    loop {
        let done = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            done = try_once(&group, &mut said) => done,
        };
        match done {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                group.shared.store.poison(error);
                return;
            }
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(ROUND) => {}
        }
    }
}

/// What the other replicas say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The group has this replica as a member.
    Join,
    /// All members are new, and this one is to begin.
    Begin(BTreeMap<u64, Member>),
    /// Not now, as the others are just starting: the reason.
    Starting(String),
    /// Not now, and maybe not without a human: the reason.
    Wait(String),
}

/// What a replica said of its waiting.
struct Said {
    /// When it began to wait.
    since: Instant,
    last: Option<(Severity, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Info,
    Warn,
}

impl Said {
    /// Says why a replica waits, once.
    fn say(&mut self, group: &Group, severity: Severity, reason: &str) {
        if self.last.as_ref().is_some_and(|(said, last)| *said == severity && last == reason) {
            return;
        }
        let GroupSettings { group, id, .. } = &group.settings;
        match severity {
            Severity::Info => tracing::info!(group, id, reason, "not yet part of the group"),
            Severity::Warn => tracing::warn!(group, id, reason, "not yet part of the group"),
        }
        self.last = Some((severity, reason.to_owned()));
    }
}

async fn try_once(group: &Arc<Group>, said: &mut Said) -> Result<bool, String> {
    let settings = &group.settings;
    let identity = group.replica.lock().unwrap_or_else(PoisonError::into_inner).identity;
    let questions =
        settings.peers.iter().filter(|peer| peer.id != settings.id).map(|peer| async move {
            (peer.id, peer.address.clone(), group.ask(peer.id, &peer.address).await)
        });
    let answers = futures_util::future::join_all(questions).await;
    let own = settings.peers.iter().find(|peer| peer.id == settings.id).map(|peer| peer.address.clone());
    let verdict = match judge(settings.id, identity, own.unwrap_or_default(), &answers) {
        Verdict::Begin(_) if !group.is_blank() => Verdict::Wait("this replica has lost its entries".into()),
        verdict => verdict,
    };
    let (severity, reason) = match verdict {
        Verdict::Join => {
            part(group).await?;
            return Ok(true);
        }
        Verdict::Begin(members) => {
            tracing::info!(group = settings.group, members = members.len(), "a new group begins");
            let raft = part(group).await?;
            raft.initialize(members).await.map_err(|error| format!("begin the group: {error}"))?;
            return Ok(true);
        }
        Verdict::Starting(reason) if said.since.elapsed() < STARTING => (Severity::Info, reason),
        Verdict::Starting(reason) | Verdict::Wait(reason) => (Severity::Warn, reason),
    };
    said.say(group, severity, &reason);
    *group.outside.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    Ok(false)
}

/// Takes part, if it does not yet.
async fn part(group: &Arc<Group>) -> Result<Raft, String> {
    if let Some(raft) = group.raft() {
        return Ok(raft);
    }
    mark_joined(group).await?;
    group.take_part().await.map_err(|error| error.to_string())
}

async fn mark_joined(group: &Arc<Group>) -> Result<(), String> {
    let shared = Arc::clone(&group.shared);
    let mut replica = group.replica.lock().unwrap_or_else(PoisonError::into_inner).clone();
    replica.joined = true;
    let saved = replica.clone();
    let saving = blocking(group.shared.threads(), move || shared.files.save_replica(&saved));
    saving.await.map_err(|error| error.to_string())?;
    *group.replica.lock().unwrap_or_else(PoisonError::into_inner) = replica;
    Ok(())
}

type Answer = (u64, String, Result<wire::HelloResponse, String>);

fn judge(id: u64, identity: u128, address: String, answers: &[Answer]) -> Verdict {
    let mut unreachable = Vec::new();
    let mut begun = None;
    let mut members = BTreeMap::from([(id, Member { raft_address: address, identity })]);
    for (peer, peer_address, answer) in answers {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                unreachable.push(format!("n{peer} at {peer_address}: {error}"));
                continue;
            }
        };
        let member = answer.members.iter().find(|member| member.id == id);
        match member.map(|member| wire::identity_from_bytes(&member.identity)) {
            Some(Ok(known)) if known == identity => return Verdict::Join,
            Some(_) => {
                begun = Some(Verdict::Wait(format!(
                    "the group knows n{id} with another store, which is lost or was moved away. Put it back, or take \
                     this empty one in with: mqadmin rejoin -i n{id}"
                )));
            }
            None if !answer.members.is_empty() => {
                begun = Some(Verdict::Wait(format!(
                    "n{id} is not a member of the group; take it in with: mqadmin addPeer -i n{id} -p HOST:PORT"
                )));
            }
            // One that heard of a group whose beginning was lost has nothing to lose.
            None if answer.joined && !answer.blank => {
                let reason = format!("n{peer} has been in the group and is just starting");
                begun = begun.or(Some(Verdict::Starting(reason)));
            }
            None => {}
        }
        match wire::identity_from_bytes(&answer.identity) {
            Ok(identity) => {
                members.insert(*peer, Member { raft_address: peer_address.clone(), identity });
            }
            Err(error) => unreachable.push(format!("n{peer} at {peer_address}: {error}")),
        }
    }
    if let Some(verdict) = begun {
        return verdict;
    }
    if !unreachable.is_empty() {
        let missing = unreachable.join("; ");
        return Verdict::Starting(format!(
            "the first start of a group needs all its members; missing: {missing}"
        ));
    }
    match members.keys().next() {
        Some(first) if *first == id => Verdict::Begin(members),
        first => Verdict::Starting(format!("n{} is to begin the group", first.copied().unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: u64, joined: bool, members: &[(u64, u128)]) -> Answer {
        let members = members
            .iter()
            .map(|(id, identity)| {
                wire::member(*id, &Member { raft_address: "h:1".into(), identity: *identity }, true)
            })
            .collect();
        let response = wire::HelloResponse {
            identity: wire::identity_to_bytes(u128::from(id) + 100),
            joined,
            members,
            ..wire::HelloResponse::default()
        };
        (id, format!("h{id}:1"), Ok(response))
    }

    fn waits(verdict: &Verdict, text: &str) {
        assert!(matches!(verdict, Verdict::Wait(reason) if reason.contains(text)), "{verdict:?}");
    }

    fn starts(verdict: &Verdict, text: &str) {
        assert!(matches!(verdict, Verdict::Starting(reason) if reason.contains(text)), "{verdict:?}");
    }

    #[test]
    fn a_group_begins_when_all_members_are_new_and_with_the_first_one_only() {
        let all = [answer(1, false, &[]), answer(2, false, &[])];
        let Verdict::Begin(members) = judge(0, 100, "h0:1".into(), &all) else { panic!("must begin") };
        assert_eq!(members.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(members[&2], Member { raft_address: "h2:1".into(), identity: 102 });
        let all = [answer(0, false, &[]), answer(2, false, &[])];
        starts(&judge(1, 101, "h1:1".into(), &all), "n0 is to begin");
    }

    #[test]
    fn an_unreachable_member_keeps_a_group_from_beginning() {
        let all = [answer(1, false, &[]), (2, "h2:1".into(), Err("refused".into()))];
        starts(&judge(0, 100, String::new(), &all), "needs all its members");
    }

    #[test]
    fn a_lost_store_is_told_from_a_member() {
        let group = [(0, 100), (1, 101), (2, 102)];
        let all = [answer(1, true, &group), (2, "h2:1".into(), Err("refused".into()))];
        assert_eq!(judge(0, 100, String::new(), &all), Verdict::Join);
        waits(&judge(0, 7, String::new(), &all), "rejoin");
        waits(&judge(3, 7, String::new(), &all), "addPeer");
        // One that was in a group and knows nothing yet is not new either.
        let all = [answer(1, true, &[]), answer(2, false, &[])];
        starts(&judge(0, 100, String::new(), &all), "just starting");
    }

    #[test]
    fn a_group_whose_first_entry_was_lost_begins_again() {
        let blank = |mut answer: Answer| {
            answer.2.as_mut().unwrap().blank = true;
            answer
        };
        let all = [blank(answer(1, true, &[])), blank(answer(2, false, &[]))];
        assert!(matches!(judge(0, 100, "h0:1".into(), &all), Verdict::Begin(_)));
        let all = [blank(answer(1, true, &[])), answer(2, true, &[])];
        starts(&judge(0, 100, String::new(), &all), "n2 has been");
    }
}
