//! Load on a charrnn server, from a schedule that no answer can delay, and what each layer beneath it costs.
//!
//! A [`Plan`] says everything about a run, seeds included, so that two runs send the same requests at the same
//! times. Latency counts from the moment a request was due, not from when it could be sent: a server that stands
//! still for half a second is charged for every request that came due meanwhile ("coordinated omission" is the name
//! of the mistake; Gil Tene, "How NOT to Measure Latency", 2013).

mod check;
mod client;
mod error;
mod job;
mod layers;
mod pacer;
mod plan;
mod process;
mod record;
mod report;
mod run;
mod shared;
mod split;
mod spread;
mod stream;
mod tally;
mod watch;

pub use error::BenchError;
pub use job::{Job, Jobs};
pub use layers::{Layers, Yield};
pub use pacer::{due_times, Arrivals};
pub use plan::{Load, Plan, Prompt, Slo, Tls};
pub use report::Report;
pub use run::run_load;
pub use spread::Spread;
pub use watch::Tick;
