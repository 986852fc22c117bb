//! The outside world: clock, randomness, files, maps, threads for them. Nothing else in the library touches them directly,
//! so that tests can hand in a clock that jumps and a disk that fails.

mod binary;
mod clock;
mod date;
mod disk;
mod faults;
mod known_bad;
mod logging;
mod machine;
mod mmap;
mod random;
mod threads;

pub use binary::{from_binary, to_binary};
pub use clock::Clock;
pub use date::civil;
pub use disk::{Disk, DiskUsage, File, Lock, lacks_room};
pub use faults::{Change, Faults};
pub use known_bad::KnownBad;
pub use logging::start_logging;
pub use machine::{memory_bytes, raise_file_limit};
pub use mmap::Map;
pub use random::Random;
pub use threads::{Bell, Job, Simulation, Thread, Threads, Turn, Work};
