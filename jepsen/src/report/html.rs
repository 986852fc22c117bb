//! The page of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::run::{Outcome, Verdict};

const STYLE: &str = "body{font:14px/1.45 sans-serif;margin:24px;max-width:1540px;color:#222}\
                     table{border-collapse:collapse;margin:8px 0}td,th{border:1px solid #ccc;padding:3px 8px;\
                     text-align:left;vertical-align:top}code,pre{background:#f4f4f4;padding:1px 4px}\
                     .pass{color:#17803d}.fail{color:#b91c1c}.unknown{color:#b45309}h1 span{font-weight:bold}";

/// Returns the page; `svg` is its picture.
pub(super) fn page(outcome: &Outcome, svg: &str) -> String {
    let mut text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{0} seed {1}</title><style>{STYLE}</style>\n\
         <h1>{0}: <span class=\"{2}\">{2}</span></h1>\n",
        escape(&outcome.name),
        outcome.spec.seed,
        outcome.verdict.name()
    );
    let _ = writeln!(
        text,
        "<p>Seed <code>{}</code>, {} nodes, {} acknowledged operations, {} faults that took effect, {} leader changes, \
         program {}. The same faults once more: <code>jepsen/run replay {}</code></p>",
        outcome.spec.seed,
        outcome.spec.nodes,
        outcome.acknowledged,
        outcome.effective_faults(),
        outcome.leader_changes,
        escape(&outcome.program),
        escape(&outcome.folder)
    );
    if outcome.verdict == Verdict::Unknown {
        let _ = writeln!(text, "<h2>Not covered</h2><ul>");
        for reason in &outcome.not_covered {
            let _ = writeln!(text, "<li>{}</li>", escape(reason));
        }
        text.push_str("</ul>\n");
    }
    text.push_str("<h2>Anomalies</h2>\n");
    if outcome.findings.0.is_empty() {
        text.push_str("<p>None.</p>\n");
    }
    for (anomaly, finding) in &outcome.findings.0 {
        let _ = writeln!(text, "<h3 class=\"fail\">{anomaly}: {}</h3><ul>", finding.count);
        for example in &finding.examples {
            let _ = writeln!(text, "<li><code>{}</code></li>", escape(example));
        }
        text.push_str("</ul>\n");
    }
    text.push_str(svg);
    text.push_str("<h2>What was done</h2><table><tr><th>workload</th><th>counts</th></tr>\n");
    for (workload, counts) in &outcome.counts {
        let _ = writeln!(text, "<tr><td>{workload}</td><td>{}</td></tr>", escape(&counts.to_string()));
    }
    text.push_str("</table>\n<h2>Time to the first acknowledgement after a fault that hit the leader</h2>\n");
    let mut by_kind: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (kind, seconds) in &outcome.recoveries {
        by_kind.entry(kind.name()).or_default().push(*seconds);
    }
    text.push_str("<table><tr><th>fault</th><th>times</th><th>median</th><th>worst</th></tr>\n");
    for (kind, mut seconds) in by_kind {
        seconds.sort_by(f64::total_cmp);
        let (median, worst) = (seconds[seconds.len() / 2], seconds[seconds.len() - 1]);
        let _ = writeln!(
            text,
            "<tr><td>{kind}</td><td>{}</td><td>{median:.2} s</td><td>{worst:.2} s</td></tr>",
            seconds.len()
        );
    }
    text.push_str(
        "</table>\n<h2>Faults</h2><table><tr><th>from</th><th>to</th><th>fault</th><th>whom, how</th>\
                   <th>effect</th></tr>\n",
    );
    for window in &outcome.windows {
        let _ = writeln!(
            text,
            "<tr><td>{:.1}</td><td>{:.1}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            window.start,
            window.stop,
            window.fault.kind.name(),
            escape(&window.text),
            escape(window.ineffective.as_deref().unwrap_or("yes"))
        );
    }
    text.push_str("</table>\n<p>Histories in EDN: ");
    for name in outcome.counts.keys() {
        let _ = write!(text, "<a href=\"history-{name}.edn\">{name}</a> ");
    }
    text.push_str("; <a href=\"plan.json\">plan</a>, <a href=\"logs\">logs</a>, <a href=\"timeline.png\">picture</a></p></html>\n");
    text
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
