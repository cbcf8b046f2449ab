//! What can be wrong with a request or a bundle, each in one line: what, where, which limit, what to do.

use std::path::PathBuf;

use crate::limits::Limit;
use crate::vocab::{describe, Unit, UnknownSymbol, VocabError};

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// A number outside its range.
    #[error("{} is {value}; it must be {} ({})", limit.name, limit.range(), limit.meaning)]
    OutOfRange {
        /// Its row in the table.
        limit: Limit,
        /// The value given, or the length.
        value: f64,
    },
    /// A character of a text given that the model does not know.
    #[error("{field}: {unknown}; leave it out or choose another model")]
    UnknownInText {
        /// The text.
        field: &'static str,
        /// What in it.
        unknown: UnknownSymbol,
    },
    /// The end symbol within the prompt.
    #[error("prompt: {} at position {position} ends a document of this model, so no prompt holds it; leave it out", describe(*symbol, *unit))]
    EndInPrompt {
        /// The code point or byte.
        symbol: u32,
        /// Symbols before it.
        position: usize,
        /// The vocabulary's unit.
        unit: Unit,
    },
    /// A token id of a text given that the model does not know.
    #[error("{field}: id {id} at position {position} is not below the vocabulary's size {vocab_size}")]
    UnknownId {
        /// The text.
        field: &'static str,
        /// The id.
        id: u32,
        /// Ids before it.
        position: usize,
        /// Number of symbols.
        vocab_size: usize,
    },
    /// A token id of a parameter that the model does not know.
    #[error("{field}: id {id} is not below the vocabulary's size {vocab_size}")]
    NoSuchId {
        /// The parameter.
        field: &'static str,
        /// The id.
        id: u32,
        /// Number of symbols.
        vocab_size: usize,
    },
    /// An empty list of allowed symbols.
    #[error("allowed is empty, so nothing could be drawn; leave it out to allow every symbol")]
    NothingAllowed,
    /// Lengths that no text has.
    #[error("min_tokens is {min}, above max_tokens, which is {max}; lower one or raise the other")]
    Lengths {
        /// min_tokens.
        min: u32,
        /// max_tokens.
        max: u32,
    },
    /// A regular expression that is none.
    #[error("regex: {0}; the syntax is that of Rust's regex crate")]
    Regex(String),
    /// A regular expression whose automaton is too large.
    #[error("regex: needs {what}, the limit is {limit}; use smaller repetitions or smaller classes")]
    RegexTooLarge {
        /// What it needs.
        what: String,
        /// How much there may be.
        limit: String,
    },
    /// No text that the model can write matches.
    #[error("regex: no text of {min} to {max} of the model's symbols matches; change min_tokens, max_tokens or the expression")]
    RegexUnmatchable {
        /// min_tokens.
        min: u32,
        /// max_tokens.
        max: u32,
    },
    /// A text that has reached its length already.
    #[error("max_tokens is {max_tokens}, and the text that is to go on has {num_tokens} symbols; give more")]
    NothingLeft {
        /// max_tokens.
        max_tokens: u32,
        /// Symbols of the text so far.
        num_tokens: u32,
    },
    /// A text cannot go on from where it was saved.
    #[error("resume_token: {0}; ask for the text from its beginning, with the same seed")]
    Snapshot(&'static str),
    /// A stop string that the model can never write.
    #[error("stop string {index}: {unknown}, so it could never appear; leave it out")]
    UnknownInStop {
        /// Which of the stop strings.
        index: usize,
        /// What in it.
        unknown: UnknownSymbol,
    },
}

/// Why a folder is not a bundle that may be served.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file cannot be read.
    #[error("bundle file {path} cannot be read: {source}; export the bundle again")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The manifest is not JSON of the right shape.
    #[error("bundle manifest {path} is damaged: {source}; export the bundle again")]
    Json {
        /// The manifest.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// The manifest contradicts itself or this version of charrnn.
    #[error("bundle manifest {path}: {reason}")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The vocabulary is not one.
    #[error("bundle manifest {path}: {source}")]
    Vocab {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        source: VocabError,
    },
    /// A file is not the one that was exported.
    #[error("bundle file {path} is damaged: sha256 is {found}, the manifest says {expected}; export the bundle again")]
    Hash {
        /// The file.
        path: PathBuf,
        /// In the manifest.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// The precision asked for was not exported.
    #[error("bundle {path} has no precision {asked:?}; it has {known}")]
    NoPrecision {
        /// The bundle.
        path: PathBuf,
        /// As given.
        asked: String,
        /// What there is.
        known: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn messages_name_field_value_limit_and_remedy() {
        let error = RequestError::OutOfRange { limit: limits::TOP_P, value: 1.5 };
        let expected =
            "top_p is 1.5; it must be 0 to 1 (keep the smallest set whose mass reaches p; 1 is off)";
        assert_eq!(error.to_string(), expected);
        let error = RequestError::OutOfRange { limit: limits::TEMPERATURE, value: -1.0 };
        assert!(
            error.to_string().starts_with("temperature is -1; it must be at least 0 (0 takes"),
            "{error}"
        );
        let unknown = UnknownSymbol { symbol: 0x1b, position: 3, unit: Unit::Char };
        let error = RequestError::UnknownInText { field: "prompt", unknown };
        assert!(
            error.to_string().starts_with("prompt: character '\\u{1b}' (U+001B) at position 3"),
            "{error}"
        );
        assert_eq!(describe(7, Unit::Byte), "byte 0x07");
    }
}
