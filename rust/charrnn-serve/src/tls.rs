//! TLS: this server's certificate and key, and whose clients it takes, read from files and read again on request.
//!
//! Knows files and rustls, no sockets. Connections keep what they were made with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tracing::warn;
use x509_cert::der::Decode;
use x509_cert::Certificate;

use crate::secrets::{fingerprint, read_public, read_secret, FileError};

/// PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// This server's certificate, then those between it and its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of clients; then a client without a certificate of theirs does not get in.
    pub client_ca: Option<PathBuf>,
}

/// How new connections are encrypted.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    configs: RwLock<Configs>,
}

#[derive(Clone, Debug)]
struct Configs {
    grpc: Arc<ServerConfig>,
    /// A client needs no certificate for the handshake: `/healthz` is for probes, which have none.
    metrics: Arc<ServerConfig>,
}

impl Tls {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, FileError> {
        let configs = RwLock::new(read(&files)?);
        Ok(Tls { files, configs })
    }

    /// From here on new connections use what the files hold now; if that is not right, what they held before.
    pub(crate) fn reload(&self) -> Result<(), FileError> {
        let configs = read(&self.files)?;
        *self.configs.write().unwrap_or_else(PoisonError::into_inner) = configs;
        Ok(())
    }

    pub(crate) fn grpc(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.configs().grpc)
    }

    pub(crate) fn metrics(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.configs().metrics)
    }

    /// Whether clients have to be known.
    pub(crate) fn asks_clients(&self) -> bool {
        self.files.client_ca.is_some()
    }

    fn configs(&self) -> Configs {
        self.configs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(files: &TlsFiles) -> Result<Configs, FileError> {
    let certs = read_certs(&files.cert)?;
    if is_expired(&certs[0]) {
        warn!("tls: the certificate in {} has expired; clients refuse it", files.cert.display());
    }
    let key = read_secret(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| FileError::content(&files.key, format!("is no private key in PEM: {error}")))?;
    let roots = files.client_ca.as_deref().map(read_roots).transpose()?;
    let config = |protocol: &[u8], is_required: bool| {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("ring has both versions")
            .with_client_cert_verifier(verifier(roots.clone(), is_required))
            .with_single_cert(certs.clone(), key.clone_key())
            .map_err(|error| {
                FileError::content(&files.cert, format!("and {} do not fit: {error}", files.key.display()))
            })?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Arc::new(config))
    };
    Ok(Configs { grpc: config(b"h2", true)?, metrics: config(b"http/1.1", false)? })
}

fn read_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let pem = read_public(path)?;
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certs {
        Ok(certs) if !certs.is_empty() => Ok(certs),
        Ok(_) => Err(FileError::content(path, "holds no certificate in PEM")),
        Err(error) => Err(FileError::content(path, format!("is damaged: {error}"))),
    }
}

fn read_roots(path: &Path) -> Result<Arc<RootCertStore>, FileError> {
    let mut roots = RootCertStore::empty();
    for cert in read_certs(path)? {
        roots.add(cert).map_err(|error| FileError::content(path, format!("is no authority: {error}")))?;
    }
    Ok(Arc::new(roots))
}

fn verifier(roots: Option<Arc<RootCertStore>>, is_required: bool) -> Arc<dyn ClientCertVerifier> {
    let Some(roots) = roots else { return WebPkiClientVerifier::no_client_auth() };
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(default_provider()));
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    builder.build().expect("there are authorities, and no revocation lists")
}

/// Who a certificate is about, as in `CN=alice,O=example`, or its fingerprint where it says so only elsewhere.
pub(crate) fn subject(cert: &CertificateDer<'_>) -> String {
    let named = Certificate::from_der(cert).map(|cert| cert.tbs_certificate().subject().to_string());
    match named {
        Ok(subject) if !subject.is_empty() => subject,
        _ => format!("certificate {}", fingerprint(cert)),
    }
}

fn is_expired(cert: &CertificateDer<'_>) -> bool {
    Certificate::from_der(cert)
        .is_ok_and(|cert| cert.tbs_certificate().validity().not_after.to_system_time() < SystemTime::now())
}
