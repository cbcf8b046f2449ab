//! How likely a text is: a request that reads and draws nothing.

use crate::error::RequestError;
use crate::limits;
use crate::params::SamplingParams;
use crate::vocab::Vocab;

use super::{GenerateRequest, Output, Prompt, Stopping, ValidRequest};

/// What a client asks, unchecked.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRequest {
    /// What the model reads first, and is not scored.
    pub prompt: String,
    /// The text to score, not empty. For a model of documents the end symbol may be in it, and begins the next one.
    pub text: Prompt,
    /// Tell of each symbol how likely it was.
    pub per_symbol: bool,
    /// And of the likeliest in its place; see [`limits::TOP_LOGPROBS`].
    pub top_logprobs: Option<u32>,
}

impl ScoreRequest {
    /// Checks everything, as [`GenerateRequest::validate`] does. Without a prompt the first symbol is predicted from the
    /// start symbol.
    pub fn validate(
        self,
        vocab: &Vocab,
        start_token: u32,
        end_token: Option<u32>,
    ) -> Result<ValidRequest, RequestError> {
        let (logprobs, top_logprobs) = (self.per_symbol, self.top_logprobs);
        let before = GenerateRequest {
            prompt: Prompt::Text(self.prompt),
            sampling: SamplingParams::default(),
            sample_index: 0,
            stopping: Stopping::default(),
            output: Output { logprobs, top_logprobs, ..Output::default() },
        };
        let mut request = before.validate(vocab, start_token, end_token)?;
        request.prompt_tokens.extend(self.text.encode(vocab, limits::SCORED_TOKENS, "ids")?);
        Ok(ValidRequest { is_score: true, ..request })
    }
}
