//! The n-th request of a plan: a pure function of the plan and n, so that runs repeat and threads need not agree.

use std::time::Duration;

use charrnn_core::philox::uniform64;
use charrnn_serve::pb::generate_request::Start;
use charrnn_serve::pb::{GenerateRequest, Output, Sampling, Stopping};

use crate::plan::Plan;
use crate::spread::Spread;

/// What a draw is for; see [`charrnn_core::philox::PURPOSE_SAMPLE`].
pub(crate) const PURPOSE_BENCH: u32 = 0xbe;

/// Marks the second draw for the same thing.
const SECOND: u32 = 1 << 16;

/// Streams of draws of one request.
#[derive(Clone, Copy)]
pub(crate) enum Draw {
    Due,
    Prompt,
    MaxTokens,
    Seed,
    Cancel,
    CancelAt,
    Slow,
    Deadline,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which of the run.
    pub number: u64,
    /// Which of the texts: requests with the same text are the same to the server.
    pub text: u64,
    /// Characters after which the client cancels.
    pub cancel_after: Option<u64>,
    /// Whether it is read slowly.
    pub is_slow: bool,
    /// From when it was due.
    pub deadline: Option<Duration>,
    /// What is sent.
    pub request: GenerateRequest,
}

/// All requests of a plan.
#[derive(Clone, Debug)]
pub struct Jobs(Plan);

impl Jobs {
    /// Of this plan.
    pub fn new(plan: Plan) -> Self {
        Jobs(plan)
    }

    /// The request that is sent as the `number`-th.
    pub fn get(&self, number: u64) -> Job {
        let plan = &self.0;
        let text = plan.distinct.map_or(number, |distinct| number % distinct.max(1));
        let prompt = &plan.prompts[self.index(plan.prompts.len(), text)];
        let max_tokens =
            prompt.max_tokens.unwrap_or_else(|| self.pick(plan.max_tokens, text, Draw::MaxTokens));
        let is_cancelled = self.chance(plan.cancel_fraction, number, Draw::Cancel);
        let cancel_at = Spread::Uniform(1, max_tokens.max(1));
        let deadline = plan.deadline_ms.map(|spread| self.pick(spread, number, Draw::Deadline));
        Job {
            number,
            text,
            cancel_after: is_cancelled.then(|| self.pick(cancel_at, number, Draw::CancelAt)),
            is_slow: self.chance(plan.slow_fraction, number, Draw::Slow),
            deadline: deadline.map(Duration::from_millis),
            request: self.request(text, prompt.text.clone(), max_tokens),
        }
    }

    fn request(&self, text: u64, prompt: String, max_tokens: u64) -> GenerateRequest {
        let plan = &self.0;
        GenerateRequest {
            model: plan.model.clone(),
            start: Some(Start::Prompt(prompt)),
            sampling: Some(Sampling {
                temperature: plan.temperature,
                top_k: plan.top_k,
                top_p: plan.top_p,
                seed: Some(self.draw(text, Draw::Seed)),
                ..Sampling::default()
            }),
            stopping: Some(Stopping { max_tokens: u32::try_from(max_tokens).ok(), ..Stopping::default() }),
            output: Some(Output {
                chunk_chars: plan.chunk_chars,
                max_chunk_delay_ms: plan.max_chunk_delay_ms,
                ..Output::default()
            }),
            ..GenerateRequest::default()
        }
    }

    fn draw(&self, number: u64, what: Draw) -> u64 {
        uniform64(self.0.seed, number, what as u32, PURPOSE_BENCH)
    }

    fn index(&self, len: usize, text: u64) -> usize {
        (unit(self.draw(text, Draw::Prompt)) * len as f64) as usize
    }

    fn pick(&self, spread: Spread, number: u64, what: Draw) -> u64 {
        let second = uniform64(self.0.seed, number, what as u32 | SECOND, PURPOSE_BENCH);
        spread.at((unit(self.draw(number, what)), unit(second)))
    }

    fn chance(&self, share: f64, number: u64, what: Draw) -> bool {
        unit(self.draw(number, what)) < share
    }
}

/// 53 of the bits as a number from 0 up to but not 1.
pub(crate) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
