//! `.npy` files, right and wrong.
#![forbid(unsafe_code)]

use super::super::npy;
use super::super::testing::{in_memory, npy, npy_dict};
use super::*;

fn parse(bytes: &[u8]) -> Result<Tensor> {
    let (file, mapping) = in_memory(bytes);
    npy::parse(&file, &mapping)
}

#[test]
fn as_numpy_writes_them() {
    for (shape, dims) in [("(2, 3)", vec![2, 3]), ("(6,)", vec![6]), ("(1, 6, 1)", vec![1, 6, 1])] {
        let file = npy(&npy_dict(shape), &floats(6));
        assert_eq!(file.len(), 128 + 24, "NumPy's header for such a shape takes 128 bytes");
        let tensor = parse(&file).unwrap();
        assert_eq!((tensor.dtype, &tensor.shape, &tensor.data[..]), (DType::F32, &dims, &floats(6)[..]));
    }
    assert_eq!(parse(&npy(&npy_dict("()"), &floats(1))).unwrap().shape, [] as [usize; 0]);
    // Order of keys, quotes, spaces and the last comma are free in Python.
    let other = r#" { "shape" : (2,3,) , "fortran_order":False,"descr":"<f4"}"#;
    assert_eq!(parse(&npy(other, &floats(6))).unwrap().shape, [2, 3]);
}

#[test]
fn npy_versions() {
    let v1 = npy(&npy_dict("(6,)"), &floats(6));
    for (major, minor) in [(2, 0), (3, 0)] {
        let len = u32::from(u16::from_le_bytes([v1[8], v1[9]]));
        let file = [b"\x93NUMPY", &[major, minor][..], &len.to_le_bytes(), &v1[10..]].concat();
        assert_eq!(parse(&file).unwrap().shape, [6]);
    }
    for (major, minor) in [(0, 0), (1, 1), (4, 0)] {
        let file = [b"\x93NUMPY", &[major, minor][..], &v1[8..]].concat();
        refused(parse(&file), &["in-memory", "expected .npy version", &format!("[{major}, {minor}]")]);
    }
    refused(parse(b"NUMPY"), &["not a .npy file"]);
}

#[test]
fn npy_header_length() {
    refused(parse(b"\x93NUMPY\x01\x00\xff\xff{"), &["ends inside its header"]);
    refused(parse(b"\x93NUMPY\x02\x00\x00\x00\x01\x00{"), &["65536 bytes, expected at most 65535"]);
    refused(parse(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"), &["4294967295 bytes, expected at most"]);
}

#[test]
fn npy_types() {
    let with = |descr: &str, order: &str| npy(&npy_dict("(6,)").replace("'<f4'", descr).replace("False", order), &floats(6));
    for (descr, name) in [
        ("'>f4'", "big-endian"),
        ("'<f2'", "float16"),
        ("'<f8'", "float64"),
        ("'|O'", "pickle"),
        ("'<i8'", "int64"),
        ("'|V4'", "another type"),
        ("''", "another type"),
        ("'é'", "another type"),
        ("[('a', '<f4')]", "structured"),
        ("<f4", "expected"),
    ] {
        refused(parse(&with(descr, "False")), &["in-memory", name]);
    }
    refused(parse(&with("'<f4'", "True")), &["Fortran order"]);
    refused(parse(&with("'<f4'", "None")), &["expected True or False"]);
}

#[test]
fn npy_sizes() {
    for n in [0, 5, 7] {
        let data = format!("needs 24 bytes of data, found {}", n * 4);
        refused(parse(&npy(&npy_dict("(2, 3)"), &floats(n))), &[&data]);
    }
    // 80 bytes that claim 2^66.
    refused(parse(&npy(&npy_dict("(4294967296, 4294967296)"), &[])), &["more than this machine can address"]);
}

#[test]
fn npy_shapes() {
    for shape in ["(6)", "(-6,)", "(6.0,)", "6", "(6,", "((6,),)", "(99999999999999999999999,)", "(6 6)", "(,)"] {
        refused(parse(&npy(&npy_dict(shape), &floats(6))), &["in the header"]);
    }
    refused(parse(&npy(&npy_dict("(1,1,1,1,1,1,1,1,1)"), &floats(1))), &["more than 8 dimensions"]);
}

#[test]
fn npy_dictionaries() {
    for (dict, reason) in [
        ("", "expected '{'"),
        ("{}", "no \"descr\""),
        ("{'descr': '<f4', 'shape': (1,)}", "no \"fortran_order\""),
        ("{'descr': '<f4', 'fortran_order': False}", "no \"shape\""),
        ("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", "twice"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", "unexpected key"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} + {}", "something after"),
        ("{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}", "expected '}'"),
        ("{'descr': '<f4", "has no end"),
        ("{'descr': '\\x3cf4'}", "unexpected escape"),
    ] {
        refused(parse(&npy(dict, &floats(1))), &["in-memory", reason]);
    }
}
