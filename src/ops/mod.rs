//! Linear, attention, RoPE, norms, activations: agnostic of any model.
#![forbid(unsafe_code)]
