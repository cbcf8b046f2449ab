//! Constraints against the regex crate: what they allow is exactly what can still become a match.

use charrnn_core::constraint::{Constraint, Pattern, START};
use charrnn_core::error::RequestError;
use charrnn_core::vocab::{Unit, Vocab};
use proptest::prelude::*;
use regex::Regex;

const ANY_UTF8: Pattern<'_> = Pattern::Utf8 { end: None };

fn chars(symbols: &str) -> Vocab {
    Vocab::new(Unit::Char, symbols.chars().map(u32::from).collect()).expect("a vocabulary")
}

fn all_bytes() -> Vocab {
    Vocab::new(Unit::Byte, (0..256).collect()).expect("a vocabulary")
}

fn regex(pattern: &str, vocab: &Vocab, min: u32, max: u32) -> Result<Constraint, RequestError> {
    Constraint::new(Pattern::Regex(pattern), vocab, |_| true, min..=max)
}

fn allowed(constraint: &Constraint, state: u32, num_tokens: u32, vocab_size: u32) -> Vec<u32> {
    let mut scratch = Vec::new();
    let mask = constraint.mask(state, num_tokens, &mut scratch);
    (0..vocab_size).filter(|&id| mask[id as usize / 64] >> (id % 64) & 1 == 1).collect()
}

/// Every text of up to `max` symbols.
fn texts(symbols: &str, max: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut start = 0;
    for _ in 0..max {
        let end = all.len();
        for index in start..end {
            all.extend(symbols.chars().map(|c| format!("{}{c}", all[index])).collect::<Vec<_>>());
        }
        start = end;
    }
    all
}

/// Compares what is allowed after every text with what the enumeration of all matches says.
fn check_all(pattern: &str, symbols: &str, min: u32, max: u32) {
    let vocab = chars(symbols);
    let whole = Regex::new(&format!(r"\A(?:{pattern})\z")).expect("an expression");
    let is_match = |text: &str| (min..=max).contains(&(text.len() as u32)) && whole.is_match(text);
    let matches: Vec<String> =
        texts(symbols, max as usize).into_iter().filter(|text| is_match(text)).collect();
    let constraint = match regex(pattern, &vocab, min, max) {
        Ok(constraint) => constraint,
        Err(error) => {
            assert_eq!(error, RequestError::RegexUnmatchable { min, max }, "{pattern}");
            return assert!(matches.is_empty(), "{pattern} {min} {max}: {matches:?}");
        }
    };
    let mut open = vec![(String::new(), START)];
    while let Some((text, state)) = open.pop() {
        let num = text.len() as u32;
        assert_eq!(constraint.may_end(state, num), is_match(&text), "{pattern} {min} {max} at {text:?}");
        let found = allowed(&constraint, state, num, symbols.len() as u32);
        let can_follow = |c: char| matches.iter().any(|m| m.starts_with(&format!("{text}{c}")));
        let expected: Vec<u32> =
            (0..).zip(symbols.chars()).filter(|(_, c)| can_follow(*c)).map(|(id, _)| id).collect();
        assert_eq!(found, expected, "{pattern} {min} {max} after {text:?}");
        assert_eq!(constraint.is_over(state, num), expected.is_empty());
        for (id, c) in (0..).zip(symbols.chars()) {
            let next = constraint.advance(state, num, id);
            assert_eq!(next.is_some(), expected.contains(&id));
            open.extend(next.map(|next| (format!("{text}{c}"), next)));
        }
    }
}

/// Expressions over `a`, `b` and `c`, with what automata find hard: nesting, counting, anchors, empty parts.
fn expression() -> impl Strategy<Value = String> {
    let leaf =
        prop::sample::select(vec!["a", "b", "c", "ab", "[ab]", "[^a]", ".", "", "^", "$", r"\b", "(?i:A)"]);
    let leaf = leaf.prop_map(|leaf| if leaf == r"\b" { r"(?-u:\b)".to_owned() } else { leaf.to_owned() });
    leaf.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("(?:{})", parts.join("|"))),
            (inner, prop::sample::select(vec!["*", "+", "?", "{2}", "{1,3}", "*?", "{0}"]))
                .prop_map(|(part, times)| format!("(?:{part}){times}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn allows_what_can_still_become_a_match(pattern in expression(), min in 0_u32..5, more in 0_u32..5) {
        check_all(&pattern, "abc", min, (min + more).max(1));
    }
}

#[test]
fn lengths_with_gaps_are_exact() {
    check_all("(?:ab)*", "ab", 3, 3);
    check_all("(?:aaa)*b", "ab", 5, 8);
    check_all("(?:aa)*|b{5}", "ab", 5, 5);
}

#[test]
fn a_text_is_never_led_where_the_models_symbols_cannot_go_on() {
    let vocab = chars("ab");
    let constraint = regex("ax|b", &vocab, 0, 9).expect("b matches");
    assert_eq!(allowed(&constraint, START, 0, 2), [1]);
    let banned = Constraint::new(Pattern::Regex("ab|b"), &vocab, |id| id != 1, 0..=9);
    assert_eq!(banned.expect_err("no b"), RequestError::RegexUnmatchable { min: 0, max: 9 });
}

