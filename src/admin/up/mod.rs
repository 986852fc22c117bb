//! `quorate up`: a name server and a broker on this machine, as child processes, with nothing to set.
//!
//! Real processes, so that `kill -9` of one is what it is in production. What the children print goes to
//! `logs/` in the data folder; their errors go to the terminal too.

mod child;
mod log;
mod ports;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use self::child::{Child, Program};
use self::ports::Port;
use super::session::Session;
use crate::config::{self, BrokerConfig, Environment, Loaded, Sources, properties};
use crate::env::Disk;

pub use self::child::follow_parent;

/// Starts a name server and a broker here and keeps them until Ctrl-C
#[derive(Debug, Parser)]
#[command(name = "quorate up", bin_name = "quorate up")]
struct Options {
    /// Where messages, settings and logs are kept
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Address to listen on and to tell clients; 0.0.0.0 serves other machines
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port of the name server
    #[arg(long, value_name = "PORT", default_value_t = 9876)]
    namesrv_port: u16,
    /// Port of the broker; the one two below is used too
    #[arg(long, value_name = "PORT")]
    broker_port: Option<u16>,
    /// Settings of the broker, as for mqbroker
    #[arg(short = 'c', long = "configFile", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Settings that override those of the file
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
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
    ports::check(&plan.bind_host, &plan.ports())?;
    let mut signals = Signals::listen()?;
    let mut children = Children::default();
    let ended = tokio::select! {
        ended = children.run(&plan) => ended,
        () = signals.next() => {
            say("\nstopping")?;
            Ok(())
        }
    };
    let stopped = tokio::select! {
        stopped = children.stop() => stopped,
        () = signals.next() => Err(anyhow::anyhow!("stopped without waiting")),
    };
    ended.and(stopped)
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// All that is decided before anything starts.
struct Plan {
    executable: PathBuf,
    data: PathBuf,
    bind_host: String,
    /// Where the name server is reached from here.
    namesrv: String,
    namesrv_port: u16,
    broker: Loaded<BrokerConfig>,
    namesrv_args: Vec<OsString>,
    broker_args: Vec<OsString>,
}

impl Plan {
    fn of(options: &Options) -> Result<Self> {
        let disk = Disk::real();
        disk.make_folder(&options.data).with_context(|| format!("make {}", options.data.display()))?;
        let data = options.data.canonicalize().with_context(|| format!("open {}", options.data.display()))?;
        let is_any = options.host == "0.0.0.0";
        let reached = if is_any { "127.0.0.1" } else { &options.host };
        let namesrv = format!("{reached}:{}", options.namesrv_port);
        let overrides = broker_settings(options, &data, &namesrv, is_any, &disk)?;
        let sources = Sources {
            file: options.config_file.clone(),
            namesrv_addr: None,
            overrides: overrides.clone(),
            environment: Environment::of_process(),
        };
        let broker: Loaded<BrokerConfig> = config::load(&sources, &disk)?;
        if let Some(reason) = broker.unsupported() {
            bail!("{reason}");
        }
        let mut broker_args = vec!["broker".into()];
        if let Some(file) = &options.config_file {
            broker_args.extend(["-c".into(), file.canonicalize()?.into_os_string()]);
        }
        broker_args.extend(overrides.into_iter().map(OsString::from));
        let kept = |name: &str| data.join("namesrv").join(name).display().to_string();
        let mut namesrv_args: Vec<OsString> = vec!["namesrv".into()];
        // Where the name server keeps what `updateNamesrvConfig` changed; it reads it back by -c only.
        if Path::new(&kept("namesrv.properties")).exists() {
            namesrv_args.extend(["-c".into(), kept("namesrv.properties").into()]);
        }
        let settings = [
            format!("listenPort={}", options.namesrv_port),
            format!("bindAddress={}", options.host),
            format!("kvConfigPath={}", kept("kvConfig.json")),
            format!("configStorePath={}", kept("namesrv.properties")),
        ];
        namesrv_args.extend(settings.map(OsString::from));
        Ok(Self {
            executable: std::env::current_exe().context("find this executable")?,
            bind_host: options.host.clone(),
            namesrv,
            namesrv_port: options.namesrv_port,
            broker,
            namesrv_args,
            broker_args,
            data,
        })
    }

