//! What a handler says to a request, before it becomes an answer on the wire.

use std::pin::Pin;

use super::response::Error;
use crate::remoting::Command;

/// A reply that is on its way.
pub(crate) type LaterReply = Pin<Box<dyn Future<Output = Result<Command, Error>> + Send>>;

/// What a handler says. Errors stay errors until `dispatch` has seen them: a request that found no leader here may
/// find one elsewhere.
pub(crate) enum Reply {
    /// This.
    Now(Command),
    /// What the future yields. The connection takes its next request meanwhile.
    Later(LaterReply),
}

impl Reply {
    /// Waits for what is on its way.
    pub(crate) async fn settled(self) -> Result<Command, Error> {
        match self {
            Self::Now(command) => Ok(command),
            Self::Later(reply) => reply.await,
        }
    }
}

impl From<Command> for Reply {
    fn from(command: Command) -> Self {
        Self::Now(command)
    }
}

/// Turns a handler's future into a reply.
pub(crate) fn later(result: impl Future<Output = Result<Command, Error>> + Send + 'static) -> Reply {
    Reply::Later(Box::pin(result))
}
