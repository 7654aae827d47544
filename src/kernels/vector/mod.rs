//! From f32 to f32: norms, activations, exp.

pub(super) mod each;
pub(super) mod math;
pub(super) mod norm;
pub(super) mod scalar;
#[cfg(test)]
mod tests;

/// gelu(x) = x·Φ(x), and Φ(−a) = ½·erfc(a/√2) = ½·exp(−a²/2)·t·P(2t − 1) with t = 1/(1 + [`ERFC_SLOPE`]·a/√2): a minimax
/// fit of P over a/√2 ∈ [0, 10.5], relative error 4.0e-8. In f32 it gives erfc, and so erf, within 2.3e-7, which is two units
/// of values near 1. Lowest power first.
pub(in crate::kernels) const ERFC: [f32; 10] = [
    0.7022694,
    0.3218374,
    0.006_705_724_6,
    -0.03915066,
    0.005_028_832,
    0.006_158_366,
    -0.003_197_580_8,
    -0.000_188_414_53,
    0.000_778_361_4,
    -0.000_241_350_08,
];
/// See [`ERFC`]. A steeper t would need more terms, a flatter one passes more of its own rounding on.
pub(in crate::kernels) const ERFC_SLOPE: f32 = 0.75;
/// Beyond this, Φ(−a) is 0 in f32 and gelu is max(x, 0).
pub(in crate::kernels) const GELU_FLAT: f32 = 16.0;
/// √(2/π)
pub(in crate::kernels) const SQRT_2_OVER_PI: f32 = 0.797_884_6;
/// What x is multiplied by in the sigmoid of quick_gelu.
pub(in crate::kernels) const QUICK_GELU: f32 = 1.702;
/// The cubic term of the tanh form of gelu.
pub(in crate::kernels) const GELU_CUBIC: f32 = 0.044715;
