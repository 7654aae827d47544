//! From f32 to f32: norms, activations, exp.

pub(super) mod math;
pub(super) mod norm;
pub(super) mod scalar;
#[cfg(test)]
mod tests;

/// gelu(x) = x·Φ(x), and Φ(−a) = ½·erfc(a/√2) = ½·exp(−a²/2)·t·P(t) with t = 1/(1 + [`ERFC_SLOPE`]·a/√2): a minimax fit
/// of P over a/√2 ∈ [0, 10.5], relative error 2.0e-8. Lowest power first.
pub(in crate::kernels) const ERFC: [f32; 9] =
    [0.16918743, 0.17072364, 0.14828717, 0.21510466, -0.095_024_06, 0.5482071, -0.512666, 0.48573591, -0.12955586];
/// See [`ERFC`].
pub(in crate::kernels) const ERFC_SLOPE: f32 = 0.3;
/// Beyond this, Φ(−a) is 0 in f32 and gelu is max(x, 0).
pub(in crate::kernels) const GELU_FLAT: f32 = 16.0;
/// √(2/π)
pub(in crate::kernels) const SQRT_2_OVER_PI: f32 = 0.797_884_6;
/// The cubic term of the tanh form of gelu.
pub(in crate::kernels) const GELU_CUBIC: f32 = 0.044715;
