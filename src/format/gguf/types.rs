//! The element types that a GGUF file can have. To read another one, give it a `dtype`.
#![forbid(unsafe_code)]

use crate::format::{DType, Quant};

/// A type of the format: elements come in blocks of `block_elements`, of `block_bytes` each.
#[derive(Debug)]
pub(super) struct TensorType {
    pub id: u32,
    pub name: &'static str,
    pub block_elements: u64,
    pub block_bytes: u64,
    /// Ours, where we read it.
    pub dtype: Option<DType>,
}

/// The type with this number in the file.
pub(super) fn by_id(id: u32) -> Option<&'static TensorType> {
    TYPES.iter().find(|t| t.id == id)
}

/// The number in the file of one of our types.
pub(super) fn id_of(dtype: DType) -> Option<u32> {
    TYPES.iter().find(|t| t.dtype == Some(dtype)).map(|t| t.id)
}

const fn read(id: u32, dtype: DType) -> TensorType {
    let (block_elements, block_bytes) = (dtype.block_elements() as u64, dtype.block_bytes() as u64);
    TensorType { id, name: dtype.name(), block_elements, block_bytes, dtype: Some(dtype) }
}

const fn quant(id: u32, quant: Quant) -> TensorType {
    read(id, DType::Quant(quant))
}

const fn other(id: u32, name: &'static str, block_elements: u64, block_bytes: u64) -> TensorType {
    TensorType { id, name, block_elements, block_bytes, dtype: None }
}

/// Numbers and block sizes as ggml defines them; the numbers left out were withdrawn from the format.
static TYPES: &[TensorType] = &[
    read(0, DType::F32),
    read(1, DType::F16),
    quant(2, Quant::Q4_0),
    quant(3, Quant::Q4_1),
    quant(6, Quant::Q5_0),
    quant(7, Quant::Q5_1),
    quant(8, Quant::Q8_0),
    other(9, "Q8_1", 32, 36),
    quant(10, Quant::Q2K),
    quant(11, Quant::Q3K),
    quant(12, Quant::Q4K),
    quant(13, Quant::Q5K),
    quant(14, Quant::Q6K),
    other(15, "Q8_K", 256, 292),
    other(16, "IQ2_XXS", 256, 66),
    other(17, "IQ2_XS", 256, 74),
    other(18, "IQ3_XXS", 256, 98),
    other(19, "IQ1_S", 256, 50),
    quant(20, Quant::Iq4Nl),
    other(21, "IQ3_S", 256, 110),
    other(22, "IQ2_S", 256, 82),
    quant(23, Quant::Iq4Xs),
    other(24, "I8", 1, 1),
    other(25, "I16", 1, 2),
    other(26, "I32", 1, 4),
    other(27, "I64", 1, 8),
    other(28, "F64", 1, 8),
    other(29, "IQ1_M", 256, 56),
    read(30, DType::BF16),
    quant(34, Quant::Tq1_0),
    quant(35, Quant::Tq2_0),
    quant(39, Quant::Mxfp4),
    other(40, "NVFP4", 64, 36),
    other(41, "Q1_0", 128, 18),
];
