//! What is to go wrong, and when: drawn from a seed, stored, and repeated by `replay`.

use serde::{Deserialize, Serialize};

/// How long the loss lasts under which no leader may be lost.
pub(crate) const LIGHT_LOSS_MS: u64 = 600_000;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    // Processes.
    Kill,
    Stop,
    Pause,
    NamesrvKill,
    // Ways that are cut.
    Halves,
    LeaderMinority,
    LeaderMajority,
    Ring,
    Bridge,
    OneWayIn,
    OneWayOut,
    FromClients,
    FromNamesrvs,
    Refuse,
    DropResponse,
    // Ways that are bad.
    Loss,
    Delay,
    Duplicate,
    Reorder,
    SlowLink,
    LightLoss,
    // Wall clocks.
    ClockJump,
    ClockSkew,
    ClockStrobe,
    // Disks.
    Power,
    IoError,
    SyncError,
    DiskFull,
    SlowDisk,
    HungDisk,
    // Files.
    FlipBit,
    Truncate,
    ZeroPage,
    DeleteIndex,
    Wipe,
    // Limits.
    Memory,
    Files,
    Cpu,
    // What operators do.
    Transfer,
    Membership,
    RollingRestart,
    // Load.
    Segments,
}

impl Kind {
    pub(crate) const ALL: [Self; 42] = [
        Self::Kill,
        Self::Stop,
        Self::Pause,
        Self::NamesrvKill,
        Self::Halves,
        Self::LeaderMinority,
        Self::LeaderMajority,
        Self::Ring,
        Self::Bridge,
        Self::OneWayIn,
        Self::OneWayOut,
        Self::FromClients,
        Self::FromNamesrvs,
        Self::Refuse,
        Self::DropResponse,
        Self::Loss,
        Self::Delay,
        Self::Duplicate,
        Self::Reorder,
        Self::SlowLink,
        Self::ClockJump,
        Self::ClockSkew,
        Self::ClockStrobe,
        Self::Power,
        Self::IoError,
        Self::SyncError,
        Self::DiskFull,
        Self::SlowDisk,
        Self::HungDisk,
        Self::FlipBit,
        Self::Truncate,
        Self::ZeroPage,
        Self::DeleteIndex,
        Self::Wipe,
        Self::Memory,
        Self::Files,
        Self::Cpu,
        Self::Transfer,
        Self::Membership,
        Self::RollingRestart,
        Self::Segments,
        // A run of its own.
        Self::LightLoss,
    ];

    /// The name that `--nemesis` and reports use.
    pub(crate) fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == text)
    }

    /// Whether it needs replicas with disks of their own.
    pub(crate) fn needs_disks(self) -> bool {
        use Kind::*;
        matches!(self, Power | IoError | DiskFull | SlowDisk | HungDisk)
    }

    /// Whether it needs replicas whose wall clocks can be set.
    pub(crate) fn needs_clocks(self) -> bool {
        matches!(self, Self::ClockJump | Self::ClockSkew | Self::ClockStrobe)
    }

    /// Whether it needs five voters.
    pub(crate) fn needs_five(self) -> bool {
        matches!(self, Self::Ring)
    }

    /// Whether it takes the whole time that it is given, so that nothing of its kind fits beside it.
    fn is_of_processes(self) -> bool {
        use Kind::*;
        !matches!(
            self,
            Halves
                | LeaderMinority
                | LeaderMajority
                | Ring
                | Bridge
                | OneWayIn
                | OneWayOut
                | FromClients
                | FromNamesrvs
                | Refuse
                | DropResponse
                | Loss
                | Delay
                | Duplicate
                | Reorder
                | SlowLink
                | LightLoss
                | NamesrvKill
                | Segments
                | Transfer
        )
    }

    /// Whom it may hit, each as likely as it stands there often.
    fn targets(self) -> &'static [Target] {
        use Kind::*;
        use Target::*;
        match self {
            Kill | Power => &[Leader, Leader, Leader, Follower, Follower, Minority, Majority, All],
            Pause => &[Leader, Leader, Leader, Follower, Minority, Majority],
            Stop | IoError | SyncError | SlowDisk | Memory | Files | Cpu | OneWayIn | OneWayOut | Refuse
            | DropResponse | SlowLink | HungDisk => &[Leader, Leader, Follower],
            DiskFull => &[Leader, Follower, Follower, All],
            ClockJump | ClockSkew | ClockStrobe => &[Leader, Follower, Minority, All],
            FromClients | FromNamesrvs => &[Leader, Follower],
            FlipBit | Truncate | ZeroPage | DeleteIndex | Wipe => &[Leader, Follower],
            _ => &[Any],
        }
    }

    /// How long it lasts, in milliseconds: least and most.
    fn lasts_ms(self) -> (u64, u64) {
        use Kind::*;
        match self {
            DropResponse => (100, 600),
            LightLoss => (LIGHT_LOSS_MS, LIGHT_LOSS_MS),
            Transfer | Segments | RollingRestart | Membership => (500, 1_000),
            Loss | Delay | Duplicate | Reorder | SlowLink | SlowDisk | Cpu | Memory | ClockSkew => {
                (8_000, 14_000)
            }
            HungDisk => (3_000, 14_000),
            Pause | IoError | SyncError | Halves | LeaderMinority | LeaderMajority => (2_000, 12_000),
            _ => (1_000, 8_000),
        }
    }
}

