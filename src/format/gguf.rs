//! GGUF v2 and v3.
#![forbid(unsafe_code)]

/// GGUF key-value metadata. Arrays stay as they lie in the file until someone asks.
pub struct Metadata {}
