//! Resume tokens: where a text stands, sealed, so that any server with the same key and model goes on with it.
//!
//! A token is its version, what it says, and an HMAC-SHA256 of both. What it says is not secret, but no client can make
//! one: a state that was made up could read past a model's limits.

use std::path::Path;
use std::sync::Arc;

use charrnn_core::snapshot::Snapshot;
use hmac::{Hmac, Mac};
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::model::ModelInfo;
use crate::models::Models;
use crate::onnx::Device;
use crate::pb;
use crate::secrets::{read_secret, FileError};

/// Of a token, with all that it says.
pub(crate) const MAX_TOKEN_BYTES: usize = 64 << 10;
/// What a token holds besides state and parameters: 4096 symbols looked back on, 256 withheld, three bytes each.
const ROOM_BYTES: usize = 14 << 10;
/// Changes with what the bytes mean.
const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
/// Of a key: as many as the hash has.
const MIN_KEY_BYTES: usize = 32;

/// Why a token is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("resume_token {0}; send the bytes of Finished.resume_token as they came")]
    Malformed(&'static str),
    #[error(
        "resume_token was made by a server with another key, or changed on its way; give all servers one \
         --resume-key-file, or ask for the text from its beginning, with the same seed"
    )]
    OtherKey,
    #[error(
        "resume_token is of model {0:.17}, which is not the one asked for here; ask a server that has it, or for the \
         text from its beginning"
    )]
    OtherModel(String),
    #[error(
        "{0} cannot be given beside resume_token, which has its own; only max_tokens and output may change"
    )]
    Fixed(&'static str),
}

/// What makes tokens and tells them from others.
pub struct TokenKey(Hmac<Sha256>);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TokenKey(secret)")
    }
}

impl Default for TokenKey {
    /// See `random`.
    fn default() -> Self {
        TokenKey::random()
    }
}

impl TokenKey {
    /// For servers that share it.
    pub fn new(secret: &[u8]) -> Self {
        TokenKey(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    /// For one server.
    ///
    /// # Panics
    /// If the system has no randomness to give.
    pub fn random() -> Self {
        let mut secret = [0; MIN_KEY_BYTES];
        getrandom::fill(&mut secret).expect("the system gives random bytes");
        TokenKey::new(&secret)
    }

    /// From a file that nobody else may read.
    ///
    /// # Errors
    /// It cannot be read, others may read it, or it is too short for a secret.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let secret = read_secret(path)?;
        match secret.len() < MIN_KEY_BYTES {
            true => {
                let reason = format!("has {} bytes; a key has {MIN_KEY_BYTES} or more", secret.len());
                Err(FileError::content(path, reason))
            }
            false => Ok(TokenKey::new(&secret)),
        }
    }

    fn seal(&self, contents: &Contents) -> Option<Vec<u8>> {
        let token = postcard::to_extend(contents, vec![VERSION]).ok()?;
        let mac = self.0.clone().chain_update(&token).finalize().into_bytes();
        Some([token.as_slice(), &mac].concat()).filter(|token| token.len() <= MAX_TOKEN_BYTES)
    }

    fn open(&self, token: &[u8]) -> Result<Contents, TokenError> {
        let signed_len = token.len().checked_sub(MAC_BYTES).ok_or(TokenError::Malformed("is too short"))?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed("is longer than 65536 bytes"));
        }
        let (signed, mac) = token.split_at(signed_len);
        let Some((&VERSION, contents)) = signed.split_first() else {
            return Err(TokenError::Malformed("is of another version of charrnn, or is none"));
        };
        self.0.clone().chain_update(signed).verify_slice(mac).map_err(|_| TokenError::OtherKey)?;
        postcard::from_bytes(contents).map_err(|_| TokenError::Malformed("says nothing that can be read"))
    }
}

/// What a token says.
#[derive(Serialize, Deserialize)]
struct Contents {
    /// In whose numbers the state is.
    model: String,
    /// As protobuf, as all that is asked.
    sampling: Vec<u8>,
    stopping: Vec<u8>,
    snapshot: Snapshot,
}

