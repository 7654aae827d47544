//! Damaged files by the thousand: each gives an error, or tensors that keep the promises; never a panic, never a hang.
#![forbid(unsafe_code)]

use super::super::testing::{in_memory, npy, npy_dict};
use super::super::{gguf, npy, safetensors};
use super::*;
use std::time::{Duration, Instant};

/// A parser of one format behind the same face: parses, checks what was promised, and tells whether the file was accepted.
type Survey = fn(&[u8]) -> bool;

fn formats() -> [(&'static str, Vec<u8>, Survey); 3] {
    [
        ("gguf", gguf_files::small(), survey_gguf),
        ("safetensors", safetensors_files::small(), survey_safetensors),
        ("npy", npy(&npy_dict("(2, 3)"), &floats(6)), survey_npy),
    ]
}

fn survey_gguf(bytes: &[u8]) -> bool {
    let (file, mapping) = in_memory(bytes);
    let Ok(parsed) = gguf::parse(&file, &mapping) else { return false };
    let m = &parsed.metadata;
    for key in m.keys() {
        // Whatever the type, one of these fits or all say why not.
        let _ = (m.get_str(key), m.get_u64(key), m.get_f32(key), m.get_bool(key));
        let _ = (m.str_array(key), m.f32_array(key), m.i32_array(key), m.u32_array(key));
    }
    check_tensors(parsed.tensors.values(), &mapping);
    true
}

fn survey_safetensors(bytes: &[u8]) -> bool {
    let (file, mapping) = in_memory(bytes);
    let Ok(parsed) = safetensors::parse(&file, &mapping) else { return false };
    check_tensors(parsed.tensors.values(), &mapping);
    true
}

fn survey_npy(bytes: &[u8]) -> bool {
    let (file, mapping) = in_memory(bytes);
    let Ok(tensor) = npy::parse(&file, &mapping) else { return false };
    check_tensors([&tensor].into_iter(), &mapping);
    true
}

/// Sizes are exact, ranges inside the file and apart from each other.
fn check_tensors<'a>(tensors: impl Iterator<Item = &'a Tensor>, mapping: &mmap::Mapping) {
    let file = mapping.as_ptr() as usize..mapping.as_ptr() as usize + mapping.len();
    let mut ranges = Vec::new();
    for tensor in tensors {
        let elements = tensor.shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim)).unwrap();
        assert_eq!(Some(tensor.data.len()), tensor.dtype.bytes(elements));
        let start = tensor.data.as_ptr() as usize;
        ranges.push((start, start + tensor.data.len()));
    }
    ranges.sort_unstable();
    assert!(ranges.iter().all(|&(start, end)| file.start <= start && end <= file.end));
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
}

#[test]
fn every_truncation_is_refused() {
    for (format, bytes, survey) in formats() {
        assert!(survey(&bytes), "{format}");
        for len in 0..bytes.len() {
            assert!(!survey(&bytes[..len]), "{format} cut to {len} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn every_flipped_bit_is_survived() {
    for (format, mut bytes, survey) in formats() {
        let mut accepted = 0;
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            accepted += usize::from(survey(&bytes));
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        // Flips in the data and in names are harmless; most of those in sizes and offsets cannot be.
        assert!(0 < accepted && accepted < bytes.len() * 8, "{format}: {accepted} of {} accepted", bytes.len() * 8);
    }
}

/// xorshift64*: a fixed sequence, so that a failure can be repeated.
pub(super) struct Random(pub u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as usize % n.max(1)
    }
}

/// One change of the kind that finds bugs in parsers: a byte, a number at its limits, a piece copied, moved or cut.
pub(super) fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const LIMITS: [u64; 8] = [0, 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 47, u64::MAX / 2, u64::MAX];
    let (at, to) = (random.below(bytes.len()), random.below(bytes.len()));
    let len = random.below(24).min(bytes.len() - at.max(to));
    match random.below(5) {
        0 => bytes[at] = random.below(256) as u8,
        1 => {
            let number = LIMITS[random.below(LIMITS.len())].to_le_bytes();
            let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&number[..width]);
        }
        2 => bytes.copy_within(at..at + len, to),
        3 => drop(bytes.splice(at..at, vec![random.below(256) as u8; len])),
        _ => drop(bytes.drain(at..at + len)),
    }
}

#[test]
fn random_damage_is_survived() {
    for (format, original, survey) in formats() {
        let (mut random, mut rounds) = (Random(0x9e37_79b9_7f4a_7c15), 0);
        let end = Instant::now() + Duration::from_millis(600);
        while Instant::now() < end {
            let mut bytes = original.clone();
            for _ in 0..=random.below(4) {
                if !bytes.is_empty() {
                    mutate(&mut bytes, &mut random);
                }
            }
            survey(&bytes);
            rounds += 1;
        }
        assert!(rounds > 100, "{format}: only {rounds} files in the time given");
    }
}
