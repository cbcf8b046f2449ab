//! What a bundle must be before anything in it is loaded.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use charrnn_core::error::BundleError;
use charrnn_core::manifest::{Bundle, MANIFEST};
use serde_json::{json, Value};

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name =
            format!("charrnn-manifest-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("temp folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn manifest() -> Value {
    json!({
        "format": "charrnn-bundle", "version": 1, "name": "tiny", "cell": "lstm", "num_layers": 1, "hidden_size": 2,
        "vocab": {"unit": "char", "symbols": [10, 97]}, "start_token": 0,
        "state": [{"name": "h0", "width": 2}, {"name": "c0", "width": 2}],
        "precisions": {"fp32": {"path": "step.onnx", "bpc": 2.5}},
        "files": {"step.onnx": {"sha256": sha256(b"graph"), "bytes": 5}},
        "a key of a later version": {},
    })
}

/// A bundle with a changed manifest.
fn bundle(change: impl FnOnce(&mut Value)) -> Folder {
    let (folder, mut manifest) = (Folder::new(), manifest());
    change(&mut manifest);
    fs::write(folder.0.join(MANIFEST), manifest.to_string()).expect("write");
    fs::write(folder.0.join("step.onnx"), b"graph").expect("write");
    folder
}

fn refusal(change: impl FnOnce(&mut Value)) -> String {
    let folder = bundle(change);
    let error = Bundle::open(&folder.0).expect_err("refused").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn a_good_bundle_opens() {
    let folder = bundle(|_| {});
    let bundle = Bundle::open(&folder.0).expect("good");
    assert_eq!((bundle.vocab.size(), bundle.spec.state_len(), bundle.start_token), (2, 4, 0));
    assert_eq!(bundle.end_token, None);
    assert_eq!(bundle.digest, sha256(bundle.manifest_json().as_bytes()));
    assert_eq!(bundle.default_precision(), "fp32");
    assert_eq!(bundle.read("fp32").expect("hash fits"), b"graph");
    bundle.verify_all().expect("hashes fit");
}

#[test]
fn a_model_of_documents_says_what_ends_them() {
    for (end, expected) in [(json!(0), Some(0)), (json!(null), None)] {
        let folder = bundle(|m| m["end_token"] = end);
        assert_eq!(Bundle::open(&folder.0).expect("good").end_token, expected);
    }
}

#[test]
fn int8_is_the_default_where_it_is() {
    let folder = bundle(|m| m["precisions"]["int8"] = json!({"path": "step.onnx", "bpc": null}));
    assert_eq!(Bundle::open(&folder.0).expect("good").default_precision(), "int8");
}

#[test]
fn a_changed_file_is_named_with_both_hashes() {
    let folder = bundle(|_| {});
    fs::write(folder.0.join("step.onnx"), b"grapg").expect("write");
    let bundle = Bundle::open(&folder.0).expect("the manifest is good");
    for error in [bundle.read("fp32").map(drop), bundle.verify_all()] {
        let text = error.expect_err("refused").to_string();
        for part in ["step.onnx is damaged", &sha256(b"graph"), &sha256(b"grapg")] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[test]
fn a_missing_file_and_a_missing_precision_are_named() {
    let folder = bundle(|_| {});
    let bundle = Bundle::open(&folder.0).expect("the manifest is good");
    let text = bundle.read("fp16").expect_err("refused").to_string();
    assert!(text.contains("no precision \"fp16\"; it has fp32"), "{text}");
    fs::remove_file(folder.0.join("step.onnx")).expect("remove");
    assert!(
        matches!(bundle.read("fp32"), Err(BundleError::Read { path, .. }) if path.ends_with("step.onnx"))
    );
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_bundle_is_not_followed() {
    let (folder, outside) = (bundle(|_| {}), Folder::new());
    fs::write(outside.0.join("graph"), b"graph").expect("write");
    fs::remove_file(folder.0.join("step.onnx")).expect("remove");
    std::os::unix::fs::symlink(outside.0.join("graph"), folder.0.join("step.onnx")).expect("link");
    let error = Bundle::open(&folder.0).expect("the manifest is good").read("fp32").expect_err("refused");
    assert!(error.to_string().contains("not a plain file"), "{error}");
    fs::rename(folder.0.join(MANIFEST), outside.0.join(MANIFEST)).expect("move");
    std::os::unix::fs::symlink(outside.0.join(MANIFEST), folder.0.join(MANIFEST)).expect("link");
    let error = Bundle::open(&folder.0).expect_err("refused");
    assert!(error.to_string().contains("not a plain file"), "{error}");
}

#[test]
fn a_folder_that_is_no_bundle_is_refused() {
    let folder = Folder::new();
    fs::write(folder.0.join(MANIFEST), "{\"format\": ").expect("write");
    assert!(matches!(Bundle::open(&folder.0), Err(BundleError::Json { .. })));
    fs::write(folder.0.join(MANIFEST), vec![b' '; (4 << 20) + 1]).expect("write");
    let error = Bundle::open(&folder.0).expect_err("refused");
    assert!(error.to_string().contains("4194305 bytes, the limit is 4194304"), "{error}");
}

#[test]
fn a_folder_without_a_manifest_is_told_what_it_is() {
    let folder = Folder::new();
    let refusal = |path: PathBuf| {
        let (text, shown) =
            (Bundle::open(&path).expect_err("refused").to_string(), path.display().to_string());
        text.replace(&shown, "DIR")
    };
    let start = "bundle manifest DIR/manifest.json: ";
    let wrote = "give the folder that `charrnn export` wrote";
    assert_eq!(refusal(folder.0.join("nope")), format!("{start}there is no folder DIR; {wrote}"));
    assert_eq!(refusal(folder.0.clone()), format!("{start}it is missing, so DIR is not a bundle; {wrote}"));
    fs::write(folder.0.join("run.json"), "{}").expect("write");
    assert_eq!(
        refusal(folder.0.clone()),
        format!("{start}DIR is a training run, not a bundle; export it first with `charrnn export DIR --out BUNDLE`")
    );
    assert_eq!(refusal(folder.0.join("run.json")), format!("{start}DIR is a file, not a bundle; {wrote}"));
}

#[test]
fn a_state_that_contradicts_the_shape_is_refused() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 7] = [
        (|m| m["cell"] = json!("elman"), "cell is \"elman\", expected lstm, gru or rnn"),
        (|m| m["cell"] = json!("gru"), "state has 2 tensors, but gru with num_layers 1 has 1"),
        (|m| m["num_layers"] = json!(2), "state has 2 tensors, but lstm with num_layers 2 has 4"),
        (
            |m| m["num_layers"] = json!(u32::MAX),
            "state has 2 tensors, but lstm with num_layers 4294967295 has 8589934590",
        ),
        (|m| m["hidden_size"] = json!(3), "state \"h0\" has width 2, but hidden_size is 3"),
        (|m| m["state"][1]["width"] = json!(5), "state \"c0\" has width 5, but hidden_size is 2"),
        (|m| m["state"][1]["name"] = json!("c1"), "state has no \"c0\", but lstm with num_layers 1 has it"),
    ];
    for (change, expected) in cases {
        let error = refusal(change);
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
    for cell in ["gru", "rnn"] {
        let folder = bundle(|m| {
            (m["cell"], m["num_layers"]) = (json!(cell), json!(2));
            m["state"][1]["name"] = json!("h1");
        });
        Bundle::open(&folder.0).expect("good");
    }
}

#[test]
fn every_rule_of_the_manifest_is_kept() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 18] = [
        (|m| m["format"] = json!("other"), "format is \"other\", expected \"charrnn-bundle\""),
        (|m| m["version"] = json!(2), "format version is 2, this charrnn reads 1"),
        (|m| m["name"] = json!(""), "name must be"),
        (|m| m["name"] = json!("a/b"), "name must be"),
        (|m| m["start_token"] = json!(2), "start_token 2 is not below the vocabulary's size 2"),
        (|m| m["end_token"] = json!(2), "end_token 2 is not below the vocabulary's size 2"),
        (|m| m["end_token"] = json!(1), "end_token is 1, but start_token is 0"),
        (|m| m["vocab"]["symbols"] = json!([]), "start_token 0 is not below the vocabulary's size 0"),
        (
            |m| m["vocab"]["symbols"] = json!([97, 97]),
            "character 'a' (U+0061) stands at index 0 and again at 1",
        ),
        (
            |m| m["vocab"]["symbols"] = json!([10, 0xD800]),
            "symbol 1 is 0xd800, which is not a Unicode character",
        ),
        (|m| m["vocab"]["unit"] = json!("word"), "damaged: unknown variant"),
        (|m| m["state"] = json!([]), "state is empty"),
        (|m| m["state"][0]["width"] = json!(0), "state \"h0\" has width 0"),
        (|m| m["state"][0]["width"] = json!(1 << 30), "state \"h0\" has width 1073741824"),
        (|m| m["state"][1]["name"] = json!("h0"), "state \"h0\" stands twice"),
        (|m| m["precisions"] = json!({}), "precisions is empty"),
        (
            |m| m["precisions"]["fp32"]["path"] = json!("other.onnx"),
            "file \"other.onnx\" of a precision has no sha256",
        ),
        (|m| m["files"]["../up"] = json!({"sha256": "", "bytes": 0}), "file \"../up\" is not a plain name"),
    ];
    for (change, expected) in cases {
        let error = refusal(change);
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
    for name in ["/etc/passwd", "..", ".", "", "a\\b", "C:x", "sub/step.onnx"] {
        let error = refusal(|m| m["files"][name] = json!({"sha256": "", "bytes": 0}));
        assert!(error.contains("is not a plain name"), "{name}: {error}");
    }
}
