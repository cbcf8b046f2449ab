//! Medians, a table for people and one line of JSON for machines.

use serde_json::json;

use crate::ceiling::BATCH;
use crate::cpu::Yield;
use crate::options::Options;

/// The rounds at one number of streams.
struct Row {
    num_streams: usize,
    ceilings: Vec<Yield>,
    delivered: Vec<Yield>,
}

impl Row {
    /// Each round's own: the machine's moods hit both halves of a round alike.
    fn ratio(&self) -> f64 {
        let rounds = self.delivered.iter().zip(&self.ceilings);
        median(rounds.map(|(delivered, ceiling)| delivered.per_second() / ceiling.per_second()))
    }

    fn per_second(&self) -> f64 {
        median(self.delivered.iter().map(Yield::per_second))
    }

    fn cpu_us(&self) -> f64 {
        median(self.delivered.iter().map(Yield::cpu_us))
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

    pub(crate) fn add(&mut self, num_streams: usize, ceiling: Yield, delivered: Yield) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.num_streams == num_streams) {
            row.ceilings.push(ceiling);
            row.delivered.push(delivered);
        }
    }

    pub(crate) fn print(&self) {
        let (per_second, cpu_us) = self.ceiling();
        println!("bundle   {} ({} precision)", self.bundle, self.precision);
        println!("workers  {}", self.num_workers);
        println!("ceiling  {per_second:.0} characters/s at batch {BATCH}, {cpu_us:.2} cpu-us a character");
        println!(
            "{:>8}  {:>12}  {:>17}  {:>11}",
            "streams", "delivered/s", "delivered/ceiling", "cpu-us/char"
        );
        for row in &self.rows {
            let (streams, ratio) = (row.num_streams, row.ratio());
            println!("{streams:>8}  {:>12.0}  {ratio:>17.2}  {:>11.2}", row.per_second(), row.cpu_us());
        }
        println!("{}", self.json());
    }

    /// Characters a second and processor microseconds a character, over all rounds.
    fn ceiling(&self) -> (f64, f64) {
        let ceilings = || self.rows.iter().flat_map(|row| &row.ceilings);
        (median(ceilings().map(Yield::per_second)), median(ceilings().map(Yield::cpu_us)))
    }

    fn json(&self) -> serde_json::Value {
        let (per_second, cpu_us) = self.ceiling();
        let rows = self.rows.iter().map(|row| {
            json!({
                "streams": row.num_streams,
                "chars_per_s": row.per_second(),
                "ratio": row.ratio(),
                "cpu_us_per_char": row.cpu_us(),
            })
        });
        json!({
            "bench": "delivered",
            "bundle": self.bundle,
            "precision": self.precision,
            "workers": self.num_workers,
            "ceiling": { "batch": BATCH, "chars_per_s": per_second, "cpu_us_per_char": cpu_us },
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
