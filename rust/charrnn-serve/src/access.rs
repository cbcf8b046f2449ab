//! `Access`: whose connections are taken and whose requests are answered, and how many of one client's at once.
//!
//! Put together from `tls`, `auth` and `clients`; read again while serving.

use std::path::PathBuf;
use std::sync::Arc;

use tonic::codegen::http::{HeaderMap, Request};
use tracing::{info, warn};

use crate::auth::Tokens;
use crate::clients::{Clients, Seat};
use crate::denied::Denied;
use crate::incoming::Peer;
use crate::secrets::FileError;
use crate::status::Refusal;
use crate::tell::tell;
use crate::tls::{Tls, TlsFiles};

/// Answered without a token, as probes have none; it says no more than that the server is there.
const OPEN_PATH: &str = "/grpc.health.v1.Health/Check";
/// The name of the tokens that may change what is served.
const ADMIN: &str = "admin";

/// What `Access::load` needs to know.
#[derive(Clone, Debug, Default)]
pub struct AccessOptions {
    /// Encrypt; absent means not.
    pub tls: Option<TlsFiles>,
    /// A file of tokens, one of which every request has to bring.
    pub token_file: Option<PathBuf>,
    /// Texts that one client may have under way.
    pub max_streams_per_client: Option<usize>,
}

/// Who is let in. By default everybody, with as many texts as they like.
#[derive(Clone, Debug, Default)]
pub struct Access {
    tls: Option<Arc<Tls>>,
    tokens: Option<Arc<Tokens>>,
    clients: Arc<Clients>,
    denied: Arc<Denied>,
}

/// Whose requests share one cap and take turns with those of others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    name: Arc<str>,
    clients: Arc<Clients>,
    denied: Arc<Denied>,
}

impl Client {
    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// A place for one text more, at once or not at all.
    pub(crate) fn enter(&self) -> Result<Seat, Refusal> {
        self.clients.enter(&self.name).inspect_err(|refusal| self.denied.count(refusal))
    }
}

impl Access {
    /// Reads the files.
    pub fn load(options: AccessOptions) -> Result<Self, FileError> {
        Ok(Access {
            tls: options.tls.map(Tls::load).transpose()?.map(Arc::new),
            tokens: options.token_file.map(Tokens::load).transpose()?.map(Arc::new),
            clients: Arc::new(Clients::new(options.max_streams_per_client)),
            denied: Arc::default(),
        })
    }

    /// Reads the files again. What is wrong now stays as it was; either way a line says so.
    pub fn reload(&self) {
        if let Some(tls) = &self.tls {
            tell_reloaded("tls: certificates", "new connections use them", tls.reload());
        }
        if let Some(tokens) = &self.tokens {
            tell_reloaded("auth: tokens", "they hold from now on", tokens.reload());
        }
    }

    pub(crate) fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    /// Notes with a request whose it is, if its client is let in.
    pub(crate) fn admit<B>(&self, request: &mut Request<B>) -> Result<(), Refusal> {
        if request.uri().path() != OPEN_PATH {
            let client = self.client(request).inspect_err(|refusal| self.denied.count(refusal))?;
            request.extensions_mut().insert(client);
        }
        Ok(())
    }

    /// The same for those only whose token is named admin, where there are tokens.
    pub(crate) fn admit_admin<B>(&self, request: &mut Request<B>) -> Result<(), Refusal> {
        self.admit(request)?;
        match request.extensions().get::<Client>() {
            Some(client) if self.tokens.is_some() && *client.name != *ADMIN => {
                tell(format_args!("auth: {}: {}", client.name, Refusal::NotAdmin));
                self.denied.count(&Refusal::NotAdmin);
                Err(Refusal::NotAdmin)
            }
            _ => Ok(()),
        }
    }

    /// Of the token's name, else of whom its certificate is about, else of where it is from.
    fn client<B>(&self, request: &Request<B>) -> Result<Client, Refusal> {
        let peer = request.extensions().get::<Peer>();
        let name = match &self.tokens {
            Some(tokens) => tokens.check(request.headers(), peer.map(|peer| peer.address.ip()))?,
            None => peer.map(Peer::name).unwrap_or_default(),
        };
        Ok(Client { name, clients: Arc::clone(&self.clients), denied: Arc::clone(&self.denied) })
    }

    /// The same for what a connection needs no certificate for.
    pub(crate) fn admit_scrape(&self, headers: &HeaderMap, peer: &Peer) -> Result<(), Refusal> {
        let admitted = match (&self.tls, &self.tokens) {
            (Some(tls), _) if tls.asks_clients() && peer.subject.is_none() => Err(Refusal::NoCertificate),
            (_, Some(tokens)) => tokens.check(headers, Some(peer.address.ip())).map(drop),
            (_, None) => Ok(()),
        };
        admitted.inspect_err(|refusal| self.denied.count(refusal))
    }

    /// How many it did not let in, by reason.
    pub(crate) fn denied(&self) -> &Denied {
        &self.denied
    }
}

fn tell_reloaded(what: &str, then: &str, reloaded: Result<(), FileError>) {
    match reloaded {
        Ok(()) => info!("{what} were read again; {then}"),
        Err(error) => warn!("{what} stay as they were: {error}"),
    }
}
