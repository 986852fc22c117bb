//! `mqadmin`, the operator's command line: RocketMQ's subcommand names, flags and columns, plus `--output json`
//! and exit codes, and commands of its own for Raft groups. Calls name servers and brokers as any client does.
//!
//! Exit codes: 0 all was done, 1 a peer refused or could not be reached, 2 the command line is wrong.

mod broker;
mod cluster;
mod connection;
pub mod demo;
mod group;
mod message;
mod namesrv;
mod output;
mod print;
mod raft;
mod record;
mod send;
mod session;
#[cfg(test)]
mod tests;
mod time;
mod topic;
pub mod up;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, FromArgMatches, Subcommand, value_parser};

pub use output::Format;
use output::Output;
use session::Session;

/// The commands. A doc comment is what `mqadmin` lists, the variant's type has the options.
#[derive(Debug, Subcommand)]
#[command(rename_all = "camelCase")]
enum Command {
    /// Create or change a topic
    UpdateTopic(topic::UpdateTopic),
    /// Delete a topic from brokers and name servers
    DeleteTopic(topic::DeleteTopic),
    /// Create or change a consumer group
    UpdateSubGroup(group::UpdateSubGroup),
    /// Delete a consumer group from brokers
    DeleteSubGroup(group::DeleteSubGroup),
    /// Change a setting of brokers
    UpdateBrokerConfig(broker::UpdateBrokerConfig),
    /// Change the permission of a topic
    UpdateTopicPerm(topic::UpdateTopicPerm),
    /// Show where a topic is
    TopicRoute(topic::TopicRoute),
    /// Show the offsets of a topic's queues
    TopicStatus(topic::TopicStatus),
    /// Show the clusters that have a topic
    TopicClusterList(topic::TopicClusterList),
    /// Show what a broker measures
    BrokerStatus(broker::BrokerStatus),
    /// Show a message by its id
    QueryMsgById(message::QueryMsgById),
    /// Find messages by key
    QueryMsgByKey(message::QueryMsgByKey),
    /// Find a message by the id that its producer gave it
    QueryMsgByUniqueKey(message::QueryMsgByUniqueKey),
    /// Print the messages of a topic
    PrintMsg(print::PrintMsg),
    /// Show the producers of a group
    ProducerConnection(connection::ProducerConnection),
    /// Show the consumers of a group and what they subscribe
    ConsumerConnection(connection::ConsumerConnection),
    /// Show how far consumer groups are
    ConsumerProgress(group::ConsumerProgress),
    /// List clusters and brokers
    ClusterList(cluster::ClusterList),
    /// List topics
    TopicList(topic::TopicList),
    /// Set a key of a name server's key-value table
    UpdateKvConfig(namesrv::UpdateKvConfig),
    /// Delete a key of a name server's key-value table
    DeleteKvConfig(namesrv::DeleteKvConfig),
    /// Take the write permission from all topics of a broker
    WipeWritePerm(namesrv::WipeWritePerm),
    /// Give the write permission back to all topics of a broker
    AddWritePerm(namesrv::AddWritePerm),
    /// Show the settings of name servers
    GetNamesrvConfig(namesrv::GetNamesrvConfig),
    /// Change a setting of name servers
    UpdateNamesrvConfig(namesrv::UpdateNamesrvConfig),
    /// Show the settings of brokers
    GetBrokerConfig(broker::GetBrokerConfig),
    /// Send a message
    SendMessage(send::SendMessage),
    /// Print messages of a topic, a broker or a queue
    ConsumeMessage(print::ConsumeMessage),
    /// Show the replicas of Raft groups
    RaftStatus(raft::RaftStatusOf),
    /// Add a replica to a Raft group
    AddPeer(raft::AddPeer),
    /// Take a replica out of a Raft group
    RemovePeer(raft::RemovePeer),
    /// Hand the leadership of a Raft group over
    TransferLeader(raft::TransferLeader),
    /// Take a replica that lost its disk back into its Raft group
    Rejoin(raft::Rejoin),
}

impl Command {
    async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        match self {
            Self::UpdateTopic(command) => command.run(session, out).await,
            Self::DeleteTopic(command) => command.run(session, out).await,
            Self::UpdateSubGroup(command) => command.run(session, out).await,
            Self::DeleteSubGroup(command) => command.run(session, out).await,
            Self::UpdateBrokerConfig(command) => command.run(session, out).await,
            Self::UpdateTopicPerm(command) => command.run(session, out).await,
            Self::TopicRoute(command) => command.run(session, out).await,
            Self::TopicStatus(command) => command.run(session, out).await,
            Self::TopicClusterList(command) => command.run(session, out).await,
            Self::BrokerStatus(command) => command.run(session, out).await,
            Self::QueryMsgById(command) => command.run(session, out).await,
            Self::QueryMsgByKey(command) => command.run(session, out).await,
            Self::QueryMsgByUniqueKey(command) => command.run(session, out).await,
            Self::PrintMsg(command) => command.run(session, out).await,
            Self::ProducerConnection(command) => command.run(session, out).await,
            Self::ConsumerConnection(command) => command.run(session, out).await,
            Self::ConsumerProgress(command) => command.run(session, out).await,
            Self::ClusterList(command) => command.run(session, out).await,
            Self::TopicList(command) => command.run(session, out).await,
            Self::UpdateKvConfig(command) => command.run(session, out).await,
            Self::DeleteKvConfig(command) => command.run(session, out).await,
            Self::WipeWritePerm(command) => command.run(session, out).await,
            Self::AddWritePerm(command) => command.run(session, out).await,
            Self::GetNamesrvConfig(command) => command.run(session, out).await,
            Self::UpdateNamesrvConfig(command) => command.run(session, out).await,
            Self::GetBrokerConfig(command) => command.run(session, out).await,
            Self::SendMessage(command) => command.run(session, out).await,
            Self::ConsumeMessage(command) => command.run(session, out).await,
            Self::RaftStatus(command) => command.run(session, out).await,
            Self::AddPeer(command) => command.run(session, out).await,
            Self::RemovePeer(command) => command.run(session, out).await,
            Self::TransferLeader(command) => command.run(session, out).await,
            Self::Rejoin(command) => command.run(session, out).await,
        }
    }
}

