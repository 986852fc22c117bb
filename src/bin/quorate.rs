//! The front door: one executable for a newcomer, `quorate up` first of all.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

const HELP: &str = "\
Quorate: a message broker that speaks Apache RocketMQ's remoting protocol

Usage: quorate <COMMAND> [OPTIONS]

Commands:
  up        Start a name server and a replicated broker group on this machine
  demo      Kill the leader of a group under load, and show what survived
  namesrv   Run a name server, as mqnamesrv does
  broker    Run brokers, as mqbroker does
  mqadmin   Ask and change a cluster, as mqadmin does
  help      Print this

See 'quorate <COMMAND> --help'.
";

fn main() -> ExitCode {
    quorate::admin::up::follow_parent();
    let mut args: Vec<OsString> = std::env::args_os().collect();
    if args.len() < 2 {
        return print(HELP, ExitCode::from(2));
    }
    // Each command takes the rest as if it were a program of its own.
    let command = args.remove(1);
    match command.to_str() {
        Some("up") => quorate::admin::up::main(args),
        Some("demo") => quorate::admin::demo::main(args),
        Some("namesrv") => quorate::namesrv::run_main(args),
        Some("broker") => quorate::broker::run_main(args),
        Some("mqadmin") => quorate::admin::main(args),
        Some("help" | "-h" | "--help") => print(HELP, ExitCode::SUCCESS),
        Some("-V" | "--version") => {
            print(concat!("quorate ", env!("CARGO_PKG_VERSION"), "\n"), ExitCode::SUCCESS)
        }
        _ => {
            let _ = writeln!(std::io::stderr(), "quorate: there is no command {}", command.to_string_lossy());
            print(HELP, ExitCode::from(2))
        }
    }
}

fn print(text: &str, code: ExitCode) -> ExitCode {
    match write!(std::io::stdout(), "{text}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
