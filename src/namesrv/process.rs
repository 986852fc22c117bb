//! `mqnamesrv`: options, start lines, signals. Source of options and texts: RocketMQ `NamesrvStartup`.
#![expect(clippy::print_stdout, reason = "scripts wait for these lines")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::serve::start;
use crate::config::{self, Environment, NamesrvConfig, Sources};
use crate::env::{Clock, Disk, raise_file_limit};

/// Tells clients where topics are.
#[derive(Debug, Parser)]
#[command(name = "mqnamesrv")]
struct Options {
    /// Name server list; accepted for RocketMQ's sake and not used.
    #[arg(short = 'n', long = "namesrvAddr", value_name = "ADDRESS")]
    namesrv_addr: Option<String>,
    /// Settings, a .properties file.
    #[arg(short = 'c', long = "configFile", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Prints all settings and exits.
    #[arg(short = 'p', long = "printConfigItem")]
    print_config_item: bool,
    /// Settings that go before those of the file.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Runs the program with its arguments, the first of which is its name.
pub fn run_main(args: Vec<OsString>) -> ExitCode {
    raise_file_limit();
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => {
            // Help is no error; clap tells by the exit code.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    crate::env::start_logging();
    let sources = Sources {
        file: options.config_file,
        namesrv_addr: options.namesrv_addr,
        overrides: options.overrides,
        environment: Environment::of_process(),
    };
    let disk = Disk::real();
    let config = match config::load::<NamesrvConfig>(&sources, &disk) {
        Ok(config) => config,
        Err(refused) => {
            eprintln!("{refused}");
            return ExitCode::from(refused.exit_code());
        }
    };
    if let Some(file) = &sources.file {
        println!("load config properties file OK, {}", file.display());
    }
    if options.print_config_item {
        print!("{}", config.to_properties());
        return ExitCode::SUCCESS;
    }
    for warning in config.warnings() {
        warn!("{warning}");
    }
    match run(config, disk) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("mqnamesrv: {failed}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(config: config::Loaded<NamesrvConfig>, disk: Disk) -> Result<(), String> {
    let mut terminate = signals(SignalKind::terminate())?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let address = config.bind_address.clone();
    let running = start(config, disk, Clock::system()).await.map_err(|error| error.to_string())?;
    let port = running.addr().port();
    println!("The Name Server boot success. serializeType=JSON, address {address}:{port}");
    tokio::select! {
        _ = terminate.recv() => info!("stop on SIGTERM"),
        _ = interrupt.recv() => info!("stop on SIGINT"),
    }
    running.stop().await;
    Ok(())
}

fn signals(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|error| format!("listen for signals: {error}"))
}