/// Runs `mqadmin` with the arguments of a process, the program's name first, and writes to its outputs.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("start: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    let (mut out, mut err) = (io::stdout(), io::stderr());
    ExitCode::from(runtime.block_on(run(args, &mut out, &mut err)))
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// Runs one command and returns the exit code.
async fn run(args: Vec<OsString>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let parsed = match parse(args) {
        Ok(parsed) => parsed,
        Err(Stop::Help(text)) => return if write!(out, "{text}").is_ok() { 0 } else { FAILED },
        Err(Stop::Unknown(name)) => {
            let _ = writeln!(out, "The sub command {name} not exist.");
            return USAGE;
        }
        Err(Stop::Usage(text)) => {
            let _ = write!(err, "{text}");
            return USAGE;
        }
    };
    let session = Session::new(&parsed.namesrv);
    let mut output = Output::new(parsed.format, out);
    if let Err(error) = parsed.command.run(&session, &mut output).await {
        output.problem(&error);
    }
    session.close().await;
    let problems = output.into_problems();
    for problem in &problems {
        let _ = writeln!(err, "mqadmin: {problem}");
    }
    if problems.is_empty() { 0 } else { FAILED }
}

struct Parsed {
    namesrv: String,
    format: Format,
    command: Command,
}

enum Stop {
    /// A text that was asked for.
    Help(String),
    /// There is no such command.
    Unknown(String),
    /// Options are missing or wrong.
    Usage(String),
}

fn parse(args: Vec<OsString>) -> Result<Parsed, Stop> {
    let mut parser = parser();
    let names: Vec<String> = parser.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    // Names are looked up as Java does, whatever their case.
    let mut args: Vec<OsString> = args;
    let named = if args.get(1).is_some_and(|first| first == "help") { 2 } else { 1 };
    if let Some(name) = args.get_mut(named).filter(|name| !name.to_string_lossy().starts_with('-')) {
        match names.iter().find(|known| known.eq_ignore_ascii_case(&name.to_string_lossy())) {
            Some(known) => *name = known.into(),
            None => return Err(Stop::Unknown(name.to_string_lossy().into_owned())),
        }
    }
    if args.len() <= named {
        return Err(Stop::Help(overview(&parser)));
    }
    let matches = parser.try_get_matches_from_mut(args).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp => Stop::Help(error.to_string()),
        _ => Stop::Usage(error.to_string()),
    })?;
    let command = Command::from_arg_matches(&matches).map_err(|error| Stop::Usage(error.to_string()))?;
    let (namesrv, format) = common(matches.subcommand().map_or(&matches, |(_, options)| options));
    Ok(Parsed { namesrv, format, command })
}

/// Returns the parser: every command has `-n` and `--output`, and `-o` for it where `-o` is not its own.
fn parser() -> clap::Command {
    let parser = clap::Command::new("mqadmin").args_override_self(true).subcommand_required(true);
    Command::augment_subcommands(parser).mut_subcommands(|command| {
        let taken = command.get_arguments().any(|arg| arg.get_short() == Some('o'));
        let output =
            Arg::new("output").long("output").value_parser(value_parser!(Format)).value_name("FORMAT");
        let output = if taken { output } else { output.short('o') };
        let namesrv =
            Arg::new("namesrvAddr").short('n').long("namesrvAddr").value_name("HOST:PORT;HOST:PORT");
        command
            .arg(namesrv.help("Name servers, else those of NAMESRV_ADDR"))
            .arg(output.help("How to print"))
            .args_override_self(true)
    })
}

fn common(options: &ArgMatches) -> (String, Format) {
    let from_environment = || std::env::var("NAMESRV_ADDR").unwrap_or_default();
    let namesrv = options.get_one::<String>("namesrvAddr").cloned().unwrap_or_else(from_environment);
    (namesrv, options.get_one::<Format>("output").copied().unwrap_or_default())
}

fn overview(parser: &clap::Command) -> String {
    let mut text = String::from("The most commonly used mqadmin commands are:\n");
    for command in parser.get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        text.push_str(&format!("   {:<35} {about}\n", command.get_name()));
    }
    text.push_str("\nSee 'mqadmin help <command>' for more information on a specific command.\n");
    text
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "mqadmin: {text}");
}
