//! `quorate up`: a name server and a replicated broker group on this machine, as child processes, with nothing to set.
//!
//! Real processes, so that `kill -9` of one is what it is in production. What the children print goes to
//! `logs/` in the data folder; their errors go to the terminal too.

mod child;
mod cluster;
mod layout;
mod log;
mod plan;
mod ports;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

pub use child::follow_parent;
pub(super) use cluster::Cluster;
pub(super) use plan::Plan;

/// Starts a name server and three replicas of a broker group here and keeps them until Ctrl-C
#[derive(Debug, Clone, Parser)]
#[command(name = "quorate up", bin_name = "quorate up")]
pub(super) struct Options {
    /// Where messages, settings and logs are kept; used again, it goes on with what is there
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(super) data: PathBuf,
    /// Replicas of each group, a process each; 1 is a single broker without a Raft group [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(super) replicas: Option<u16>,
    /// Broker groups; each process has a replica of each, and each group is to be led by another process [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(super) groups: Option<u16>,
    /// Address to listen on and to tell clients; 0.0.0.0 serves other machines
    #[arg(long, default_value = "127.0.0.1")]
    pub(super) host: String,
    /// Port of the name server
    #[arg(long, value_name = "PORT", default_value_t = 9876)]
    pub(super) namesrv_port: u16,
    /// Port of the first broker [default: 10911]; the one two below is used too, by replicas also the one two above,
    /// and their ports are 10 apart, those of groups 100
    #[arg(long, value_name = "PORT")]
    pub(super) broker_port: Option<u16>,
    /// Settings of the brokers, as for mqbroker
    #[arg(short = 'c', long = "configFile", value_name = "FILE")]
    pub(super) config_file: Option<PathBuf>,
    /// Settings that override those of the file
    #[arg(value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
}

/// Runs `quorate up` with its arguments, the program's name first. The executable that runs must know the
/// commands `namesrv` and `broker`, which the children are.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.context("start").and_then(|runtime| runtime.block_on(run(&options)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "quorate up: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let plan = Plan::of(options)?;
    plan.check_ports()?;
    plan.write_files()?;
    let mut signals = Signals::listen()?;
    let mut cluster = Cluster::new(plan);
    let ended = tokio::select! {
        ended = serve(&mut cluster) => ended,
        () = signals.next() => {
            say("\nstopping")?;
            Ok(())
        }
    };
    let stopped = tokio::select! {
        stopped = cluster.stop() => stopped,
        () = signals.next() => Err(anyhow::anyhow!("stopped without waiting")),
    };
    ended.and(stopped)
}

/// Runs until a child ends that should not, which is an error.
async fn serve(cluster: &mut Cluster) -> Result<()> {
    if let Some(note) = &cluster.plan().note {
        say(note)?;
    }
    cluster.start().await?;
    say(&cluster.report())?;
    cluster.keep().await
}

/// SIGINT and SIGTERM.
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

pub(super) fn say(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("write to the terminal")
}
