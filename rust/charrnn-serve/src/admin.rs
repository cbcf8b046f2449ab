//! `charrnn.v1.Admin`: what whoever runs a server may do with it. Protobuf only; the doing is `reload`'s.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Notify;
use tonic::{Request, Response, Status};

use crate::pb;
use crate::reload::Reloader;
use crate::service::to_pb_model;
use crate::status::Refusal;

pub(crate) struct AdminService {
    pub(crate) reloader: Arc<Reloader>,
    /// Told when the server is to end.
    pub(crate) drain: Arc<Notify>,
}

#[tonic::async_trait]
impl pb::admin_server::Admin for AdminService {
    async fn load_model(
        &self,
        request: Request<pb::LoadModelRequest>,
    ) -> Result<Response<pb::LoadModelResponse>, Status> {
        let pb::LoadModelRequest { bundle, model } = request.into_inner();
        let folder = (!bundle.is_empty()).then(|| PathBuf::from(bundle));
        let reloader = Arc::clone(&self.reloader);
        let loaded = to_its_end(async move { reloader.load(folder, &model).await }).await?;
        let replaced = loaded.replaced.map(|old| old.version.clone());
        Ok(Response::new(pb::LoadModelResponse { model: Some(to_pb_model(&loaded.model)), replaced }))
    }

    async fn unload_model(
        &self,
        request: Request<pb::UnloadModelRequest>,
    ) -> Result<Response<pb::UnloadModelResponse>, Status> {
        let (reloader, name) = (Arc::clone(&self.reloader), request.into_inner().model);
        let unloaded = to_its_end(async move { reloader.unload(&name).await }).await?;
        Ok(Response::new(pb::UnloadModelResponse { version: unloaded.version.clone() }))
    }

    async fn drain(
        &self,
        _request: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainResponse>, Status> {
        self.drain.notify_one();
        Ok(Response::new(pb::DrainResponse {}))
    }
}

/// What was begun is done, even if whoever asked goes away.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::spawn(work).await;
    Ok(done.map_err(|panic| Status::internal(panic.to_string()))??)
}
