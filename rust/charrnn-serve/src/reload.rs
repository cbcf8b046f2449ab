//! Loading, exchanging and unloading models while a server runs.
//!
//! One load at a time, in the order asked for, on a thread that may block. Until the new model has taken its first
//! steps the old one serves, and if it never does, goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use charrnn_core::manifest::Bundle;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tracing::{error, info};

use crate::error::ServeError;
use crate::health::Health;
use crate::model::{Model, ModelInfo};
use crate::models::Models;
use crate::status::Refusal;

/// Makes a model of the bundle in a folder. Blocks.
pub type Load = Arc<dyn Fn(&Path) -> Result<Model, ServeError> + Send + Sync>;

/// Where models come from.
#[derive(Clone)]
pub struct Source {
    /// How a bundle is loaded.
    pub load: Load,
    /// The folders of the models that are there already, by name.
    pub folders: BTreeMap<String, PathBuf>,
}

impl Source {
    /// No models but those that are there already.
    pub(crate) fn none() -> Self {
        let unsupported = std::io::ErrorKind::Unsupported;
        Source { load: Arc::new(move |_| Err(ServeError::Io(unsupported.into()))), folders: BTreeMap::new() }
    }
}

/// What a load has done.
pub(crate) struct Loaded {
    pub(crate) model: Arc<ModelInfo>,
    pub(crate) replaced: Option<Arc<ModelInfo>>,
}

pub(crate) struct Reloader {
    models: Arc<Models>,
    health: Health,
    load: Load,
    drain_timeout: Duration,
    num_failures: AtomicU64,
    /// Where each model came from. Whoever loads or unloads holds it: those who wait come in their order.
    folders: Mutex<BTreeMap<String, PathBuf>>,
}

impl Reloader {
    pub(crate) fn new(models: Arc<Models>, health: Health, source: Source, drain_timeout: Duration) -> Self {
        Reloader {
            models,
            health,
            load: source.load,
            drain_timeout,
            num_failures: AtomicU64::new(0),
            folders: Mutex::new(source.folders),
        }
    }

    /// Loads that failed.
    pub(crate) fn num_failures(&self) -> u64 {
        self.num_failures.load(Relaxed)
    }

    /// Has the bundle in `folder` (none: where `name` came from) serve, if its model has that `name` (empty: any).
    pub(crate) async fn load(&self, folder: Option<PathBuf>, name: &str) -> Result<Loaded, Refusal> {
        let mut folders = self.folders.lock().await;
        let folder = match folder.or_else(|| folders.get(name).cloned()) {
            Some(folder) => folder,
            None => return Err(Refusal::unknown_model(name, self.models.names().join(", "))),
        };
        let loaded = self.swap(&folder, name).await;
        match &loaded {
            Ok(Loaded { model, replaced }) => {
                let replaced = replaced.as_ref().map(|old| old.version.as_str());
                info!(model = model.name, version = model.version, ?folder, replaced, "model loaded");
                folders.insert(model.name.clone(), folder);
            }
            Err(refusal) => {
                self.num_failures.fetch_add(1, Relaxed);
                error!(?folder, error = refusal.to_string(), "model not loaded, so what was served goes on");
            }
        }
        loaded
    }

    async fn swap(&self, folder: &Path, name: &str) -> Result<Loaded, Refusal> {
        let (load, from) = (Arc::clone(&self.load), folder.to_owned());
        let loaded = spawn_blocking(move || load(&from)).await;
        let model = loaded.map_err(|panic| Refusal::Load(panic.to_string()))?;
        let model = model.map_err(|error| Refusal::Load(error.to_string()))?;
        let info = model.info_shared();
        if ![info.name.as_str(), ""].contains(&name) {
            let (shown, found) = (folder.display(), &info.name);
            return Err(Refusal::Load(format!("the model in {shown} is named {found:?}, not {name:?}")));
        }
        let old = self.models.put(model)?;
        let replaced = old.as_ref().map(Model::info_shared);
        old.into_iter().for_each(|old| self.finish(old));
        self.health.serving(&info.name).await;
        Ok(Loaded { model: info, replaced })
    }

    /// Has the model of that name serve no longer.
    pub(crate) async fn unload(&self, name: &str) -> Result<Arc<ModelInfo>, Refusal> {
        let mut folders = self.folders.lock().await;
        let old = self.models.take(name)?;
        let info = old.info_shared();
        folders.remove(&info.name);
        self.health.not_serving(&info.name).await;
        self.finish(old);
        info!(model = info.name, version = info.version, "model unloaded");
        Ok(info)
    }

    /// Loads every bundle again whose manifest is another than the one that serves.
    pub(crate) async fn load_changed(&self) {
        let folders = self.folders.lock().await.clone();
        for (name, folder) in folders {
            let Ok(current) = self.models.find(&name, None).map(|model| model.info_shared()) else {
                continue;
            };
            let on_disk = folder.clone();
            let opened = spawn_blocking(move || Bundle::open(&on_disk)).await;
            if !matches!(opened, Ok(Ok(bundle)) if bundle.digest == current.digest) {
                // What is wrong with a bundle that does not open, its load says again.
                drop(self.load(Some(folder), &name).await);
            }
        }
    }

    /// Waits until nothing is being loaded, at most `timeout`.
    pub(crate) async fn settle(&self, timeout: Duration) {
        drop(tokio::time::timeout(timeout, self.folders.lock()).await);
    }

    /// Lets the texts of a model end on a thread of their own.
    fn finish(&self, model: Model) {
        let (models, health, timeout) = (Arc::clone(&self.models), self.health.clone(), self.drain_timeout);
        let (name, version) = (model.info().name.clone(), model.info().version.clone());
        tokio::spawn(async move {
            let finishing = Arc::clone(&models);
            drop(spawn_blocking(move || finishing.finish(model, timeout)).await);
            info!(model = name, version, "model gone");
            if !models.names().contains(&name) {
                health.forget(&name).await;
            }
        });
    }
}
