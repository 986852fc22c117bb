//! What a run prints.

use std::time::Duration;

use super::verify::Report;

/// Times that were measured, one for each fault.
#[derive(Debug, Default, Clone)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn median(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    pub(crate) fn worst(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }
}

/// Prints one line of the table of a run on record, with its head.
pub(crate) fn print(fault: &str, first_acks: &Times, routes: &Times, pause: Duration, report: &Report) {
    let Report { acked, failed, lost, duplicates, doubled, misplaced, disordered, .. } = report;
    let ms = |time: Duration| time.as_millis();
    eprintln!(
        "| fault | times | acked | failed sends | lost | duplicates (unknown outcome) | doubled | misplaced | \
         out of order | to the first ack, median ms | worst ms | to the new route, median ms | worst ms | \
         longest pause ms |\n\
         | {fault} | {} | {acked} | {failed} | {lost} | {duplicates} | {doubled} | {misplaced} | {disordered} | \
         {} | {} | {} | {} | {} |",
        first_acks.len(),
        ms(first_acks.median()),
        ms(first_acks.worst()),
        ms(routes.median()),
        ms(routes.worst()),
        ms(pause),
    );
}
