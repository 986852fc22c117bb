//! Seeded randomness.

use std::sync::{Mutex, PoisonError};

/// A source of random numbers; one seed, one sequence.
#[derive(Debug)]
pub struct Random(Mutex<fastrand::Rng>);

impl Random {
    /// Returns a source seeded from the machine.
    pub fn from_machine() -> Self {
        Self(Mutex::new(fastrand::Rng::new()))
    }

    /// Returns the source that always yields the same numbers for `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    /// Returns any number of 128 bits.
    pub fn next_u128(&self) -> u128 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).u128(..)
    }

    /// Returns a number below `bound`, or 0 if `bound` is 0.
    pub fn below(&self, bound: u32) -> u32 {
        if bound == 0 {
            return 0;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).u32(0..bound)
    }
}
