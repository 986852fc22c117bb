//! What was sent and what was read, and whether the two agree. No clocks and no sockets: a function of a history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A message as its sender knows it. Its number is its place in [`KeyHistory::sent`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// How often it was sent with success or with an unknown outcome: as often it may be stored.
    pub(super) tries: u32,
    /// The queue offset that was acknowledged.
    pub(super) acknowledged: Option<u64>,
}

/// What someone read from a queue.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    /// Who read, from where: `n0`, or the consumer.
    pub(super) by: String,
    /// Offset and number of each message; `None` for one that is not of this key, or broken.
    pub(super) messages: Vec<(u64, Option<u64>)>,
    /// Whether everything up to the last acknowledged offset was to be read. Else it is not evidence of a loss.
    pub(super) complete: bool,
}

/// A key: one sender that sends one message after the other, and one queue that has nothing else.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyHistory {
    pub(super) sent: Vec<Sent>,
    pub(super) readings: Vec<Reading>,
}

/// What a history says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Messages that were acknowledged.
    pub(super) acknowledged: u64,
    /// Messages without an acknowledgement in the end; they may be stored or not.
    pub(super) unknown: u64,
    /// Acknowledged messages that are not where they were acknowledged to be, for one reader at least.
    pub(super) lost: u64,
    /// Copies that no repetition of the client explains.
    pub(super) duplicate: u64,
    /// Copies of messages that the client sent again without knowing the outcome.
    pub(super) retried: u64,
    /// Messages that stand behind a later one of their key.
    pub(super) out_of_order: u64,
    /// Offsets at which two readers found different messages, or one reader first one and then another.
    pub(super) changed: u64,
    /// Messages that nobody sent, or whose content is broken.
    pub(super) strange: u64,
    /// Readings that did not get to the end.
    pub(super) incomplete: u64,
}

impl Verdict {
    /// Whether everything that was promised holds. Duplicates are allowed: delivery is at least once.
    pub(super) fn holds(&self) -> bool {
        let broken = [self.lost, self.out_of_order, self.changed, self.strange, self.incomplete];
        broken.iter().all(|count| *count == 0) && self.acknowledged > 0
    }
}

/// Judges the histories of all keys.
pub(super) fn judge(keys: &[KeyHistory]) -> Verdict {
    let mut sum = Verdict::default();
    for key in keys {
        let one = judge_key(key);
        sum.acknowledged += one.acknowledged;
        sum.unknown += one.unknown;
        sum.lost += one.lost;
        sum.duplicate += one.duplicate;
        sum.retried += one.retried;
        sum.out_of_order += one.out_of_order;
        sum.changed += one.changed;
        sum.strange += one.strange;
        sum.incomplete += one.incomplete;
    }
    sum
}

fn judge_key(key: &KeyHistory) -> Verdict {
    let acknowledged =
        || (0_u64..).zip(&key.sent).filter_map(|(number, sent)| Some((number, sent.acknowledged?)));
    let mut verdict = Verdict {
        acknowledged: acknowledged().count() as u64,
        unknown: key.sent.iter().filter(|sent| sent.acknowledged.is_none()).count() as u64,
        ..Verdict::default()
    };
    let mut everywhere: BTreeMap<u64, Option<u64>> = BTreeMap::new();
    let mut changed = BTreeSet::new();
    let mut lost = BTreeSet::new();
    for reading in &key.readings {
        let mut log = BTreeMap::new();
        for (offset, number) in &reading.messages {
            // A reader that comes to a place again must find the same there.
            if log.insert(*offset, *number).is_some_and(|before| before != *number) {
                changed.insert(*offset);
            }
            if *everywhere.entry(*offset).or_insert(*number) != *number {
                changed.insert(*offset);
            }
        }
        if reading.complete {
            lost.extend(acknowledged().filter(|(number, at)| log.get(at) != Some(&Some(*number))));
        } else {
            verdict.incomplete += 1;
        }
        let counts = judge_log(&key.sent, &log);
        // The readers read the same log, so each fault counts once.
        verdict.duplicate = verdict.duplicate.max(counts.duplicate);
        verdict.retried = verdict.retried.max(counts.retried);
        verdict.out_of_order = verdict.out_of_order.max(counts.out_of_order);
        verdict.strange = verdict.strange.max(counts.strange);
    }
    // Two acknowledgements of one place: at most one of them can be true.
    let places: BTreeSet<u64> = acknowledged().map(|(_, at)| at).collect();
    verdict.lost = (lost.len() as u64).max(verdict.acknowledged - places.len() as u64);
    verdict.changed = changed.len() as u64;
    verdict
}

