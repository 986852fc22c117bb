//! Where log lines go.

use tracing_subscriber::EnvFilter;

/// What is logged unless `RUST_LOG` says otherwise: `info` and above, of openraft its errors, without the places that
/// call it an error when a request of another replica, or its answer to a heartbeat, comes in while this one stops. A
/// Raft core that ends for another reason is reported elsewhere.
const FILTER: &str = "info,openraft=error,openraft::raft::raft_inner=off,openraft::raft::stream_append=off,\
     openraft::core::heartbeat::worker=off";

/// Sends log lines to standard error, `info` and above unless `RUST_LOG` says otherwise. Only the first call counts.
pub fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second start in one process keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .try_init();
}
