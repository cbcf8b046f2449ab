//! What comes before a run: somebody answers, takes a request of the plan, and gives the texts to compare with.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use crate::client::{causes, probe, Connections};
use crate::error::BenchError;
use crate::job::Jobs;
use crate::plan::Plan;
use crate::stream::{line, read_text};

/// How soon the wish to stop is noticed.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// A server that says nothing for so long is for the load to judge.
const PATIENCE: Duration = Duration::from_secs(2);
/// For a look at what answers where no gRPC does.
const SNIFF: Duration = Duration::from_secs(2);

/// The texts to compare with, if somebody answers the plan's requests; stops when `goes_on` says no.
pub(crate) async fn prepare(
    plan: &Plan,
    mut goes_on: impl FnMut() -> bool,
) -> Result<Vec<String>, BenchError> {
    let work = async {
        probe(plan).await?;
        try_first(plan).await?;
        solo_texts(plan).await
    };
    let stop = async {
        while goes_on() {
            sleep(POLL).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = stop => Err(BenchError::Stopped),
    }
}

/// Sends the plan's first request, up to its first message: what can never be served is known before minutes of load.
async fn try_first(plan: &Plan) -> Result<(), BenchError> {
    let connections = Connections::new(&Plan { connections: 1, ..plan.clone() })?;
    let job = Jobs::new(plan.clone()).get(0);
    let call = async { connections.generate(job.request, job.number, false, None).await?.message().await };
    match timeout(PATIENCE, call).await {
        Ok(Err(status)) => refusal(plan, &status).map_or(Ok(()), Err),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// What no request of the plan can get over; a server that is busy or fails is what a load looks at.
fn refusal(plan: &Plan, status: &Status) -> Option<BenchError> {
    let address = plan.address.clone();
    match status.code() {
        code @ (Code::InvalidArgument | Code::NotFound | Code::Unauthenticated | Code::PermissionDenied) => {
            let is_its_fault = matches!(code, Code::InvalidArgument | Code::NotFound);
            Some(BenchError::Refused { address, said: line(status), is_its_fault })
        }
        Code::Unimplemented => {
            let found = format!("it has no charrnn.v1.CharRnn ({})", line(status));
            Some(BenchError::Foreign { address, found })
        }
        _ => status.source().map(|source| {
            let found = sniff(plan).unwrap_or_else(|| format!("it speaks no gRPC ({})", causes(source)));
            BenchError::Foreign { address, found }
        }),
    }
}

/// What else it is that answers, by its reply to a request of HTTP/1.
fn sniff(plan: &Plan) -> Option<String> {
    let address = plan.address.to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, SNIFF).ok()?;
    stream.set_read_timeout(Some(SNIFF)).ok()?;
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", plan.address);
    stream.write_all(request.as_bytes()).ok()?;
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).ok()?;
    match reply {
        [b'H', b'T', b'T', b'P', b'/'] => Some("it speaks HTTP/1".to_owned()),
        // A record of TLS: an alert, or a handshake (RFC 8446, 5.1).
        [0x15 | 0x16, 3, ..] if plan.tls.is_none() => Some("it speaks TLS: give --tls or --ca".to_owned()),
        _ => None,
    }
}

/// One text for each of the plan's distinct requests, each run when the one before has ended; none without `check`.
async fn solo_texts(plan: &Plan) -> Result<Vec<String>, BenchError> {
    let num_texts = if plan.check { plan.distinct.unwrap_or(0) } else { 0 };
    let (connections, jobs) = (Connections::new(plan)?, Jobs::new(plan.clone()));
    let mut texts = Vec::new();
    for number in 0..num_texts {
        texts.push(read_text(&connections, jobs.get(number)).await.map_err(BenchError::Solo)?);
    }
    Ok(texts)
}