/// Judges what stands in a queue, by itself.
fn judge_log(sent: &[Sent], log: &BTreeMap<u64, Option<u64>>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut copies: BTreeMap<u64, u32> = BTreeMap::new();
    let mut newest = None;
    for number in log.values() {
        let known = number.filter(|number| {
            let sent = usize::try_from(*number).ok().and_then(|at| sent.get(at));
            sent.is_some_and(|sent| sent.tries > 0)
        });
        let Some(number) = known else {
            verdict.strange += 1;
            continue;
        };
        let count = copies.entry(number).or_default();
        *count += 1;
        // Only the first copy has a place to keep: a copy of an earlier try may come at any time.
        if *count == 1 && newest.is_some_and(|newest| number < newest) {
            verdict.out_of_order += 1;
        }
        newest = newest.max(Some(number));
    }
    for (number, count) in copies {
        let tries = usize::try_from(number).ok().and_then(|at| sent.get(at)).map_or(0, |sent| sent.tries);
        let explained = count.min(tries);
        verdict.retried += u64::from(explained.saturating_sub(1));
        verdict.duplicate += u64::from(count - explained);
    }
    verdict
}

/// The longest time without an acknowledged send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gap {
    last: Duration,
    /// How long it was.
    pub(super) longest: Duration,
    /// When it began, since the start of sending.
    pub(super) since: Duration,
}

impl Gap {
    /// Returns when something was last noted.
    pub(super) fn last(&self) -> Duration {
        self.last
    }

