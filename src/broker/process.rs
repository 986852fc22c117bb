//! `mqbroker`: options, start line, signals. Source of options and texts: RocketMQ `BrokerStartup`.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with its arguments, the first of which is its name.
pub fn run_main(args: Vec<OsString>) -> ExitCode {
    let _ = args;
    ExitCode::SUCCESS
}
