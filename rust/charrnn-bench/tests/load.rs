//! Runs against a server that fails in known ways.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use charrnn_bench::{run_load, BenchError, Load, Plan, Report, Slo, Spread};
use common::{plan, serve, Fault};
use tonic::Code;

const RATE: f64 = 400.0;
/// Of half a second.
const COUNT: u64 = 200;

fn open() -> Load {
    Load::Open { rate: RATE, poisson: false }
}

fn run(plan: Plan) -> Report {
    run_load(plan, |_| true).expect("a report")
}

fn outcome(report: &Report, name: &str) -> u64 {
    report.outcomes.get(name).copied().unwrap_or(0)
}

#[test]
fn an_open_load_sends_its_rate_whatever_comes_back() {
    let report = run(plan(serve(|_| Fault::None), open()));
    assert_eq!(report.outcomes.values().sum::<u64>(), COUNT);
    // Characters count if they come within the window.
    let long = Plan { requests: Some(COUNT), duration_s: 30.0, ..plan(serve(|_| Fault::None), open()) };
    let report = run(long);
    assert_eq!(outcome(&report, "ok"), COUNT);
    assert_eq!(report.good_share, Some(1.0));
    assert!((9_000..11_000).contains(&report.chars), "{} characters of 200 texts of 40 to 60", report.chars);
    assert!(report.messages.is_empty());
}

#[test]
fn threads_share_one_schedule() {
    let base = || plan(serve(|_| Fault::None), open());
    // A window far longer than the requests take: characters count if they come within it.
    let long = |threads| Plan { threads, connections: 3, requests: Some(150), duration_s: 30.0, ..base() };
    let seen = |threads| run(long(threads));
    let (one, three) = (seen(1), seen(3));
    assert_eq!((one.chars, one.outcomes), (three.chars, three.outcomes));
}

#[test]
fn a_closed_load_keeps_its_streams_and_ends_after_the_requests_asked_for() {
    let address = serve(|_| Fault::Slow(Duration::from_millis(5)));
    let closed = Plan { requests: Some(90), ..plan(address, Load::Closed { streams: 30 }) };
    let mut most = 0;
    let report = run_load(Plan { duration_s: 30.0, ..closed }, |tick| {
        most = most.max(tick.map_or(0, |tick| tick.active));
        true
    });
    let report = report.expect("a report");
    assert_eq!(outcome(&report, "ok"), 90);
    assert!(most <= 30 && report.window_s < 10.0, "{most} at once, {} s", report.window_s);
}

#[test]
fn errors_are_counted_by_their_code() {
    let address = serve(|call| match call % 4 {
        0 => Fault::Status(Code::ResourceExhausted),
        1 => Fault::Status(Code::Internal),
        _ => Fault::None,
    });
    let report = run(plan(address, open()));
    assert_eq!(outcome(&report, "RESOURCE_EXHAUSTED"), 50);
    assert_eq!(outcome(&report, "INTERNAL"), 50);
    assert_eq!(outcome(&report, "ok"), 100);
    assert_eq!(report.good_share, Some(0.5));
    // Once each, with the request that it happened to first: which of the two it was depends on who came first.
    let mut codes: Vec<&str> =
        report.messages.iter().filter_map(|message| message.split(':').next()).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["INTERNAL", "RESOURCE_EXHAUSTED"]);
}

#[test]
fn requests_that_share_calls_are_told_apart() {
    let address = serve(|request| match request % 4 {
        0 => Fault::Status(Code::ResourceExhausted),
        1 => Fault::Swap,
        _ => Fault::None,
    });
    let shared = |address| Plan { multiplex: true, ..plan(address, open()) };
    let report = run(shared(address));
    assert_eq!(outcome(&report, "RESOURCE_EXHAUSTED"), COUNT / 4);
    assert_eq!(outcome(&report, "ok"), COUNT - COUNT / 4);

    let rule = |request| if request > 10 && request % 20 == 0 { Fault::Swap } else { Fault::None };
    let report = run(Plan { distinct: Some(10), check: true, ..shared(serve(rule)) });
    assert_eq!(outcome(&report, "DIFFERS"), COUNT / 20, "{:?}", report.messages);
}

