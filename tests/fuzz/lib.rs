//! The targets of `targets/` for libFuzzer.

mod targets;

/// Runs a target.
pub fn run(name: &str, data: &[u8]) {
    let target = targets::TARGETS.iter().find(|(known, _)| *known == name);
    target.expect("a target of that name").1(data);
}
