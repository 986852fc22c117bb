//! Time and randomness of a simulation, also for crates that take them from the system by themselves.
//!
//! This test binary has its own `getrandom` and `clock_gettime`, which stand in front of the C library's. On a thread that
//! has called [`simulate`] they answer from its seed and with its virtual time; on every other thread they ask the kernel.
//! So the keys of std's `HashMap`, the random numbers of tokio, rand and fastrand, and `std::time::Instant` inside h2 and
//! hyper are a function of the seed.
#![allow(unsafe_code, reason = "functions of the C library are replaced")]

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::time::Duration;

use rustix::rand::GetRandomFlags;
use rustix::time::ClockId;

/// What the monotonic clock shows at the start.
const BOOTED: Duration = Duration::from_secs(1_000_000);
/// What the wall clock shows at the start: in 2096, so that every file of the machine is old.
const BORN: Duration = Duration::from_secs(4_000_000_000);

thread_local! {
    // Without destructors and lazy parts: both functions may be called at any time in a thread's life.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Makes this thread one of a simulation: its time stands at zero until [`set_now`].
pub(super) fn simulate(seed: u64) {
    SEED.set(Some(seed));
    NOW.set(Duration::ZERO);
}

/// Sets the time since the start of the simulation.
pub(super) fn set_now(now: Duration) {
    NOW.set(now);
}

/// Returns the time since the start of the simulation.
pub(super) fn now() -> Duration {
    NOW.get()
}

/// `struct timespec` where both fields have 64 bits.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("simulations replace functions of the C library of 64-bit Linux");

/// The next number of a sequence (splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

// SAFETY: the name, the parameters and the result are those of getrandom(2); nobody else in this binary defines it.
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut c_void, len: usize, flags: c_uint) -> isize {
    if buffer.is_null() {
        return 0;
    }
    // SAFETY: the caller lends `len` bytes that it lets us write, and reads them only when this has returned.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), len) };
    if let Some(mut state) = SEED.get() {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&next(&mut state).to_le_bytes()[..chunk.len()]);
        }
        SEED.set(Some(state));
        return len.cast_signed();
    }
    loop {
        match rustix::rand::getrandom(&mut *bytes, GetRandomFlags::from_bits_retain(flags)) {
            Ok(count) => return count.cast_signed(),
            Err(rustix::io::Errno::INTR) => {}
            // There is no way to say why; callers try another source.
            Err(_) => return -1,
        }
    }
}

// SAFETY: the name, the parameters and the result are those of clock_gettime(2); nobody else in this binary defines it.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    let (id, start) = match clock {
        0 => (ClockId::Realtime, BORN),
        1 => (ClockId::Monotonic, BOOTED),
        2 => (ClockId::ProcessCPUTime, BOOTED),
        3 => (ClockId::ThreadCPUTime, BOOTED),
        4 => (ClockId::MonotonicRaw, BOOTED),
        5 => (ClockId::RealtimeCoarse, BORN),
        6 => (ClockId::MonotonicCoarse, BOOTED),
        7 => (ClockId::Boottime, BOOTED),
        _ => return -1,
    };
    let shown = if SEED.get().is_some() {
        let now = start + NOW.get();
        Timespec { seconds: now.as_secs().cast_signed(), nanoseconds: i64::from(now.subsec_nanos()) }
    } else {
        let now = rustix::time::clock_gettime(id);
        Timespec { seconds: now.tv_sec, nanoseconds: now.tv_nsec }
    };
    if time.is_null() {
        return -1;
    }
    // SAFETY: the caller lends one `timespec`, whose fields have 64 bits on this machine.
    unsafe { time.write(shown) };
    0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::{Instant, SystemTime};

    use super::*;

    /// What a thread sees that simulates: an order of keys, a random number of openraft, both clocks.
    #[expect(clippy::disallowed_methods, reason = "it is about the functions of the system")]
    fn seen(seed: u64) -> (Vec<u32>, u64, Instant, SystemTime) {
        let thread = std::thread::spawn(move || {
            simulate(seed);
            set_now(Duration::from_millis(7));
            let map: HashMap<u32, u32> = (0..100).map(|number| (number, 0)).collect();
            let config = openraft::Config {
                election_timeout_min: 1,
                election_timeout_max: 1 << 40,
                ..openraft::Config::default()
            };
            let number = config.new_rand_election_timeout::<openraft::impls::TokioRuntime>();
            (map.into_keys().collect(), number, Instant::now(), SystemTime::now())
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_seed_gives_numbers_order_and_time() {
        assert_eq!(seen(1), seen(1));
        let (one, two) = (seen(1), seen(2));
        assert!(one.0 != two.0 && one.1 != two.1);
        assert_eq!(one.3.duration_since(SystemTime::UNIX_EPOCH).unwrap(), BORN + Duration::from_millis(7));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it is about the functions of the system")]
    fn other_threads_have_real_time_and_randomness() {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1) {}
        let year_2090 = Duration::from_secs(120 * 365 * 86_400);
        assert!(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() < year_2090);
        let keys = || std::thread::spawn(|| fastrand::u64(..)).join().unwrap();
        assert_ne!(keys(), keys());
    }
}
