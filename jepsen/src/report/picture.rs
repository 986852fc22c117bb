//! The picture of a run: faults, latency, rate, leaders, lag, along one axis of time.

use std::time::Duration;

use super::canvas::{Canvas, Color};
use crate::checker::routes::Sample;
use crate::history::Kind;
use crate::nemesis::Window;

const WIDTH: f64 = 1500.0;
const LEFT: f64 = 160.0;
const RIGHT: f64 = 20.0;
const BAND: f64 = 13.0;
const LATENCY: f64 = 180.0;
const RATE: f64 = 90.0;
const STRIP: f64 = 14.0;
const LAG: f64 = 80.0;
const GAP: f64 = 22.0;

const BLACK: Color = [40, 40, 40];
const GREY: Color = [190, 190, 190];
const BLUE: Color = [40, 110, 190];
const RED: Color = [200, 40, 40];
const ORANGE: Color = [230, 150, 40];
const GREEN: Color = [50, 150, 80];
const BANDS: [Color; 6] =
    [[214, 120, 120], [120, 160, 214], [150, 190, 120], [210, 170, 100], [170, 130, 200], [120, 190, 190]];
const NODES: [Color; 6] = [BLUE, GREEN, ORANGE, [150, 80, 180], [90, 90, 90], RED];

/// What is drawn.
pub(crate) struct Picture {
    pub(crate) title: String,
    pub(crate) length: Duration,
    pub(crate) nodes: usize,
    pub(crate) windows: Vec<Window>,
    /// When sends ended, how long they took, and how they ended; in seconds.
    pub(crate) sends: Vec<(f64, f64, Kind)>,
    pub(crate) samples: Vec<Sample>,
}

impl Picture {
    pub(super) fn size(&self) -> (u32, u32) {
        let bands = self.lanes().1.max(1) as f64 * BAND;
        let strips = self.nodes as f64 * STRIP;
        (WIDTH as u32, (GAP * 6.5 + bands + LATENCY + RATE + strips + LAG) as u32)
    }

    pub(super) fn draw(&self, canvas: &mut dyn Canvas) {
        let (width, height) = self.size();
        canvas.rect((0.0, 0.0), (f64::from(width), f64::from(height)), [255; 3], 1.0);
        canvas.text((10.0, 6.0), &self.title, BLACK);
        let (lanes, count) = self.lanes();
        let bottom = f64::from(height) - GAP;
        let mut top = GAP;
        canvas.text((10.0, top), "faults", BLACK);
        for (window, lane) in self.windows.iter().zip(&lanes) {
            let (x, to) = (self.x(window.start), self.x(window.stop));
            let color = BANDS[window.fault.kind as usize % BANDS.len()];
            canvas.rect((x, top), (to - x, bottom - top), color, 0.06);
            let y = top + *lane as f64 * BAND;
            canvas.rect((x, y), (to - x, BAND - 2.0), color, 0.9);
            let name = if window.ineffective.is_some() {
                format!("({})", window.fault.kind.name())
            } else {
                window.fault.kind.name()
            };
            canvas.text((x + 1.0, y + 1.0), &name, BLACK);
        }
        top += count.max(1) as f64 * BAND + GAP;
        self.draw_latency(canvas, top);
        top += LATENCY + GAP;
        self.draw_rate(canvas, top);
        top += RATE + GAP;
        self.draw_leaders(canvas, top);
        top += self.nodes as f64 * STRIP + GAP;
        self.draw_lag(canvas, top);
        let seconds = self.length.as_secs();
        let step =
            [5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600].into_iter().find(|step| seconds / step <= 24);
        for second in (0..=seconds).step_by(step.unwrap_or(3600) as usize) {
            let x = self.x(second as f64);
            canvas.line((x, bottom), (x, bottom + 4.0), BLACK);
            canvas.text((x - 8.0, bottom + 7.0), &format!("{second} s"), BLACK);
        }
    }

    fn x(&self, second: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (second / self.length.as_secs_f64().max(1.0)).clamp(0.0, 1.0)
    }

    /// Gives each fault a line in which it overlaps no other; returns how many there are, too.
    fn lanes(&self) -> (Vec<usize>, usize) {
        let mut ends: Vec<f64> = Vec::new();
        let lanes = self.windows.iter().map(|window| {
            // Room for the name.
            let from = self.x(window.start);
            let to = self.x(window.stop).max(from + window.fault.kind.name().len() as f64 * 7.0 + 8.0);
            let lane = ends.iter().position(|end| *end <= from).unwrap_or(ends.len());
            if lane == ends.len() {
                ends.push(to);
            } else {
                ends[lane] = to;
            }
            lane
        });
        let lanes = lanes.collect();
        (lanes, ends.len())
    }

