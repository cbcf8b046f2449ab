//! The models of a server by name, exchanged while texts run on them.
//!
//! A name has one model that takes texts. What was served under it before is kept until its texts are over, and can be
//! asked for by its version. Knows no folders and no protocol.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use charrnn_core::engine::SubmitError;
use charrnn_core::meter::Stats;

use crate::error::{GenerateError, ServeError};
use crate::model::{Model, ModelInfo};
use crate::rest::has_refused;
use crate::status::Refusal;
use crate::token::TokenKey;

/// What a model is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The one of its name.
    Serving,
    /// Its texts go on; new ones only for those who ask for its version.
    Retiring,
    /// It takes no texts any more.
    Ending,
}

struct Entry {
    model: Model,
    phase: Phase,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    /// What models that are gone have done, by name: counters never fall.
    past: BTreeMap<String, Stats>,
    is_closed: bool,
}

/// The models of a server; no two that serve have the same name, and one always serves.
#[derive(Default)]
pub(crate) struct Models {
    state: RwLock<State>,
    key: Arc<TokenKey>,
}

impl Models {
    pub(crate) fn new(models: Vec<Model>) -> Result<Self, ServeError> {
        let names: Vec<&str> = models.iter().map(|model| model.info().name.as_str()).collect();
        if let Some(i) = (1..names.len()).find(|&i| names[..i].contains(&names[i])) {
            return Err(ServeError::DuplicateModel(names[i].to_owned()));
        }
        if models.is_empty() {
            return Err(ServeError::NoModels);
        }
        let serving = |model| Entry { model, phase: Phase::Serving };
        let entries = models.into_iter().map(serving).collect();
        let state = RwLock::new(State { entries, ..State::default() });
        Ok(Models { state, ..Models::default() })
    }

    /// The same with another key than one of its own.
    pub(crate) fn with_key(self, key: Arc<TokenKey>) -> Self {
        Models { key, ..self }
    }

    /// Of resume tokens.
    pub(crate) fn key(&self) -> &Arc<TokenKey> {
        &self.key
    }

    /// Those that serve, then those whose texts go on.
    pub(crate) fn all(&self) -> Vec<Model> {
        let state = self.read();
        let of = |phase| state.of(move |other| other == phase).cloned();
        of(Phase::Serving).chain(of(Phase::Retiring)).chain(of(Phase::Ending)).collect()
    }

    /// Names of those that serve.
    pub(crate) fn names(&self) -> Vec<String> {
        self.read().serving().map(|model| model.info().name.clone()).collect()
    }

    /// The model of that name, or its `version` if one is given; no name means the only one.
    pub(crate) fn find(&self, name: &str, version: Option<&str>) -> Result<Model, Refusal> {
        let state = self.read();
        let current = state.find(name)?;
        let name = current.info().name.as_str();
        let asked = |model: &&Model| {
            version.is_none_or(|version| model.info().name == name && model.info().version == version)
        };
        let mut live = [current].into_iter().chain(state.of(|phase| phase == Phase::Retiring));
        let found = live.find(asked).cloned();
        found.ok_or_else(|| Refusal::unknown_version(current.info(), version.unwrap_or_default()))
    }

