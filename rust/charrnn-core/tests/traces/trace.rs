//! What may happen, in any order.

use std::time::Duration;

use charrnn_core::request::GenerateRequest;
use charrnn_core::vocab::Unit;
use proptest::prelude::*;

use crate::common::requests::{end, generate_request, leave_out};

/// A text that is asked for, and who reads it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) request: GenerateRequest,
    pub(crate) audience: Audience,
}

/// Who reads a text, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Audience {
    pub(crate) client: &'static str,
    /// Events that wait for the reader.
    pub(crate) capacity: usize,
    /// And one more place for the last event.
    pub(crate) keeps_place: bool,
    /// Until nobody wants more.
    pub(crate) time: Option<Duration>,
}

/// Texts and workers are counted modulo those there are.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Submit(Box<Wanted>),
    /// A text that was cut goes on.
    Resume {
        text: usize,
        audience: Audience,
    },
    Turn {
        worker: usize,
        count: usize,
    },
    Read {
        text: usize,
        count: usize,
    },
    Cancel {
        text: usize,
    },
    Advance {
        ms: u64,
    },
    /// The next steps of a model fail.
    Fail {
        worker: usize,
        count: usize,
    },
    /// Nothing more is admitted.
    Stop,
    /// And what is live ends.
    Abort,
    /// The same, and another engine takes its place.
    Restart,
}

/// What the poison does to the model that reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Poison {
    Harmless,
    Nan,
    Mute,
    Error,
}

#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) unit: Unit,
    /// What ends a document, if the model is one of documents; in no prompt.
    pub(crate) end_token: Option<u32>,
    pub(crate) poison: Poison,
    pub(crate) num_workers: usize,
    pub(crate) max_streams: usize,
    pub(crate) max_queue: usize,
    pub(crate) stall_ms: u64,
    pub(crate) step_us: u64,
    pub(crate) ops: Vec<Op>,
}

pub(crate) fn traces() -> impl Strategy<Value = Trace> {
    prop_oneof![trace(Unit::Char), trace(Unit::Byte)]
}

fn trace(unit: Unit) -> impl Strategy<Value = Trace> {
    let poison =
        prop_oneof![Just(Poison::Harmless), Just(Poison::Nan), Just(Poison::Mute), Just(Poison::Error)];
    let sizes = (1usize..4, 1usize..6, prop_oneof![0usize..9, Just(99)]);
    let times = (prop_oneof![Just(30_000), 20u64..90], prop_oneof![Just(0), Just(300), Just(3_000)]);
    let ops = prop::collection::vec(op(unit), 0..90);
    (poison, end(unit), sizes, times, ops).prop_map(
        move |(poison, end_token, (num_workers, max_streams, max_queue), (stall_ms, step_us), mut ops)| {
            for op in &mut ops {
                if let Op::Submit(wanted) = op {
                    leave_out(end_token, &mut wanted.request);
                }
            }
            Trace { unit, end_token, poison, num_workers, max_streams, max_queue, stall_ms, step_us, ops }
        },
    )
}

fn op(unit: Unit) -> impl Strategy<Value = Op> {
    let ms = prop_oneof![5 => 0u64..12, 1 => 12u64..120];
    prop_oneof![
        60 => wanted(unit).prop_map(|wanted| Op::Submit(Box::new(wanted))),
        120 => (0usize..3, 1usize..12).prop_map(|(worker, count)| Op::Turn { worker, count }),
        80 => (0usize..16, 1usize..9).prop_map(|(text, count)| Op::Read { text, count }),
        40 => (0usize..16, audience()).prop_map(|(text, audience)| Op::Resume { text, audience }),
        20 => (0usize..16).prop_map(|text| Op::Cancel { text }),
        40 => ms.prop_map(|ms| Op::Advance { ms }),
        15 => (0usize..3, 1usize..6).prop_map(|(worker, count)| Op::Fail { worker, count }),
        1 => Just(Op::Stop),
        1 => Just(Op::Abort),
        5 => Just(Op::Restart),
    ]
}

fn wanted(unit: Unit) -> impl Strategy<Value = Wanted> {
    (generate_request(unit), audience()).prop_map(|(request, audience)| Wanted { request, audience })
}

fn audience() -> impl Strategy<Value = Audience> {
    let time = prop::option::weighted(0.3, (0u64..60).prop_map(Duration::from_millis));
    (prop::sample::select(vec!["", "a", "b"]), 1usize..6, any::<bool>(), time)
        .prop_map(|(client, capacity, keeps_place, time)| Audience { client, capacity, keeps_place, time })
}
