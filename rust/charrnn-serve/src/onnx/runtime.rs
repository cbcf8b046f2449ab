//! The process's one ONNX Runtime.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;

use super::OrtError;

/// Held for good: ort keeps only a weak reference and allows one environment per process.
static LOADED: OnceLock<OrtRuntime> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// A loaded ONNX Runtime library and its environment.
#[derive(Debug)]
pub struct OrtRuntime {
    path: PathBuf,
    environment: Environment,
}

impl OrtRuntime {
    /// Loads the shared library at `dylib`, or hands out the one loaded from there before.
    ///
    /// Telemetry of the official builds stops only if `ORT_DISABLE_TELEMETRY=1` is in the environment by now.
    pub fn load(dylib: &Path) -> Result<&'static OrtRuntime, OrtError> {
        let failed = |reason: String| OrtError::Library { path: dylib.to_owned(), reason };
        let path = dylib.canonicalize().map_err(|error| failed(error.to_string()))?;
        let _one_at_a_time = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = LOADED.get() {
            return runtime.if_from(&path);
        }
        let builder = ort::init_from(&path).map_err(|error| failed(error.to_string()))?;
        let environment = builder.with_name("charrnn").with_telemetry(false).build();
        let environment = environment.map_err(|error| failed(error.to_string()))?;
        Ok(LOADED.get_or_init(|| OrtRuntime { path, environment }))
    }

    fn if_from(&self, path: &Path) -> Result<&Self, OrtError> {
        if self.path == path {
            return Ok(self);
        }
        Err(OrtError::OtherLibrary { loaded: self.path.clone(), asked: path.to_owned() })
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }
}
