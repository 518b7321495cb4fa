//! From samples to verdicts, and the two ways of showing them: one aligned table, one JSON document.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::calibrate::{TWO_CPUS, TWO_THREAD_ALU};
use crate::harness::{Also, Form, Goal, Samples, median, quantile};
use crate::linux::Environment;

/// Where a figure stands against its gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stretch,
    Must,
    Miss,
    Skipped,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Stretch => "stretch",
            Self::Must => "must",
            Self::Miss => "miss",
            Self::Skipped => "skipped",
        }
    }
}

/// One goal with its figures.
#[derive(Debug)]
pub(crate) struct Outcome {
    goal: &'static Goal,
    ours: f64,
    reference: f64,
    ratio: f64,
    q1: f64,
    q3: f64,
    verdict: Verdict,
    why: String,
}

impl Outcome {
    /// Forms the ratios of `goal` repetition by repetition and holds their median against the gates.
    pub(crate) fn of(goal: &'static Goal, samples: &Samples) -> Self {
        let quiet = |now: &std::collections::BTreeMap<&'static str, f64>| {
            goal.threads < 2 || now.get(TWO_THREAD_ALU).is_some_and(|&speedup| speedup >= TWO_CPUS)
        };
        let everything = samples.pairs(goal.ours, goal.reference, |_| true);
        let pairs = samples.pairs(goal.ours, goal.reference, quiet);
        let ratios: Vec<f64> = pairs
            .iter()
            .map(|&(ours, reference)| match goal.form {
                Form::AtMost | Form::Own => ours / reference,
                Form::Speedup => 2.0 * reference / ours,
            })
            .collect();
        let shown = if pairs.is_empty() { &everything } else { &pairs };
        let ours = median(&shown.iter().map(|p| p.0).collect::<Vec<_>>());
        let reference = median(&shown.iter().map(|p| p.1).collect::<Vec<_>>());
        let ratio = median(&ratios);
        let mut why =
            samples.why(goal.ours).or(samples.why(goal.reference)).unwrap_or_default().to_owned();
        let too_noisy = !everything.is_empty() && ratios.len() * 3 < everything.len();
        if too_noisy {
            let alu = median(&samples.of(TWO_THREAD_ALU));
            why = format!(
                "two ALU loops ran at {alu:.2}x in the median, under {TWO_CPUS}x: no two free cores"
            );
        } else if everything.is_empty() && why.is_empty() {
            why = "no samples".into();
        }
        let figure = if goal.form == Form::Own { ours } else { ratio };
        let verdict =
            if too_noisy || !figure.is_finite() { Verdict::Skipped } else { judge(goal, figure) };
        Self {
            goal,
            ours,
            reference,
            ratio,
            q1: quantile(&ratios, 0.25),
            q3: quantile(&ratios, 0.75),
            verdict,
            why,
        }
    }

    fn json(&self) -> Value {
        let goal = self.goal;
        json!({
            "row": goal.row, "name": goal.name, "against": goal.against,
            "ours": self.ours, "reference": self.reference, "ratio": self.ratio, "q1": self.q1, "q3": self.q3,
            "must": goal.must, "stretch": goal.stretch,
            "judged": match goal.form { Form::AtMost => "ratio at most", Form::Speedup => "ratio at least", Form::Own => "ours at most" },
            "verdict": self.verdict.word(), "why": self.why,
        })
    }

    fn cells(&self) -> [String; 9] {
        let sign = if self.goal.form == Form::Speedup { ">=" } else { "<=" };
        [
            self.goal.row.into(),
            format!("{} / {}", self.goal.name, self.goal.against),
            number(self.ours),
            number(self.reference),
            number(self.ratio),
            if self.q1.is_finite() {
                format!("{} - {}", number(self.q1), number(self.q3))
            } else {
                "-".into()
            },
            format!("{sign} {}", gate(self.goal.must)),
            format!("{sign} {}", gate(self.goal.stretch)),
            self.verdict.word().into(),
        ]
    }
}

