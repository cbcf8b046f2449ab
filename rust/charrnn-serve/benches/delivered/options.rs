//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use charrnn_core::engine::EngineConfig;
use charrnn_serve::{default_workers, ServeOptions};

use crate::Result;

/// What to measure.
pub(crate) struct Options {
    pub(crate) bundle: PathBuf,
    pub(crate) onnxruntime: PathBuf,
    pub(crate) precision: Option<String>,
    pub(crate) streams: Vec<usize>,
    pub(crate) seconds: Duration,
    pub(crate) repeats: usize,
    pub(crate) workers: usize,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let (mut bundle, mut onnxruntime, mut precision) = (None, None, None);
        let (mut streams, mut seconds, mut repeats, mut workers) =
            (vec![1, 16, 64, 256], 3.0, 3, default_workers());
        while let Some(name) = args.next() {
            // cargo's own.
            if name == "--bench" {
                continue;
            }
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--bundle" => bundle = Some(PathBuf::from(value)),
                "--onnxruntime" => onnxruntime = Some(PathBuf::from(value)),
                "--precision" => precision = Some(value),
                "--streams" => {
                    streams = value.split(',').map(|part| number(&name, part)).collect::<Result<_>>()?
                }
                "--seconds" => seconds = number(&name, &value)?,
                "--repeats" => repeats = number::<usize>(&name, &value)?.max(1),
                "--workers" => workers = number::<usize>(&name, &value)?.max(1),
                _ => {
                    return Err(format!("{name} is unknown; see the head of benches/delivered/main.rs").into())
                }
            }
        }
        Ok(Options {
            bundle: bundle.ok_or("--bundle is missing; give an exported folder")?,
            onnxruntime: onnxruntime.ok_or("--onnxruntime is missing; give the shared library")?,
            precision,
            streams,
            seconds: Duration::try_from_secs_f64(seconds)?,
            repeats,
            workers,
        })
    }

    /// The server as users start it, but on a free port.
    pub(crate) fn serve_options(&self) -> ServeOptions {
        ServeOptions {
            bundles: vec![self.bundle.clone()],
            dylib: self.onnxruntime.clone(),
            listen: "127.0.0.1:0".to_owned(),
            workers: Some(self.workers),
            precision: self.precision.clone(),
            engine: EngineConfig::default(),
            drain_timeout: Duration::ZERO,
        }
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.trim().parse().map_err(|_| format!("{name} is {value:?}; it must be a number").into())
}
