//! What a model's engine has counted, as protobuf.

use charrnn_core::meter::{Counted, Outcome};

use crate::model::Model;
use crate::pb;

pub(crate) fn to_pb_stats(model: &Model) -> pb::ModelStats {
    let stats = model.stats();
    let names = Outcome::ALL.into_iter().map(|outcome| outcome.name().to_owned());
    let rejected = [("queue_full", stats.queue_full), ("stopping", stats.stopping)];
    pb::ModelStats {
        model: model.info().name.clone(),
        slots: stats.slots as u32,
        running: stats.running as u32,
        parked: stats.parked as u32,
        waiting: stats.waiting as u32,
        ended: names.zip(stats.ended).collect(),
        rejected: rejected.map(|(name, count)| (name.to_owned(), count)).into(),
        batch: to_pb_histogram(stats.batch),
        step: to_pb_histogram(stats.step),
        sample: to_pb_histogram(stats.sample),
        send: to_pb_histogram(stats.send),
        queue: to_pb_histogram(stats.queue),
        first_char: to_pb_histogram(stats.first_char),
        inter_char: to_pb_histogram(stats.inter_char),
        chunk_chars: to_pb_histogram(stats.chunk_chars),
    }
}

fn to_pb_histogram(counted: Counted) -> Option<pb::Histogram> {
    Some(pb::Histogram { counts: counted.counts, sum: counted.sum })
}
