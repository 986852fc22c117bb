//! What only the leader may do, asked of a replica that does not lead: it hands the request on, and while there is no
//! leader it holds it for a moment.
//!
//! So a client whose route is old is served all the same, and an election costs it a late answer instead of an error.
//! A request that was handed on says so in a field. Who gets it and does not lead waits if it may be about to, and else
//! says that nothing was done; it does not hand it on again. The sender may have given up and asked another replica, so
//! that what is carried out late would undo what was acknowledged since.

use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::response::Error;
use super::roles::{becomes, changed};
use crate::config::BrokerConfig;
use crate::model::Term;
use crate::remoting::{Answer, CallError, Client, ClientConfig, Command, Connection, ResponseCode};
use crate::replication::{self, Role};

/// In a request that was handed on: the term of the leader that it was meant for.
const FORWARDED: &str = "quorateForwarded";
/// In a request that was handed on: for how many milliseconds it may be held.
const WAIT_MS: &str = "quorateWaitMs";
/// In a request that was handed on: the address of the client.
const CLIENT: &str = "quorateClient";
/// In the answer to a request that was handed on: nothing was done, as the replica does not lead.
const NOT_LEADER: &str = "quorateNotLeader";

/// Connections to the leader. What one client sends keeps to one of them, so that it arrives in order; several, so
/// that a request which holds up its connection does not hold up everybody.
const LANES: usize = 4;
/// How soon a leader that did not take a request is asked again, if nothing is heard of another one.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// How long an answer of a leader is waited for after another one was elected. A leader that was asked to step down
/// hears of the new one with the same heartbeat as this replica, and answers after a round trip and a sync of the disk;
/// one that is paused or cut off does not answer, and each moment here is added to the election that it costs.
const DEPOSED_WAIT: Duration = Duration::from_millis(100);
/// Requests that wait here for a leader or for its answer, by their size in KiB, each counted as one more.
const ROOM_KIB: usize = 64 << 10;
/// How much earlier than `forwardTimeout` a send is given up, so that the client, which has the same patience, still
/// hears of it and may try elsewhere.
const GIVE_UP_EARLIER: Duration = Duration::from_millis(500);
/// How long the answer to an operator's request may take, if that is longer than `forwardTimeout`.
const OPERATOR_PATIENCE: Duration = Duration::from_secs(10);

/// Hands requests on.
#[derive(Debug)]
pub(crate) struct Forward {
    role: watch::Receiver<Role>,
    /// The address that clients know this replica by.
    own: String,
    lanes: [Client; LANES],
    room: Arc<Semaphore>,
    /// When a request of a client was last handed on.
    used: Mutex<Option<Instant>>,
}

/// What it does to carry a request out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It stores messages, which would be there twice if it was done twice.
    Store,
    /// It changes something: a second time would undo what others have changed since the first.
    Change,
    /// A second time does no harm, whatever came in between.
    Repeatable,
}

/// A request that looks for its leader.
#[derive(Debug)]
pub(crate) struct Errand {
    request: Arc<Command>,
    /// Where it came from.
    client: SocketAddr,
    lane: usize,
    /// The term in which it was handed on to this replica, if it was.
    forwarded: Option<Term>,
    effect: Effect,
    /// Until when it is held.
    leader_until: Instant,
    /// Until when the leader's answer is waited for.
    answer_until: Instant,
    /// For words.
    wait: Duration,
    _room: OwnedSemaphorePermit,
}

/// What to do with an errand.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// This replica leads.
    Here,
    /// Another one does.
    HandOn { leader: String, term: Term },
    /// None does, or none is known.
    Wait,
    /// Another one does, and the replica that handed it on will hear of that.
    GiveBack,
}

/// How handing on went.
enum Handed {
    Answered(Command),
    /// The leader did nothing.
    NotDone,
    /// The leader may have done it.
    Unknown(CallError),
}

impl Forward {
    /// Makes the forwarder of the replica that clients know by the address `own`.
    pub(crate) fn new(role: watch::Receiver<Role>, own: String) -> Self {
        Self {
            role,
            own,
            lanes: std::array::from_fn(|_| Client::new(ClientConfig::default())),
            room: Arc::new(Semaphore::new(ROOM_KIB)),
            used: Mutex::default(),
        }
    }

