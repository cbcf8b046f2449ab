//! Characters a second that a gRPC client receives, beside what the same model steps in a bare loop.
//!
//! Both in one run, in turns, on the same cores, so that their ratio means something on any machine:
//!
//! ```sh
//! cargo bench -p charrnn-serve --bench delivered -- --bundle DIR --onnxruntime LIB
//!     [--precision int8] [--streams 1,16,64,256] [--seconds 3] [--repeats 3] [--workers N]
//! ```
//!
//! Beside the rates stands the processor time of a character, which a busy machine disturbs less.

mod ceiling;
mod client;
mod cpu;
mod options;
mod report;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use charrnn_serve::run_server;
use tokio::sync::oneshot;

use ceiling::Ceiling;
use options::Options;
use report::Report;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One round is a ceiling and a delivery at each number of streams.
fn run(options: &Options) -> Result<()> {
    let mut ceiling = Ceiling::load(options)?;
    let report = with_server(options, |address| {
        ceiling.measure(options.seconds)?;
        let mut report = Report::new(options, ceiling.num_workers());
        for round in 0..options.repeats {
            for &num_streams in &options.streams {
                let ceiling = ceiling.measure(options.seconds)?;
                let delivered = client::measure(address, num_streams, options.seconds)?;
                let (of, got) = (ceiling.per_second(), delivered.per_second());
                eprintln!("round {round}: {num_streams} streams, {got:.0} of {of:.0} characters/s");
                report.add(num_streams, ceiling, delivered);
            }
        }
        Ok(report)
    })?;
    report.print();
    Ok(())
}

/// Runs `work` beside the server as users start it.
fn with_server<T>(options: &Options, work: impl FnOnce(SocketAddr) -> Result<T>) -> Result<T> {
    let serve_options = options.serve_options();
    let (stop, stopped) = oneshot::channel();
    let (_abort, aborted) = oneshot::channel();
    let (ready, is_ready) = mpsc::channel();
    let on_ready = move |address| ready.send(address).expect("this thread waits for it");
    let server = thread::spawn(move || run_server(&serve_options, on_ready, stopped, aborted));
    let result = is_ready.recv().map(work);
    drop(stop);
    server.join().map_err(|_| "the server panicked")??;
    result?
}