    /// What the model of that name (and `version`) answers, and which one that was; of one that is replaced at that
    /// very moment the next is asked.
    pub(crate) fn ask<T>(
        &self,
        name: &str,
        version: Option<&str>,
        ask: impl Fn(&Model) -> Result<T, GenerateError>,
    ) -> Result<(Arc<ModelInfo>, T), Refusal> {
        loop {
            let model = self.find(name, version)?;
            match ask(&model) {
                Ok(answer) => return Ok((model.info_shared(), answer)),
                Err(GenerateError::Submit(SubmitError::Stopping))
                    if !self.find(name, version)?.is_same(&model) => {}
                Err(error @ GenerateError::Submit(SubmitError::QueueFull { .. })) => {
                    has_refused();
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Why a request of `client` is refused just now, whatever it says: there is no room, and one model only that it can be for.
    pub(crate) fn turn_away(&self, client: &Arc<str>) -> Result<(), Refusal> {
        let state = self.read();
        let [Entry { model, .. }] = state.entries.as_slice() else { return Ok(()) };
        let Some(error) = model.turn_away(client) else { return Ok(()) };
        has_refused();
        Err(Refusal::Submit(error))
    }

    /// Has `model` serve under its name from now on; the one that did retires.
    pub(crate) fn put(&self, model: Model) -> Result<Option<Model>, Refusal> {
        let mut state = self.write();
        if state.is_closed {
            return Err(Refusal::Submit(SubmitError::Stopping));
        }
        let old = state.retire(&model.info().name);
        state.entries.push(Entry { model, phase: Phase::Serving });
        Ok(old)
    }

    /// Has the model of that name serve no longer.
    pub(crate) fn take(&self, name: &str) -> Result<Model, Refusal> {
        let mut state = self.write();
        let name = state.find(name)?.info().name.clone();
        if state.serving().count() == 1 {
            return Err(Refusal::LastModel { name });
        }
        Ok(state.retire(&name).expect("found above"))
    }

    /// Blocks until the texts of a model that retires are over, those left after `timeout` are ended, and lets go of it.
    pub(crate) fn finish(&self, model: Model, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        model.wait_until_empty(timeout);
        self.write().entry(&model).into_iter().for_each(|entry| entry.phase = Phase::Ending);
        model.drain(deadline.saturating_duration_since(Instant::now()));
        let mut state = self.write();
        state.entries.retain(|entry| !entry.model.is_same(&model));
        let past = state.past.entry(model.info().name.clone()).or_default();
        *past = std::mem::take(past).merge(model.stats().of_the_past());
    }

    /// Lets no model be put any more, and every model take no more texts.
    pub(crate) fn stop_admission(&self) {
        let mut state = self.write();
        state.is_closed = true;
        state.entries.iter().for_each(|entry| entry.model.stop_admission());
    }

    /// What has been done under each name that serves, since the server started.
    pub(crate) fn stats(&self) -> Vec<(String, Stats)> {
        let state = self.read();
        let stats = |model: &Model| {
            let name = &model.info().name;
            let of_name = state.entries.iter().filter(|entry| entry.model.info().name == *name);
            let past = state.past.get(name).cloned().unwrap_or_default();
            (name.clone(), of_name.map(|entry| entry.model.stats()).fold(past, Stats::merge))
        };
        state.serving().map(stats).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of(&self, is_meant: impl Fn(Phase) -> bool) -> impl Iterator<Item = &Model> {
        self.entries.iter().filter(move |entry| is_meant(entry.phase)).map(|entry| &entry.model)
    }

    fn serving(&self) -> impl Iterator<Item = &Model> {
        self.of(|phase| phase == Phase::Serving)
    }

    /// The one of that name that serves.
    fn find(&self, name: &str) -> Result<&Model, Refusal> {
        let known = || self.serving().map(|model| model.info().name.as_str()).collect::<Vec<_>>().join(", ");
        let mut serving = self.serving();
        match (name, self.serving().count()) {
            ("", 1) => Ok(serving.next().expect("one")),
            ("", _) => Err(Refusal::NoModelNamed { known: known() }),
            _ => serving
                .find(|model| model.info().name == name)
                .ok_or_else(|| Refusal::unknown_model(name, known())),
        }
    }

    fn entry(&mut self, model: &Model) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.model.is_same(model))
    }

    fn retire(&mut self, name: &str) -> Option<Model> {
        let is_meant = |entry: &&mut Entry| entry.phase == Phase::Serving && entry.model.info().name == name;
        let entry = self.entries.iter_mut().find(is_meant)?;
        entry.phase = Phase::Retiring;
        Some(entry.model.clone())
    }
}
