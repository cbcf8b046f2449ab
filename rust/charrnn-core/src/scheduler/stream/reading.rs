//! What a stream does with symbols that are given and not drawn: it echoes its prompt, or scores a text.

use std::time::Instant;

use crate::event::{Event, StreamError};
use crate::meter::Outcome;
use crate::request::Told;
use crate::scheduler::drawn::{Draws, Measured};
use crate::vocab::Vocab;

use super::Stream;

/// Why logits that hold NaN end a stream.
pub(crate) const NO_NUMBERS: &str = "its logits for this text are not numbers";

impl Stream {
    /// Takes the symbol of the prompt that is fed next, as likely as `logits`, `(V,)`, made it. True if it is fed to the
    /// zero state.
    pub(crate) fn read(
        &mut self,
        token: u32,
        logits: &[f32],
        draws: &mut Draws,
        vocab: &Vocab,
        now: Instant,
    ) -> bool {
        let index = self.num_fed - 1;
        if self.request.is_told(index) {
            match self.request.num_top() {
                Some(num_top) if !draws.measure(logits, token, num_top) => {
                    self.fail(StreamError::Model(NO_NUMBERS.to_owned()), now);
                }
                _ if self.request.is_score() => self.score(token, draws.measured()),
                _ => self.echo(token, draws.measured(), vocab, now),
            }
        }
        self.request.begins_anew(index)
    }

    fn echo(&mut self, token: u32, measured: &Measured, vocab: &Vocab, now: Instant) {
        if self.text.num_chars() == 0 {
            self.ready_since = now;
        }
        self.text.note(token, measured);
        self.text.echo(token, vocab);
        if self.has_read_all() {
            self.text.finish_echo();
        }
    }

    fn score(&mut self, token: u32, measured: &Measured) {
        self.scored.num_symbols += 1;
        self.scored.nats -= measured.logprob;
        let told = self.request.told();
        if told != Told::Nothing {
            measured.record(token, told, self.scored.symbols.get_or_insert_default());
        }
        if self.has_read_all() {
            self.ticket.end(Outcome::Scored);
            let scored = std::mem::take(&mut self.scored);
            self.end(Event::Scored(scored));
        }
    }

    fn has_read_all(&self) -> bool {
        self.num_fed == self.request.prompt_tokens().len()
    }
}
