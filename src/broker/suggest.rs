//! Which replica a consumer shall pull from next.
//!
//! Source of the rules: RocketMQ `PullMessageProcessor`: readers of what is probably no longer in memory go to a slave,
//! so that they do not push out of the master's memory what the others read. Here a setting sends all readers there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::context::Context;
use crate::model::{QueueId, SubscriptionGroupConfig, Topic};
use crate::replication::GroupStatus;

/// The leader, as consumers know it.
pub(super) const LEADER: i64 = 0;
/// The follower that a group reads from when it is far behind, unless somebody set another one.
const SLOW_DEFAULT: i64 = 1;
/// How long the list of followers is used.
const FRESH: Duration = Duration::from_millis(100);
/// A follower that lacks more entries of the log than this gets no readers: it catches up.
const LAG_MAX: u64 = 10_000;

/// The followers that can take readers, looked at now and then.
#[derive(Debug, Default)]
pub(crate) struct Followers(Mutex<Option<(Instant, Arc<[i64]>)>>);

/// What the choice depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<'a> {
    /// This replica, and how it stands to the group.
    pub(super) place: Place,
    /// `slaveReadEnable`.
    pub(super) slave_read: bool,
    /// `raftReadFromFollowers`.
    pub(super) all_from_followers: bool,
    pub(super) group: &'a SubscriptionGroupConfig,
    /// What was read is probably not in memory.
    pub(super) cold: bool,
    /// The answer has messages.
    pub(super) found: bool,
    /// Spreads queues over followers, each queue always to the same one.
    pub(super) spread: usize,
}

/// Where a pull came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A broker without a Raft group.
    Alone,
    /// The leader of a group.
    Leader,
    /// A follower, by its number.
    Follower {
        id: i64,
        /// It knows of a leader.
        led: bool,
    },
}

impl Followers {
    /// Returns the numbers of the followers that can take readers.
    pub(super) fn of(&self, context: &Context) -> Arc<[i64]> {
        let now = context.clock.instant();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((looked, followers)) = &*known
            && now.saturating_duration_since(*looked) < FRESH
        {
            return Arc::clone(followers);
        }
        let silent_ms = context.config().raft_election_timeout_max_ms;
        let status = context.replication.status();
        let followers: Arc<[i64]> = status.map(|status| able(&status, silent_ms)).unwrap_or_default().into();
        *known = Some((now, Arc::clone(&followers)));
        followers
    }
}

/// Returns a number that is the same for all pulls from a queue.
pub(super) fn spread(topic: &Topic, queue_id: QueueId) -> usize {
    let hash = crate::message::crc32(topic.as_str().as_bytes()).wrapping_add(queue_id.0);
    usize::try_from(hash).unwrap_or(0)
}

/// Chooses a replica; `followers` are only looked at where they matter.
pub(super) fn choose(choice: &Choice<'_>, followers: impl FnOnce() -> Arc<[i64]>) -> i64 {
    let slow_to = choice.group.which_broker_when_consume_slowly;
    match choice.place {
        Place::Alone => match (choice.slave_read, choice.cold) {
            (true, true) => slow_to,
            (true, false) => choice.group.broker_id,
            (false, _) => LEADER,
        },
        Place::Leader if choice.all_from_followers || (choice.slave_read && choice.cold) => {
            let followers = followers();
            match followers.len() {
                0 => LEADER,
                // Every group has the default, also where the leader has that number itself.
                _ if slow_to != SLOW_DEFAULT && followers.contains(&slow_to) => slow_to,
                count => followers.get(choice.spread % count).copied().unwrap_or(LEADER),
            }
        }
        Place::Leader if choice.slave_read => choice.group.broker_id,
        Place::Leader => LEADER,
        Place::Follower { id, led } => match choice.found {
            true if choice.all_from_followers || choice.cold => id,
            // Nothing there yet, and maybe there is more at the leader.
            false if choice.all_from_followers && led => id,
            _ => LEADER,
        },
    }
}