    /// Whether clients sent here, in this time, what the leader should have.
    pub(crate) fn is_used_within(&self, time: Duration) -> bool {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|used| used.elapsed() < time)
    }

    /// Takes a request in that arrived at `arrived`; an error if too many are here already.
    pub(crate) fn take(
        &self,
        effect: Effect,
        connection: &Connection,
        request: Command,
        arrived: Instant,
        config: &BrokerConfig,
    ) -> Result<Errand, Error> {
        let kib = u32::try_from(request.body.len() >> 10).unwrap_or(u32::MAX).saturating_add(1);
        let room = Arc::clone(&self.room).try_acquire_many_owned(kib).map_err(|_| {
            Error::Unavailable("too many requests wait for the leader of the group; send again".into())
        })?;
        let own_wait = Duration::from_millis(config.raft_leader_wait_ms);
        let forwarded = forwarded_in(&request);
        let wait = match request.ext_fields.get(WAIT_MS).and_then(|text| text.parse().ok()) {
            Some(ms) if forwarded.is_some() => own_wait.min(Duration::from_millis(ms)),
            _ => own_wait,
        };
        let patience = Duration::from_millis(config.forward_timeout);
        let patience = match effect {
            Effect::Store => patience.saturating_sub(GIVE_UP_EARLIER),
            Effect::Change | Effect::Repeatable => patience.max(OPERATOR_PATIENCE),
        };
        // Whoever sent it has given up by then: a leader that was cut off learns late that its entries are void.
        let answer_until = arrived + patience.max(wait);
        Ok(Errand {
            client: client_of(connection, &request),
            request: Arc::new(request),
            lane: usize::try_from(connection.id() % LANES as u64).unwrap_or(0),
            forwarded,
            effect,
            leader_until: answer_until.min(Instant::now() + wait),
            answer_until,
            wait,
            _room: room,
        })
    }

    /// Carries an errand out: with `here` while this replica leads, at the leader while there is one, and not at all
    /// if none is found in time.
    pub(crate) async fn run<F>(
        &self,
        errand: Errand,
        here: impl Fn(Arc<Command>) -> F,
    ) -> Result<Command, Error>
    where
        F: Future<Output = Result<Command, Error>>,
    {
        let mut role = self.role.clone();
        loop {
            if Instant::now() >= errand.answer_until {
                return Err(self.no_leader(&errand));
            }
            let step = step(&role.borrow_and_update(), &self.own, errand.forwarded);
            let again = match step {
                Step::Here => match here(Arc::clone(&errand.request)).await {
                    Err(error) if error.is_not_leader() => Some(RETRY_INTERVAL),
                    done => return done,
                },
                Step::HandOn { leader, term } => {
                    match self.hand_on(&errand, &leader, term, &mut role).await {
                        Handed::Answered(answer) => return Ok(answer),
                        Handed::NotDone => {}
                        Handed::Unknown(error) if errand.effect == Effect::Repeatable => {
                            tracing::debug!(peer = leader, %error, "the leader did not answer");
                        }
                        Handed::Unknown(error) => {
                            return Err(Error::Unavailable(format!(
                                "the leader did not answer, and may or may not have carried it out: {error}; send again"
                            )));
                        }
                    }
                    Some(RETRY_INTERVAL)
                }
                Step::Wait => None,
                Step::GiveBack => return Err(replication::Error::NotLeader.into()),
            };
            if Instant::now() >= errand.leader_until {
                return Err(self.no_leader(&errand));
            }
            let retry = async {
                match again {
                    Some(interval) => tokio::time::sleep(interval).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = changed(&mut role) => {}
                () = retry => {}
                () = sleep_until(errand.leader_until) => {}
            }
        }
    }

    /// Sends a one-way request of this replica itself to the leader; false if there is none or it cannot be reached.
    pub(crate) async fn send(&self, request: &Command) -> bool {
        let Step::HandOn { leader, term } = step(&self.role.borrow(), &self.own, None) else { return false };
        let connected = self.lanes[0].connect(&leader, RETRY_INTERVAL * 4).await;
        let Ok(connection) = connected else { return false };
        connection.send(request.clone().with_field(FORWARDED, term.0.to_string()));
        true
    }

    /// Closes the connections to the leader.
    pub(crate) async fn close(&self) {
        for lane in &self.lanes {
            lane.close().await;
        }
    }

    async fn hand_on(
        &self,
        errand: &Errand,
        leader: &str,
        term: Term,
        role: &mut watch::Receiver<Role>,
    ) -> Handed {
        if errand.forwarded.is_none() {
            *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        let left = errand.leader_until.saturating_duration_since(Instant::now()).max(RETRY_INTERVAL);
        let connection = tokio::select! {
            connected = self.lanes[errand.lane].connect(leader, left) => match connected {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(peer = leader, %error, "the leader cannot be reached");
                    return Handed::NotDone;
                }
            },
            // A host that is gone lets callers wait for seconds; meanwhile there is a new leader.
            () = changed(role) => {
                role.mark_changed();
                return Handed::NotDone;
            }
        };
        if connection.is_closed() {
            return Handed::NotDone;
        }
        let left = errand.leader_until.saturating_duration_since(Instant::now());
        let request = Command::clone(&errand.request)
            .with_field(FORWARDED, term.0.to_string())
            .with_field(WAIT_MS, left.as_millis().to_string())
            .with_field(CLIENT, errand.client.to_string());
        if errand.request.is_oneway() {
            connection.send(request);
            // Nobody gets this.
            return Handed::Answered(Command::response(ResponseCode::Success));
        }
        let patience = errand.answer_until.saturating_duration_since(Instant::now());
        let answer = connection.request_or_close(request, patience);
        match until_deposed(answer, leader, role, patience).await {
            Ok(answer) if answer.ext_fields.get(NOT_LEADER).is_some() => Handed::NotDone,
            Ok(answer) => Handed::Answered(answer),
            Err(CallError::Connect { .. } | CallError::Busy { .. }) => Handed::NotDone,
            Err(error @ (CallError::Timeout { .. } | CallError::Closed { .. })) => Handed::Unknown(error),
        }
    }

    fn no_leader(&self, errand: &Errand) -> Error {
        let wait_ms = errand.wait.as_millis();
        match errand.forwarded {
            Some(_) => replication::Error::NotLeader.into(),
            None => Error::Unavailable(format!(
                "the group had no leader that could be reached for {wait_ms} ms (raftLeaderWaitMs); send again, and if \
                 this lasts look at mqadmin raftStatus"
            )),
        }
    }
}