    /// Notes an acknowledgement, or the end of sending, at a time since the start of sending.
    pub(super) fn note(&mut self, at: Duration) {
        let gap = at.saturating_sub(self.last);
        if gap > self.longest {
            (self.longest, self.since) = (gap, self.last);
        }
        self.last = self.last.max(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages that were acknowledged at these offsets at the first try.
    fn acknowledged(offsets: &[u64]) -> Vec<Sent> {
        offsets.iter().map(|at| Sent { tries: 1, acknowledged: Some(*at) }).collect()
    }

    /// A complete reading of a queue whose messages have these numbers.
    fn log(numbers: &[u64]) -> Reading {
        let messages = (0..).zip(numbers.iter().map(|number| Some(*number))).collect();
        Reading { by: "n0".into(), messages, complete: true }
    }

    fn verdict(sent: Vec<Sent>, readings: Vec<Reading>) -> Verdict {
        judge(&[KeyHistory { sent, readings }])
    }

    #[test]
    fn a_good_history_holds() {
        let verdict = verdict(acknowledged(&[0, 1, 2]), vec![log(&[0, 1, 2]), log(&[0, 1, 2])]);
        assert_eq!(verdict, Verdict { acknowledged: 3, ..Verdict::default() });
        assert!(verdict.holds());
    }

    #[test]
    fn nothing_sent_proves_nothing() {
        assert!(!judge(&[]).holds());
        assert!(!verdict(Vec::new(), vec![log(&[])]).holds());
    }

    #[test]
    fn a_message_that_is_gone_is_lost() {
        // The last one, as after a leader that acknowledged alone.
        let verdict = verdict(acknowledged(&[0, 1, 2]), vec![log(&[0, 1])]);
        assert_eq!(verdict, Verdict { acknowledged: 3, lost: 1, ..Verdict::default() });
        assert!(!verdict.holds());
    }

    #[test]
    fn a_message_that_one_replica_lacks_is_lost() {
        let verdict = verdict(acknowledged(&[0, 1]), vec![log(&[0, 1]), log(&[0]), log(&[0, 1])]);
        assert_eq!((verdict.lost, verdict.changed), (1, 0));
    }

    #[test]
    fn a_message_at_another_place_than_acknowledged_is_lost() {
        // Number 1 was acknowledged at 1 and stands at 2; another message, sent in vain, took its place.
        let mut sent = acknowledged(&[0, 1]);
        sent.push(Sent { tries: 1, acknowledged: None });
        let verdict = verdict(sent, vec![log(&[0, 2, 1])]);
        assert_eq!((verdict.lost, verdict.out_of_order, verdict.unknown), (1, 1, 1));
    }

    #[test]
    fn one_place_cannot_be_acknowledged_twice() {
        let verdict = verdict(acknowledged(&[0, 0]), Vec::new());
        assert_eq!(verdict.lost, 1);
    }

    #[test]
    fn reordering_is_found() {
        let verdict = verdict(acknowledged(&[0, 2, 1]), vec![log(&[0, 2, 1])]);
        assert_eq!(verdict, Verdict { acknowledged: 3, out_of_order: 1, ..Verdict::default() });
        assert!(!verdict.holds());
    }

    #[test]
    fn a_late_copy_is_no_reordering() {
        // 1 was tried three times; the first try was stored in the end, behind later messages.
        let mut sent = acknowledged(&[0, 1, 2]);
        sent[1].tries = 3;
        let verdict = verdict(sent, vec![log(&[0, 1, 2, 1])]);
        assert_eq!(verdict, Verdict { acknowledged: 3, retried: 1, ..Verdict::default() });
        assert!(verdict.holds());
    }

    #[test]
    fn copies_that_no_try_explains_are_duplicates() {
        let mut sent = acknowledged(&[0, 2]);
        sent[0].tries = 2;
        let verdict = verdict(sent, vec![log(&[0, 0, 1, 1, 0])]);
        assert_eq!(verdict, Verdict { acknowledged: 2, retried: 1, duplicate: 2, ..Verdict::default() });
        assert!(verdict.holds(), "at least once is what is promised");
    }

    #[test]
    fn an_unknown_outcome_may_be_stored_or_not() {
        let mut sent = acknowledged(&[0]);
        sent.push(Sent { tries: 2, acknowledged: None });
        for numbers in [&[0][..], &[0, 1], &[0, 1, 1]] {
            let verdict = verdict(sent.clone(), vec![log(numbers)]);
            assert!(verdict.holds() && verdict.unknown == 1 && verdict.duplicate == 0, "{verdict:?}");
        }
    }

    #[test]
    fn a_message_that_vanishes_after_it_was_read_is_a_change() {
        // The consumer read number 1 at 1 from a leader that nobody followed; later 2 stands there.
        let mut sent = acknowledged(&[0]);
        sent.push(Sent { tries: 1, acknowledged: None });
        sent.push(Sent { tries: 1, acknowledged: Some(1) });
        let verdict = verdict(sent, vec![log(&[0, 1]), log(&[0, 2])]);
        assert_eq!((verdict.changed, verdict.lost), (1, 1));
        assert!(!verdict.holds());
    }

    #[test]
    fn a_reader_that_finds_another_message_at_a_place_sees_a_change() {
        let mut reading = log(&[0, 1]);
        reading.messages.push((0, Some(1)));
        reading.messages.push((0, Some(0)));
        assert_eq!(verdict(acknowledged(&[0, 1]), vec![reading]).changed, 1);
    }

    #[test]
    fn messages_that_nobody_sent_are_strange() {
        let mut reading = log(&[0, 7]);
        reading.messages.push((2, None));
        let mut sent = acknowledged(&[0]);
        // Never got through: nobody listened at that address.
        sent.push(Sent::default());
        reading.messages.push((3, Some(1)));
        let verdict = verdict(sent, vec![reading]);
        assert_eq!(verdict.strange, 3);
        assert!(!verdict.holds());
    }

    #[test]
    fn a_reading_that_was_cut_off_proves_no_loss_but_is_told() {
        let reading = Reading { complete: false, ..log(&[0]) };
        let verdict = verdict(acknowledged(&[0, 1]), vec![reading, log(&[0, 1])]);
        assert_eq!((verdict.lost, verdict.incomplete), (0, 1));
        assert!(!verdict.holds());
    }

    #[test]
    fn keys_are_judged_apart_and_added() {
        let key = |numbers: &[u64]| KeyHistory { sent: acknowledged(&[0, 1]), readings: vec![log(numbers)] };
        let verdict = judge(&[key(&[0, 1]), key(&[0]), key(&[1, 0])]);
        assert_eq!((verdict.acknowledged, verdict.lost, verdict.out_of_order), (6, 3, 1));
    }

    #[test]
    fn gaps_are_measured_from_the_start_to_the_end() {
        let ms = Duration::from_millis;
        let mut gap = Gap::default();
        for at in [10, 20, 320, 310, 330] {
            gap.note(ms(at));
        }
        assert_eq!((gap.longest, gap.since), (ms(300), ms(20)));
        gap.note(ms(900));
        assert_eq!((gap.longest, gap.since), (ms(570), ms(330)));
    }
}
