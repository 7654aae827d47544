//! What a model will take, told from its headers alone: no weight is read.
#![forbid(unsafe_code)]

use super::cache::{DEFAULT_REWIND, KvType};
use super::kv::KvShape;
use super::load::{LoadOptions, Types};
use crate::arch::{self, Slot};
use crate::error::Result;
use crate::format::{self, DType, MapMode, Tensor};
use crate::kernels::Layout;
use std::path::Path;

/// Memory that a model and its caches will take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Weights that stay in the mapped files: the system may drop their pages and read them again.
    pub weights_mapped: u64,
    /// Weights in memory of our own: converted ones, norms and biases, and everything with [`MapMode::Copy`].
    pub weights_packed: u64,
    /// What a cache (f32) grows by for each 1000 tokens.
    pub cache_per_1000_tokens: u64,
    /// What it needs at most beside that, for layers that see a window of the last tokens.
    pub cache_windows: u64,
}

/// See [`super::Model::estimate`].
pub(super) fn estimate(path: &Path, options: &LoadOptions<'_>) -> Result<Estimate> {
    // Mapped whatever the options say: a copy would be the memory that is asked about.
    let source = format::open(path, MapMode::Map)?;
    let (spec, names) = arch::identify(&source)?;
    let (mut mapped, mut packed) = (0u64, 0u64);
    let has_head = source.tensors.keys().any(|name| names.slot_of(name).is_some_and(|(slot, _)| slot == Slot::Head));
    let tied = spec.is_tied(has_head);
    let types = Types { weights: options.weights, spec: &spec, tied };
    for (name, tensor) in source.tensors.iter().filter(|(name, _)| !names.is_ignored(name)) {
        let bytes = tensor.data.len() as u64;
        let place = names.slot_of(name);
        if tied && place.is_some_and(|(slot, _)| slot == Slot::Head) {
            continue; // the embedding a second time, which loading leaves alone
        }
        match packed_bytes(place, tensor, &types) {
            Some(ours) => packed += ours,
            None if options.mapping == MapMode::Copy => packed += bytes,
            None => mapped += bytes,
        }
    }
    let shape = KvShape::new(&spec, KvType::F32);
    Ok(Estimate {
        weights_mapped: mapped,
        weights_packed: packed,
        cache_per_1000_tokens: shape.growth(1000) as u64,
        cache_windows: shape.windows(DEFAULT_REWIND) as u64,
    })
}

/// Bytes of a tensor that is not used where it lies: vectors are held as f32, matrices as the options say.
fn packed_bytes(place: Option<(Slot, usize)>, tensor: &Tensor, types: &Types<'_>) -> Option<u64> {
    let elements: usize = tensor.shape.iter().product();
    let dtype = match (tensor.shape[..].as_ref(), place) {
        ([] | [_], _) | (_, Some((Slot::QNorm | Slot::KNorm, _))) => return Some(DType::F32.bytes(elements)? as u64),
        (&[first, .., last], Some((slot, layer))) => {
            let n_in = if types.spec.layout_of(slot) == Layout::InOut { first } else { last };
            types.of(slot, layer, n_in, tensor.dtype)
        }
        (_, None) => tensor.dtype,
    };
    (dtype != tensor.dtype).then(|| dtype.bytes(elements).unwrap_or(usize::MAX) as u64)
}
