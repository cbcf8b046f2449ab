//! A library that is not ONNX Runtime is an error that names it, and does not spoil the process.

use std::path::Path;

use charrnn_serve::{OrtError, OrtRuntime};

#[test]
fn missing_and_foreign_libraries_are_named() {
    let foreign = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    for path in [Path::new("/nowhere/libonnxruntime.so"), &foreign] {
        let error = OrtRuntime::load(path).expect_err("no ONNX Runtime");
        assert!(matches!(&error, OrtError::Library { path: named, .. } if named == path), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}
