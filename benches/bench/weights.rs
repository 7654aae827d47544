//! Random weights of any type.

use crate::random::Random;
use engine::format::mmap::Mapping;
use engine::format::{Bytes, DType, Float, Tensor};
use engine::kernels::{Kernels, Layout, pack_quant};
use engine::ops::linear::Linear;
use std::path::PathBuf;
use std::sync::Arc;

/// Elements of a [`pool`]: whole blocks of every type.
const POOL: usize = 1 << 20;

/// Weights of a type, normal around `mean` with deviation 0.02; of quantised ones, blocks that are made of such floats as any
/// others.
pub fn pool(random: &mut Random, dtype: DType, mean: f32) -> Vec<u8> {
    let floats: Vec<f32> = random.normals(POOL, 0.02).iter().map(|x| x + mean).collect();
    let mut bytes = vec![0; dtype.bytes(POOL).expect("a power of two")];
    match dtype {
        DType::Quant(quant) if engine::kernels::packs(quant) => pack_quant(quant, &floats, &mut bytes),
        // Types that are only read: their scales are where one of these two puts them, and both are small numbers in binary16.
        DType::Quant(_) => bytes.iter_mut().for_each(|byte| *byte = 0x10 | (random.bits() >> 60) as u8),
        DType::Float(float) => table().pack(float, &floats, &mut bytes),
    }
    bytes
}

fn table() -> &'static Kernels {
    Kernels::select(None).expect("the best table of this CPU")
}

/// `len` bytes, whole blocks of `dtype`, from random places of a pool of it.
pub fn each_part<E>(
    random: &mut Random,
    dtype: DType,
    pool: &[u8],
    len: usize,
    mut part: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let (block, mut left) = (dtype.block_bytes(), len);
    while left > 0 {
        let start = random.below(pool.len() / block) * block;
        let these = &pool[start..pool.len().min(start + left)];
        part(these)?;
        left -= these.len();
    }
    Ok(())
}

/// A projection with random weights.
pub fn linear(random: &mut Random, dtype: DType, layout: Layout, n_out: usize, n_in: usize) -> Linear {
    let pool = pool(random, dtype, 0.0);
    let len = dtype.bytes(n_out * n_in).expect("whole blocks");
    let mut bytes = Vec::with_capacity(len);
    let filled: Result<(), ()> = each_part(random, dtype, &pool, len, |part| {
        bytes.extend_from_slice(part);
        Ok(())
    });
    filled.expect("memory takes everything");
    Linear::new(tensor(dtype, layout, n_out, n_in, bytes), layout, None)
}

fn tensor(dtype: DType, layout: Layout, n_out: usize, n_in: usize, bytes: Vec<u8>) -> Tensor {
    let shape = match layout {
        Layout::OutIn => vec![n_out, n_in],
        Layout::InOut => vec![n_in, n_out],
    };
    let all = 0..bytes.len();
    let data = Bytes::new(Arc::new(Mapping::Owned(bytes)), all).expect("all of it");
    Tensor { dtype, shape, data, file: Arc::new(PathBuf::from("random weights")) }
}

/// The first `n_out` outputs of `linear`, and their weights as f32, `[n_out, n_in]`.
pub fn first_outputs(linear: &Linear, n_out: usize) -> (Linear, Vec<f32>) {
    let whole = linear.matrix();
    let n_in = whole.n_in;
    let mut floats = vec![0.0; n_out * n_in];
    let bytes = match whole.layout {
        Layout::OutIn => {
            table().unpack(whole.dtype, whole.data, 0, &mut floats);
            whole.data[..whole.dtype.bytes(n_out * n_in).expect("whole rows")].to_vec()
        }
        Layout::InOut => {
            let size = whole.dtype.block_bytes();
            let row = |k: usize| &whole.data[k * whole.n_out * size..][..n_out * size];
            let mut column = vec![0.0; n_out];
            for k in 0..n_in {
                table().unpack(whole.dtype, row(k), 0, &mut column);
                column.iter().enumerate().for_each(|(o, x)| floats[o * n_in + k] = *x);
            }
            (0..n_in).flat_map(|k| row(k).iter().copied()).collect()
        }
    };
    (Linear::new(tensor(whole.dtype, whole.layout, n_out, n_in, bytes), whole.layout, None), floats)
}

/// The name of a type, as rows have it.
pub fn row_name(dtype: DType, layout: Layout) -> String {
    let name = match dtype {
        DType::Float(Float::F32) => "f32".into(),
        DType::Float(Float::F16) => "f16".into(),
        DType::Float(Float::Bf16) => "bf16".into(),
        DType::Quant(_) => dtype.name().to_lowercase(),
    };
    if layout == Layout::InOut { name + "-inout" } else { name }
}
