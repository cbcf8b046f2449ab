//! The committed protobuf code is what the proto file says; `CHARRNN_WRITE_PROTO=1` writes it instead.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

const PROTO: &str = "charrnn/v1/charrnn.proto";
const CODE: &str = "charrnn.v1.rs";
const DESCRIPTORS: &str = "charrnn.v1.bin";

/// The generated files by name.
fn generate() -> Vec<(&'static str, Vec<u8>)> {
    let proto_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let mut compiler = protox::Compiler::new([proto_dir]).expect("the proto folder");
    compiler.include_imports(true).include_source_info(true);
    let mut files = compiler.open_file(PROTO).expect("a valid proto file").file_descriptor_set();
    let out_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proto");
    fs::create_dir_all(&out_dir).expect("a temporary folder");
    tonic_prost_build::configure()
        .out_dir(&out_dir)
        .codec_path("crate::codec::SmallBuffers")
        .emit_rerun_if_changed(false)
        .compile_fds(files.clone())
        .expect("generated code");
    // Reflection needs the types; the comments would triple its size.
    files.file.iter_mut().for_each(|file| file.source_code_info = None);
    vec![(CODE, fs::read(out_dir.join(CODE)).expect("generated code")), (DESCRIPTORS, files.encode_to_vec())]
}

fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pb").join(name)
}

#[test]
fn committed_code_is_what_the_proto_file_says() {
    let write = std::env::var_os("CHARRNN_WRITE_PROTO").is_some_and(|value| value == "1");
    for (name, contents) in generate() {
        if write {
            fs::write(committed(name), &contents).expect("a writable source folder");
        }
        let found = fs::read(committed(name)).expect("a committed file");
        assert!(found == contents, "src/pb/{name} is stale: run `make proto` and commit the result");
    }
}
