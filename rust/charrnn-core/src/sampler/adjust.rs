//! Rules that change logits before they are weighed: bias, bans and penalties.
//!
//! Each logit goes through doubles and is rounded to f32 once a rule, so that any machine gives the same row.

use super::Context;
use crate::params::{Penalties, ValidSampling};

/// Whether any rule can change a logit.
pub(super) fn is_needed(params: &ValidSampling, context: &Context<'_>) -> bool {
    let looks_back = params.penalties().are_on() && !context.history.is_empty();
    context.mask.is_some() || looks_back || params.allowed().is_some() || !params.bias().is_empty()
}

/// A row of logits after the rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Adjusted {
    /// `(V,)`
    row: Vec<f32>,
    /// `(V,)`, zero between calls.
    counts: Vec<u32>,
    /// Symbols with the logits they had before they were banned.
    banned: Vec<(u32, f32)>,
}

impl Adjusted {
    pub(super) fn new(vocab_size: usize) -> Self {
        Adjusted { row: vec![0.0; vocab_size], counts: vec![0; vocab_size], banned: Vec::new() }
    }

    /// The row that the rules make of `logits`.
    pub(super) fn fill(&mut self, logits: &[f32], params: &ValidSampling, context: &Context<'_>) -> &[f32] {
        self.row.copy_from_slice(logits);
        for &(id, bias) in params.bias() {
            let logit = &mut self.row[id as usize];
            *logit = if bias == f64::NEG_INFINITY { f32::NEG_INFINITY } else { shifted(*logit, bias) };
        }
        if let Some(allowed) = params.allowed() {
            keep_only(&mut self.row, allowed);
        }
        if let Some(mask) = context.mask {
            keep_masked(&mut self.row, mask);
        }
        let penalties = params.penalties();
        if penalties.are_on() {
            let start = context.history.len().saturating_sub(penalties.window as usize);
            self.penalise(&context.history[start..], penalties);
        }
        &self.row
    }

    fn penalise(&mut self, recent: &[u32], penalties: &Penalties) {
        if penalties.weigh() {
            recent.iter().for_each(|&token| self.counts[token as usize] += 1);
            for &token in recent {
                let count = std::mem::take(&mut self.counts[token as usize]);
                if count > 0 {
                    let logit = &mut self.row[token as usize];
                    *logit = penalised(*logit, f64::from(count), penalties);
                }
            }
        }
        if penalties.ngram_size > 0 {
            self.ban_repeats(recent, penalties.ngram_size as usize);
        }
    }

    /// Bans what would complete a run of `size` symbols that stands in `recent`, unless nothing would be left.
    fn ban_repeats(&mut self, recent: &[u32], size: usize) {
        let Some(start) = (recent.len() + 1).checked_sub(size) else { return };
        let begun = &recent[start..];
        self.banned.clear();
        for run in recent.windows(size) {
            let (head, token) = (&run[..size - 1], run[size - 1]);
            let logit = &mut self.row[token as usize];
            if head == begun && *logit > f32::NEG_INFINITY {
                self.banned.push((token, *logit));
                *logit = f32::NEG_INFINITY;
            }
        }
        if self.row.iter().all(|&logit| logit == f32::NEG_INFINITY) {
            self.banned.iter().for_each(|&(token, logit)| self.row[token as usize] = logit);
        }
    }
}

/// A finite logit stays finite: only bans exclude.
fn rounded(from: f32, to: f64) -> f32 {
    if from.is_finite() {
        to.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
    } else {
        from
    }
}

fn shifted(logit: f32, bias: f64) -> f32 {
    rounded(logit, f64::from(logit) + bias)
}

fn penalised(logit: f32, count: f64, penalties: &Penalties) -> f32 {
    let repetition = penalties.repetition;
    let value = f64::from(logit);
    let scaled = if logit > 0.0 { value / repetition } else { value * repetition };
    rounded(logit, scaled - (penalties.frequency * count + penalties.presence))
}

/// Excludes what is not in `allowed`, which is ascending.
fn keep_only(row: &mut [f32], allowed: &[u32]) {
    let mut start = 0;
    for &id in allowed {
        let end = (id as usize).max(start);
        row[start..end].fill(f32::NEG_INFINITY);
        start = id as usize + 1;
    }
    row[start..].fill(f32::NEG_INFINITY);
}

fn keep_masked(row: &mut [f32], mask: &[u64]) {
    for (logits, word) in row.chunks_mut(64).zip(mask) {
        for (bit, logit) in logits.iter_mut().enumerate() {
            *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
        }
    }
}
