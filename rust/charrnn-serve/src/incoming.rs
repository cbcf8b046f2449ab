//! Connections: accepted up to a cap, encrypted where that is asked for, and handed on once they are.
//!
//! Knows sockets and handshakes, nothing of what is said over them. What goes wrong on one connection costs that one.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use crate::greeting::Greeting;
use crate::tell::tell;
use crate::tls::{subject, Tls};

/// Connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 10_000;
/// From a connection's first byte until it is encrypted, and from there until it speaks HTTP/2.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Before the next try to accept, when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Whom the certificate is about that it showed, if it did.
    pub(crate) subject: Option<Arc<str>>,
}

impl Peer {
    /// Whom the certificate is about, else the address without its port.
    pub(crate) fn name(&self) -> Arc<str> {
        self.subject.clone().unwrap_or_else(|| Arc::from(self.address.ip().to_string()))
    }
}

pub(crate) type Socket = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection that is ready to be used; holds its place under the cap.
pub(crate) struct Connection {
    socket: Socket,
    peer: Peer,
    greeting: Greeting,
    _place: OwnedSemaphorePermit,
}

/// The connections of a listener, one after another. Dropping it closes the listener.
pub(crate) struct Incoming {
    ready: mpsc::Receiver<io::Result<Connection>>,
    _accepting: JoinSet<()>,
}

impl Incoming {
    /// Needs a runtime.
    pub(crate) fn new(listener: TcpListener, tls: Option<Arc<Tls>>) -> Self {
        let (sender, ready) = mpsc::channel(1);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept_all(listener, tls, sender));
        Incoming { ready, _accepting: accepting }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(context)
    }
}

async fn accept_all(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut handshakes = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("never closed");
        let (stream, address) = accept(&listener).await;
        // The acceptor of this moment: a later one has the later certificate.
        let (acceptor, sender) = (tls.as_ref().map(|tls| tls.grpc()), sender.clone());
        handshakes.spawn(async move {
            if let Some((socket, peer)) = secure(stream, address, acceptor).await {
                let greeting = Greeting::within(HANDSHAKE_TIMEOUT);
                // Nobody takes it once the server ends.
                let _ = sender.send(Ok(Connection { socket, peer, greeting, _place: place })).await;
            }
        });
        while handshakes.try_join_next().is_some() {}
    }
}

/// The next connection, whatever happens to those before it.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// The connection as it is to be used; none if its handshake failed, which is told in a line.
pub(crate) async fn secure(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: Option<TlsAcceptor>,
) -> Option<(Socket, Peer)> {
    // Without it small chunks wait for an answer to those before.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else {
        return Some((Either::Left(stream), Peer { address, subject: None }));
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(|certs| certs.first());
            let subject = shown.map(|cert| Arc::from(subject(cert)));
            Some((Either::Right(Box::new(stream)), Peer { address, subject }))
        }
        Ok(Err(error)) => {
            tell(format_args!("tls: {address}: {error}"));
            None
        }
        Err(_) => {
            tell(format_args!("tls: {address}: no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs()));
            None
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let num_bytes = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        self.greeting.check(context, buffer.filled().len() - num_bytes, read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
