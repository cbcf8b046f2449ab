//! The health of the server (""), of the service and of each model, in gRPC's own protocol and for `/healthz`.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;

use tonic::server::NamedService;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_health::ServingStatus;

use crate::models::Models;
use crate::pb::char_rnn_server::CharRnnServer;
use crate::service::CharRnnService;

/// A clone is the same one.
#[derive(Clone)]
pub(crate) struct Health {
    reporter: HealthReporter,
    /// Until the server drains.
    is_serving: Arc<AtomicBool>,
}

impl Health {
    /// All of it is serving.
    pub(crate) async fn new(models: &Models) -> Self {
        let health = Health { reporter: HealthReporter::new(), is_serving: Arc::new(AtomicBool::new(true)) };
        health.set_all(models, ServingStatus::Serving).await;
        health
    }

    pub(crate) fn service(&self) -> HealthService {
        HealthService::from_health_reporter(self.reporter.clone())
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.is_serving.load(SeqCst)
    }

    /// Of a model that serves from now on.
    pub(crate) async fn serving(&self, model: &str) {
        self.reporter.set_service_status(model, ServingStatus::Serving).await;
        // The drain may have come in between.
        if !self.is_serving() {
            self.not_serving(model).await;
        }
    }

    /// Of a model that does no longer.
    pub(crate) async fn not_serving(&self, model: &str) {
        self.reporter.set_service_status(model, ServingStatus::NotServing).await;
    }

    /// Of a model that is gone; ends the streams of those who watch it.
    pub(crate) async fn forget(&self, model: &str) {
        self.reporter.clone().clear_service_status(model).await;
    }

    /// From now on the server drains.
    pub(crate) async fn none_serving(&self, models: &Models) {
        self.is_serving.store(false, SeqCst);
        self.set_all(models, ServingStatus::NotServing).await;
    }

    /// Ends the streams of all who watch, which would keep their connections open.
    pub(crate) async fn forget_all(&self, models: &Models) {
        for name in names(models) {
            self.forget(&name).await;
        }
    }

    async fn set_all(&self, models: &Models, status: ServingStatus) {
        for name in names(models) {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

fn names(models: &Models) -> impl Iterator<Item = String> {
    let whole = ["", CharRnnServer::<CharRnnService>::NAME].map(str::to_owned);
    let each: Vec<_> = models.all().iter().map(|model| model.info().name.clone()).collect();
    whole.into_iter().chain(each)
}
