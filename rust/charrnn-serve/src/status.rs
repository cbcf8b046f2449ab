//! The one table from what went wrong to a gRPC status.

use std::collections::HashMap;
use std::time::Duration;

use charrnn_core::engine::SubmitError;
use charrnn_core::error::RequestError;
use charrnn_core::event::StreamError;
use charrnn_core::limits;
use tonic::codegen::http::StatusCode;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::GenerateError;
use crate::model::ModelInfo;
use crate::token::TokenError;

/// Of the reasons in a google.rpc.ErrorInfo.
const DOMAIN: &str = "charrnn";
/// Until there may be room again: texts end many times a second, and a failure is forgiven in one.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The same for gRPC's own retries (gRFC A6), which know nothing of details.
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// A name that a client made up is shown escaped and no longer than this.
const MAX_NAME_CHARS: usize = 64;

/// Everything that ends a call without a Finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Request(RequestError),
    #[error(transparent)]
    Submit(SubmitError),
    #[error(transparent)]
    Stream(StreamError),
    #[error(transparent)]
    Token(TokenError),
    #[error("model \"{name}\" is not served here; this server has: {known}")]
    UnknownModel { name: String, known: String },
    #[error("the deadline passed before the text was read; give more time or score it in parts")]
    Late,
    #[error("model {name:?} has no version \"{version}\" here; it is served as {current:?}")]
    UnknownVersion { name: String, version: String, current: String },
    #[error("model {name:?} is the only one; load another before it goes, or drain the server")]
    LastModel { name: String },
    #[error("{0}")]
    Load(String),
    #[error("model is empty, but this server has several: {known}; name one")]
    NoModelNamed { known: String },
    #[error("request_id has {len} bytes; it may have {max}, and texts that share a call need one each")]
    RequestIdLength { len: usize, max: usize },
    #[error("request_id is that of a text on this call that has not ended; that text goes on")]
    RequestIdInUse,
    #[error("the call has {max} texts, as many as it may; wait until one ends or open another call")]
    TooManyTexts { max: usize },
    #[error("cancelled by the client")]
    Cancelled,
    #[error("no token; send one as the header authorization: Bearer TOKEN")]
    NoToken,
    #[error("the token is not known here")]
    WrongToken,
    #[error("only the token named admin may do that")]
    NotAdmin,
    #[error("no client certificate")]
    NoCertificate,
    #[error("too many requests from this address had no known token; wait a second")]
    TooManyFailures,
    #[error("this client has {max} texts under way, and max_streams_per_client is {max}; let one end first")]
    ClientFull { max: usize },
}

impl Refusal {
    pub(crate) fn unknown_model(name: &str, known: String) -> Self {
        Refusal::UnknownModel { name: shown(name), known }
    }

    pub(crate) fn unknown_version(current: &ModelInfo, version: &str) -> Self {
        let (name, version) = (current.name.clone(), shown(version));
        Refusal::UnknownVersion { name, version, current: current.version.clone() }
    }

    /// The table. No arm catches all: a new error does not compile until it has a code.
    pub(crate) fn code(&self) -> Code {
        match self {
            Refusal::Request(_) => Code::InvalidArgument,
            Refusal::NoModelNamed { .. } => Code::InvalidArgument,
            Refusal::Token(TokenError::OtherModel(_)) => Code::FailedPrecondition,
            Refusal::Token(TokenError::Malformed(_) | TokenError::OtherKey | TokenError::Fixed(_)) => {
                Code::InvalidArgument
            }
            Refusal::RequestIdLength { .. } | Refusal::RequestIdInUse => Code::InvalidArgument,
            Refusal::TooManyTexts { .. } => Code::ResourceExhausted,
            Refusal::Cancelled => Code::Cancelled,
            Refusal::UnknownModel { .. } | Refusal::UnknownVersion { .. } => Code::NotFound,
            Refusal::LastModel { .. } | Refusal::Load(_) => Code::FailedPrecondition,
            Refusal::NoToken | Refusal::WrongToken | Refusal::NoCertificate => Code::Unauthenticated,
            Refusal::NotAdmin => Code::PermissionDenied,
            Refusal::TooManyFailures | Refusal::ClientFull { .. } => Code::ResourceExhausted,
            Refusal::Late => Code::DeadlineExceeded,
            Refusal::Submit(SubmitError::QueueFull { .. }) => Code::ResourceExhausted,
            Refusal::Submit(SubmitError::Stopping) => Code::Unavailable,
            Refusal::Stream(StreamError::Stopping) => Code::Unavailable,
            Refusal::Stream(StreamError::Model(_)) => Code::Internal,
            Refusal::Stream(StreamError::Stalled(_)) => Code::Aborted,
        }
    }
}