    fn ports(&self) -> [Port; 3] {
        [
            Port { number: self.namesrv_port, what: "name server" },
            Port { number: self.broker.listen_port, what: "broker" },
            Port { number: self.broker.fast_listen_port(), what: "broker, VIP channel" },
        ]
    }

    fn broker_address(&self) -> String {
        format!("{}:{}", self.broker.broker_ip1, self.broker.listen_port)
    }

    fn program(&self, name: &'static str, args: &[OsString]) -> Program {
        let log = self.data.join("logs").join(format!("{name}.log"));
        Program { name, executable: self.executable.clone(), args: args.to_vec(), log }
    }
}

/// Returns the `key=value` arguments of the broker: our defaults where its file is silent, then what the
/// command line says.
fn broker_settings(
    options: &Options,
    data: &Path,
    namesrv: &str,
    is_any: bool,
    disk: &Disk,
) -> Result<Vec<String>> {
    let in_file = match &options.config_file {
        Some(file) => keys_of(file, disk)?,
        None => Vec::new(),
    };
    let mut defaults = vec![
        ("brokerName", "broker-a".to_owned()),
        ("brokerClusterName", "DefaultCluster".to_owned()),
        ("bindAddress", options.host.clone()),
        ("storePathRootDir", data.join("broker").display().to_string()),
    ];
    if !is_any {
        defaults.push(("brokerIP1", options.host.clone()));
    }
    let silent = |(key, _): &(&str, String)| !in_file.iter().any(|set| set == key);
    let mut settings: Vec<_> = defaults.into_iter().filter(silent).collect();
    if let Some(port) = options.broker_port {
        settings.push(("listenPort", port.to_string()));
    }
    settings.push(("namesrvAddr", namesrv.to_owned()));
    let settings = settings.into_iter().map(|(key, value)| format!("{key}={value}"));
    Ok(settings.chain(options.overrides.iter().cloned()).collect())
}

fn keys_of(file: &Path, disk: &Disk) -> Result<Vec<String>> {
    let bytes = disk.read(file).with_context(|| format!("read {}", file.display()))?;
    let items = properties::parse(&properties::decode(&bytes));
    let items = items.map_err(|error| anyhow::anyhow!("{}:{}: {error}", file.display(), error.line))?;
    Ok(items.into_iter().map(|item| item.key).collect())
}

/// The processes that run, in the order of their start.
#[derive(Default)]
struct Children(Vec<Child>);

/// How often it is looked whether the children serve.
const POLL: Duration = Duration::from_millis(50);
/// After how many looks the wait is mentioned.
const POLLS_BEFORE_NOTICE: u32 = 200;
/// How long a broker may take to close its store.
const STOP_WITHIN: Duration = Duration::from_secs(60);

impl Children {
    /// Starts both, reports, and runs until one of them ends, which is an error.
    async fn run(&mut self, plan: &Plan) -> Result<()> {
        let session = Session::new(&plan.namesrv);
        self.0.push(Child::start(plan.program("namesrv", &plan.namesrv_args))?);
        self.wait(&session, "the name server", |_| true).await?;
        self.0.push(Child::start(plan.program("broker", &plan.broker_args))?);
        let address = plan.broker_address();
        self.wait(&session, "the broker", |known| known.contains(&address)).await?;
        session.close().await;
        self.report(plan)?;
        self.any_ends().await
    }

