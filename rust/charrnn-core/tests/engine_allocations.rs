//! A symbol costs no allocation, whether it is told of or not: buffers grow, by doubling.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use charrnn_core::request::{Output, Prompt, ScoreRequest};
use common::{config, letters, request, Rig};

/// The system's allocator, counted.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system's; counting touches no memory of anybody's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, SeqCst);
        // SAFETY: the caller keeps this function's contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, SeqCst);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of two thousand turns, the first ones left out.
fn count(rig: &mut Rig) -> usize {
    rig.turns(100);
    let before = COUNT.load(SeqCst);
    rig.turns(2000);
    assert_eq!(rig.live(), (0, 1), "it is not over");
    COUNT.load(SeqCst) - before
}

/// One test, or others would be counted with it.
#[test]
fn a_symbol_costs_no_allocation() {
    let plain = Output { chunk_chars: Some(4096), ..Output::default() };
    let told = Output { logprobs: true, top_logprobs: Some(5), ..plain.clone() };
    for output in [plain, Output { echo_prompt: true, ..told.clone() }, told] {
        let mut rig = Rig::new(1, letters(), config(1, 0));
        let mut asked = request("ab", 1, 3000);
        asked.output = output;
        let _reader = rig.submit(&asked, 99).expect("room");
        let num = count(&mut rig);
        assert!(num < 50, "{num} allocations: {asked:?}");
    }
    for per_symbol in [false, true] {
        let mut rig = Rig::new(1, letters(), config(1, 0));
        let text = Prompt::Text("abcde".repeat(600));
        let asked = ScoreRequest { prompt: String::new(), text, per_symbol, top_logprobs: None };
        let _reader = rig.score_until(None, &asked).expect("room");
        let num = count(&mut rig);
        assert!(num < if per_symbol { 50 } else { 1 }, "{num} allocations, per_symbol {per_symbol}");
    }
}
