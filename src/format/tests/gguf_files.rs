//! GGUF files, right and wrong.
#![forbid(unsafe_code)]

use super::super::gguf::{self, Metadata, Parsed};
use super::super::testing::{Gguf, TempDir, gguf_array, gguf_string, in_memory};
use super::*;
use crate::error::ErrorKind;

const F32: u32 = 0;
const F16: u32 = 1;
const BF16: u32 = 30;
const Q4_0: u32 = 2;

fn parse(bytes: &[u8]) -> Result<Parsed> {
    let (file, mapping) = in_memory(bytes);
    gguf::parse(&file, &mapping)
}

/// A value of every type, and arrays.
fn entries() -> Gguf {
    let strings = ["one", "two", "drei und ä"].map(gguf_string).concat();
    let nested = [gguf_array(0, 2, &[1, 2]), gguf_array(0, 0, &[])].concat();
    Gguf::new()
        .entry("u8", 0, &[200])
        .entry("i8", 1, &[0xff])
        .entry("u16", 2, &60_000u16.to_le_bytes())
        .entry("i16", 3, &(-2i16).to_le_bytes())
        .entry("u32", 4, &4_000_000_000u32.to_le_bytes())
        .entry("i32", 5, &(-3i32).to_le_bytes())
        .entry("f32", 6, &1.5f32.to_le_bytes())
        .entry("bool", 7, &[1])
        .entry("not a bool", 7, &[2])
        .entry("string", 8, &gguf_string("text"))
        .entry("u64", 10, &u64::MAX.to_le_bytes())
        .entry("i64", 11, &7i64.to_le_bytes())
        .entry("f64", 12, &0.25f64.to_le_bytes())
        .entry("strings", 9, &gguf_array(8, 3, &strings))
        .entry("floats", 9, &gguf_array(6, 3, &floats(3)))
        .entry("ints", 9, &gguf_array(5, 2, &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]))
        .entry("bytes", 9, &gguf_array(0, 3, &[1, 2, 3]))
        .entry("nested", 9, &gguf_array(9, 2, &nested))
        .entry("empty", 9, &gguf_array(8, 0, &[]))
        .entry("not text", 8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xc3, 0x28])
}

/// Metadata of every type and a tensor of every type that we read.
pub(super) fn small() -> Vec<u8> {
    entries()
        .tensor("a", &[3, 2], F32, &floats(6))
        .tensor("b", &[4], F16, &[1; 8])
        .tensor("c", &[1, 2, 1, 1], BF16, &[2; 4])
        .tensor("d", &[64, 3], Q4_0, &[3; 108])
        .build()
}

#[test]
fn small_file() {
    let parsed = parse(&small()).unwrap();
    let found: Vec<_> = parsed.tensors.iter().map(|(n, t)| (n.as_str(), t.dtype, &t.shape[..], &t.data[..])).collect();
    let a = floats(6);
    let expected: [(&str, DType, &[usize], &[u8]); 4] = [
        ("a", DType::F32, &[2, 3], &a),
        ("b", DType::F16, &[4], &[1; 8]),
        ("c", DType::BF16, &[1, 1, 2, 1], &[2; 4]),
        ("d", DType::Quant(Quant::Q4_0), &[3, 64], &[3; 108]),
    ];
    assert_eq!(found, expected, "dimensions are turned round to outermost first");
}

#[test]
fn slices_of_the_first_dimension() {
    let file =
        Gguf::new().tensor("t", &[32, 2, 3], Q4_0, &[[1; 36], [2; 36], [3; 36]].concat()).tensor("v", &[64], Q4_0, &[0; 36]);
    let tensors = parse(&file.build()).unwrap().tensors;
    for i in 0..3 {
        let part = tensors["t"].slice_first(i).unwrap();
        assert_eq!((&part.shape[..], &part.data[..]), (&[2, 32][..], &[i as u8 + 1; 36][..]));
        assert_eq!(part.slice_first(1).unwrap().data.len(), 18);
    }
    assert!(tensors["t"].slice_first(3).is_none());
    assert!(tensors["v"].slice_first(0).is_none(), "not a whole block");
}

fn metadata() -> Metadata {
    parse(&entries().build()).unwrap().metadata
}