/// Returns the followers that were heard from within `silent_ms`, the time after which a leader itself would count as
/// gone, and that are not far behind.
fn able(status: &GroupStatus, silent_ms: u64) -> Vec<i64> {
    let able = status.members.iter().filter(|member| {
        member.id != status.id
            && member.heard_ms.is_some_and(|age| age < silent_ms)
            && member.lag.is_some_and(|lag| lag <= LAG_MAX)
    });
    able.filter_map(|member| i64::try_from(member.id).ok()?.checked_add(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Group, LogIndex, PhysicalOffset, Term};
    use crate::replication::{MemberStatus, ReplicaState};

    #[test]
    fn readers_go_where_the_rules_of_rocketmq_send_them() {
        let leader = Place::Leader;
        let follower = Place::Follower { id: 3, led: true };
        let lost = Place::Follower { id: 3, led: false };
        // slaveReadEnable, raftReadFromFollowers, cold, found.
        for (place, [slave_read, all, cold, found], expected) in [
            (Place::Alone, [false, false, true, true], 0),
            (Place::Alone, [true, false, true, true], 1),
            (Place::Alone, [true, false, false, true], 0),
            (leader, [true, false, false, true], 0),
            (leader, [true, false, true, true], 2),
            (leader, [false, false, true, true], 0),
            (leader, [false, true, false, true], 2),
            (leader, [true, true, false, false], 2),
            // Far behind it stays, and when it has caught up it goes back.
            (follower, [true, false, true, true], 3),
            (follower, [true, false, false, true], 0),
            (follower, [true, false, true, false], 0),
            (follower, [true, true, false, true], 3),
            (follower, [true, true, false, false], 3),
            (lost, [true, true, false, true], 3),
            (lost, [true, true, false, false], 0),
        ] {
            let group = SubscriptionGroupConfig::new(Group::new("g"));
            let choice =
                Choice { place, slave_read, all_from_followers: all, group: &group, cold, found, spread: 4 };
            assert_eq!(choose(&choice, || Arc::from([2, 3])), expected, "{choice:?}");
        }
    }

    #[test]
    fn followers_that_are_silent_or_far_behind_get_no_readers() {
        let member = |id, heard_ms, lag| MemberStatus {
            id,
            raft_address: String::new(),
            voter: true,
            matched_index: None,
            lag,
            heard_ms,
        };
        let status = GroupStatus {
            group: "g".into(),
            id: 0,
            state: ReplicaState::Leader,
            outside_reason: None,
            term: Term(1),
            leader: Some(0),
            leader_address: None,
            first_index: LogIndex(0),
            last_index: LogIndex(9),
            committed_index: LogIndex(9),
            applied_index: LogIndex(9),
            snapshot_index: None,
            log_min: PhysicalOffset(0),
            log_end: PhysicalOffset(0),
            quorum_age_ms: Some(1),
            leader_changes: 0,
            members: vec![
                member(0, None, Some(0)),
                member(1, Some(299), Some(LAG_MAX)),
                // Heard from too long ago, never, too far behind, and what a follower knows of others.
                member(2, Some(300), Some(0)),
                member(3, None, Some(0)),
                member(4, Some(1), Some(LAG_MAX + 1)),
                member(5, None, None),
            ],
        };
        assert_eq!(able(&status, 300), [2], "n1 has the number 2");
    }

    #[test]
    fn queues_are_spread_over_followers_unless_the_group_names_one() {
        let mut group = SubscriptionGroupConfig::new(Group::new("g"));
        let choose_of = |group: &SubscriptionGroupConfig, spread, followers: &[i64]| {
            let choice = Choice {
                place: Place::Leader,
                slave_read: true,
                all_from_followers: false,
                group,
                cold: true,
                found: true,
                spread,
            };
            choose(&choice, || followers.into())
        };
        assert_eq!([0, 1, 2].map(|spread| choose_of(&group, spread, &[1, 2])), [1, 2, 1]);
        assert_eq!(choose_of(&group, 0, &[]), LEADER);
        group.which_broker_when_consume_slowly = 2;
        assert_eq!([0, 1].map(|spread| choose_of(&group, spread, &[1, 2])), [2, 2]);
        // The one that it names leads, or is down.
        assert_eq!(choose_of(&group, 0, &[1, 3]), 1);
    }
}
