//! Bearer tokens: which are known, from a file.
//!
//! A token is compared by its hash, with all that are known, in a time that tells nothing of them; none is ever shown.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::HeaderMap;

use crate::secrets::{fingerprint, read_secret, FileError};
use crate::status::Refusal;
use crate::tell::tell;

/// 96 bits where every character is one of 64: nobody guesses that.
const MIN_TOKEN_CHARS: usize = 16;
const MAX_NAME_CHARS: usize = 64;

/// Failures that a peer may have at once, before it has one a second.
const BURST: f64 = 10.0;
const MAX_PEERS: usize = 4096;

type Hash = [u8; 32];

/// The tokens of a file.
pub(crate) struct Tokens {
    path: PathBuf,
    known: RwLock<Vec<(Arc<str>, Hash)>>,
    failures: Mutex<Failures>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tokens").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Tokens {
    pub(crate) fn load(path: PathBuf) -> Result<Self, FileError> {
        let known = RwLock::new(read(&path)?);
        Ok(Tokens { path, known, failures: Mutex::default() })
    }

    pub(crate) fn reload(&self) -> Result<(), FileError> {
        let known = read(&self.path)?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    /// The name of the token that the headers bring.
    pub(crate) fn check(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Arc<str>, Refusal> {
        let token = bearer(headers);
        match token.and_then(|token| self.find(token)) {
            Some(name) => Ok(name),
            None => {
                Err(self.failed(if token.is_none() { Refusal::NoToken } else { Refusal::WrongToken }, peer))
            }
        }
    }

    fn find(&self, token: &[u8]) -> Option<Arc<str>> {
        let hash: Hash = Sha256::digest(token).into();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        // All of them, whichever it is.
        known.iter().fold(None, |found, (name, other)| match bool::from(hash.ct_eq(other)) {
            true => Some(Arc::clone(name)),
            false => found,
        })
    }

    fn failed(&self, refusal: Refusal, peer: Option<IpAddr>) -> Refusal {
        let Some(peer) = peer else { return refusal };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.is_within(peer, Instant::now()) {
            true => {
                tell(format_args!("auth: {peer}: {refusal}"));
                refusal
            }
            false => Refusal::TooManyFailures,
        }
    }
}

/// What follows `Bearer`, in the only header of its kind.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

fn read(path: &Path) -> Result<Vec<(Arc<str>, Hash)>, FileError> {
    let bytes = read_secret(path)?;
    let text = str::from_utf8(&bytes).map_err(|_| FileError::content(path, "is not UTF-8"))?;
    let mut known = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |reason| FileError::content(path, format!("line {number}: {reason}"));
        known.push(parse(line).map_err(wrong)?);
    }
    match known.is_empty() {
        true => Err(FileError::content(path, "holds no token; write one a line, name:token or token")),
        false => Ok(known),
    }
}

/// `name:token` or `token`. A name may come again, with another token: the old one and the new.
fn parse(line: &str) -> Result<(Arc<str>, Hash), String> {
    let (name, token) = line.split_once(':').map_or((None, line), |(name, token)| (Some(name), token));
    let is_token_char = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    let is_name_char = |c: char| c.is_ascii_alphanumeric() || "-._@".contains(c);
    if token.chars().count() < MIN_TOKEN_CHARS || !token.chars().all(is_token_char) {
        return Err(format!(
            "a token has at least {MIN_TOKEN_CHARS} characters, letters, digits and -._~+/= only, such as \
             openssl rand -hex 32 makes"
        ));
    }
    let name = match name {
        None => format!("token {}", fingerprint(token.as_bytes())),
        Some(name) if (1..=MAX_NAME_CHARS).contains(&name.len()) && name.chars().all(is_name_char) => {
            name.to_owned()
        }
        Some(_) => {
            return Err(format!("a name has 1 to {MAX_NAME_CHARS} letters, digits and -._@ only"));
        }
    };
    Ok((Arc::from(name), Sha256::digest(token).into()))
}

/// What peers failed at lately, a bucket each: full at first, a failure takes one, a second gives one back.
#[derive(Default)]
struct Failures(HashMap<IpAddr, (f64, Instant)>);

impl Failures {
    /// Counts one; false if that is too many. A peer that finds no room is taken for one of too many.
    fn is_within(&mut self, peer: IpAddr, now: Instant) -> bool {
        let refill = |(left, at): (f64, Instant)| (left + (now - at).as_secs_f64()).min(BURST);
        if self.0.len() >= MAX_PEERS {
            self.0.retain(|_, bucket| refill(*bucket) < BURST);
        }
        let (peer, is_full) = (network(peer), self.0.len() >= MAX_PEERS);
        let left = self.0.get(&peer).map_or(if is_full { 0.0 } else { BURST }, |bucket| refill(*bucket));
        if left < 1.0 {
            return false;
        }
        self.0.insert(peer, (left - 1.0, now));
        true
    }
}

/// One subscriber of IPv6 has a whole network of addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !0_u128 << 64)),
        address => address,
    }
}
