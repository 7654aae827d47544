//! What `open` makes of files and directories.
#![forbid(unsafe_code)]

use super::super::testing::{Gguf, TempDir, npy, npy_dict, safetensors};
use super::*;
use crate::ErrorKind;

/// A safetensors file with float32 scalars of these names.
fn weights(names: &[&str]) -> Vec<u8> {
    let entry =
        |(i, name): (usize, &&str)| format!(r#""{name}":{{"dtype":"F32","shape":[],"data_offsets":[{},{}]}}"#, 4 * i, 4 * i + 4);
    let entries: Vec<String> = names.iter().enumerate().map(entry).collect();
    safetensors(&format!("{{{}}}", entries.join(",")), &floats(names.len()))
}

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.tensors.keys().map(String::as_str).collect()
}

#[track_caller]
fn fails(path: &Path, kind: ErrorKind, parts: &[&str]) {
    let result = open(path, MapMode::Map);
    assert_eq!(result.as_ref().err().map(Error::kind), Some(kind), "{:?}", result.as_ref().err());
    refused(result, &[parts, &[path.to_str().unwrap()]].concat());
}

#[test]
fn hugging_face() {
    let dir = TempDir::new();
    let file = dir.write("model.safetensors", &weights(&["a", "b"]));
    fails(dir.path(), ErrorKind::NotFound, &["config.json", "not found"]);
    dir.write("config.json", br#"{"model_type":"x"}"#);
    for path in [dir.path(), &file] {
        let checkpoint = open(path, MapMode::Map).unwrap();
        assert_eq!((checkpoint.kind, names(&checkpoint)), (Kind::HuggingFace, vec!["a", "b"]));
        assert_eq!((checkpoint.path.as_path(), checkpoint.dir.as_path()), (path, dir.path()));
        assert_eq!(checkpoint.config.as_ref().unwrap()["model_type"], "x");
        assert_eq!(checkpoint.tensor("b").unwrap().file.as_path(), file);
        refused(checkpoint.tensor("c").map(drop), &["no tensor \"c\""]);
    }
}

#[test]
fn skipped_tensors_are_named_when_asked_for() {
    let dir = TempDir::new();
    let header = r#"{"w":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}"#;
    dir.write("config.json", b"{}");
    dir.write("model.safetensors", &safetensors(header, &[0; 4]));
    let checkpoint = open(dir.path(), MapMode::Map).unwrap();
    let error = checkpoint.tensor("w").map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    refused(Err::<(), _>(error), &["\"w\"", "I8"]);
}

#[test]
fn configurations() {
    let dir = TempDir::new();
    dir.write("model.safetensors", &weights(&["a"]));
    for (config, message) in [("{", "line 1 column 1"), ("[]", "expected a JSON object"), ("", "EOF"), ("\u{feff}{}", "column 1")]
    {
        dir.write("config.json", config.as_bytes());
        fails(dir.path(), ErrorKind::BadFile, &["config.json", message]);
    }
    let deep = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    dir.write("config.json", deep.as_bytes());
    fails(dir.path(), ErrorKind::BadFile, &["config.json", "recursion limit"]);
    let large = dir.write("config.json", b"{}");
    std::fs::File::options().write(true).open(large).unwrap().set_len((16 << 20) + 1).unwrap();
    fails(dir.path(), ErrorKind::BadFile, &["config.json", "16777217 bytes, expected at most 16777216"]);
}

/// A directory with two shards that hold `a`, `b` and `c`, and this index.
fn sharded(index: &str) -> TempDir {
    let dir = TempDir::new();
    dir.write("config.json", b"{}");
    dir.write("one.safetensors", &weights(&["a", "b"]));
    dir.write("two.safetensors", &weights(&["c"]));
    dir.write("model.safetensors.index.json", index.as_bytes());
    dir
}

const INDEX: &str =
    r#"{"metadata":{"total_size":12},"weight_map":{"a":"one.safetensors","b":"one.safetensors","c":"two.safetensors"}}"#;

#[test]
fn shards() {
    let dir = sharded(INDEX);
    let checkpoint = open(dir.path(), MapMode::Map).unwrap();
    assert_eq!((names(&checkpoint), checkpoint.files.len()), (vec!["a", "b", "c"], 2));
    assert_eq!(checkpoint.tensor("c").unwrap().file.as_path(), dir.path().join("two.safetensors"));
}

#[test]
fn shard_names() {
    for shard in ["../one.safetensors", "/etc/passwd", "x/one.safetensors", "..", ".", "", "..\\\\one.safetensors", "a\\u0000"] {
        let dir = sharded(&INDEX.replace("one.safetensors", shard));
        fails(dir.path(), ErrorKind::BadFile, &["index.json", "not a plain file name"]);
    }
    let dir = sharded(&INDEX.replace("two", "three"));
    fails(dir.path(), ErrorKind::NotFound, &["three.safetensors"]);
}

#[test]
fn shard_contents() {
    for (index, message) in [
        (INDEX.replace("\"c\"", "\"d\""), "\"d\" is not in shard \"two.safetensors\""),
        (INDEX.replace("\"b\":\"one", "\"b\":\"two"), "\"b\" is not in shard"),
        (INDEX.replace("\"b\":", "\"a\":"), "\"a\" is there twice"),
        (INDEX.replace("weight_map", "weights"), "weight_map"),
        (r#"{"weight_map":{}}"#.to_string(), "weight_map is empty"),
        (r#"{"weight_map":{"a":1}}"#.to_string(), "invalid type"),
        ("{".to_string(), "EOF"),
    ] {
        fails(sharded(&index).path(), ErrorKind::BadFile, &["index.json", message]);
    }
    let dir = sharded(INDEX);
    dir.write("two.safetensors", &weights(&["c", "a"]));
    fails(dir.path(), ErrorKind::BadFile, &["two.safetensors", "\"a\" is in another file too"]);
}

#[test]
fn several_safetensors_need_an_index() {
    let dir = TempDir::new();
    dir.write("config.json", b"{}");
    dir.write("other-name.safetensors", &weights(&["a"]));
    assert_eq!(open(dir.path(), MapMode::Map).unwrap().tensors.len(), 1);
    dir.write("second.safetensors", &weights(&["b"]));
    fails(dir.path(), ErrorKind::BadFile, &["2 .safetensors files", "model.safetensors.index.json"]);
}

#[test]
fn npy_directories() {
    let dir = TempDir::new();
    dir.write("model.norm.weight.npy", &npy(&npy_dict("(6,)"), &floats(6)));
    dir.write("lm_head.weight.npy", &npy(&npy_dict("(2, 3)"), &floats(6)));
    dir.write("._lm_head.weight.npy", b"left behind by a file manager");
    dir.write("vocab.txt", b"");
    let checkpoint = open(dir.path(), MapMode::Map).unwrap();
    assert_eq!((checkpoint.kind, names(&checkpoint)), (Kind::Npy, vec!["lm_head.weight", "model.norm.weight"]));
    assert!(checkpoint.config.is_none() && checkpoint.dir == dir.path());
    dir.write("config.json", br#"{"rope_theta":1}"#);
    assert_eq!(open(dir.path(), MapMode::Map).unwrap().config.unwrap()["rope_theta"], 1);
    let file = dir.write("x.npy", b"");
    fails(dir.path(), ErrorKind::BadFile, &["x.npy", "empty"]);
    fails(&file, ErrorKind::Unsupported, &["an empty file"]);
    fails(&dir.path().join("lm_head.weight.npy"), ErrorKind::Unsupported, &["give the path of its directory"]);
}

#[test]
fn gguf_by_content() {
    let dir = TempDir::new();
    let file = dir.write("a.gguf", &Gguf::new().tensor("t", &[2], 0, &floats(2)).build());
    let odd_name = dir.write("weights.bin", &Gguf::new().build());
    for path in [dir.path(), &file] {
        let checkpoint = open(path, MapMode::Map).unwrap();
        assert_eq!((checkpoint.kind, names(&checkpoint), checkpoint.dir.as_path()), (Kind::Gguf, vec!["t"], dir.path()));
        assert!(checkpoint.config.is_none() && checkpoint.metadata.is_some());
    }
    assert_eq!(open(&odd_name, MapMode::Map).unwrap().kind, Kind::Gguf);
    dir.write("b.gguf", &Gguf::new().build());
    fails(dir.path(), ErrorKind::BadFile, &["several GGUF files (a.gguf"]);
}

#[test]
fn safetensors_come_before_gguf_and_npy() {
    let dir = TempDir::new();
    dir.write("config.json", b"{}");
    dir.write("a.gguf", &Gguf::new().build());
    dir.write("x.npy", &npy(&npy_dict("(6,)"), &floats(6)));
    assert_eq!(open(dir.path(), MapMode::Map).unwrap().kind, Kind::Npy);
    dir.write("model.safetensors", &weights(&["a"]));
    assert_eq!(open(dir.path(), MapMode::Map).unwrap().kind, Kind::HuggingFace);
}

#[test]
fn nothing_that_is_read() {
    let dir = TempDir::new();
    fails(dir.path(), ErrorKind::NotFound, &["looked for model.safetensors", "*.gguf", "an empty directory"]);
    fails(&dir.path().join("missing"), ErrorKind::NotFound, &["cannot open"]);
    fails(Path::new("/dev/null"), ErrorKind::BadFile, &["expected a regular file"]);
    dir.write("config.json", b"{}");
    fails(dir.path(), ErrorKind::NotFound, &["found 1 entry: config.json"]);
    dir.write("pytorch_model.bin", b"PK\x03\x04");
    fails(dir.path(), ErrorKind::Unsupported, &["pytorch_model.bin", "convert the model to safetensors"]);
    for (content, what) in [
        (&b"PK\x03\x04"[..], "a zip archive"),
        (b"\x80\x02}q", "a Python pickle"),
        (b"tjgg\x03\0\0\0", "older than GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"hello, world", "a text file"),
        (b"\xff\xfe\xfd", "begins with \"\\xff\\xfe\\xfd\""),
        (b"GGUX\x03\xff", "begins with \"GGUX\" (GGUF files begin with \"GGUF\")"),
        (b"", "an empty file"),
    ] {
        fails(&dir.write("file", content), ErrorKind::Unsupported, &[what]);
    }
    dir.write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid");
    fails(dir.path(), ErrorKind::BadFile, &["model.safetensors", "git lfs pull"]);
}