/// Makes the answer to what went wrong. If another replica handed the request on, it learns whether nothing was done,
/// so that it may try elsewhere.
pub(crate) fn refusal(forwarded: bool, error: Error) -> Command {
    let not_done = error.is_not_leader();
    let answer = Command::from(error);
    if forwarded && not_done { answer.with_field(NOT_LEADER, "true") } else { answer }
}

/// Returns the term in which another replica handed a request on to this one.
pub(crate) fn forwarded_in(request: &Command) -> Option<Term> {
    request.ext_fields.get(FORWARDED)?.parse().ok().map(Term)
}

/// Returns the address of the client that a request came from, over whichever replica.
pub(crate) fn client_of(connection: &Connection, request: &Command) -> SocketAddr {
    let forwarded = forwarded_in(request).and_then(|_| request.ext_fields.get(CLIENT)?.parse().ok());
    forwarded.unwrap_or_else(|| connection.peer())
}

/// Takes the first step of an answer at once, so that what a connection sends is handed on in its order.
pub(crate) async fn begun(answer: impl Future<Output = Command> + Send + 'static) -> Answer {
    let mut answer = Box::pin(answer);
    match poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await {
        Poll::Ready(answer) => Answer::Now(answer),
        Poll::Pending => Answer::Later(answer),
    }
}

fn step(role: &Role, own: &str, forwarded: Option<Term>) -> Step {
    match role {
        Role::Leader(_) => Step::Here,
        // It leads itself, and is not ready yet.
        Role::Follower { leader: Some(leader), .. } if leader == own => Step::Wait,
        Role::Follower { term, leader: Some(leader) } => match forwarded {
            None => Step::HandOn { leader: leader.clone(), term: *term },
            Some(seen) if seen <= *term => Step::GiveBack,
            // The sender knows more.
            Some(_) => Step::Wait,
        },
        Role::Follower { leader: None, .. } => Step::Wait,
    }
}

/// Waits for the leader's answer; not for long after another replica was elected.
async fn until_deposed(
    answer: impl Future<Output = Result<Command, CallError>>,
    leader: &str,
    role: &mut watch::Receiver<Role>,
    patience: Duration,
) -> Result<Command, CallError> {
    let mut answer = std::pin::pin!(answer);
    let deposed = |role: &Role| match role {
        Role::Leader(_) => true,
        Role::Follower { leader: known, .. } => known.as_deref().is_some_and(|known| known != leader),
    };
    let mut seen = role.clone();
    tokio::select! {
        answer = &mut answer => return answer,
        () = becomes(&mut seen, deposed) => {}
    }
    let until = Instant::now() + DEPOSED_WAIT;
    let late = || CallError::Timeout { address: leader.to_owned(), after: patience.min(DEPOSED_WAIT) };
    timeout_at(until, answer).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests;
