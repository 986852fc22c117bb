//! `mqnamesrv`: runs a name server. See `quorate::namesrv`.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate::namesrv::run_main(std::env::args_os().collect())
}
