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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;

    const SHAPE: KvShape = KvShape { n_layers: 2, n_kv_heads: 2, head_dim: 3, dtype: DType::F32 };

    fn write(kv: &mut KvBlocks, position: usize, value: f32) {
        let kernels = Kernels::select(Some(Isa::Scalar)).unwrap();
        let row = |v: f32| std::array::from_fn::<f32, 6, _>(|i| v + i as f32);
        for layer in 0..2 {
            kv.write(kernels, layer, position, &row(value), &row(value + 100.0 * (layer as f32 + 1.0)));
        }
    }

    /// (first key element of head 1, first value element of head 1) in layer 1.
    fn read(kv: &KvBlocks, position: usize) -> (f32, f32) {
        let layer = kv.layer(1);
        let (keys, values) = layer.block(position / BLOCK, 1);
        let at = |bytes: &[u8]| {
            let at = position % BLOCK * 3 * 4;
            f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
        };
        (at(keys), at(values))
    }

    #[test]
    fn a_row_lands_in_its_layer_head_and_position() {
        let mut kv = KvBlocks::new(SHAPE);
        kv.make_writable(0, 130).unwrap();
        assert_eq!(kv.blocks.len(), 3);
        for position in [0, 63, 64, 129] {
            write(&mut kv, position, position as f32);
        }
        for position in [0, 63, 64, 129] {
            assert_eq!(read(&kv, position), (position as f32 + 3.0, position as f32 + 203.0));
        }
        assert_eq!(kv.bytes(), 3 * 2 * 2 * 2 * 64 * 3 * 4);
    }

    #[test]
    fn a_fork_copies_only_the_block_that_is_written() {
        let mut kv = KvBlocks::new(SHAPE);
        kv.make_writable(0, 70).unwrap();
        (0..70).for_each(|p| write(&mut kv, p, p as f32));
        let mut fork = kv.fork().unwrap();
        fork.make_writable(70, 71).unwrap();
        write(&mut fork, 70, -1.0);
        assert!(Arc::ptr_eq(&kv.blocks[0], &fork.blocks[0]), "the full block is shared");
        assert!(!Arc::ptr_eq(&kv.blocks[1], &fork.blocks[1]), "the written one is not");
        kv.make_writable(70, 71).unwrap();
        write(&mut kv, 70, 7.0);
        assert_eq!((read(&kv, 70).0, read(&fork, 70).0), (10.0, 2.0));
        assert_eq!((read(&kv, 69), read(&fork, 69)), ((72.0, 272.0), (72.0, 272.0)));
        fork.truncate(64);
        assert_eq!(fork.blocks.len(), 1);
        drop(fork);
        kv.make_writable(3, 4).unwrap(); // the only owner again: nothing to copy
        assert_eq!(read(&kv, 69).0, 72.0);
    }
}
