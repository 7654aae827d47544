//! Element types of tensors: floats, and the blocks in which GGUF quantises them.
#![forbid(unsafe_code)]

/// Element type of a tensor as it lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// Every element by itself.
    Float(Float),
    /// Elements in blocks that share scales.
    Quant(Quant),
}

/// A floating-point type, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Float {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl Float {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Float::F32 => 4,
            Float::F16 | Float::Bf16 => 2,
        }
    }
}

/// A block-quantised type of GGUF; `kernels::quant` says what is in the blocks of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
#[allow(missing_docs)] // The names are the format's own.
pub enum Quant {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
    Tq1_0,
    Tq2_0,
}

impl Quant {
    /// Every type, in the order of their numbers as `usize`.
    pub const ALL: [Quant; 15] = [
        Quant::Q4_0,
        Quant::Q4_1,
        Quant::Q5_0,
        Quant::Q5_1,
        Quant::Q8_0,
        Quant::Q2K,
        Quant::Q3K,
        Quant::Q4K,
        Quant::Q5K,
        Quant::Q6K,
        Quant::Iq4Nl,
        Quant::Iq4Xs,
        Quant::Mxfp4,
        Quant::Tq1_0,
        Quant::Tq2_0,
    ];

    /// Name, elements of a block, bytes of a block.
    const fn facts(self) -> (&'static str, usize, usize) {
        match self {
            Quant::Q4_0 => ("Q4_0", 32, 18),
            Quant::Q4_1 => ("Q4_1", 32, 20),
            Quant::Q5_0 => ("Q5_0", 32, 22),
            Quant::Q5_1 => ("Q5_1", 32, 24),
            Quant::Q8_0 => ("Q8_0", 32, 34),
            Quant::Q2K => ("Q2_K", 256, 84),
            Quant::Q3K => ("Q3_K", 256, 110),
            Quant::Q4K => ("Q4_K", 256, 144),
            Quant::Q5K => ("Q5_K", 256, 176),
            Quant::Q6K => ("Q6_K", 256, 210),
            Quant::Iq4Nl => ("IQ4_NL", 32, 18),
            Quant::Iq4Xs => ("IQ4_XS", 256, 136),
            Quant::Mxfp4 => ("MXFP4", 32, 17),
            Quant::Tq1_0 => ("TQ1_0", 256, 54),
            Quant::Tq2_0 => ("TQ2_0", 256, 66),
        }
    }
}

impl From<Float> for DType {
    fn from(float: Float) -> Self {
        DType::Float(float)
    }
}

impl From<Quant> for DType {
    fn from(quant: Quant) -> Self {
        DType::Quant(quant)
    }
}

impl DType {
    /// IEEE binary32.
    pub const F32: DType = DType::Float(Float::F32);
    /// IEEE binary16.
    pub const F16: DType = DType::Float(Float::F16);
    /// The upper half of a binary32.
    pub const BF16: DType = DType::Float(Float::Bf16);

    /// The name that GGUF gives it.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::Quant(quant) => quant.facts().0,
        }
    }

    /// Elements of a block; 1 for a float. A row of a matrix consists of whole blocks.
    pub const fn block_elements(self) -> usize {
        match self {
            DType::Float(_) => 1,
            DType::Quant(quant) => quant.facts().1,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::Float(float) => float.size(),
            DType::Quant(quant) => quant.facts().2,
        }
    }

    /// Bytes of `elements` elements; `None` if they are no whole blocks, or no `usize` holds it.
    pub const fn bytes(self, elements: usize) -> Option<usize> {
        match elements % self.block_elements() {
            0 => (elements / self.block_elements()).checked_mul(self.block_bytes()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_the_list() {
        for (i, quant) in Quant::ALL.into_iter().enumerate() {
            assert_eq!(quant as usize, i);
        }
    }

    #[test]
    fn bytes_are_of_whole_blocks() {
        assert_eq!((DType::F32.bytes(3), DType::BF16.bytes(3), DType::F16.bytes(0)), (Some(12), Some(6), Some(0)));
        for dtype in Quant::ALL.map(DType::from) {
            let (n, bytes) = (dtype.block_elements(), dtype.block_bytes());
            assert_eq!((dtype.bytes(0), dtype.bytes(3 * n)), (Some(0), Some(3 * bytes)), "{}", dtype.name());
            assert_eq!((dtype.bytes(n - 1), dtype.bytes(n + 1)), (None, None), "{}", dtype.name());
        }
        assert_eq!(DType::F32.bytes(usize::MAX), None);
    }
}