#[test]
fn a_shared_call_that_ends_takes_its_texts_along_and_another_follows() {
    let rule = |request| match request {
        // Some of those before are under way, some after have been sent.
        100 => Fault::HangUp,
        _ => Fault::Slow(Duration::from_millis(2)),
    };
    let report = run(Plan { multiplex: true, connections: 1, ..plan(serve(rule), open()) });
    let (lost, whole) = (outcome(&report, "UNAVAILABLE"), outcome(&report, "ok"));
    assert_eq!(lost + whole, COUNT, "{:?}", report.outcomes);
    assert!((1..100).contains(&lost), "{lost} lost");
    assert!(report.messages[0].contains("the call that the text was on has ended"), "{:?}", report.messages);
}

#[test]
fn a_text_given_up_on_a_shared_call_leaves_the_others() {
    let mixed = Plan { cancel_fraction: 0.5, multiplex: true, ..plan(serve(|_| Fault::None), open()) };
    let report = run(mixed);
    assert_eq!(outcome(&report, "cancelled") + outcome(&report, "ok"), COUNT, "{:?}", report.outcomes);
    let silent = serve(|request| if request == 0 { Fault::None } else { Fault::Silent });
    let deadline_ms = Some(Spread::Uniform(20, 20));
    let report = run(Plan { deadline_ms, multiplex: true, ..plan(silent, open()) });
    assert_eq!(outcome(&report, "DEADLINE_EXCEEDED"), COUNT);
}

#[test]
fn a_stream_that_breaks_its_contract_is_no_success() {
    for (fault, said) in
        [(Fault::Cut, "without Finished"), (Fault::Offset, "offset"), (Fault::Count, "Finished says")]
    {
        let report = run(plan(serve(move |_| fault.clone()), open()));
        assert_eq!(outcome(&report, "PROTOCOL"), COUNT);
        assert!(report.messages[0].contains(said), "{:?}", report.messages);
    }
}

#[test]
fn check_finds_two_characters_exchanged_and_a_text_cut_short() {
    for fault in [Fault::Swap, Fault::Short] {
        // The first request and the texts alone are the first eleven calls.
        let address =
            serve(move |call| if call > 10 && call % 20 == 0 { fault.clone() } else { Fault::None });
        let checked = Plan { distinct: Some(10), check: true, ..plan(address, open()) };
        let report = run(checked.clone());
        assert_eq!(outcome(&report, "DIFFERS"), COUNT / 20, "{:?}", report.messages);
        let unchecked = run(Plan { check: false, ..checked });
        assert_eq!(outcome(&unchecked, "DIFFERS"), 0);
    }
}

#[test]
fn check_passes_a_server_whose_texts_depend_on_the_request_alone() {
    let checked = Plan { distinct: Some(10), check: true, ..plan(serve(|_| Fault::None), open()) };
    assert_eq!(outcome(&run(checked), "ok"), COUNT);
}

#[test]
fn what_comes_due_while_the_server_stands_still_is_late() {
    // Nothing is answered in the first quarter of a second, in which half of the requests come due.
    let stalled = |call: u64| match call {
        1..=100 => Fault::Slow(Duration::from_micros(252_500 - 2_500 * call)),
        _ => Fault::None,
    };
    let one_chunk = Spread::Uniform(8, 8);
    let report = run(Plan { max_tokens: one_chunk, ..plan(serve(stalled), open()) });
    let first = report.first_char_ms.expect("texts came");
    assert!(first.max > 245.0 && first.p90 > 190.0, "{first:?}");
}

/// Why `what_comes_due_while_the_server_stands_still_is_late` needs a schedule: the same stop, asked of one stream.
#[test]
fn a_closed_load_hides_a_server_that_stands_still() {
    // The first call is not of the load.
    let stalled = |call: u64| if call == 1 { Fault::Slow(Duration::from_millis(250)) } else { Fault::None };
    let one_chunk = Spread::Uniform(8, 8);
    let many =
        Plan { requests: Some(60), duration_s: 60.0, ..plan(serve(stalled), Load::Closed { streams: 1 }) };
    let report = run(Plan { max_tokens: one_chunk, ..many });
    let first = report.first_char_ms.expect("texts came");
    assert!(first.max > 245.0 && first.p90 < 245.0, "{first:?}");
}

#[test]
fn requests_beyond_max_active_are_counted_and_not_sent() {
    let report = run(Plan { max_active: 20, drain_s: 0.2, ..plan(serve(|_| Fault::Silent), open()) });
    assert_eq!(outcome(&report, "unfinished"), 20);
    assert_eq!(outcome(&report, "dropped"), COUNT - 20);
    assert_eq!(report.good_share, Some(0.0));
}

