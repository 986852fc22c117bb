//! `mqbroker`: runs brokers. See `quorate::broker`.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate::broker::run_main(std::env::args_os().collect())
}
