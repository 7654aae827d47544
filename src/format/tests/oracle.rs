//! The `safetensors` crate as the judge of our reader: both accept the same files and see the same bytes in them, except
//! where ours is stricter on purpose.
#![forbid(unsafe_code)]

use super::super::safetensors;
use super::super::testing::in_memory;
use super::hostile::{Random, mutate};
use super::*;
use ::safetensors::SafeTensors;
use std::time::{Duration, Instant};

/// What the crate lets pass and we do not: see the errors' own words.
const STRICTER: [&str; 3] = ["is there twice", "does not start with '{'", "at most 8 sizes"];

/// Compares the two readers on one file; tells whether it was accepted.
fn compare(bytes: &[u8]) -> bool {
    let (file, mapping) = in_memory(bytes);
    match (safetensors::parse(&file, &mapping), SafeTensors::deserialize(bytes)) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours.tensors.len() + ours.skipped.len(), theirs.len());
            for (name, tensor) in &ours.tensors {
                let oracle = theirs.tensor(name).unwrap();
                assert_eq!((&tensor.shape[..], &tensor.data[..]), (oracle.shape(), oracle.data()), "{name}");
                assert_eq!(tensor.dtype.name(), format!("{:?}", oracle.dtype()), "{name}");
            }
            for (name, dtype) in &ours.skipped {
                assert_eq!(dtype, &theirs.tensor(name).unwrap().dtype().to_string(), "{name}");
            }
            true
        }
        (Err(_), Err(_)) => false,
        (Ok(_), Err(e)) => panic!("we accept what the oracle refuses: {e}\n{:?}", String::from_utf8_lossy(bytes)),
        (Err(e), Ok(_)) => {
            let meant = STRICTER.iter().any(|reason| e.message().contains(reason));
            assert!(meant, "we refuse what the oracle accepts: {e}\n{:?}", String::from_utf8_lossy(bytes));
            false
        }
    }
}

#[test]
fn whole_truncated_and_flipped_files() {
    let mut bytes = safetensors_files::small();
    assert!(compare(&bytes));
    for len in 0..bytes.len() {
        compare(&bytes[..len]);
    }
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        compare(&bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn randomly_damaged_files() {
    let original = safetensors_files::small();
    let (mut random, end) = (Random(0xdead_beef_cafe_f00d), Instant::now() + Duration::from_secs(1));
    while Instant::now() < end {
        let mut bytes = original.clone();
        mutate(&mut bytes, &mut random);
        compare(&bytes);
    }
}

#[test]
fn real_files() {
    let Some(path) = shared("models/stories260k/hf/model.safetensors") else { return };
    assert!(compare(&std::fs::read(path).unwrap()));
}
