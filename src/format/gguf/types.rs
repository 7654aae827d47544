//! The element types that a GGUF file can have. To read another one, give it a `dtype`.
#![forbid(unsafe_code)]

use crate::format::DType;

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

const fn read(id: u32, name: &'static str, dtype: DType, block_bytes: u64) -> TensorType {
    TensorType { id, name, block_elements: 1, block_bytes, dtype: Some(dtype) }
}

const fn other(id: u32, name: &'static str, block_elements: u64, block_bytes: u64) -> TensorType {
    TensorType { id, name, block_elements, block_bytes, dtype: None }
}

/// Numbers and block sizes as ggml defines them; the numbers left out were withdrawn from the format.
static TYPES: &[TensorType] = &[
    read(0, "F32", DType::F32, 4),
    read(1, "F16", DType::F16, 2),
    other(2, "Q4_0", 32, 18),
    other(3, "Q4_1", 32, 20),
    other(6, "Q5_0", 32, 22),
    other(7, "Q5_1", 32, 24),
    other(8, "Q8_0", 32, 34),
    other(9, "Q8_1", 32, 36),
    other(10, "Q2_K", 256, 84),
    other(11, "Q3_K", 256, 110),
    other(12, "Q4_K", 256, 144),
    other(13, "Q5_K", 256, 176),
    other(14, "Q6_K", 256, 210),
    other(15, "Q8_K", 256, 292),
    other(16, "IQ2_XXS", 256, 66),
    other(17, "IQ2_XS", 256, 74),
    other(18, "IQ3_XXS", 256, 98),
    other(19, "IQ1_S", 256, 50),
    other(20, "IQ4_NL", 32, 18),
    other(21, "IQ3_S", 256, 110),
    other(22, "IQ2_S", 256, 82),
    other(23, "IQ4_XS", 256, 136),
    other(24, "I8", 1, 1),
    other(25, "I16", 1, 2),
    other(26, "I32", 1, 4),
    other(27, "I64", 1, 8),
    other(28, "F64", 1, 8),
    other(29, "IQ1_M", 256, 56),
    read(30, "BF16", DType::Bf16, 2),
    other(34, "TQ1_0", 256, 54),
    other(35, "TQ2_0", 256, 66),
    other(39, "MXFP4", 32, 17),
    other(40, "NVFP4", 64, 36),
    other(41, "Q1_0", 128, 18),
];
