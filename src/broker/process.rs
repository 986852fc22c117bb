//! `mqbroker`: options, start lines, signals. Source of options and texts: RocketMQ `BrokerStartup`.

use std::ffi::OsString;
use std::future::poll_fn;
use std::path::PathBuf;
use std::process::ExitCode;
use std::task::Poll;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::http::Endpoints;
use super::start::{Running, start};
use crate::config::{self, BrokerConfig, Environment, Loaded, Sources};
use crate::env::{Clock, Disk, raise_file_limit};

/// Runs one or several brokers in this process.
#[derive(Debug, Parser)]
#[command(name = "mqbroker", version, about = "Runs RocketMQ brokers, one for each -c FILE")]
struct Options {
    /// Name servers, separated by `;`
    #[arg(short = 'n', long = "namesrvAddr", value_name = "ADDRS")]
    namesrv_addr: Option<String>,
    /// A broker's .properties file; several files start several brokers
    #[arg(short = 'c', long = "configFile", value_name = "FILE")]
    config_files: Vec<PathBuf>,
    /// Print all settings and end
    #[arg(short = 'p', long = "printConfigItem")]
    print: bool,
    /// Print the important settings and end
    #[arg(short = 'm', long = "printImportantConfig")]
    print_important: bool,
    /// Settings that override those of the files
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Runs the program with its arguments, the first of which is its name, until SIGTERM, which is patient with clients, or
/// SIGINT, which is not; neither is a second signal.
pub fn run_main(args: Vec<OsString>) -> ExitCode {
    raise_file_limit();
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => {
            // Help and version are no errors; clap tells by the exit code.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let configs = match load(&options) {
        Ok(configs) => configs,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(error.exit_code());
        }
    };
    if options.print || options.print_important {
        print_settings(&configs, options.print);
        return ExitCode::SUCCESS;
    }
    crate::env::start_logging();
    for warning in configs.iter().flat_map(Loaded::warnings) {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(configs)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("mqbroker: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Loads one configuration for each file, or the defaults.
fn load(options: &Options) -> Result<Vec<Loaded<BrokerConfig>>, config::Error> {
    let files: Vec<Option<PathBuf>> = match options.config_files.is_empty() {
        true => vec![None],
        false => options.config_files.iter().cloned().map(Some).collect(),
    };
    files
        .into_iter()
        .map(|file| {
            let sources = Sources {
                file,
                namesrv_addr: options.namesrv_addr.clone(),
                overrides: options.overrides.clone(),
                environment: Environment::of_process(),
            };
            config::load(&sources, &Disk::real())
        })
        .collect()
}

#[expect(clippy::print_stdout, reason = "what -p and -m are for")]
fn print_settings(configs: &[Loaded<BrokerConfig>], all: bool) {
    for config in configs {
        print!("{}", if all { config.to_properties() } else { config.important() });
    }
}

#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
async fn serve(configs: Vec<Loaded<BrokerConfig>>) -> Result<(), String> {
    let (mut terminate, mut interrupt) =
        (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let settings: Vec<_> = configs.iter().map(|config| &**config).collect();
    let endpoints = Endpoints::open(&settings).await.map_err(|error| error.to_string())?;
    let mut running = Vec::new();
    for (index, config) in configs.into_iter().enumerate() {
        let name = config.broker_name.clone();
        match start(config, Disk::real(), Clock::system()).await {
            Ok(broker) => {
                println!("{}", boot_line(&broker));
                endpoints.started(index, &broker);
                running.push(broker);
            }
            Err(error) => {
                stop(running, watch::channel(true).1).await?;
                return Err(format!("broker {name}: {error}"));
            }
        }
    }
    let (hurry, hurried) = watch::channel(false);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => {
            tracing::info!("SIGINT: stopping");
            hurry.send_replace(true);
        }
        reason = any_failed(&running) => {
            // Nothing may be written any more, so there is nothing to close: the next start recovers. Waiting for
            // threads would wait for the disk that failed.
            eprintln!("mqbroker: the store failed: {reason}");
            std::process::exit(1);
        }
    }
    endpoints.stopping();
    let again = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut stopping = Box::pin(stop(running, hurried));
    let stopped = tokio::select! {
        stopped = &mut stopping => stopped,
        () = again => {
            hurry.send_replace(true);
            stopping.await
        }
    };
    endpoints.close().await;
    stopped
}

fn signals(kind: SignalKind) -> Result<tokio::signal::unix::Signal, String> {
    signal(kind).map_err(|error| format!("listen for signals: {error}"))
}

async fn any_failed(running: &[Running]) -> String {
    let mut waiting: Vec<_> = running.iter().map(|broker| Box::pin(broker.failed())).collect();
    poll_fn(|context| {
        let ready = waiting.iter_mut().find_map(|failed| match failed.as_mut().poll(context) {
            Poll::Ready(reason) => Some(reason),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Stops all at the same time: each may wait for another replica to take over what it leads.
async fn stop(running: Vec<Running>, hurry: watch::Receiver<bool>) -> Result<(), String> {
    let stopping: Vec<_> = running
        .into_iter()
        .map(|broker| (broker.address(), tokio::spawn(broker.leave(hurry.clone()))))
        .collect();
    let mut result = Ok(());
    for (address, stopped) in stopping {
        let stopped = match stopped.await {
            Ok(stopped) => stopped.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        result = result.and(stopped.map_err(|error| format!("stop the broker at {address}: {error}")));
    }
    result
}

/// The line that RocketMQ's start scripts and tests wait for.
fn boot_line(broker: &Running) -> String {
    let config = broker.config();
    let namesrv = match config.namesrv_addr.as_deref() {
        Some(addresses) if !addresses.is_empty() => format!(" and name server is {addresses}"),
        _ => String::new(),
    };
    format!(
        "The broker[{}, {}] boot success. serializeType=JSON{namesrv}",
        config.broker_name,
        broker.address()
    )
}