/// Whom a fault hits. Who that is turns out when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    Leader,
    Follower,
    /// As many as the group can do without; the leader may be among them.
    Minority,
    /// One more.
    Majority,
    All,
    /// The fault itself says.
    Any,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Fault {
    /// When it begins, counted from the first one.
    pub(crate) at_ms: u64,
    /// How long it lasts.
    pub(crate) for_ms: u64,
    pub(crate) kind: Kind,
    pub(crate) target: Target,
    /// For everything else that it draws: who exactly, how much, where.
    pub(crate) seed: u64,
}

/// Draws faults in two lanes that overlap: one of processes, disks and files, one of everything else. Each kind has a
/// turn, however short the time is.
pub(crate) fn draw(kinds: &[Kind], length_ms: u64, seed: u64) -> Vec<Fault> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut faults = Vec::new();
    for lane in [true, false] {
        let mut all: Vec<_> = kinds.iter().copied().filter(|kind| kind.is_of_processes() == lane).collect();
        if all.is_empty() {
            continue;
        }
        let mut at_ms = random.u64(..2_000);
        'lane: for round in 0.. {
            random.shuffle(&mut all);
            for kind in &all {
                let (least, most) = kind.lasts_ms();
                let target = *random.choice(kind.targets()).expect("a target");
                let for_ms = random.u64(least..=most);
                if round > 0 && at_ms + for_ms > length_ms {
                    break 'lane;
                }
                faults.push(Fault { at_ms, for_ms, kind: *kind, target, seed: random.u64(..) });
                // Time to recover from the worst, or hardly any.
                let pause =
                    if random.u8(..4) == 0 { random.u64(200..1_500) } else { random.u64(2_000..6_000) };
                at_ms += for_ms + pause;
            }
        }
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_faults_and_each_kind_has_a_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(&kind.name()), Some(kind));
        }
        let one = draw(&Kind::ALL, 600_000, 7);
        assert_eq!(one, draw(&Kind::ALL, 600_000, 7));
        assert_ne!(one, draw(&Kind::ALL, 600_000, 8));
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Fault>>(&text).unwrap(), one);
    }

    #[test]
    fn every_kind_has_its_turn_if_there_is_time() {
        let faults = draw(&Kind::ALL, 7_200_000, 1);
        for kind in Kind::ALL {
            assert!(faults.iter().any(|fault| fault.kind == kind), "{kind:?}");
        }
        assert!(faults.iter().all(|fault| fault.at_ms + fault.for_ms <= 7_200_000));
    }
}