#[test]
fn gguf_metadata_values() {
    let m = metadata();
    assert_eq!(m.keys().count(), 20);
    assert!(m.contains("u8") && !m.contains("u9"));
    for (key, value) in [("u8", 200), ("u16", 60_000), ("u32", 4_000_000_000), ("u64", u64::MAX), ("i64", 7)] {
        assert_eq!(m.get_u64(key).unwrap(), Some(value), "{key}");
    }
    assert_eq!((m.get_f32("f32").unwrap(), m.get_f32("f64").unwrap()), (Some(1.5), Some(0.25)));
    assert_eq!((m.get_bool("bool").unwrap(), m.get_str("string").unwrap()), (Some(true), Some("text")));
    assert_eq!(m.str_array("strings").unwrap().unwrap(), ["one", "two", "drei und ä"]);
    assert_eq!(m.str_array("empty").unwrap().unwrap(), [] as [&str; 0]);
    assert_eq!(m.f32_array("floats").unwrap().unwrap(), [0.0, 1.0, 2.0]);
    assert_eq!(m.i32_array("ints").unwrap().unwrap(), [1, -1]);
    assert_eq!(m.u32_array("bytes").unwrap().unwrap(), [1, 2, 3]);
    // What is not there is not an error until someone needs it.
    assert!(m.get_str("x").unwrap().is_none() && m.get_u64("x").unwrap().is_none() && m.get_f32("x").unwrap().is_none());
    assert!(m.get_bool("x").unwrap().is_none() && m.str_array("x").unwrap().is_none() && m.i32_array("x").unwrap().is_none());
    refused(Err::<(), _>(m.missing("x")), &["in-memory", "metadata key \"x\" is not there"]);
}

#[test]
fn gguf_metadata_types() {
    let m = metadata();
    refused(m.get_str("u8"), &["in-memory", "\"u8\"", "expected a string", "found u8 200"]);
    refused(m.get_u64("i8"), &["expected an integer of at least 0", "found i8 -1"]);
    refused(m.get_u64("f32"), &["expected an integer", "found f32 1.5"]);
    refused(m.get_u64("bool"), &["expected an integer", "found bool"]);
    refused(m.get_f32("u32"), &["expected a floating-point number", "found u32 4000000000"]);
    refused(m.get_bool("u8"), &["expected a bool", "found u8"]);
    refused(m.get_bool("not a bool"), &["is not a bool"]);
    refused(m.get_str("not text"), &["\"not text\"", "not UTF-8"]);
    refused(m.get_str("strings"), &["expected a string", "found an array of 3 string"]);
    refused(m.str_array("string"), &["expected an array of strings", "found string"]);
    refused(m.str_array("floats"), &["expected an array of strings", "found an array of 3 f32"]);
    refused(m.f32_array("ints"), &["found an array of 2 i32"]);
    refused(m.i32_array("floats"), &["expected an array of 32-bit integers", "found an array of 3 f32"]);
    refused(m.u32_array("ints"), &["at least 0", "found an array of 2 i32"]);
    refused(m.i32_array("nested"), &["found an array of 2 array"]);
}

#[test]
fn gguf_versions() {
    let with = |version| parse(&Gguf { version, ..Gguf::new() }.build());
    assert!(with(2).is_ok() && with(3).is_ok());
    refused(with(1), &["in-memory", "version 1"]);
    refused(with(0), &["version 0"]);
    refused(with(4), &["version 4"]);
    refused(with(3u32.swap_bytes()), &["big-endian"]);
    refused(parse(b"GGUX"), &["does not start with \"GGUF\""]);
}

#[test]
fn gguf_counts() {
    for n in [1, 1 << 17, (1 << 17) + 1, u64::MAX] {
        refused(parse(&Gguf { n_tensors: n, ..Gguf::new() }.build()), &[&n.to_string(), "tensors cannot be"]);
        refused(parse(&Gguf { n_keys: n, ..Gguf::new() }.build()), &[&n.to_string(), "metadata keys cannot be"]);
    }
}

#[test]
fn gguf_array_counts() {
    for (element, what) in [(0, "u8"), (4, "u32"), (8, "string"), (9, "array"), (12, "f64")] {
        for count in [1000, 1 << 61, u64::MAX] {
            let file = Gguf::new().entry("k", 9, &gguf_array(element, count, &[0; 40])).build();
            refused(parse(&file), &["\"k\"", &format!("{count} elements of {what} cannot be in")]);
        }
    }
    refused(parse(&Gguf::new().entry("k", 9, &gguf_array(13, 0, &[])).build()), &["\"k\"", "unknown value type 13"]);
    refused(parse(&Gguf::new().entry("k", 13, &[]).build()), &["unknown value type 13"]);
    refused(parse(&Gguf::new().entry("k", 8, &[0xff; 8]).build()), &["truncated: metadata key \"k\""]);
}

