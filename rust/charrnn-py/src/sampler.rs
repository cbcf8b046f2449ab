//! `SamplingParams`, `Sampler` and the limits table.
