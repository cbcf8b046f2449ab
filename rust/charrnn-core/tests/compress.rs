//! Files through the compressor and back, over a model made of arithmetic.

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use charrnn_core::compress::{compress, decompress, measure, precision_of, Coder, CompressError, Report};
use charrnn_core::vocab::Vocab;
use charrnn_core::StepModel;
use common::{bytes, letters, FakeModel, Faults, START};
use proptest::prelude::*;

const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn coder(vocab: &Arc<Vocab>, num_workers: usize) -> Coder {
    let model = || Box::new(FakeModel::new(vocab.size(), Faults::default())) as Box<dyn StepModel>;
    Coder {
        models: (0..num_workers).map(|_| model()).collect(),
        vocab: Arc::clone(vocab),
        start_token: START,
        end_token: None,
        digest: DIGEST.to_owned(),
        precision: "fp32".to_owned(),
    }
}

/// A folder of its own for a test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("charrnn-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn pack(&self, text: &[u8], coder: &mut Coder) -> (Vec<u8>, Report) {
        let path = self.0.join("original");
        fs::write(&path, text).expect("written");
        let packed = self.0.join("compressed");
        let report = compress(coder, &path, &packed, &mut |_| true).expect("compressed");
        (fs::read(packed).expect("written"), report)
    }

    fn unpack(&self, packed: &[u8], coder: &mut Coder) -> Result<Vec<u8>, CompressError> {
        let (from, to) = (self.0.join("packed"), self.0.join("restored"));
        fs::write(&from, packed).expect("written");
        decompress(coder, &from, &to, &mut |_| true)?;
        Ok(fs::read(to).expect("restored"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn check(text: &[u8], name: &str) {
    let folder = Folder::new(name);
    for vocab in [letters(), bytes()] {
        let (packed, report) = folder.pack(text, &mut coder(&vocab, 1));
        assert_eq!((report.num_bytes, report.num_compressed), (text.len() as u64, packed.len() as u64));
        assert_eq!(folder.unpack(&packed, &mut coder(&vocab, 1)).expect("restored"), text);
    }
}

#[test]
fn any_file_comes_back() {
    let texts: [&[u8]; 6] =
        [b"", b"a", b"abcabcabc", b"habhhh", "né€😀 \u{10ffff}".as_bytes(), b"\xff\xfea\xe2\x82"];
    texts.into_iter().for_each(|text| check(text, "any"));
    let folder = Folder::new("escapes");
    let (_, report) = folder.pack(b"abhxa", &mut coder(&letters(), 1));
    // `h` weighs nothing and `x` is unknown.
    assert_eq!((report.num_symbols, report.num_escaped), (5, 2));
}

proptest! {
    #[test]
    fn random_files_come_back(text in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&text, "random");
    }
}

/// More than one lane and more than one round, of parts whose lengths differ.
#[test]
fn the_number_of_workers_does_not_show() {
    let folder = Folder::new("workers");
    let text: Vec<u8> =
        (0..600_001_u32).map(|i| b'a' + (i.wrapping_mul(2_654_435_761) >> 29) as u8 % 7).collect();
    let (packed, report) = folder.pack(&text, &mut coder(&letters(), 1));
    assert_eq!(report.num_symbols, 600_001);
    let (bits, measured) =
        measure(&mut coder(&letters(), 2), &folder.0.join("original"), &mut |_| true).expect("bits");
    assert_eq!(measured.num_symbols, 600_001);
    let coded = report.num_coded as f64 * 8.0;
    assert!(bits < coded && coded < bits + 500.0, "{bits} {coded}");
    for num_workers in [2, 3] {
        assert!(folder.pack(&text, &mut coder(&letters(), num_workers)).0 == packed, "{num_workers}");
    }
    assert!(folder.unpack(&packed, &mut coder(&letters(), 2)).expect("restored") == text);
}

#[test]
fn damage_is_always_seen() {
    let folder = Folder::new("damage");
    let (packed, _) = folder.pack("abcabé\u{3bb}abhacab".as_bytes(), &mut coder(&letters(), 1));
    for at in 0..packed.len() {
        for bit in [1, 0x80] {
            let mut damaged = packed.clone();
            damaged[at] ^= bit;
            folder.unpack(&damaged, &mut coder(&letters(), 1)).expect_err("damaged");
        }
        folder.unpack(&packed[..at], &mut coder(&letters(), 1)).expect_err("cut");
    }
    let longer = [packed.as_slice(), b"x"].concat();
    let error = folder.unpack(&longer, &mut coder(&letters(), 1)).expect_err("longer").to_string();
    assert!(error.contains("bytes after its end; nothing was written"), "{error}");
}

#[test]
fn foreign_files_and_other_models_are_named() {
    let folder = Folder::new("foreign");
    let error = folder.unpack(b"BZh91AY&SY", &mut coder(&letters(), 1)).expect_err("foreign").to_string();
    assert!(error.ends_with("is not a file that charrnn compressed: it does not begin like one"), "{error}");
    let (mut packed, _) = folder.pack(b"abc", &mut coder(&letters(), 1));
    assert_eq!(precision_of(&folder.0.join("packed")).expect_err("still the other").to_string(), error);
    let mut other = coder(&letters(), 1);
    other.digest = "ff".repeat(32);
    let error = folder.unpack(&packed, &mut other).expect_err("another model").to_string();
    assert!(error.contains("another model (digest 0011223344556677..., fp32), this is ffff"), "{error}");
    assert_eq!(precision_of(&folder.0.join("packed")).expect("of ours"), "fp32");
    packed[3] += 1;
    let error = folder.unpack(&packed, &mut coder(&letters(), 1)).expect_err("version").to_string();
    assert!(error.contains("another version"), "{error}");
}

#[test]
fn whoever_watches_may_stop_it() {
    let folder = Folder::new("stop");
    let path = folder.0.join("original");
    fs::write(&path, vec![b'a'; 3_000_000]).expect("written");
    let stopped = compress(&mut coder(&letters(), 1), &path, &folder.0.join("compressed"), &mut |_| false);
    assert!(matches!(stopped, Err(CompressError::Stopped)), "{stopped:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_told_by_the_name_of_the_file() {
    let folder = Folder::new("full");
    let path = folder.0.join("original");
    fs::write(&path, b"abc").expect("written");
    let full = PathBuf::from("/dev/full");
    let error = compress(&mut coder(&letters(), 1), &path, &full, &mut |_| true).expect_err("no room");
    assert!(error.to_string().starts_with("/dev/full cannot be written: No space left"), "{error}");
}

/// Every document costs what it costs alone, whatever stands before it, and those are coded as ever.
#[test]
fn documents_are_coded_each_from_the_beginning() {
    let folder = Folder::new("documents");
    let documents = |end_token| Coder { start_token: 2, end_token, ..coder(&letters(), 1) };
    let bits = |text: &[u8], end_token| {
        let path = folder.0.join("text");
        fs::write(&path, text).expect("written");
        measure(&mut documents(end_token), &path, &mut |_| true).expect("bits").0
    };
    let parts: [&[u8]; 4] = [b"abfffc", b"c", b"gdgdbeeac", b"bbabb"];
    let whole = parts.concat();
    let alone: f64 = parts.iter().map(|part| bits(part, Some(2))).sum();
    assert!((bits(&whole, Some(2)) - alone).abs() < 1e-9);
    assert!((bits(&whole, None) - alone).abs() > 1e-3, "the state did not matter");
    assert_eq!(bits(parts[3], Some(2)), bits(parts[3], None), "without an end the two are one");
    for text in [whole.as_slice(), b"caxcbc", b"c\xffcc"] {
        let (packed, report) = folder.pack(text, &mut documents(Some(2)));
        assert_eq!(report.num_symbols as usize, text.len());
        assert_eq!(folder.unpack(&packed, &mut documents(Some(2))).expect("restored"), text);
    }
}

/// Files made before there were documents must come back: these bytes are of such a one.
#[test]
fn a_model_without_documents_codes_as_it_always_did() {
    let folder = Folder::new("golden");
    let (packed, _) = folder.pack(b"abcabcxhfedcba", &mut coder(&letters(), 1));
    let hexadecimal: String = packed.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = "63524e01001122334455667704667033320e95435f4ea1a06d395f2447621729afd2df31144c1100b819bacba8128a9fdbe3\
        c7f8dda20f20611450f0";
    assert_eq!(hexadecimal, expected);
}