fn judge(goal: &Goal, figure: f64) -> Verdict {
    let within =
        |gate: f64| if goal.form == Form::Speedup { figure >= gate } else { figure <= gate };
    match (within(goal.stretch), within(goal.must)) {
        (true, _) => Verdict::Stretch,
        (false, true) => Verdict::Must,
        (false, false) => Verdict::Miss,
    }
}

/// A gate with at most four decimals.
fn gate(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Three significant digits.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Lays `rows` out in columns; the second column is words and flushes left, like the first.
fn aligned<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let width: [usize; N] = std::array::from_fn(|c| {
        rows.iter().map(|row| row[c].chars().count()).chain([head[c].len()]).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in std::iter::once(head.map(str::to_owned)).chain(rows.iter().cloned()) {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let gap = if c == 0 { "" } else { "  " };
            let fill = width[c];
            _ = if c < 2 || c + 1 == N && N > 4 {
                write!(line, "{gap}{cell:<fill$}")
            } else {
                write!(line, "{gap}{cell:>fill$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The report for a terminal.
pub(crate) fn text(
    outcomes: &[Outcome],
    also: &[&Also],
    samples: &Samples,
    environment: &Environment,
    stolen: f64,
) -> String {
    let head = [
        "goal",
        "ours / reference",
        "ours",
        "reference",
        "ratio",
        "quartiles",
        "must",
        "stretch",
        "verdict",
    ];
    let mut text = aligned(head, &outcomes.iter().map(Outcome::cells).collect::<Vec<_>>());
    let notes: Vec<_> = outcomes.iter().filter(|o| !o.why.is_empty()).collect();
    if !notes.is_empty() {
        text.push('\n');
        for outcome in notes {
            _ = writeln!(text, "{}: {}", outcome.goal.row, outcome.why);
        }
    }
    let rows: Vec<_> = also
        .iter()
        .filter_map(|figure| {
            let values = samples.of(figure.key);
            let spread = format!(
                "{} - {}",
                number(quantile(&values, 0.25)),
                number(quantile(&values, 0.75))
            );
            (!values.is_empty())
                .then(|| [figure.row.into(), figure.name.into(), number(median(&values)), spread])
        })
        .collect();
    if !rows.is_empty() {
        text.push_str("\nalso measured (no gate)\n");
        text.push_str(&aligned(["goal", "figure", "median", "quartiles"], &rows));
    }
    let Environment { kernel, cpu, cpus, huge_pages, map_limit, damon, .. } = environment;
    _ = write!(
        text,
        "\nLinux {kernel}, {cpu}, {cpus} CPUs; stolen by the host during the run: {stolen:.2} s; \
         huge pages {huge_pages} (off for this process); map limit {map_limit}; DAMON reclaim {damon}\n"
    );
    text
}

/// The report for a program, raw samples included.
pub(crate) fn json(
    outcomes: &[Outcome],
    also: &[&Also],
    samples: &Samples,
    environment: &Environment,
    stolen: f64,
) -> Value {
    let figure = |key: &str| {
        let values = samples.of(key);
        json!({ "median": median(&values), "q1": quantile(&values, 0.25), "q3": quantile(&values, 0.75), "samples": values })
    };
    let calibration: serde_json::Map<String, Value> = also
        .iter()
        .filter(|a| a.row == "cal")
        .map(|a| (a.key.trim_start_matches("calibration.").to_owned(), figure(a.key)))
        .collect();
    let mut raw = serde_json::Map::new();
    for outcome in outcomes {
        for key in [outcome.goal.ours, outcome.goal.reference] {
            raw.insert(key.to_owned(), json!(samples.of(key)));
        }
    }
    let Environment { kernel, cpu, cpus, huge_pages, map_limit, damon, .. } = environment;
    json!({
        "calibration": calibration,
        "environment": {
            "kernel": kernel, "cpu": cpu, "cpus": cpus, "huge_pages": huge_pages, "map_limit": map_limit,
            "damon_reclaim": damon, "steal_seconds": stolen,
        },
        "rows": outcomes.iter().map(Outcome::json).collect::<Vec<_>>(),
        "also": also.iter().filter(|a| a.row != "cal")
            .map(|a| json!({ "row": a.row, "name": a.name, "figure": figure(a.key) })).collect::<Vec<_>>(),
        "samples": raw,
    })
}