impl Refusal {
    /// The same in one word that never changes, for programs.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Refusal::Request(_) | Refusal::RequestIdLength { .. } => "BAD_REQUEST",
            Refusal::RequestIdInUse => "REQUEST_ID_IN_USE",
            Refusal::TooManyTexts { .. } => "TOO_MANY_TEXTS",
            Refusal::Cancelled => "CANCELLED",
            Refusal::NoModelNamed { .. } => "NO_MODEL_NAMED",
            Refusal::Token(TokenError::Malformed(_)) => "RESUME_TOKEN_MALFORMED",
            Refusal::Token(TokenError::OtherKey) => "RESUME_TOKEN_OTHER_KEY",
            Refusal::Token(TokenError::OtherModel(_)) => "RESUME_TOKEN_OTHER_MODEL",
            Refusal::Token(TokenError::Fixed(_)) => "RESUME_TOKEN_HAS_IT",
            Refusal::UnknownModel { .. } => "UNKNOWN_MODEL",
            Refusal::UnknownVersion { .. } => "UNKNOWN_VERSION",
            Refusal::LastModel { .. } => "LAST_MODEL",
            Refusal::Load(_) => "LOAD_FAILED",
            Refusal::NoToken => "NO_TOKEN",
            Refusal::WrongToken => "WRONG_TOKEN",
            Refusal::NotAdmin => "NOT_ADMIN",
            Refusal::NoCertificate => "NO_CERTIFICATE",
            Refusal::TooManyFailures => "TOO_MANY_FAILURES",
            Refusal::ClientFull { .. } => "CLIENT_FULL",
            Refusal::Late => "DEADLINE",
            Refusal::Submit(SubmitError::QueueFull { .. }) => "QUEUE_FULL",
            Refusal::Submit(SubmitError::Stopping) | Refusal::Stream(StreamError::Stopping) => "STOPPING",
            Refusal::Stream(StreamError::Model(_)) => "MODEL_FAILED",
            Refusal::Stream(StreamError::Stalled(_)) => "READER_STALLED",
        }
    }
}

impl Refusal {
    /// The same for HTTP, of which only access is refused.
    pub(crate) fn http_status(&self) -> StatusCode {
        match self.code() {
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::UNAUTHORIZED,
        }
    }
}

/// A client's word, escaped and cut.
fn shown(word: &str) -> String {
    let mut shown: String = word.chars().take(MAX_NAME_CHARS).flat_map(char::escape_default).collect();
    if word.chars().nth(MAX_NAME_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        Refusal::Token(error)
    }
}

impl From<GenerateError> for Refusal {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::Request(error) => Refusal::Request(error),
            GenerateError::Submit(error) => Refusal::Submit(error),
        }
    }
}

/// The field of the request that an error is about.
fn field(error: &RequestError) -> &'static str {
    match error {
        RequestError::OutOfRange { limit, .. } if [limits::NUM_STOP, limits::STOP_TOKENS].contains(limit) => {
            "stop"
        }
        RequestError::OutOfRange { limit, .. } if *limit == limits::REGEX_CHARS => "regex",
        RequestError::OutOfRange { limit, .. } => limit.name,
        RequestError::NoSuchId { field, .. } => field,
        RequestError::NothingAllowed => "allowed",
        RequestError::Lengths { .. } => "min_tokens",
        RequestError::NothingLeft { .. } => "max_tokens",
        RequestError::Snapshot(_) => "resume_token",
        RequestError::UnknownInText { field, .. } | RequestError::UnknownId { field, .. } => field,
        RequestError::EndInPrompt { .. } => "prompt",
        RequestError::UnknownInStop { .. } => "stop",
        RequestError::Regex(_)
        | RequestError::RegexTooLarge { .. }
        | RequestError::RegexUnmatchable { .. } => "regex",
    }
}

impl From<Refusal> for Status {
    /// For programs, every one has a google.rpc.ErrorInfo; INVALID_ARGUMENT names its field in a BadRequest, and what
    /// passes by itself says in a RetryInfo when to ask again.
    fn from(refusal: Refusal) -> Self {
        let (code, message) = (refusal.code(), refusal.to_string());
        let mut details = ErrorDetails::new();
        details.set_error_info(refusal.reason(), DOMAIN, HashMap::new());
        match &refusal {
            Refusal::Request(error) => {
                details.add_bad_request_violation(field(error), message.as_str());
            }
            Refusal::Token(error) if code == Code::InvalidArgument => {
                let field = if let TokenError::Fixed(field) = error { field } else { "resume_token" };
                details.add_bad_request_violation(field, message.as_str());
            }
            Refusal::Submit(SubmitError::QueueFull { .. })
            | Refusal::TooManyFailures
            | Refusal::ClientFull { .. } => {
                details.set_retry_info(Some(RETRY_DELAY));
            }
            _ => {}
        }
        let retries = details.retry_info().is_some();
        let mut status = Status::with_error_details(code, message, details);
        if retries {
            status.metadata_mut().insert(PUSHBACK, MetadataValue::from(RETRY_DELAY.as_millis() as u64));
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_name_is_escaped_and_cut() {
        let name = "\u{1b}[31m\n".to_owned() + &"é".repeat(200);
        let status = Status::from(Refusal::unknown_model(&name, "shakespeare".to_owned()));
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().starts_with("model \"\\u{1b}[31m\\n\\u{e9}"), "{}", status.message());
        assert!(status.message().ends_with("...\" is not served here; this server has: shakespeare"));
        assert!(status.message().is_ascii() && status.message().len() < 500);
    }
}