#[test]
fn a_deadline_counts_from_when_the_request_was_due() {
    let deadline = Some(Spread::Uniform(50, 100));
    let report = run(Plan { deadline_ms: deadline, ..plan(serve(|_| Fault::Silent), open()) });
    assert_eq!(outcome(&report, "DEADLINE_EXCEEDED"), COUNT);
}

#[test]
fn cancelled_and_slowly_read_requests_are_not_blamed_on_the_server() {
    let mixed = Plan { cancel_fraction: 0.5, slow_fraction: 0.5, ..plan(serve(|_| Fault::None), open()) };
    let report = run(Plan { slow_read_ms: 20.0, duration_s: 1.0, ..mixed });
    // Binomial of 400 with one half: within 6 standard deviations, false failures below 1e-8.
    assert!((140..260).contains(&report.slow), "{} slow", report.slow);
    assert!((140..260).contains(&outcome(&report, "cancelled")), "{:?}", report.outcomes);
    assert_eq!(report.good_share, Some(1.0));
    let request = report.request_ms.expect("whole texts came");
    assert!(request.count < 160, "{} of about 100", request.count);
}

#[test]
fn a_request_is_good_if_it_meets_the_slo() {
    // Far enough apart for any machine.
    let address = serve(|call| if call % 2 == 0 { Fault::Slow(Duration::from_secs(3)) } else { Fault::None });
    let slo = Slo { first_char_ms: Some(2000.0), ..Slo::default() };
    let report = run(Plan { slo, max_tokens: Spread::Uniform(8, 8), ..plan(address, open()) });
    assert_eq!(report.good_share, Some(0.5));
    assert!((report.goodput - RATE / 2.0).abs() < 1e-6 && (report.rate - RATE).abs() < 1e-6);
}

#[test]
fn a_run_that_is_stopped_reports_what_it_saw() {
    let long = Plan { duration_s: 60.0, ..plan(serve(|_| Fault::None), open()) };
    let report = run_load(long, |tick| tick.is_none_or(|tick| tick.t_s < 0.5)).expect("a report");
    assert!(report.window_s < 5.0 && outcome(&report, "ok") > 100);
}

#[test]
fn nobody_there_is_said_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    match run_load(plan(address, open()), |_| true) {
        Err(error @ BenchError::Unreachable { .. }) => {
            assert!(error.to_string().starts_with(&format!("no server answers at {address}")));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_run_can_be_stopped_before_it_begins() {
    let checked = Plan { distinct: Some(3), check: true, ..plan(serve(|_| Fault::Silent), open()) };
    let mut num_looks = 0;
    let ended = run_load(checked, |tick| {
        num_looks += 1;
        tick.is_some() || num_looks < 5
    });
    assert!(matches!(ended, Err(BenchError::Stopped)) && num_looks == 5, "{ended:?} after {num_looks}");
}

#[test]
fn what_can_never_be_served_is_said_before_the_load() {
    for (code, is_its_fault) in
        [(Code::InvalidArgument, true), (Code::NotFound, true), (Code::Unauthenticated, false)]
    {
        let address = serve(move |_| Fault::Status(code));
        match run_load(plan(address, open()), |tick| tick.is_none()) {
            Err(BenchError::Refused { address: at, is_its_fault: found, .. }) => {
                assert_eq!((at, found), (address.to_string(), is_its_fault));
            }
            other => panic!("{other:?}"),
        }
    }
    let report = run(plan(serve(|_| Fault::Status(Code::Internal)), open()));
    assert_eq!(outcome(&report, "INTERNAL"), COUNT);
}

/// Servers of something else, by what they say to whoever connects.
#[test]
fn a_foreign_server_is_named_with_what_it_speaks() {
    for (reply, said) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "it speaks HTTP/1"),
        (&[0x15, 3, 3, 0, 2, 2, 10], "it speaks TLS: give --tls or --ca"),
        (b"220 mail.example.org ESMTP\r\n", "it speaks no gRPC ("),
    ] {
        let address = serve_raw(reply);
        match run_load(plan(address, open()), |tick| tick.is_none()) {
            Err(error @ BenchError::Foreign { .. }) => {
                let line = format!("what answers at {address} is no charrnn server: {said}");
                assert!(error.to_string().starts_with(&line), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn serve_raw(reply: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut stream = stream;
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(reply);
            });
        }
    });
    address
}
