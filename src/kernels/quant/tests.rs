use crate::format::{DType, Quant};
use crate::kernels::testing::*;
use std::path::Path;

/// Every block type, its bytes, and the elements that the `gguf` package makes of them
/// (tests/golden/quant/make_quant.py).
fn golden() -> impl Iterator<Item = (DType, Vec<u8>, Vec<f32>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/quant");
    Quant::ALL.into_iter().map(move |quant| {
        let dtype = DType::Quant(quant);
        let read = |ending| std::fs::read(folder.join(format!("{}.{ending}", dtype.name()))).unwrap();
        let values: Vec<f32> = read("f32").chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let blocks = read("blocks");
        assert_eq!(dtype.bytes(values.len()), Some(blocks.len()));
        (dtype, blocks, values)
    })
}

#[test]
fn unpack_is_exact() {
    for (name, kernels) in tables() {
        for (dtype, blocks, values) in golden() {
            let mut got = vec![f32::NAN; values.len()];
            kernels.unpack(dtype, &blocks, 0, &mut got);
            for (i, (got, want)) in got.iter().zip(&values).enumerate() {
                assert_eq!(got.to_bits(), want.to_bits(), "{name} {} [{i}]: {got}, not {want}", dtype.name());
            }
        }
    }
}

#[test]
fn unpack_takes_any_blocks() {
    for (name, kernels) in tables() {
        for (dtype, blocks, values) in golden() {
            let n = dtype.block_elements();
            for range in [n..2 * n, 2 * n..5 * n, 3 * n..3 * n] {
                let mut got = vec![f32::NAN; range.len()];
                kernels.unpack(dtype, &blocks, range.start, &mut got);
                assert_eq!(bits(&got), bits(&values[range]), "{name} {}", dtype.name());
            }
        }
    }
}

#[test]
fn unpack_survives_any_bytes() {
    for (_, kernels) in tables() {
        for dtype in Quant::ALL.map(DType::Quant) {
            for byte in [0, 0x7c, 0x7f, 0xfc, 0xff] {
                let mut got = vec![0.0; 256];
                kernels.unpack(dtype, &vec![byte; dtype.bytes(256).unwrap()], 0, &mut got);
            }
        }
    }
}
