//! What the engines have counted, as a page of the Prometheus text format, version 0.0.4.
//!
//! Knows names, units and labels; nothing of sockets. Labels are models, and words of closed sets: however odd the
//! requests, a server has as many series on its last page as on its first.

use std::fmt::{Display, Write};
use std::ops::RangeInclusive;

use charrnn_core::meter::{Counted, Outcome, Stats};

use crate::denied::Denied;
use crate::process::Usage;
use crate::stats::{ended, rejected};

/// A name, what it says, and where it comes from.
type Number = (&'static str, &'static str, fn(&Stats) -> u64);
type Histogram = (&'static str, &'static str, fn(&Stats) -> &Counted);

const GAUGES: [Number; 5] = [
    ("charrnn_active_streams", "Texts that hold a slot or are parked.", |stats| stats.running as u64),
    ("charrnn_slots", "Texts that can be decoded at once.", |stats| stats.slots as u64),
    ("charrnn_queue_depth", "Texts that wait for their first slot.", |stats| stats.waiting as u64),
    ("charrnn_parked_streams", "Texts that wait for their reader to take what there is.", |stats| {
        stats.parked as u64
    }),
    ("charrnn_prompt_cache_bytes", "What the states after prompts read before take.", |stats| {
        stats.cache.num_bytes as u64
    }),
];

const COUNTERS: [Number; 4] = [
    ("charrnn_chars_total", "Characters handed to readers.", |stats| stats.chunk_chars.sum),
    ("charrnn_cancelled_total", "Texts whose reader went away.", cancelled),
    ("charrnn_prompt_cache_hits_total", "Prompts that had been read before.", |stats| stats.cache.hits),
    ("charrnn_prompt_cache_misses_total", "Prompts that had not.", |stats| stats.cache.misses),
];

/// From a microsecond to two minutes.
const TIME_BITS: RangeInclusive<usize> = 10..=37;
const NANOSECONDS: f64 = 1e9;
const TIMES: [Histogram; 6] = [
    ("charrnn_step_seconds", "Each step of the model, for all rows of a batch.", |stats| &stats.step),
    ("charrnn_sample_seconds", "The draws after each step.", |stats| &stats.sample),
    ("charrnn_send_stall_seconds", "Between steps, handing readers what the last one gave.", |stats| {
        &stats.send
    }),
    ("charrnn_queue_seconds", "From acceptance to the first slot.", |stats| &stats.queue),
    ("charrnn_first_char_seconds", "From acceptance to the first character.", |stats| &stats.first_char),
    ("charrnn_inter_char_seconds", "The wait for a chunk, shared by its characters.", |stats| {
        &stats.inter_char
    }),
];

/// From 1 to 4095: rows and characters of a chunk, which are more only by a choice that costs.
const SIZE_BITS: RangeInclusive<usize> = 1..=12;
const SIZES: [Histogram; 2] = [
    ("charrnn_batch_size", "Rows of each step.", |stats| &stats.batch),
    ("charrnn_chunk_chars", "Characters of each chunk.", |stats| &stats.chunk_chars),
];

fn cancelled(stats: &Stats) -> u64 {
    let name = Outcome::Cancelled.name();
    ended(stats).find(|&(found, _)| found == name).map_or(0, |(_, count)| count)
}

/// The page for models, by name, and the process they run in.
pub(crate) fn exposition(
    models: &[(String, Stats)],
    denied: &Denied,
    num_load_failures: u64,
    usage: Option<&Usage>,
) -> String {
    let mut page = Page { text: String::new(), models };
    GAUGES.into_iter().for_each(|family| page.numbers("gauge", family));
    COUNTERS.into_iter().for_each(|family| page.numbers("counter", family));
    page.labelled("charrnn_requests_total", "Texts that are over, by how they ended.", "reason", |stats| {
        ended(stats).collect()
    });
    page.labelled("charrnn_rejected_total", "Requests turned away, by cause.", "cause", |stats| {
        rejected(stats).to_vec()
    });
    TIMES.into_iter().for_each(|family| page.histogram(family, TIME_BITS, NANOSECONDS));
    SIZES.into_iter().for_each(|family| page.histogram(family, SIZE_BITS, 1.0));
    page.head(
        "charrnn_denied_total",
        "counter",
        "Requests not let in, before any model was asked, by reason.",
    );
    for (reason, count) in denied.read() {
        page.line(format_args!("charrnn_denied_total{{reason=\"{}\"}} {count}", reason.to_ascii_lowercase()));
    }
    page.head(
        "charrnn_model_reload_failures_total",
        "counter",
        "Loads of a model into the running server that failed.",
    );
    page.line(format_args!("charrnn_model_reload_failures_total {num_load_failures}"));
    usage.into_iter().for_each(|usage| page.process(usage));
    page.text
}