/// A model as tokens name it: a precision computes numbers of its own, and so does a device. Messages show its beginning.
fn name(model: &ModelInfo) -> String {
    let of_device = if model.device == Device::Cpu { "" } else { "cuda " };
    format!("{of_device}{} {}", model.precision, model.digest)
}

/// Opens the token of a request, if it has one, and puts the model and the parameters that it names into the request.
pub(crate) fn unseal(
    request: &mut pb::GenerateRequest,
    models: &Models,
) -> Result<Option<Snapshot>, TokenError> {
    let Some(pb::generate_request::Start::ResumeToken(token)) = &request.start else { return Ok(None) };
    let contents = models.key().open(token)?;
    let decode = |_| TokenError::Malformed("says nothing that can be read");
    let sampling = pb::Sampling::decode(contents.sampling.as_slice()).map_err(decode)?;
    let mut stopping = pb::Stopping::decode(contents.stopping.as_slice()).map_err(decode)?;
    stopping.max_tokens = new_length(request)?.or(stopping.max_tokens);
    (request.sampling, request.stopping) = (Some(sampling), Some(stopping));
    let is_asked = |info: &ModelInfo| {
        name(info) == contents.model
            && (request.model.is_empty() || request.model == info.name)
            && request.version.as_ref().is_none_or(|version| *version == info.version)
    };
    // Also one that is being replaced.
    let Some(model) = models.all().into_iter().find(|model| is_asked(model.info())) else {
        return Err(TokenError::OtherModel(contents.model));
    };
    let info = model.info();
    if contents.snapshot.state_len() * size_of::<f32>() != info.state_bytes as usize {
        return Err(TokenError::Malformed("holds a state of another size"));
    }
    (request.model, request.version) = (info.name.clone(), Some(info.version.clone()));
    Ok(Some(contents.snapshot))
}

/// The `max_tokens` of a request that may give nothing else.
fn new_length(request: &pb::GenerateRequest) -> Result<Option<u32>, TokenError> {
    let max_tokens = request.stopping.as_ref().and_then(|stopping| stopping.max_tokens);
    let lone = pb::Stopping { max_tokens, ..pb::Stopping::default() };
    match (&request.sampling, &request.stopping) {
        (Some(sampling), _) if *sampling != pb::Sampling::default() => Err(TokenError::Fixed("sampling")),
        (_, Some(stopping)) if *stopping != lone => Err(TokenError::Fixed("stopping")),
        _ => Ok(max_tokens),
    }
}

/// What the token of a stream needs beside its snapshot.
pub(crate) struct Sealer {
    key: Arc<TokenKey>,
    model: String,
    sampling: pb::Sampling,
    stopping: pb::Stopping,
}

impl Sealer {
    /// None if the request asks for no token, or one would be too long.
    pub(crate) fn new(request: &pb::GenerateRequest, model: &ModelInfo, key: &Arc<TokenKey>) -> Option<Self> {
        let is_wanted = request.output.as_ref().is_some_and(|output| output.resume_token());
        let (sampling, stopping) =
            (request.sampling.clone().unwrap_or_default(), request.stopping.clone().unwrap_or_default());
        let len = model.state_bytes as usize + sampling.encoded_len() + stopping.encoded_len() + ROOM_BYTES;
        (is_wanted && len <= MAX_TOKEN_BYTES).then(|| Sealer {
            key: Arc::clone(key),
            model: name(model),
            sampling,
            stopping,
        })
    }

    /// The seed in use, which the request may have left to the engine.
    pub(crate) fn set_seed(&mut self, seed: u64) {
        self.sampling.seed = Some(seed);
    }

    pub(crate) fn seal(&self, snapshot: Snapshot) -> Option<Vec<u8>> {
        let (sampling, stopping) = (self.sampling.encode_to_vec(), self.stopping.encode_to_vec());
        self.key.seal(&Contents { model: self.model.clone(), sampling, stopping, snapshot })
    }
}
