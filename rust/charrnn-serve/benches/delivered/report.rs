//! Medians, a table for people and one line of JSON for machines.

use serde_json::json;

use crate::ceiling::BATCH;
use crate::options::Options;

/// The rounds at one number of streams.
struct Row {
    num_streams: usize,
    ceilings: Vec<f64>,
    delivered: Vec<f64>,
}

impl Row {
    /// Each round's own: the machine's moods hit both halves of a round alike.
    fn ratio(&self) -> f64 {
        median(self.delivered.iter().zip(&self.ceilings).map(|(delivered, ceiling)| delivered / ceiling))
    }
}

/// What was measured.
pub(crate) struct Report {
    bundle: String,
    precision: String,
    num_workers: usize,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(options: &Options, num_workers: usize) -> Self {
        let bundle = options.bundle.display().to_string();
        let precision = options.precision.clone().unwrap_or_else(|| "default".to_owned());
        let row = |&num_streams: &usize| Row { num_streams, ceilings: Vec::new(), delivered: Vec::new() };
        Report { bundle, precision, num_workers, rows: options.streams.iter().map(row).collect() }
    }

    pub(crate) fn add(&mut self, num_streams: usize, ceiling: f64, delivered: f64) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.num_streams == num_streams) {
            row.ceilings.push(ceiling);
            row.delivered.push(delivered);
        }
    }

    pub(crate) fn print(&self) {
        let ceiling = median(self.rows.iter().flat_map(|row| row.ceilings.iter().copied()));
        let thread_us = self.num_workers as f64 * 1e6 / ceiling;
        println!("bundle   {} ({} precision)", self.bundle, self.precision);
        println!("workers  {}", self.num_workers);
        println!("ceiling  {ceiling:.0} characters/s at batch {BATCH}: {thread_us:.2} thread-us a character");
        println!("{:>8}  {:>12}  {:>17}", "streams", "delivered/s", "delivered/ceiling");
        for row in &self.rows {
            let delivered = median(row.delivered.iter().copied());
            println!("{:>8}  {:>12.0}  {:>17.2}", row.num_streams, delivered, row.ratio());
        }
        println!("{}", self.json(ceiling, thread_us));
    }

    fn json(&self, ceiling: f64, thread_us: f64) -> serde_json::Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "streams": row.num_streams,
                "chars_per_s": median(row.delivered.iter().copied()),
                "ratio": row.ratio(),
            })
        });
        json!({
            "bench": "delivered",
            "bundle": self.bundle,
            "precision": self.precision,
            "workers": self.num_workers,
            "ceiling_batch": BATCH,
            "ceiling_chars_per_s": ceiling,
            "ceiling_thread_us_per_char": thread_us,
            "delivered": rows.collect::<Vec<_>>(),
        })
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let mid = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 0 => (values[mid - 1] + values[mid]) / 2.0,
        _ => values[mid],
    }
}
