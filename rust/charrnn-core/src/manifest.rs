//! The rules of a bundle: what its manifest must say and which files it may name.
//!
//! A bundle is a folder that somebody else may have made: nothing in it is believed before it is checked, and nothing
//! outside the folder is ever opened.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::BundleError;
use crate::model::{ModelSpec, StateTensor};
use crate::vocab::{Unit, Vocab};

/// Name of the manifest in a bundle.
pub const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "charrnn-bundle";
const VERSION: u32 = 1;
/// A manifest holds the vocabulary: 65,536 symbols of 7 digits and some air.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// ONNX files end at 2 GiB.
const MAX_FILE_BYTES: u64 = 2 << 30;
/// A state of 4 MiB a stream is a thousand times that of the largest model of the essay.
const MAX_STATE_WIDTH: usize = 1 << 20;
const MAX_NAME_CHARS: usize = 128;
/// Of the digest, where a manifest names no version: 2^48 bundles.
const VERSION_DIGITS: usize = 12;
/// What a folder has that training wrote and nothing was exported from yet.
const RUN_INFO: &str = "run.json";

/// `manifest.json` as it is written; keys this version does not know are ignored.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    format: String,
    version: u32,
    /// What clients call the model.
    pub name: String,
    /// What they call this version of it, where the digest will not do.
    model_version: Option<String>,
    /// `lstm`, `gru` or `rnn`.
    pub cell: String,
    /// Recurrent layers.
    pub num_layers: u32,
    /// Units a layer.
    pub hidden_size: u32,
    vocab: Symbols,
    start_token: u32,
    /// Absent from models that were not trained on documents.
    end_token: Option<u32>,
    state: Vec<StateTensor>,
    /// The step graphs by precision, `fp32` and `int8`.
    pub precisions: BTreeMap<String, Precision>,
    files: BTreeMap<String, FileEntry>,
}

/// One step graph.
#[derive(Clone, Debug, Deserialize)]
pub struct Precision {
    path: String,
    /// Bits per character on the validation split, if it was measured.
    pub bpc: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Symbols {
    unit: Unit,
    symbols: Vec<u32>,
}

#[derive(Clone, Debug, Deserialize)]
struct FileEntry {
    sha256: String,
}

/// An exported model whose manifest has been checked.
#[derive(Clone, Debug)]
pub struct Bundle {
    dir: PathBuf,
    json: String,
    /// The manifest.
    pub manifest: Manifest,
    /// sha256 of the manifest's bytes, in hexadecimal: with the hashes in it, the identity of the whole.
    pub digest: String,
    /// The symbols.
    pub vocab: Arc<Vocab>,
    /// The shapes.
    pub spec: ModelSpec,
    /// What an empty prompt feeds.
    pub start_token: u32,
    /// What ends a text, for a model of documents; fed before every text, and equal to `start_token`.
    pub end_token: Option<u32>,
}

impl Bundle {
    /// Reads and checks the manifest of the bundle at `dir`; its other files are not touched.
    pub fn open(dir: &Path) -> Result<Self, BundleError> {
        let path = dir.join(MANIFEST);
        if let Some(reason) = why_no_bundle(dir) {
            return Err(BundleError::Manifest { path, reason });
        }
        let json = read_manifest(&path)?;
        let parse_error = |source| BundleError::Json { path: path.clone(), source };
        let manifest: Manifest = serde_json::from_str(&json).map_err(parse_error)?;
        manifest.check().map_err(|reason| BundleError::Manifest { path: path.clone(), reason })?;
        let vocab = Vocab::new(manifest.vocab.unit, manifest.vocab.symbols.clone())
            .map_err(|source| BundleError::Vocab { path: path.clone(), source })?;
        let spec = ModelSpec { vocab_size: vocab.size(), state: manifest.state.clone() };
        let (start_token, end_token) = (manifest.start_token, manifest.end_token);
        let digest = hex(&Sha256::digest(json.as_bytes()));
        let (dir, vocab) = (dir.to_owned(), Arc::new(vocab));
        Ok(Bundle { dir, json, manifest, digest, vocab, spec, start_token, end_token })
    }

