//! From an expression to an automaton over token ids, through regex-automata's automaton over bytes.

use std::collections::HashMap;

use regex_automata::dfa::dense::{self, DFA};
use regex_automata::dfa::{Automaton as _, StartKind};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::{Anchored, Input, MatchKind};
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Repetition};

use super::automaton::{words_of, Automaton, DEAD, NO_CLASS};
use super::Pattern;
use crate::error::RequestError;
use crate::vocab::{Unit, Vocab};

/// Bytes that the automata on the way may take.
const MAX_BYTES: usize = 4 << 20;
/// Transitions, states times classes of symbols.
const MAX_TRANSITIONS: usize = 1 << 21;
/// Bits of all masks, states times symbols.
const MAX_MASK_BITS: usize = 1 << 26;
/// Any Unicode text, without which the same expression over bytes would allow any bytes.
const ANY_TEXT: &str = "(?s:.)*";
/// What no automaton can follow; the advice of the crate is for those who call it.
const UNICODE_WORD: &str = r"a word boundary is ASCII's here: write (?-u:\b) in place of \b, (?-u:\B) of \B";

pub(super) fn compile(
    pattern: Pattern<'_>,
    vocab: &Vocab,
    is_allowed: impl Fn(u32) -> bool,
) -> Result<Automaton, RequestError> {
    let pattern = match pattern {
        Pattern::Regex(pattern) => pattern,
        Pattern::Utf8 { .. } => ANY_TEXT,
    };
    let parsed = regex_syntax::Parser::new().parse(pattern);
    let parsed = parsed.map_err(|error| RequestError::Regex(one_line(&error.to_string())))?;
    if parsed.properties().look_set().contains_word_unicode() {
        return Err(RequestError::Regex(UNICODE_WORD.to_owned()));
    }
    let dfa = byte_automaton(&restrict(parsed, vocab))?;
    let alphabet = Alphabet::new(vocab, is_allowed, &dfa);
    explore(&dfa, &alphabet)
}

/// The same expression with every class cut down to the vocabulary's characters: a Unicode class has a thousand states,
/// of which a model's alphabet needs a handful.
fn restrict(parsed: Hir, vocab: &Vocab) -> Hir {
    if vocab.unit() == Unit::Byte {
        return parsed;
    }
    let known = vocab.symbols().iter().filter_map(|&symbol| char::from_u32(symbol));
    restrict_to(parsed, &ClassUnicode::new(known.map(|c| ClassUnicodeRange::new(c, c))))
}

fn restrict_to(part: Hir, known: &ClassUnicode) -> Hir {
    let all = |parts: Vec<Hir>| parts.into_iter().map(|part| restrict_to(part, known)).collect();
    match part.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Class(Class::Unicode(mut class)) => {
            class.intersect(known);
            Hir::class(Class::Unicode(class))
        }
        HirKind::Class(class) => Hir::class(class),
        HirKind::Repetition(repetition) => {
            let sub = Box::new(restrict_to(*repetition.sub, known));
            Hir::repetition(Repetition { sub, ..repetition })
        }
        HirKind::Capture(capture) => restrict_to(*capture.sub, known),
        HirKind::Concat(parts) => Hir::concat(all(parts)),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)),
    }
}

fn byte_automaton(parsed: &Hir) -> Result<DFA<Vec<u32>>, RequestError> {
    let too_large = || RequestError::RegexTooLarge {
        what: "a larger automaton over bytes".to_owned(),
        limit: format!("{} MiB", MAX_BYTES >> 20),
    };
    let thompson = thompson::Config::new().utf8(true).nfa_size_limit(Some(MAX_BYTES));
    let nfa = thompson::Compiler::new().configure(thompson).build_from_hir(parsed);
    let nfa = nfa.map_err(|error| match error.size_limit() {
        Some(_) => too_large(),
        None => RequestError::Regex(innermost(&error)),
    })?;
    let config = dense::Config::new()
        .accelerate(false)
        .match_kind(MatchKind::All)
        .start_kind(StartKind::Anchored)
        .dfa_size_limit(Some(MAX_BYTES))
        .determinize_size_limit(Some(MAX_BYTES));
    dense::Builder::new().configure(config).build_from_nfa(&nfa).map_err(|error| {
        match error.is_size_limit_exceeded() {
            true => too_large(),
            false => RequestError::Regex(innermost(&error)),
        }
    })
}

/// The last error of a chain, which says what is wrong, in one line.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => one_line(&error.to_string()),
    }
}

/// The message of a syntax error: it is shown below the expression, with a mark under the place.
fn one_line(message: &str) -> String {
    let line = message.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).trim().to_owned()
}

/// The symbols of a vocabulary as bytes. Those whose bytes the automaton cannot tell apart are one class.
struct Alphabet {
    /// `(V,)`
    classes: Vec<u32>,
    /// The bytes of one symbol of each class.
    spellings: Vec<Vec<u8>>,
}

impl Alphabet {
    fn new(vocab: &Vocab, is_allowed: impl Fn(u32) -> bool, dfa: &DFA<Vec<u32>>) -> Self {
        let (mut known, mut spellings) = (HashMap::new(), Vec::new());
        let mut class_of = |token: u32| {
            let bytes = match is_allowed(token) {
                true => spelling(vocab.symbol(token), vocab.unit()),
                false => return NO_CLASS,
            };
            let key: Vec<u8> = bytes.iter().map(|&byte| dfa.byte_classes().get(byte)).collect();
            *known.entry(key).or_insert_with(|| {
                spellings.push(bytes);
                spellings.len() as u32 - 1
            })
        };
        let classes = (0..vocab.size() as u32).map(&mut class_of).collect();
        Alphabet { classes, spellings }
    }
}

fn spelling(symbol: u32, unit: Unit) -> Vec<u8> {
    match unit {
        Unit::Byte => vec![symbol as u8],
        Unit::Char => char::from_u32(symbol).unwrap_or_default().to_string().into_bytes(),
    }
}

/// Goes through all states that texts over the alphabet lead to.
fn explore(dfa: &DFA<Vec<u32>>, alphabet: &Alphabet) -> Result<Automaton, RequestError> {
    let start = dfa.start_state_forward(&Input::new("").anchored(Anchored::Yes));
    let start = start.map_err(|error| RequestError::Regex(error.to_string()))?;
    let (num_classes, vocab_size) = (alphabet.spellings.len(), alphabet.classes.len());
    let max_states = (MAX_TRANSITIONS / num_classes.max(1)).min(MAX_MASK_BITS / (words_of(vocab_size) * 64));
    let mut ids: HashMap<StateID, u32> = HashMap::from([(start, 0)]);
    let mut states = vec![start];
    let mut next = Vec::new();
    let mut index = 0;
    while index < states.len() {
        for bytes in &alphabet.spellings {
            let target = bytes.iter().fold(states[index], |state, &byte| dfa.next_state(state, byte));
            next.push(match dfa.is_dead_state(target) {
                true => DEAD,
                false => *ids.entry(target).or_insert_with(|| {
                    states.push(target);
                    states.len() as u32 - 1
                }),
            });
        }
        if states.len() > max_states {
            return Err(RequestError::RegexTooLarge {
                what: format!("more than {max_states} states over {vocab_size} symbols"),
                limit: max_states.to_string(),
            });
        }
        index += 1;
    }
    let is_match: Vec<bool> =
        states.iter().map(|&state| dfa.is_match_state(dfa.next_eoi_state(state))).collect();
    Ok(Automaton::new(alphabet.classes.clone(), num_classes, next, &is_match))
}
