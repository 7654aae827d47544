use super::*;
use crate::kernels::testing::Random;
use crate::kernels::{Isa, table};

/// The root mean square errors of llama.cpp's own quantisation of `normal()`: tests/golden/quant/reference_errors.py.
const REFERENCE: [(Quant, f64); 8] = [
    (Quant::Q4_0, 7.574454e-02),
    (Quant::Q4_1, 7.057374e-02),
    (Quant::Q5_0, 3.769922e-02),
    (Quant::Q5_1, 3.410680e-02),
    (Quant::Q8_0, 4.708761e-03),
    (Quant::Q4K, 6.408460e-02),
    (Quant::Q5K, 3.247297e-02),
    (Quant::Q6K, 1.587519e-02),
];

fn types() -> impl Iterator<Item = Quant> {
    Quant::ALL.into_iter().filter(|quant| packs(*quant))
}

/// About normal: each the sum of three.
fn normal() -> Vec<f32> {
    let mut random = Random(9);
    (0..1 << 15).map(|_| random.f32() + random.f32() + random.f32()).collect()
}

fn packed(quant: Quant, x: &[f32]) -> Vec<u8> {
    let mut blocks = vec![0x55; DType::Quant(quant).bytes(x.len()).unwrap()];
    pack(quant, x, &mut blocks);
    blocks
}

fn round_trip(quant: Quant, x: &[f32]) -> Vec<f32> {
    let mut back = vec![f32::NAN; x.len()];
    table::of(Isa::Scalar).unpack(DType::Quant(quant), &packed(quant, x), 0, &mut back);
    back
}

fn root_mean_square(x: &[f32], y: &[f32]) -> f64 {
    let sum: f64 = x.iter().zip(y).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
    (sum / x.len() as f64).sqrt()
}

#[test]
fn no_worse_than_llama_cpp() {
    let x = normal();
    assert_eq!(types().count(), REFERENCE.len());
    for (quant, reference) in REFERENCE {
        let error = root_mean_square(&x, &round_trip(quant, &x));
        assert!(error <= reference, "{quant:?}: {error} > {reference}");
    }
}

/// With a scale s the nearest integer is at most s/2 away, and s need be no larger than the largest element over its integer. A
/// scale that is rounded to 6 bits can be 1/126 of the largest part's off: that, for elements of all parts' size, is less than the
/// twentieth of a step in the mean of squares.
#[test]
fn no_block_is_far_off() {
    let x = normal();
    for quant in types() {
        let n = DType::Quant(quant).block_elements();
        let bits = match quant {
            Quant::Q4_0 | Quant::Q4_1 | Quant::Q4K => 4,
            Quant::Q5_0 | Quant::Q5_1 | Quant::Q5K => 5,
            Quant::Q6K => 6,
            _ => 8,
        };
        for (x, y) in x.chunks(n).zip(round_trip(quant, &x).chunks(n)) {
            let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let step = largest / ((1 << (bits - 1)) - 1) as f32;
            // The error of the whole block is at most that of all elements half a step away, were its scale the simple one.
            let error = root_mean_square(x, y);
            assert!(error <= 0.5 * f64::from(step) * 1.05, "{quant:?}: {error}, step {step}");
        }
    }
}

#[test]
fn zeros_constants_and_extremes() {
    for quant in types() {
        assert_eq!(round_trip(quant, &[0.0; 256]), [0.0; 256], "{quant:?}");
        for value in [1.0, -1.0, LARGEST, -LARGEST, 3e-3, 1e-45, 1e-31, 1e-9] {
            let mut x = [value; 256];
            x[7] = 0.0;
            let y = round_trip(quant, &x);
            for (x, y) in x.iter().zip(&y) {
                // A sixteenth: half a step of the coarsest, and binary16's least denormal times the largest integers.
                let bound = value.abs() / 16.0 + 63.0 * 31.0 * 6e-8;
                assert!(y.is_finite() && (x - y).abs() <= bound, "{quant:?} {value}: {x} became {y}");
            }
        }
        let mut mixed = [0.0; 256];
        mixed[..3].copy_from_slice(&[LARGEST, -LARGEST, 1e-40]);
        assert!(round_trip(quant, &mixed).iter().all(|y| y.is_finite()), "{quant:?}");
    }
}

/// What was quantised once does not move when it is quantised again with the same type, for the types with one scale a block
/// that reach the end of their range.
#[test]
fn quantised_twice_is_quantised_once() {
    let once = round_trip(Quant::Q8_0, &normal());
    assert_eq!(packed(Quant::Q8_0, &once), packed(Quant::Q8_0, &round_trip(Quant::Q8_0, &once)));
    assert_eq!(round_trip(Quant::Q8_0, &once), once);
}

#[test]
fn the_first_unfit_element_is_found() {
    let mut x = vec![LARGEST; 1000];
    assert_eq!((unfit(&x), unfit(&[])), (None, None));
    for (at, bad) in [(999, f32::NAN), (700, f32::INFINITY), (255, f32::NEG_INFINITY), (3, 65536.0)] {
        x[at] = bad;
        assert_eq!(unfit(&x), Some(at));
    }
}
