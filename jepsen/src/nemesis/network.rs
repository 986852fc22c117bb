//! Faults of the net, as rules of the switch.

use std::collections::BTreeSet;

use crate::cluster::Hosts;
use crate::net::{Effect, HostId, Rule};
use crate::plan::Kind;

/// Rules, whom they hinder, and what they are in words.
pub(super) struct Cuts {
    pub(super) rules: Vec<Rule>,
    /// Replicas of which the others need not expect anything while it lasts.
    pub(super) impaired: BTreeSet<usize>,
    pub(super) text: String,
}

/// Returns what a fault of the net does. `voters` are the members, `leader` one of them.
pub(super) fn cuts(
    kind: Kind,
    hosts: &Hosts,
    voters: &[usize],
    chosen: usize,
    leader: Option<usize>,
    random: &mut fastrand::Rng,
) -> Option<Cuts> {
    let all: BTreeSet<HostId> = hosts.brokers().collect();
    let others = |of: &BTreeSet<HostId>| -> BTreeSet<HostId> { all.difference(of).copied().collect() };
    let one = BTreeSet::from([chosen]);
    let clients = BTreeSet::from([hosts.rust(), hosts.java()]);
    let namesrvs: BTreeSet<HostId> = hosts.namesrvs().collect();
    let everyone: BTreeSet<HostId> = all.iter().chain(&clients).chain(&namesrvs).copied().collect();
    let both = |a: &BTreeSet<HostId>, b: &BTreeSet<HostId>, effect: Effect| {
        vec![Rule { from: a.clone(), to: b.clone(), effect }, Rule { from: b.clone(), to: a.clone(), effect }]
    };
    let cut = |side: &BTreeSet<HostId>| both(side, &others(side), Effect::Drop);
    let minority = (voters.len() - 1) / 2;
    let mut shuffled = voters.to_vec();
    random.shuffle(&mut shuffled);
    let side_with = |leader: usize, count: usize| -> BTreeSet<HostId> {
        let rest = shuffled.iter().copied().filter(|node| *node != leader).take(count - 1);
        std::iter::once(leader).chain(rest).collect()
    };
    let none = BTreeSet::new();
    Some(match kind {
        Kind::Halves => {
            let side: BTreeSet<HostId> = shuffled.iter().copied().take(minority.max(1)).collect();
            Cuts { rules: cut(&side), text: format!("{side:?} from the others"), impaired: side }
        }
        Kind::LeaderMinority => {
            let side = side_with(leader?, minority.max(1));
            Cuts {
                rules: cut(&side),
                text: format!("{side:?}, with the leader, from the others"),
                impaired: side,
            }
        }
        Kind::LeaderMajority => {
            let side = side_with(leader?, voters.len() - minority);
            let rest: BTreeSet<HostId> = voters.iter().copied().filter(|node| !side.contains(node)).collect();
            Cuts {
                rules: cut(&rest),
                text: format!("{rest:?} from the others, with the leader"),
                impaired: rest,
            }
        }
        Kind::Ring => {
            // Each sees its neighbours: a majority, and a different one for each.
            let count = shuffled.len();
            let mut rules = Vec::new();
            for (at, node) in shuffled.iter().enumerate() {
                let far = (2..count - 1).map(|step| shuffled[(at + step) % count]).collect();
                rules.push(Rule { from: BTreeSet::from([*node]), to: far, effect: Effect::Drop });
            }
            Cuts { rules, impaired: none, text: format!("a ring of {shuffled:?}") }
        }
        Kind::Bridge => {
            let middle = shuffled[0];
            let (left, right) = shuffled[1..].split_at((shuffled.len() - 1) / 2);
            let (left, right) = (left.iter().copied().collect(), right.iter().copied().collect());
            let text = format!("{left:?} from {right:?}; n{middle} sees both");
            Cuts { rules: both(&left, &right, Effect::Drop), impaired: none, text }
        }
        Kind::OneWayIn => Cuts {
            rules: vec![Rule { from: others(&one), to: one.clone(), effect: Effect::Drop }],
            text: format!("n{chosen} hears no replica"),
            impaired: one,
        },
        Kind::OneWayOut => Cuts {
            rules: vec![Rule { from: one.clone(), to: others(&one), effect: Effect::Drop }],
            text: format!("no replica hears n{chosen}"),
            impaired: one,
        },
        Kind::DropResponse => {
            // Followers have nothing to say to each other.
            let peer = match leader {
                Some(leader) if leader != chosen => leader,
                _ => *shuffled.iter().find(|node| **node != chosen)?,
            };
            Cuts {
                rules: vec![Rule { from: one.clone(), to: BTreeSet::from([peer]), effect: Effect::Drop }],
                text: format!("n{peer} misses what n{chosen} says"),
                impaired: one,
            }
        }
        Kind::FromClients => Cuts {
            rules: both(&one, &clients, Effect::Drop),
            text: format!("n{chosen} from clients"),
            impaired: one,
        },
        Kind::FromNamesrvs => Cuts {
            rules: both(&one, &namesrvs, Effect::Drop),
            text: format!("n{chosen} from name servers"),
            impaired: none,
        },
        Kind::Refuse => Cuts {
            rules: both(&one, &others(&one), Effect::Refuse),
            text: format!("n{chosen} and the others are refused by each other"),
            impaired: one,
        },
        Kind::Loss => {
            let share = f64::from(random.u32(1..=20)) / 100.0;
            let rules = vec![Rule { from: everyone.clone(), to: everyone, effect: Effect::Lose { share } }];
            Cuts { rules, impaired: all, text: format!("{share} of all frames are lost") }
        }
        Kind::LightLoss => {
            let rule = |effect| Rule { from: everyone.clone(), to: everyone.clone(), effect };
            let rules =
                vec![rule(Effect::Lose { share: 0.01 }), rule(Effect::Delay { ms: 0, jitter_ms: 20 })];
            Cuts {
                rules,
                impaired: none,
                text: "0.01 of all frames are lost, all come up to 20 ms late".into(),
            }
        }
        Kind::Delay => {
            let (ms, jitter_ms) = (random.u64(5..60), random.u64(5..60));
            let effect = Effect::Delay { ms, jitter_ms };
            let rules = vec![Rule { from: all.clone(), to: all.clone(), effect }];
            Cuts { rules, impaired: all, text: format!("{ms} to {} ms between replicas", ms + jitter_ms) }
        }
        Kind::Duplicate => {
            let share = f64::from(random.u32(5..=50)) / 100.0;
            let effect = Effect::Duplicate { share };
            let rules = vec![Rule { from: everyone.clone(), to: everyone, effect }];
            Cuts { rules, impaired: none, text: format!("{share} of all frames come twice") }
        }
        Kind::Reorder => {
            let (share, ms) = (f64::from(random.u32(5..=30)) / 100.0, random.u64(1..20));
            let effect = Effect::Reorder { share, ms };
            let rules = vec![Rule { from: everyone.clone(), to: everyone, effect }];
            Cuts { rules, impaired: all, text: format!("{share} of all frames come {ms} ms late") }
        }
        Kind::SlowLink => {
            let bytes = random.u64(60_000..250_000);
            Cuts {
                rules: both(&one, &others(&one), Effect::Slow { bytes }),
                text: format!("{bytes} bytes a second between n{chosen} and the others"),
                impaired: one,
            }
        }
        _ => return None,
    })
}