#[test]
fn gguf_names() {
    refused(parse(&Gguf::new().entry("k", 0, &[1]).entry("k", 0, &[1]).build()), &["\"k\" is there twice"]);
    let two = Gguf::new().tensor("t", &[1], F32, &[0; 4]).tensor("t", &[1], F32, &[0; 4]);
    refused(parse(&two.build()), &["two tensors are named \"t\""]);
    let named = |n| parse(&Gguf::new().tensor(&"t".repeat(n), &[1], F32, &[0; 4]).build());
    assert!(named(256).is_ok());
    refused(named(257), &["257 bytes, expected at most 256"]);
    let key = |n| parse(&Gguf::new().entry(&"k".repeat(n), 0, &[1]).build());
    assert!(key(65_535).is_ok());
    refused(key(65_536), &["65536 bytes, expected at most 65535"]);
    for (file, what) in
        [(Gguf::new().entry("~~", 0, &[1]), "a metadata key"), (Gguf::new().tensor("~~", &[1], F32, &[0; 4]), "name")]
    {
        let mut bytes = file.build();
        let at = bytes.windows(2).position(|w| w == b"~~").unwrap();
        bytes[at..at + 2].copy_from_slice(&[0xc3, 0x28]);
        refused(parse(&bytes), &[what, "not UTF-8"]);
    }
}

#[test]
fn gguf_nesting() {
    let deep = |n| (0..n).fold(gguf_array(0, 0, &[]), |inner, _| gguf_array(9, 1, &inner));
    assert!(parse(&Gguf::new().entry("k", 9, &deep(7)).build()).is_ok());
    refused(parse(&Gguf::new().entry("k", 9, &deep(8)).build()), &["\"k\"", "more than 8 deep"]);
    refused(parse(&Gguf::new().entry("k", 9, &deep(10_000)).build()), &["more than 8 deep"]);
}

#[test]
fn gguf_dimensions() {
    let with = |dims: &[u64]| parse(&Gguf::new().info("t", dims, F32, 0).data(&[0; 64]).build());
    assert!(with(&[1, 2, 3, 1]).is_ok());
    refused(with(&[]), &["\"t\"", "1 to 4 dimensions, found 0"]);
    refused(with(&[1; 5]), &["found 5"]);
    refused(with(&[2, 0]), &["dimension 0 is zero"]);
    refused(with(&[1 << 24, 1 << 24]), &["more than 2^48"]);
    refused(with(&[u64::MAX, u64::MAX]), &["more than 2^48"]);
    refused(with(&[1 << 33, 1 << 33, 1 << 33, 0]), &["more than 2^48"]);
    refused(with(&[(1 << 48) - 1]), &["truncated?"]);
}

#[test]
fn gguf_types() {
    refused(parse(&Gguf::new().tensor("t", &[256, 2], 16, &[0; 132]).build()), &["in-memory", "\"t\"", "type IQ2_XXS"]);
    refused(parse(&Gguf::new().tensor("t", &[1], 28, &[0; 8]).build()), &["type F64"]);
    refused(parse(&Gguf::new().tensor("t", &[256], 29, &[0; 56]).build()), &["type IQ1_M"]);
    for withdrawn in [4, 5, 31, 32, 33, 36, 37, 38, 1000, u32::MAX] {
        refused(
            parse(&Gguf::new().tensor("t", &[1], withdrawn, &[0; 8]).build()),
            &["\"t\"", &format!("unknown type {withdrawn}")],
        );
    }
}

#[test]
fn gguf_blocks() {
    refused(parse(&Gguf::new().tensor("t", &[33, 32], Q4_0, &[0; 1000]).build()), &["rows of 33", "blocks of 32 (Q4_0)"]);
    // Q4_0: 18 bytes for 32 elements.
    refused(parse(&Gguf::new().tensor("t", &[32, 2], Q4_0, &[0; 35]).build()), &["36 bytes at 0", "has 35"]);
}

#[test]
fn gguf_ranges() {
    let with = |offsets: [u64; 2], data: usize| {
        let file = Gguf::new().info("a", &[16], F32, offsets[0]).info("b", &[16], F32, offsets[1]);
        parse(&file.data(&vec![0; data]).build())
    };
    assert!(with([0, 64], 128).is_ok() && with([64, 0], 128).is_ok());
    assert!(with([0, 96], 170).is_ok(), "padding between and after tensors is allowed");
    refused(with([0, 64], 127), &["\"b\"", "64 bytes at 64", "has 127", "truncated?"]);
    refused(with([0, 32], 128), &["\"a\" and \"b\" overlap"]);
    refused(with([32, 0], 128), &["\"b\" and \"a\" overlap"]);
    refused(with([0, 0], 128), &["overlap"]);
    refused(with([0, u64::MAX - 31], 128), &["\"b\"", "truncated?"]);
}

