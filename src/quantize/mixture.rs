//! Which type each tensor gets: the rules of llama.cpp's own quantisation without an importance matrix, so that files have the
//! same types and sizes.
#![forbid(unsafe_code)]

use crate::format::{DType, Quant};

/// To what a model is quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// 8 bits: as good as 16-bit floats for almost every use.
    Q8_0,
    /// 4 bits, the simple kind. The head has 6.
    Q4_0,
    /// Mostly 4 bits: 5 in the first layers' values and down projections, 6 in the head. llama.cpp calls it Q4_K_S.
    Q4K,
    /// 5 bits, 6 in the head: Q5_K_S.
    Q5K,
    /// 6 bits.
    Q6K,
    /// 4 bits, and 6 in the head and in half of the values and down projections: what most GGUF files in circulation have.
    Q4KM,
}

impl Recipe {
    /// All of them.
    pub const ALL: [Recipe; 6] = [Recipe::Q8_0, Recipe::Q4_0, Recipe::Q4K, Recipe::Q5K, Recipe::Q6K, Recipe::Q4KM];

    /// The type of most tensors.
    pub const fn quant(self) -> Quant {
        match self {
            Recipe::Q8_0 => Quant::Q8_0,
            Recipe::Q4_0 => Quant::Q4_0,
            Recipe::Q4K | Recipe::Q4KM => Quant::Q4K,
            Recipe::Q5K => Quant::Q5K,
            Recipe::Q6K => Quant::Q6K,
        }
    }

    /// The number of `general.file_type`.
    pub const fn file_type(self) -> u32 {
        match self {
            Recipe::Q4_0 => 2,
            Recipe::Q8_0 => 7,
            Recipe::Q4K => 14,
            Recipe::Q4KM => 15,
            Recipe::Q5K => 16,
            Recipe::Q6K => 18,
        }
    }
}

/// What a matrix does, as far as the rules ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The head, or the embedding where it is the head too.
    Head,
    /// The values of the attention, or queries, keys and values in one matrix.
    Value,
    /// The keys.
    Key,
    /// The attention's output.
    AttentionOutput,
    /// The second matrix of a feed-forward block.
    Down,
    /// Anything else.
    Other,
}

/// What the rules ask of a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// The architecture is Falcon.
    pub falcon: bool,
    /// The model is one of those of 70 billion parameters whose values are of few heads.
    pub few_values: bool,
    /// Experts of a layer; 0 without.
    pub n_experts: usize,
}

impl Facts {
    /// From the architecture's name in GGUF files and the counts.
    pub fn new(architecture: &str, n_layers: usize, n_heads: usize, n_kv_heads: usize, n_experts: usize) -> Self {
        let few_values = match (architecture, n_layers) {
            ("llama", 80) => n_heads != n_kv_heads,
            ("olmo" | "qwen2" | "deci", 80) | ("jais2", 68) => true,
            _ => false,
        };
        Self { falcon: architecture == "falcon", few_values, n_experts }
    }
}

/// The type of a matrix with rows of `columns` that is number `i` of `n` with its role (for the others both are 0).
pub fn dtype(recipe: Recipe, facts: Facts, role: Role, (i, n): (usize, usize), columns: usize) -> DType {
    let base = recipe.quant();
    // The first and the last eighth of the layers and every third between them.
    let more_bits = i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
    let eight_experts = facts.n_experts == 8;
    let quant = match (role, recipe) {
        (Role::Head, _) if facts.falcon || !columns.is_multiple_of(DType::Quant(base).block_elements()) => Quant::Q8_0,
        (Role::Head, Recipe::Q8_0) => Quant::Q8_0,
        (Role::Head, _) => Quant::Q6K,
        (Role::Value | Role::Key, _) if eight_experts => Quant::Q8_0,
        (Role::Value, Recipe::Q4KM) if more_bits => Quant::Q6K,
        (Role::Value, Recipe::Q4K) if i < 4 => Quant::Q5K,
        (Role::Value, Recipe::Q4K | Recipe::Q4KM) if facts.few_values => Quant::Q5K,
        (Role::Down, Recipe::Q4KM) if facts.falcon => match more_bits {
            _ if i < n / 16 => Quant::Q6K,
            true => Quant::Q5K,
            false => Quant::Q4K,
        },
        (Role::Down, Recipe::Q4KM) if more_bits => Quant::Q6K,
        (Role::Down, Recipe::Q4K) if !facts.falcon && i < n / 8 => Quant::Q5K,
        (Role::AttentionOutput, Recipe::Q4K | Recipe::Q4KM) if eight_experts && !facts.falcon => Quant::Q5K,
        _ => base,
    };
    fitting(quant, columns)
}

/// `quant`, or what stands in for it where rows of `columns` are not whole blocks.
fn fitting(quant: Quant, columns: usize) -> DType {
    let fits = |quant: Quant| columns.is_multiple_of(DType::Quant(quant).block_elements());
    let other = match quant {
        _ if fits(quant) => quant,
        Quant::Q4K => Quant::Q5_0,
        Quant::Q5K => Quant::Q5_1,
        Quant::Q6K => Quant::Q8_0,
        same => same,
    };
    if fits(other) { DType::Quant(other) } else { DType::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(recipe: Recipe, role: Role, i: usize, n: usize) -> DType {
        dtype(recipe, Facts::default(), role, (i, n), 2048)
    }

    #[test]
    fn tinyllama_is_as_llama_cpp_makes_it() {
        // The layers of its 22 whose values and down projections have 6 bits in every Q4_K_M file of it.
        let six: Vec<usize> = (0..22).filter(|&i| of(Recipe::Q4KM, Role::Down, i, 22) == Quant::Q6K.into()).collect();
        assert_eq!(six, [0, 1, 4, 7, 10, 13, 16, 19, 20, 21]);
        assert!((0..22).all(|i| of(Recipe::Q4KM, Role::Value, i, 22) == of(Recipe::Q4KM, Role::Down, i, 22)));
        assert_eq!(of(Recipe::Q4KM, Role::Head, 0, 0), Quant::Q6K.into());
        assert_eq!(of(Recipe::Q4KM, Role::Other, 0, 0), Quant::Q4K.into());
        assert_eq!(of(Recipe::Q4_0, Role::Head, 0, 0), Quant::Q6K.into());
        assert_eq!(of(Recipe::Q8_0, Role::Head, 0, 0), Quant::Q8_0.into());
    }

    #[test]
    fn rows_that_are_no_whole_blocks() {
        let of = |recipe, role, columns| dtype(recipe, Facts::default(), role, (5, 40), columns);
        assert_eq!(of(Recipe::Q4KM, Role::Other, 96), Quant::Q5_0.into());
        assert_eq!(of(Recipe::Q5K, Role::Other, 96), Quant::Q5_1.into());
        assert_eq!(of(Recipe::Q6K, Role::Other, 96), Quant::Q8_0.into());
        assert_eq!(of(Recipe::Q4KM, Role::Head, 96), Quant::Q8_0.into());
        for recipe in Recipe::ALL {
            assert_eq!(of(recipe, Role::Other, 100), DType::F16);
        }
    }
}