    /// Waits until the name server answers and the addresses that it knows satisfy `done`.
    async fn wait(&mut self, session: &Session, what: &str, done: impl Fn(&[String]) -> bool) -> Result<()> {
        let ready = async {
            let mut polls = 0_u32;
            loop {
                if let Ok(info) = session.cluster_info().await {
                    let groups = info.broker_addr_table.into_values();
                    let known: Vec<_> = groups.flat_map(|group| group.broker_addrs.into_values()).collect();
                    if done(&known) {
                        return;
                    }
                }
                polls += 1;
                if polls.is_multiple_of(POLLS_BEFORE_NOTICE) {
                    let _ = say(&format!("waiting for {what}; its log says why it takes so long"));
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            () = ready => Ok(()),
            ended = self.any_ends() => ended,
        }
    }

    /// Waits until a child ends. It never should, so this is an error with its last words.
    async fn any_ends(&mut self) -> Result<()> {
        let mut waiting: Vec<_> = self.0.iter_mut().map(|child| Box::pin(child.ended())).collect();
        let first = std::future::poll_fn(|context| {
            let ended = waiting.iter_mut().find_map(|child| match child.as_mut().poll(context) {
                std::task::Poll::Ready(ended) => Some(ended),
                std::task::Poll::Pending => None,
            });
            ended.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        });
        bail!("{}", first.await)
    }

    /// Stops the broker first, so that it can leave the name server.
    async fn stop(&mut self) -> Result<()> {
        let mut result = Ok(());
        while let Some(child) = self.0.pop() {
            let stopped = child.stop(STOP_WITHIN).await;
            result = result.and(stopped);
        }
        result
    }

    fn report(&self, plan: &Plan) -> Result<()> {
        let pid = |name| self.0.iter().find(|child| child.name() == name).map_or(0, Child::pid);
        let executable = plan.executable.display();
        let (namesrv, broker, data) = (&plan.namesrv, plan.broker_address(), plan.data.display());
        let (name, cluster) = (&plan.broker.broker_name, &plan.broker.broker_cluster_name);
        say(&format!(
            "Quorate {version} is up.\n\
             \n\
             \x20 name server  {namesrv:<22} pid {namesrv_pid}\n\
             \x20 broker       {broker:<22} pid {broker_pid}  ({name} of {cluster})\n\
             \x20 data         {data}\n\
             \x20 logs         {data}/logs\n\
             \n\
             Next, in another terminal:\n\
             \x20 NAMESRV_ADDR={namesrv} sh bin/tools.sh org.apache.rocketmq.example.quickstart.Producer\n\
             \x20 {executable} mqadmin clusterList -n {namesrv}\n\
             \x20 kill -9 {broker_pid}   # then `quorate up` again: what was acknowledged is still there\n\
             \n\
             Ctrl-C stops both.",
            version = env!("CARGO_PKG_VERSION"),
            namesrv_pid = pid("namesrv"),
            broker_pid = pid("broker"),
        ))
    }
}

fn say(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("write to the terminal")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Options {
        Options::try_parse_from([&["quorate up"], args].concat()).unwrap()
    }

    fn settings(options: &Options) -> Vec<String> {
        let is_any = options.host == "0.0.0.0";
        broker_settings(options, Path::new("/data"), "127.0.0.1:9876", is_any, &Disk::real()).unwrap()
    }

    #[test]
    fn without_a_file_everything_is_local() {
        assert_eq!(
            settings(&options(&[])),
            [
                "brokerName=broker-a",
                "brokerClusterName=DefaultCluster",
                "bindAddress=127.0.0.1",
                "storePathRootDir=/data/broker",
                "brokerIP1=127.0.0.1",
                "namesrvAddr=127.0.0.1:9876",
            ]
        );
    }

    #[test]
    fn the_file_and_the_command_line_win() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("extra.conf");
        let text = b"brokerName=mine\nbindAddress=0.0.0.0\nnamesrvAddr=elsewhere:1\nflushDiskType=SYNC_FLUSH";
        Disk::real().replace(&path, text).unwrap();
        let file = path.display().to_string();
        let options = options(&["-c", &file, "--broker-port", "20911", "traceOn=false"]);
        assert_eq!(
            settings(&options),
            [
                "brokerClusterName=DefaultCluster",
                "storePathRootDir=/data/broker",
                "brokerIP1=127.0.0.1",
                "listenPort=20911",
                "namesrvAddr=127.0.0.1:9876",
                "traceOn=false",
            ]
        );
    }

    #[test]
    fn a_wrong_setting_is_found_before_anything_starts() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().display().to_string();
        let refused = |setting: &str| match Plan::of(&options(&["--data", &data, setting])) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(refused("listenPort=x"), "command line: listenPort=x: expected a number from 0 to 65535");
        assert!(refused("enableDLegerCommitLog=true").contains("dLegerGroup"));
    }
}