    /// Tells models of one name apart: what the manifest says, or the first digits of the digest.
    pub fn version(&self) -> &str {
        self.manifest.model_version.as_deref().unwrap_or(&self.digest[..VERSION_DIGITS])
    }

    /// The manifest as it was read.
    pub fn manifest_json(&self) -> &str {
        &self.json
    }

    /// `int8` where the bundle has it: faster, and as good to within a hundredth of a bit.
    pub fn default_precision(&self) -> &str {
        let first = self.manifest.precisions.keys().next().map_or("", String::as_str);
        ["int8", "fp32"]
            .into_iter()
            .find(|name| self.manifest.precisions.contains_key(*name))
            .unwrap_or(first)
    }

    /// The bytes of a precision's step graph, whose sha256 has been checked: what was checked is what gets loaded.
    pub fn read(&self, precision: &str) -> Result<Vec<u8>, BundleError> {
        match self.manifest.precisions.get(precision) {
            Some(entry) => self.read_file(&entry.path),
            None => Err(BundleError::NoPrecision {
                path: self.dir.clone(),
                asked: precision.chars().take(MAX_NAME_CHARS).collect(),
                known: self.manifest.precisions.keys().cloned().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// Checks the sha256 of every file of the bundle.
    pub fn verify_all(&self) -> Result<(), BundleError> {
        self.manifest.files.keys().try_for_each(|name| self.read_file(name).map(drop))
    }

    fn read_file(&self, name: &str) -> Result<Vec<u8>, BundleError> {
        let path = self.dir.join(name);
        let bytes = read_plain_file(&path, MAX_FILE_BYTES)?;
        let (found, expected) = (hex(&Sha256::digest(&bytes)), self.manifest.files[name].sha256.clone());
        match found == expected {
            true => Ok(bytes),
            false => Err(BundleError::Hash { path, expected, found }),
        }
    }
}

/// Why a folder without a manifest has none; nothing where there is one, or where that cannot be told.
fn why_no_bundle(dir: &Path) -> Option<String> {
    let shown = dir.display();
    let what_to_do = "give the folder that `charrnn export` wrote";
    let is_missing = |path: &Path| {
        fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    if is_missing(dir) {
        return Some(format!("there is no folder {shown}; {what_to_do}"));
    }
    if dir.is_file() {
        return Some(format!("{shown} is a file, not a bundle; {what_to_do}"));
    }
    if !is_missing(&dir.join(MANIFEST)) {
        return None;
    }
    Some(match dir.join(RUN_INFO).is_file() {
        true => format!(
            "{shown} is a training run, not a bundle; export it first with `charrnn export {shown} --out BUNDLE`"
        ),
        false => format!("it is missing, so {shown} is not a bundle; {what_to_do}"),
    })
}

fn read_manifest(path: &Path) -> Result<String, BundleError> {
    let bytes = read_plain_file(path, MAX_MANIFEST_BYTES)?;
    let not_text = |error| BundleError::Read { path: path.to_owned(), source: std::io::Error::other(error) };
    String::from_utf8(bytes).map_err(not_text)
}

/// The bytes of a file that is no link, device or pipe and no larger than `max_bytes`.
fn read_plain_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, BundleError> {
    let read = || {
        let metadata = fs::symlink_metadata(path)?;
        match metadata.len() {
            _ if !metadata.is_file() => Err(std::io::Error::other("not a plain file")),
            size if size > max_bytes => {
                Err(std::io::Error::other(format!("{size} bytes, the limit is {max_bytes}")))
            }
            _ => fs::read(path),
        }
    };
    read().map_err(|source| BundleError::Read { path: path.to_owned(), source })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Manifest {
    /// What is wrong, in words.
    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            let shown: String = self.format.chars().take(MAX_NAME_CHARS).collect();
            return Err(format!("format is {shown:?}, expected {FORMAT:?}"));
        }
        if self.version != VERSION {
            return Err(format!("format version is {}, this charrnn reads {VERSION}", self.version));
        }
        check_word("name", &self.name)?;
        self.model_version.iter().try_for_each(|version| check_word("model_version", version))?;
        self.check_tokens()?;
        self.check_state()?;
        self.check_shape()?;
        self.check_files()
    }

    fn check_tokens(&self) -> Result<(), String> {
        let (start, size) = (self.start_token, self.vocab.symbols.len());
        let named = [("start_token", Some(start)), ("end_token", self.end_token)];
        let mut named = named.into_iter().filter_map(|(name, token)| token.map(|token| (name, token)));
        if let Some((name, token)) = named.find(|&(_, token)| token as usize >= size) {
            return Err(format!("{name} {token} is not below the vocabulary's size {size}"));
        }
        match self.end_token {
            Some(end) if end != start => Err(format!(
                "end_token is {end}, but start_token is {start}; a document begins after the end of another"
            )),
            _ => Ok(()),
        }
    }

    fn check_state(&self) -> Result<(), String> {
        if self.state.is_empty() {
            return Err("state is empty; a recurrent model has at least one tensor".to_owned());
        }
        for (index, tensor) in self.state.iter().enumerate() {
            if tensor.width == 0 || tensor.width > MAX_STATE_WIDTH {
                let (name, width) = (&tensor.name, tensor.width);
                return Err(format!("state {name:?} has width {width}, expected 1 to {MAX_STATE_WIDTH}"));
            }
            if self.state[..index].iter().any(|other| other.name == tensor.name) {
                return Err(format!("state {:?} stands twice", tensor.name));
            }
        }
        Ok(())
    }

    /// Whether the state is that of the cell, layers and units named: `h0`, `c0`, `h1`, ... of `hidden_size` each.
    fn check_shape(&self) -> Result<(), String> {
        let kinds: &[&str] = match self.cell.as_str() {
            "lstm" => &["h", "c"],
            "gru" | "rnn" => &["h"],
            other => {
                let shown: String = other.chars().take(MAX_NAME_CHARS).collect();
                return Err(format!("cell is {shown:?}, expected lstm, gru or rnn"));
            }
        };
        let (found, expected) = (self.state.len() as u64, u64::from(self.num_layers) * kinds.len() as u64);
        if found != expected {
            let (cell, layers) = (&self.cell, self.num_layers);
            return Err(format!(
                "state has {found} tensors, but {cell} with num_layers {layers} has {expected}"
            ));
        }
        let mut names = (0..self.num_layers).flat_map(|i| kinds.iter().map(move |kind| format!("{kind}{i}")));
        names.try_for_each(|name| self.check_tensor(&name))
    }

    fn check_tensor(&self, name: &str) -> Result<(), String> {
        let (cell, layers, units) = (&self.cell, self.num_layers, self.hidden_size);
        match self.state.iter().find(|tensor| tensor.name == name) {
            Some(tensor) if tensor.width == units as usize => Ok(()),
            Some(tensor) => {
                Err(format!("state {name:?} has width {}, but hidden_size is {units}", tensor.width))
            }
            None => Err(format!("state has no {name:?}, but {cell} with num_layers {layers} has it")),
        }
    }

    fn check_files(&self) -> Result<(), String> {
        if self.precisions.is_empty() {
            return Err("precisions is empty; there is no graph to run".to_owned());
        }
        if let Some(name) = self.files.keys().find(|name| !is_plain_name(name)) {
            return Err(format!("file {name:?} is not a plain name inside the bundle"));
        }
        match self.precisions.values().find(|entry| !self.files.contains_key(&entry.path)) {
            Some(entry) => Err(format!("file {:?} of a precision has no sha256 under files", entry.path)),
            None => Ok(()),
        }
    }
}

/// A word that fits into labels, messages and commands as it is.
fn check_word(field: &str, word: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match (1..=MAX_NAME_CHARS).contains(&word.len()) && word.chars().all(is_plain) {
        true => Ok(()),
        false => Err(format!("{field} must be 1 to {MAX_NAME_CHARS} of A-Z a-z 0-9 . _ -")),
    }
}

/// A name with no folder in it, so that no path leads out of the bundle.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0', ':'])
}
