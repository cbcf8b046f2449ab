//! What happens to a server: one line an event on stderr, for people or as JSON.
//!
//! No line holds a prompt, a text or a secret. What comes from outside is quoted and escaped.

use std::fmt;
use std::io::stderr;
use std::sync::Arc;

use charrnn_core::event::{Finished, StreamError};
use charrnn_core::meter::Outcome;
use tracing::{debug, Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::model::ModelInfo;

const CRATE: &str = env!("CARGO_CRATE_NAME");
/// Of the line about each text.
const TEXTS: &str = "charrnn_serve::texts";

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `message name="value"`, after `warning: ` or `error: ` if it is one.
    Text,
    /// An object with `timestamp`, `level`, `message` and the values.
    Json,
}

/// Of the line with the addresses, which a caller tells people in its own words.
pub(crate) const READY: &str = "charrnn_serve::ready";

/// What is told, and how.
#[derive(Clone, Copy, Debug)]
pub struct Logging {
    /// How lines look.
    pub format: LogFormat,
    /// The least that is told.
    pub level: LevelFilter,
    /// A line for each text that is over, whatever the level; with level debug there is one anyway.
    pub requests: bool,
}

/// Tells events from now on; a process that tells them already goes on as it does.
pub fn start_logging(logging: Logging) {
    let texts = if logging.requests { LevelFilter::DEBUG } else { logging.level };
    let ready = match logging.format {
        LogFormat::Text => LevelFilter::OFF,
        LogFormat::Json => logging.level,
    };
    let filter =
        Targets::new().with_target(CRATE, logging.level).with_target(TEXTS, texts).with_target(READY, ready);
    // To say on stderr that stderr cannot be written to would be a panic.
    let layer = tracing_subscriber::fmt::layer().with_writer(stderr).log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter);
    // Fails only where another subscriber was first.
    drop(match logging.format {
        LogFormat::Text => registry.with(layer.event_format(ForPeople)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_target(false)).try_init(),
    });
}

/// The formatter of [`LogFormat::Text`]. Whoever keeps the lines knows the time.
struct ForPeople;

impl<S, N> FormatEvent<S, N> for ForPeople
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            _ => "",
        })?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Tells of one text once it is over; of one that is dropped before, that it was cancelled.
pub(crate) struct Told {
    model: Arc<ModelInfo>,
    is_told: bool,
}

impl Told {
    pub(crate) fn new(model: Arc<ModelInfo>) -> Self {
        Told { model, is_told: false }
    }

    pub(crate) fn model(&self) -> &ModelInfo {
        &self.model
    }

    pub(crate) fn finished(&mut self, finished: &Finished) {
        self.is_told = true;
        let (timing, model) = (&finished.timing, &self.model);
        debug!(
            target: TEXTS,
            model = model.name,
            version = model.version,
            reason = Outcome::Finished(finished.reason).name(),
            chars = finished.num_chars,
            steps = timing.num_steps,
            queue_us = timing.queue.as_micros() as u64,
            first_char_us = timing.first_char.as_micros() as u64,
            total_us = timing.total.as_micros() as u64,
            "text"
        );
    }

    pub(crate) fn failed(&mut self, error: &StreamError) {
        self.over(Outcome::from(error));
    }

    fn over(&mut self, outcome: Outcome) {
        self.is_told = true;
        let model = &self.model;
        debug!(target: TEXTS, model = model.name, version = model.version, reason = outcome.name(), "text");
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if !self.is_told {
            self.over(Outcome::Cancelled);
        }
    }
}
