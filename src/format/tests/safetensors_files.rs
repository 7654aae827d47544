//! safetensors files, right and wrong.
#![forbid(unsafe_code)]

use super::super::safetensors::{self, Parsed};
use super::super::testing::{in_memory, safetensors};
use super::*;

fn parse(bytes: &[u8]) -> Result<Parsed> {
    let (file, mapping) = in_memory(bytes);
    safetensors::parse(&file, &mapping)
}

/// The header's entry of one tensor.
fn entry(name: &str, dtype: &str, shape: &str, start: usize, end: usize) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

fn file(entries: &[String], data_len: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..data_len).map(|i| i as u8).collect();
    safetensors(&format!("{{{}}}", entries.join(",")), &data)
}

/// Every type that we read, one that we do not, a scalar and an empty tensor.
pub(super) fn small() -> Vec<u8> {
    let entries = [
        r#""__metadata__":{"format":"pt"}"#.to_string(),
        entry("b", "F16", "[4]", 24, 32),
        entry("a", "F32", "[2,3]", 0, 24),
        entry("c", "BF16", "[2,1]", 32, 36),
        entry("mask", "BOOL", "[1,1,2]", 36, 38),
        entry("scalar", "F32", "[]", 38, 42),
        entry("nothing", "F32", "[0,7]", 42, 42),
    ];
    file(&entries, 42)
}

#[test]
fn small_file() {
    let bytes = small();
    let parsed = parse(&bytes).unwrap();
    let found: Vec<_> = parsed.tensors.iter().map(|(n, t)| (n.as_str(), t.dtype, &t.shape[..], t.data.len())).collect();
    let expected: [(&str, DType, &[usize], usize); 5] = [
        ("a", DType::F32, &[2, 3], 24),
        ("b", DType::F16, &[4], 8),
        ("c", DType::BF16, &[2, 1], 4),
        ("nothing", DType::F32, &[0, 7], 0),
        ("scalar", DType::F32, &[], 4),
    ];
    assert_eq!(found, expected);
    assert_eq!(parsed.tensors["b"].data[..], [24, 25, 26, 27, 28, 29, 30, 31]);
}

#[test]
fn safetensors_skips() {
    let parsed = parse(&small()).unwrap();
    assert_eq!(parsed.skipped.into_iter().collect::<Vec<_>>(), [("mask".to_string(), "BOOL".to_string())]);
    refused(parse(&file(&[entry("a", "Q9", "[1]", 0, 4)], 4)), &["in-memory", "\"a\"", "unknown type \"Q9\""]);
}

#[test]
fn safetensors_header_length() {
    for n in 0..8 {
        refused(parse(&[1; 8][..n]), &["too few"]);
    }
    refused(parse(&100_000_001u64.to_le_bytes()), &["expected at most 100000000"]);
    refused(parse(&u64::MAX.to_le_bytes()), &["expected at most 100000000"]);
    refused(parse(&100_000_000u64.to_le_bytes()), &["truncated", "0 follow"]);
    refused(parse(&safetensors("", &[])), &["does not start with '{'"]);
    refused(parse(&safetensors(" {}", &[])), &["does not start with '{'"]);
    assert!(parse(&safetensors("{}   ", &[])).unwrap().tensors.is_empty(), "padding is allowed");
}

#[test]
fn safetensors_duplicates() {
    let twice = [entry("a", "F32", "[1]", 0, 4), entry("a", "F32", "[1]", 4, 8)];
    refused(parse(&file(&twice, 8)), &["\"a\" is there twice"]);
    let metadata = r#""__metadata__":{}"#.to_string();
    refused(parse(&file(&[metadata.clone(), metadata], 0)), &["twice"]);
    refused(parse(&safetensors(r#"{"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}"#, &[0; 4])), &["dtype"]);
}

#[test]
fn safetensors_shapes() {
    let huge = format!("[{0},{0}]", 1u64 << 32);
    refused(parse(&file(&[entry("a", "F32", &huge, 0, 4)], 4)), &["\"a\"", "do not hold shape"]);
    let almost = format!("[{}]", usize::MAX);
    refused(parse(&file(&[entry("a", "F32", &almost, 0, 4)], 4)), &["do not hold shape"]);
    for shape in ["[-1]", "[1.0]", "[\"1\"]", "1", "[99999999999999999999]", "null"] {
        refused(parse(&file(&[entry("a", "F32", shape, 0, 4)], 4)), &["header: "]);
    }
    refused(parse(&file(&[entry("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4)], 4)), &["at most 8 sizes"]);
}

#[test]
fn safetensors_sizes() {
    for (dtype, bytes) in [("F32", 20), ("F32", 28), ("F16", 24), ("BF16", 11), ("F64", 24)] {
        refused(parse(&file(&[entry("a", dtype, "[2,3]", 0, bytes)], bytes)), &["\"a\"", dtype, "do not hold"]);
    }
    // Half a byte is no size.
    refused(parse(&file(&[entry("a", "F4", "[3]", 0, 2)], 2)), &["do not hold"]);
    assert_eq!(parse(&file(&[entry("a", "F4", "[4]", 0, 2)], 2)).unwrap().skipped["a"], "F4");
}

#[test]
fn safetensors_ranges() {
    let pair = |a: (usize, usize), b: (usize, usize), data: usize| {
        parse(&file(&[entry("a", "F32", "[2]", a.0, a.1), entry("b", "F32", "[2]", b.0, b.1)], data))
    };
    assert!(pair((8, 16), (0, 8), 16).is_ok());
    refused(pair((0, 8), (4, 12), 12), &["\"b\"", "4..12", "start at 8"]);
    refused(pair((0, 8), (0, 8), 8), &["start at 8"]);
    refused(pair((0, 8), (12, 20), 20), &["start at 8"]);
    refused(pair((4, 12), (12, 20), 20), &["start at 0"]);
    refused(pair((0, 8), (8, 16), 17), &["16 bytes, but 17 follow"]);
    refused(pair((0, 8), (8, 16), 15), &["16 bytes, but 15 follow", "truncated?"]);
    refused(pair((0, 8), (8, 0), 8), &["\"b\"", "8..0"]);
    refused(pair((0, 8), (8, usize::MAX), 16), &["but 16 follow"]);
}

#[test]
fn json_nesting() {
    // In a field that nobody reads: walked over without recursion, or refused; not a stack overflow.
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let _ = parse(&safetensors(&format!(r#"{{"a":{{"x":{deep},"dtype":"F32","shape":[],"data_offsets":[0,4]}}}}"#), &[0; 4]));
    refused(parse(&safetensors(&format!(r#"{{"a":{deep}}}"#), &[])), &["header: "]);
}

#[test]
fn headers_that_are_not_one() {
    for header in ["{", "{]", r#"{"a":1}"#, r#"{"a":{}}"#, r#"{"__metadata__":1}"#, r#"{"__metadata__":{"a":1}}"#, "{}{}"] {
        refused(parse(&safetensors(header, &[])), &["in-memory: header: "]);
    }
    let not_text = [&2u64.to_le_bytes()[..], b"{\xff"].concat();
    refused(parse(&not_text), &["not UTF-8"]);
}
