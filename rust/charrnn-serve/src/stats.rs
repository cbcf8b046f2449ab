//! What a model's engine has counted, as protobuf, and the names of what ended and what was refused.

use charrnn_core::meter::{Counted, Outcome, Stats};

use crate::model::Model;
use crate::pb;

pub(crate) fn to_pb_stats(model: &Model) -> pb::ModelStats {
    let stats = model.stats();
    pb::ModelStats {
        model: model.info().name.clone(),
        version: model.info().version.clone(),
        slots: stats.slots as u32,
        running: stats.running as u32,
        parked: stats.parked as u32,
        waiting: stats.waiting as u32,
        ended: ended(&stats).map(|(name, count)| (name.to_owned(), count)).collect(),
        rejected: rejected(&stats).map(|(name, count)| (name.to_owned(), count)).into(),
        batch: to_pb_histogram(stats.batch),
        step: to_pb_histogram(stats.step),
        sample: to_pb_histogram(stats.sample),
        send: to_pb_histogram(stats.send),
        queue: to_pb_histogram(stats.queue),
        first_char: to_pb_histogram(stats.first_char),
        inter_char: to_pb_histogram(stats.inter_char),
        chunk_chars: to_pb_histogram(stats.chunk_chars),
        prompt_cache_hits: stats.cache.hits,
        prompt_cache_misses: stats.cache.misses,
        prompt_cache_bytes: stats.cache.num_bytes as u64,
    }
}

/// Streams that are over, by how they ended.
pub(crate) fn ended(stats: &Stats) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    Outcome::ALL.into_iter().map(Outcome::name).zip(stats.ended.iter().copied())
}

/// Requests turned away, by cause.
pub(crate) fn rejected(stats: &Stats) -> [(&'static str, u64); 2] {
    [("queue_full", stats.queue_full), ("stopping", stats.stopping)]
}

fn to_pb_histogram(counted: Counted) -> Option<pb::Histogram> {
    Some(pb::Histogram { counts: counted.counts, sum: counted.sum })
}
