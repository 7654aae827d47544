//! Keys and values of one sequence, in blocks of [`BLOCK`] tokens that forks share and copy on write.
//!
//! A block holds `[n_layers][k | v][n_kv_heads][BLOCK][head_dim]`. Memory grows by a block; nothing is ever moved.
#![forbid(unsafe_code)]

use crate::error::{Error, Result, try_vec};
use crate::format::DType;
use crate::kernels::Kernels;
use crate::ops::attention::{BLOCK, Blocks};
use std::sync::Arc;

/// The shape of every block of a cache.
#[derive(Clone, Copy, Debug)]
pub struct KvShape {
    pub n_layers: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub dtype: DType,
}

impl KvShape {
    /// Bytes of one head's keys (or values) in one block.
    fn head_bytes(&self) -> usize {
        BLOCK * self.head_dim * self.dtype.size()
    }
    /// Bytes of one layer in one block.
    fn layer_bytes(&self) -> usize {
        2 * self.n_kv_heads * self.head_bytes()
    }
    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        self.n_layers * self.layer_bytes()
    }
}

/// The blocks of one sequence.
pub struct KvBlocks {
    shape: KvShape,
    blocks: Vec<Arc<Vec<u8>>>,
}

impl KvBlocks {
    pub fn new(shape: KvShape) -> Self {
        Self { shape, blocks: Vec::new() }
    }

    /// A copy that shares every block.
    pub fn fork(&self) -> Result<Self> {
        let mut blocks = Vec::new();
        blocks
            .try_reserve_exact(self.blocks.len())
            .map_err(|_| Error::out_of_memory("the list of cache blocks", size_of_val(&*self.blocks)))?;
        blocks.extend_from_slice(&self.blocks);
        Ok(Self { shape: self.shape, blocks })
    }

    /// Makes positions `from..to` writable: new blocks where none are, copies of those that a fork still holds.
    pub fn make_writable(&mut self, from: usize, to: usize) -> Result<()> {
        let size = self.shape.block_bytes();
        for (i, block) in self.blocks.iter_mut().enumerate().skip(from / BLOCK) {
            if i * BLOCK < to && Arc::get_mut(block).is_none() {
                let mut copy = try_vec(0, size, "a block of the KV cache")?;
                copy.copy_from_slice(block);
                *block = Arc::new(copy);
            }
        }
        while self.blocks.len() * BLOCK < to {
            self.blocks.push(Arc::new(try_vec(0, size, "a block of the KV cache")?));
        }
        Ok(())
    }

    /// Drops the blocks that hold nothing of the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.blocks.truncate(len.div_ceil(BLOCK));
    }

    /// Stores keys and values of `layer` at a position that [`Self::make_writable`] covered; each `[n_kv_heads * head_dim]`.
    pub fn write(&mut self, kernels: &Kernels, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let KvShape { head_dim, dtype, .. } = self.shape;
        let (head_bytes, layer_bytes, row_bytes) = (self.shape.head_bytes(), self.shape.layer_bytes(), head_dim * dtype.size());
        let block = Arc::get_mut(&mut self.blocks[position / BLOCK]).expect("make_writable left us the only owner");
        let layer = &mut block[layer * layer_bytes..][..layer_bytes];
        let rows = keys.chunks_exact(head_dim).chain(values.chunks_exact(head_dim));
        for (head, row) in layer.chunks_exact_mut(head_bytes).zip(rows) {
            kernels.pack(dtype, row, &mut head[position % BLOCK * row_bytes..][..row_bytes]);
        }
    }

    /// What attention reads of `layer`.
    pub fn layer(&self, layer: usize) -> LayerBlocks<'_> {
        LayerBlocks { kv: self, layer }
    }

    /// Bytes held; blocks that are shared count in full.
    pub fn bytes(&self) -> usize {
        self.blocks.len() * self.shape.block_bytes()
    }
}

/// One layer's part of the blocks.
pub struct LayerBlocks<'a> {
    kv: &'a KvBlocks,
    layer: usize,
}

impl Blocks for LayerBlocks<'_> {
    fn block(&self, block: usize, kv_head: usize) -> (&[u8], &[u8]) {
        let shape = &self.kv.shape;
        let head_bytes = shape.head_bytes();
        let layer = &self.kv.blocks[block][self.layer * shape.layer_bytes()..][..shape.layer_bytes()];
        let (keys, values) = layer.split_at(layer.len() / 2);
        (&keys[kv_head * head_bytes..][..head_bytes], &values[kv_head * head_bytes..][..head_bytes])
    }
}