    fn draw_latency(&self, canvas: &mut dyn Canvas, top: f64) {
        canvas.text((10.0, top), "latency", BLACK);
        canvas.text((10.0, top + 24.0), "acknowledged", BLUE);
        canvas.text((10.0, top + 36.0), "unknown", RED);
        canvas.text((10.0, top + 48.0), "refused", ORANGE);
        // 0.1 ms to 10 s.
        let y = |seconds: f64| top + LATENCY * (1.0 - ((seconds * 10_000.0).max(1.0).log10() / 5.0).min(1.0));
        for (seconds, name) in
            [(0.0001, "0.1 ms"), (0.001, "1 ms"), (0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s")]
        {
            canvas.line((LEFT, y(seconds)), (WIDTH - RIGHT, y(seconds)), [225; 3]);
            canvas.text((LEFT - 50.0, y(seconds) - 5.0), name, GREY);
        }
        // So many that the file stays small.
        let keep = (self.sends.len() / 6000).max(1);
        for (number, (at, took, kind)) in self.sends.iter().enumerate() {
            let color = match kind {
                Kind::Ok => BLUE,
                Kind::Fail => ORANGE,
                _ => RED,
            };
            if *kind != Kind::Ok || number % keep == 0 {
                canvas.rect((self.x(*at), y(*took)), (1.5, 1.5), color, 0.7);
            }
        }
        let mut by_second: Vec<Vec<f64>> = vec![Vec::new(); self.length.as_secs() as usize + 1];
        for (at, took, _) in self.sends.iter().filter(|(.., kind)| *kind == Kind::Ok) {
            if let Some(second) = by_second.get_mut(*at as usize) {
                second.push(*took);
            }
        }
        for (share, color) in [(0.5, BLACK), (0.99, GREEN)] {
            let mut last = None;
            for (second, took) in by_second.iter_mut().enumerate() {
                took.sort_by(f64::total_cmp);
                let at = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
                let here = took.get(at).map(|took| (self.x(second as f64 + 0.5), y(*took)));
                if let (Some(last), Some(here)) = (last, here) {
                    canvas.line(last, here, color);
                }
                last = here;
            }
        }
        canvas.text((10.0, top + 66.0), "p50", BLACK);
        canvas.text((50.0, top + 66.0), "p99", GREEN);
    }

    fn draw_rate(&self, canvas: &mut dyn Canvas, top: f64) {
        let mut counts = vec![0u32; self.length.as_secs() as usize + 1];
        for (at, ..) in self.sends.iter().filter(|(.., kind)| *kind == Kind::Ok) {
            if let Some(count) = counts.get_mut(*at as usize) {
                *count += 1;
            }
        }
        let most = counts.iter().copied().max().unwrap_or(0).max(1);
        canvas.text((10.0, top), "acknowledged/s", BLACK);
        canvas.text((LEFT - 40.0, top + 14.0), &most.to_string(), GREY);
        let width = self.x(1.0) - self.x(0.0);
        for (second, count) in counts.iter().enumerate() {
            let height = RATE * f64::from(*count) / f64::from(most);
            canvas.rect((self.x(second as f64), top + RATE - height), (width, height.max(0.5)), BLUE, 0.6);
        }
    }

    fn draw_leaders(&self, canvas: &mut dyn Canvas, top: f64) {
        canvas.text((10.0, top - 14.0), "leader and term", BLACK);
        for node in 0..self.nodes {
            let y = top + node as f64 * STRIP;
            canvas.text((LEFT - 30.0, y + 2.0), &format!("n{node}"), BLACK);
            let samples: Vec<_> = self.samples.iter().filter(|sample| sample.node == node).collect();
            let mut term = None;
            for (at, sample) in samples.iter().enumerate() {
                let from = sample.time.as_secs_f64();
                let next = samples.get(at + 1).map_or(from + 0.3, |next| next.time.as_secs_f64());
                // A replica that does not answer leaves a hole.
                let to = next.min(from + 1.0);
                let color = if sample.leads { NODES[node % NODES.len()] } else { [225; 3] };
                let x = self.x(from);
                canvas.rect((x, y), (self.x(to) - x, STRIP - 3.0), color, 1.0);
                if sample.leads && term != Some(sample.term) {
                    term = Some(sample.term);
                    canvas.text((x + 2.0, y + 1.0), &sample.term.to_string(), [255; 3]);
                }
            }
        }
    }

    fn draw_lag(&self, canvas: &mut dyn Canvas, top: f64) {
        canvas.text((10.0, top), "entries behind", BLACK);
        let mut newest = 0;
        let lags: Vec<_> = self
            .samples
            .iter()
            .map(|sample| {
                newest = newest.max(sample.committed);
                (sample, newest - sample.applied)
            })
            .collect();
        let most = lags.iter().map(|(_, lag)| *lag).max().unwrap_or(0).max(10) as f64;
        canvas.text((LEFT - 50.0, top + 14.0), &most.to_string(), GREY);
        let y = |lag: u64| top + LAG * (1.0 - (1.0 + lag as f64).ln() / (1.0 + most).ln());
        for node in 0..self.nodes {
            let mut last = None;
            for (sample, lag) in lags.iter().filter(|(sample, _)| sample.node == node) {
                let here = (self.x(sample.time.as_secs_f64()), y(*lag));
                canvas.line(last.unwrap_or(here), here, NODES[node % NODES.len()]);
                last = Some(here);
            }
        }
    }
}
