//! The operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate::admin::main(std::env::args_os().collect())
}
