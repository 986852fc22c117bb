//! What each request does: read the header, do it, answer. One file for each kind of thing that is asked about.

pub(super) mod broker;
pub(super) mod kv;
pub(super) mod settings;
pub(super) mod topic;

use super::refusal::Refusal;
use crate::remoting::{Command, ResponseCode};

type Result = std::result::Result<Command, Refusal>;

fn success() -> Command {
    Command::response(ResponseCode::Success)
}
