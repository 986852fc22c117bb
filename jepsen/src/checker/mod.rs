//! Says what is wrong with what clients saw.

pub(crate) mod identity;
pub(crate) mod log;
pub(crate) mod progress;
pub(crate) mod queue;
pub(crate) mod register;
pub(crate) mod routes;

use std::collections::BTreeMap;

use serde::Serialize;

/// Examples of each anomaly that are kept.
const EXAMPLES: usize = 10;

/// Anomalies by name.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Findings(pub(crate) BTreeMap<&'static str, Finding>);

/// One anomaly.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Finding {
    pub(crate) count: usize,
    pub(crate) examples: Vec<String>,
}

impl Findings {
    pub(crate) fn add(&mut self, anomaly: &'static str, example: String) {
        let finding = self.0.entry(anomaly).or_default();
        finding.count += 1;
        if finding.examples.len() < EXAMPLES {
            finding.examples.push(example);
        }
    }
}
