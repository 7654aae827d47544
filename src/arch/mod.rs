//! What a model is.
#![forbid(unsafe_code)]