#[test]
fn characters_of_several_bytes_are_one_symbol() {
    let vocab = chars("aé€😀");
    let constraint = regex("[é-😀]{2}", &vocab, 0, 2).expect("matches");
    assert_eq!(allowed(&constraint, START, 0, 4), [1, 2, 3]);
    let state = constraint.advance(START, 0, 3).expect("allowed");
    assert_eq!(allowed(&constraint, state, 1, 4), [1, 2, 3]);
    assert!(regex("[é-😀]{2}", &vocab, 0, 1).is_err());
}

#[test]
fn masks_go_beyond_a_word() {
    let vocab = Vocab::new(Unit::Char, (0x100..0x300).collect()).expect("a vocabulary");
    let constraint = regex("[\u{101}\u{2ff}]", &vocab, 0, 5).expect("matches");
    assert_eq!(allowed(&constraint, START, 0, 512), [1, 511]);
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let vocab = chars("abc");
    for (pattern, message) in [
        ("(a", "regex: unclosed group; the syntax is that of Rust's regex crate"),
        ("a{2,1}", "regex: invalid repetition count range"),
        (r"\p{Foo}", "regex: Unicode property not found"),
        (r"(?u:\b)a", "regex: "),
        (r"(a)\1", "regex: backreferences are not supported"),
        ("x", "regex: no text of 0 to 5 of the model's symbols matches"),
        ("(?:(?:[ab]{999}){999})", "regex: needs "),
        ("[ab]*a[ab]{20}", "regex: needs "),
    ] {
        let error = regex(pattern, &vocab, 0, 5).expect_err(pattern).to_string();
        assert!(error.starts_with(message), "{pattern}: {error}");
        assert!(!error.contains('\n'), "{pattern}: {error}");
    }
}

/// Over all of Unicode these need an automaton of megabytes.
#[test]
fn classes_cost_what_the_vocabulary_has_of_them() {
    let vocab = chars("ab\u{e9}1 ");
    for pattern in [r"\w{90}", r"(?:(?:a?|\w{2})\s?){30}", r"(?i:\pL{40}|\PL{40})"] {
        regex(pattern, &vocab, 0, 500).expect(pattern);
    }
}

#[test]
fn many_early_lengths_of_many_states_are_refused() {
    let error = regex("[ab]{4000}", &chars("ab"), 1_000_000, 1_000_000).expect_err("too large");
    assert!(error.to_string().contains("min_tokens"), "{error}");
}

proptest! {
    /// Any walk through what is allowed is valid UTF-8 at the end, and no valid text is ruled out.
    #[test]
    fn utf8_is_all_of_utf8_and_nothing_else(text in "\\PC{0,8}", choices in prop::collection::vec(any::<u32>(), 9)) {
        let vocab = all_bytes();
        let num = text.len().max(1) as u32;
        let constraint = Constraint::new(ANY_UTF8, &vocab, |_| true, 0..=num).expect("empty text");
        let mut state = START;
        for (at, byte) in (0..).zip(text.bytes()) {
            prop_assert!(!constraint.may_end(state, at));
            state = constraint.advance(state, at, u32::from(byte)).expect("a valid text");
        }
        let constraint = Constraint::new(ANY_UTF8, &vocab, |_| true, 0..=9).expect("empty text");
        let (mut state, mut bytes) = (START, Vec::new());
        for (at, choice) in (0..).zip(choices) {
            let options = allowed(&constraint, state, at, 256);
            let token = options[choice as usize % options.len()];
            state = constraint.advance(state, at, token).expect("allowed");
            bytes.push(token as u8);
        }
        prop_assert!(String::from_utf8(bytes).is_ok());
    }
}

#[test]
fn the_end_symbol_stands_between_characters_only() {
    let vocab = Vocab::new(Unit::Byte, "é\n".bytes().map(u32::from).collect()).expect("a vocabulary");
    let (lead, continued, end) = (0, 1, 2);
    let constraint =
        |lengths| Constraint::new(Pattern::Utf8 { end: Some(end) }, &vocab, |id| id != end, lengths);
    let free = constraint(0..=4).expect("some text");
    assert_eq!(allowed(&free, START, 0, 3), [lead, end]);
    let within = free.advance(START, 0, lead).expect("allowed");
    assert_eq!((allowed(&free, within, 1, 3), free.advance(START, 0, end)), (vec![continued], None));
    let late = constraint(2..=3).expect("some text");
    assert_eq!(allowed(&late, START, 0, 3), [lead]);
    let after = late.advance(late.advance(START, 0, lead).expect("allowed"), 1, continued).expect("allowed");
    // There is no room for another character, but the end may come: the text is not over before it.
    assert_eq!((allowed(&late, after, 2, 3), late.is_over(after, 2)), (vec![end], false));
}