struct Page<'a> {
    text: String,
    models: &'a [(String, Stats)],
}

impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.text, "{line}").expect("a String takes all");
    }

    fn numbers(&mut self, kind: &str, (name, help, value): Number) {
        self.head(name, kind, help);
        for (model, stats) in self.models {
            let value = value(stats);
            self.line(format_args!("{name}{{model=\"{}\"}} {value}", escape(model)));
        }
    }

    fn labelled(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: fn(&Stats) -> Vec<(&'static str, u64)>,
    ) {
        self.head(name, "counter", help);
        for (model, stats) in self.models {
            for (word, value) in values(stats) {
                self.line(format_args!("{name}{{model=\"{}\",{label}=\"{word}\"}} {value}", escape(model)));
            }
        }
    }

    /// Cumulative buckets for values of `bits`, `per` of which are one of the unit that the name says.
    fn histogram(&mut self, (name, help, value): Histogram, bits: RangeInclusive<usize>, per: f64) {
        self.head(name, "histogram", help);
        for (model, stats) in self.models {
            let (counted, model) = (value(stats), escape(model));
            let mut below = 0;
            for (index, (count, limit)) in counted.counts.iter().zip(counted.limits()).enumerate() {
                below += count;
                if bits.contains(&index) {
                    let limit = limit as f64 / per;
                    self.line(format_args!("{name}_bucket{{model=\"{model}\",le=\"{limit}\"}} {below}"));
                }
            }
            self.line(format_args!("{name}_bucket{{model=\"{model}\",le=\"+Inf\"}} {}", counted.count()));
            self.line(format_args!("{name}_sum{{model=\"{model}\"}} {}", counted.sum as f64 / per));
            self.line(format_args!("{name}_count{{model=\"{model}\"}} {}", counted.count()));
        }
    }

    /// By the names that Prometheus' own clients use.
    fn process(&mut self, usage: &Usage) {
        let numbers: [(&str, &str, &str, f64); 4] = [
            ("process_cpu_seconds_total", "counter", "Processor time, user and system.", usage.cpu_s),
            ("process_resident_memory_bytes", "gauge", "Memory in use.", usage.rss_bytes as f64),
            ("process_start_time_seconds", "gauge", "Since 1970 in UTC.", usage.start_s),
            ("process_open_fds", "gauge", "Open file descriptors.", usage.num_fds as f64),
        ];
        for (name, kind, help, value) in numbers {
            self.head(name, kind, help);
            self.line(format_args!("{name} {value}"));
        }
    }
}

/// A model's name as a label's value. Those of bundles need no escape; a caller's own may.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(counts: &[u64], sum: u64) -> Counted {
        Counted { counts: counts.iter().copied().chain(std::iter::repeat(0)).take(40).collect(), sum }
    }

    #[test]
    fn buckets_are_cumulative_and_in_the_unit_of_the_name() {
        let step = counted(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 4], 4_500_000_000);
        let batch = counted(&[0, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], 20_000);
        let text = exposition(
            &[("a".to_owned(), Stats { step, batch, ..Stats::default() })],
            &Denied::default(),
            0,
            None,
        );
        for line in [
            "charrnn_step_seconds_bucket{model=\"a\",le=\"0.000001023\"} 3",
            "charrnn_step_seconds_bucket{model=\"a\",le=\"0.000002047\"} 7",
            "charrnn_step_seconds_bucket{model=\"a\",le=\"+Inf\"} 7",
            "charrnn_step_seconds_sum{model=\"a\"} 4.5",
            "charrnn_step_seconds_count{model=\"a\"} 7",
            "charrnn_batch_size_bucket{model=\"a\",le=\"1\"} 5",
            "charrnn_batch_size_bucket{model=\"a\",le=\"4095\"} 6",
            "charrnn_batch_size_bucket{model=\"a\",le=\"+Inf\"} 8",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        let text = exposition(&[("a\"} 1\n\\".to_owned(), Stats::default())], &Denied::default(), 0, None);
        assert!(text.contains("charrnn_slots{model=\"a\\\"} 1\\n\\\\\"} 0\n"), "{text}");
    }
}