#[test]
fn gguf_alignment() {
    let with = |alignment: u32, offset| {
        let file = Gguf { alignment: 8, ..Gguf::new() };
        let file = file.entry("general.alignment", 4, &alignment.to_le_bytes()).info("t", &[1], F32, offset);
        parse(&Gguf { alignment: alignment.clamp(8, 1 << 16) as usize, ..file }.data(&[0; 256]).build())
    };
    for alignment in [8, 16, 32, 64, 65_536] {
        assert!(with(alignment, 0).is_ok(), "{alignment}");
    }
    for alignment in [0, 1, 4, 33, 48, 1 << 17, u32::MAX] {
        refused(with(alignment, 0), &["general.alignment", &alignment.to_string()]);
    }
    refused(with(32, 8), &["\"t\"", "offset 8 is not a multiple of the alignment 32"]);
    assert!(with(8, 8).is_ok());
    refused(
        parse(&Gguf::new().entry("general.alignment", 8, &gguf_string("32")).build()),
        &["general.alignment", "found string"],
    );
}

/// Part `no` of `count`, with tensors of these names.
fn part(no: u16, count: u16, n_tensors: i32, tensors: &[&str]) -> Gguf {
    let file = Gguf::new().entry("split.no", 2, &no.to_le_bytes()).entry("split.count", 2, &count.to_le_bytes()).entry(
        "split.tensors.count",
        5,
        &n_tensors.to_le_bytes(),
    );
    tensors.iter().fold(file, |file, name| file.tensor(name, &[1], F32, &[no as u8; 4]))
}

#[test]
fn gguf_parts() {
    let dir = TempDir::new();
    let first = part(0, 3, 3, &["a", "b"]).entry("general.name", 8, &gguf_string("whole"));
    let paths = [first, part(1, 3, 3, &["c"]), part(2, 3, 3, &[])]
        .iter()
        .enumerate()
        .map(|(i, part)| dir.write(&format!("m-0000{}-of-00003.gguf", i + 1), &part.build()))
        .collect::<Vec<_>>();
    for path in paths.iter().map(PathBuf::as_path).chain([dir.path()]) {
        let found = open(path, MapMode::Map).unwrap();
        assert_eq!((found.path.as_path(), found.dir.as_path(), found.files.len()), (path, dir.path(), 3));
        assert_eq!(found.metadata.unwrap().get_str("general.name").unwrap(), Some("whole"));
        let tensors: Vec<_> = found.tensors.iter().map(|(name, t)| (name.as_str(), t.data[0])).collect();
        assert_eq!(tensors, [("a", 0), ("b", 0), ("c", 1)]);
    }

    let wrong = |no: usize, part: Gguf| {
        dir.write(&format!("m-0000{no}-of-00003.gguf"), &part.build());
        open(&paths[0], MapMode::Map)
    };
    refused(wrong(2, part(1, 3, 3, &["b"])), &["00002-of-00003.gguf", "\"b\" is in another file too"]);
    refused(wrong(2, part(2, 3, 3, &["c"])), &["00002-of-00003.gguf", "expected part 1 of 3", "says part 2 of 3"]);
    refused(wrong(2, part(1, 4, 3, &["c"])), &["expected part 1 of 3", "says part 1 of 4"]);
    refused(wrong(2, Gguf::new().tensor("c", &[1], F32, &[0; 4])), &["expected part 1 of 3", "a model of its own"]);
    refused(wrong(2, part(1, 3, 3, &[])), &["split.tensors.count is 3", "have 2"]);
    refused(wrong(1, part(3, 3, 3, &["a", "b"])), &["split.no is 3"]);
    let e = wrong(1, part(0, 3, 3, &["a", "b", "c"]));
    assert!(e.is_ok());
    std::fs::remove_file(&paths[1]).unwrap();
    let e = open(&paths[2], MapMode::Map).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.message().contains("part 2 of 3 is missing") && e.message().contains("m-00002-of-00003.gguf"), "{e}");
    let renamed = dir.path().join("m.gguf");
    std::fs::rename(&paths[0], &renamed).unwrap();
    refused(open(&renamed, MapMode::Map), &["m.gguf", "-00001-of-00003.gguf"]);
}
