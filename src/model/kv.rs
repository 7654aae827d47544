//! Keys and values of one sequence, in blocks of [`BLOCK`] tokens that forks share and copy on write.
//!
//! The layers that see equally far are a group; each group has blocks of its own, `[n_layers][k | v][n_kv_heads][BLOCK][head_dim]`.
//! Memory grows by a block; nothing is ever moved. Blocks that a group's window has left behind are let go.
#![forbid(unsafe_code)]

use crate::arch::Spec;
use crate::error::{Error, Result, try_vec};
use crate::format::Float;
use crate::kernels::Kernels;
use crate::ops::attention::{BLOCK, Blocks};
use std::ops::Range;
use std::sync::Arc;

/// The shape of a cache's blocks.
pub struct KvShape {
    groups: Vec<Group>,
    /// Of each layer: its group, and its place in the group's blocks.
    layers: Vec<(usize, usize)>,
    n_kv_heads: usize,
    head_dim: usize,
    dtype: Float,
}

/// Layers that see equally far.
struct Group {
    /// Most positions that a token sees, its own counted in; `None`: all.
    window: Option<usize>,
    n_layers: usize,
}

impl KvShape {
    pub fn new(spec: &Spec, dtype: Float) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        let mut layers = Vec::new();
        for window in spec.layers.iter().map(|layer| layer.window) {
            let group = groups.iter().position(|group| group.window == window).unwrap_or_else(|| {
                groups.push(Group { window, n_layers: 0 });
                groups.len() - 1
            });
            layers.push((group, groups[group].n_layers));
            groups[group].n_layers += 1;
        }
        Self { groups, layers, n_kv_heads: spec.n_kv_heads, head_dim: spec.head_dim, dtype }
    }

    /// Bytes of one head's keys (or values) in one block.
    fn head_bytes(&self) -> usize {
        BLOCK * self.head_dim * self.dtype.size()
    }
    /// Bytes of one layer in one block.
    fn layer_bytes(&self) -> usize {
        2 * self.n_kv_heads * self.head_bytes()
    }
    /// What `n_tokens` tokens more cost in the layers that see everything.
    pub fn growth(&self, n_tokens: usize) -> usize {
        let all = self.groups.iter().filter(|group| group.window.is_none());
        all.map(|group| self.block_bytes(group) / BLOCK * n_tokens).sum()
    }
    /// The most that the other layers hold between steps: their windows, `rewind` tokens more, the blocks' ends, and one to spare.
    pub fn windows(&self, rewind: usize) -> usize {
        let blocks = |group: &Group| group.window.map_or(0, |window| window.saturating_add(rewind).div_ceil(BLOCK) + 2);
        self.groups.iter().map(|group| blocks(group).saturating_mul(self.block_bytes(group))).sum()
    }
    /// Bytes of a block of a group.
    fn block_bytes(&self, group: &Group) -> usize {
        group.n_layers * self.layer_bytes()
    }
}

impl Group {
    /// How many blocks from the beginning are out of sight for the tokens from `position` on.
    fn unseen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window) / BLOCK)
    }
}

/// A block, shared with forks; `None`: let go.
type Block = Option<Arc<Vec<u8>>>;

/// The blocks of one sequence.
pub struct KvBlocks {
    shape: Arc<KvShape>,
    /// By group.
    blocks: Vec<Vec<Block>>,
    /// A block of each group that was let go and that no fork holds: the next one needs no allocation.
    spare: Vec<Block>,
}

impl KvBlocks {
    pub fn new(shape: KvShape) -> Self {
        let n = shape.groups.len();
        Self { shape: Arc::new(shape), blocks: vec![Vec::new(); n], spare: vec![None; n] }
    }

    /// A copy that shares every block.
    pub fn fork(&self) -> Result<Self> {
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for of_group in &self.blocks {
            let mut copy = Vec::new();
            copy.try_reserve_exact(of_group.len())
                .map_err(|_| Error::out_of_memory("the list of cache blocks", size_of_val(&**of_group)))?;
            copy.extend_from_slice(of_group);
            blocks.push(copy);
        }
        Ok(Self { shape: self.shape.clone(), blocks, spare: vec![None; self.spare.len()] })
    }

    /// Makes positions `range` writable: new blocks where none are, copies of those that a fork still holds.
    pub fn make_writable(&mut self, range: Range<usize>) -> Result<()> {
        for ((group, blocks), spare) in self.shape.groups.iter().zip(&mut self.blocks).zip(&mut self.spare) {
            let size = self.shape.block_bytes(group);
            for block in blocks.iter_mut().take(range.end.div_ceil(BLOCK)).skip(range.start / BLOCK).flatten() {
                if Arc::get_mut(block).is_none() {
                    let mut copy = try_vec(0, size, "a block of the KV cache")?;
                    copy.copy_from_slice(block);
                    *block = Arc::new(copy);
                }
            }
            while blocks.len() * BLOCK < range.end {
                let block = match spare.take() {
                    Some(block) => block,
                    None => Arc::new(try_vec(0, size, "a block of the KV cache")?),
                };
                blocks.push(Some(block));
            }
        }
        Ok(())
    }

    /// Lets go of the blocks that no token from `position` on sees, but keeps what those at `keep` see, and have (a step that may yet
    /// be undone).
    pub fn let_go(&mut self, position: usize, keep: Range<usize>) {
        for ((group, blocks), spare) in self.shape.groups.iter().zip(&mut self.blocks).zip(&mut self.spare) {
            let unseen = group.unseen(position).min(blocks.len());
            let kept = group.unseen(keep.start)..keep.end.div_ceil(BLOCK);
            for (_, block) in blocks[..unseen].iter_mut().enumerate().filter(|(i, _)| !kept.contains(i)) {
                let gone = block.take().filter(|block| Arc::strong_count(block) == 1);
                *spare = gone.or(spare.take());
            }
        }
    }

    /// Drops the blocks that hold nothing of the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.blocks.iter_mut().for_each(|blocks| blocks.truncate(len.div_ceil(BLOCK)));
    }

    /// The smallest number of tokens, 0 aside, that the cache can be truncated to: all that a token after those sees is there.
    pub fn least(&self) -> usize {
        let groups = self.shape.groups.iter().zip(&self.blocks);
        let least = groups.map(|(group, blocks)| match blocks.iter().take_while(|block| block.is_none()).count() {
            0 => 0,
            gone => gone * BLOCK + group.window.map_or(0, |window| window - 1),
        });
        least.max().unwrap_or(0)
    }

    /// Stores keys and values of `layer` at a position that [`Self::make_writable`] covered; each `[n_kv_heads * head_dim]`.
    pub fn write(&mut self, kernels: &Kernels, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let (head_dim, dtype) = (self.shape.head_dim, self.shape.dtype);
        let (head_bytes, layer_bytes, row_bytes) = (self.shape.head_bytes(), self.shape.layer_bytes(), head_dim * dtype.size());
        let (group, layer) = self.shape.layers[layer];
        let block = self.blocks[group][position / BLOCK].as_mut().and_then(Arc::get_mut);
        let block = block.expect("make_writable left us the only owner");
        let layer = &mut block[layer * layer_bytes..][..layer_bytes];
        let rows = keys.chunks_exact(head_dim).chain(values.chunks_exact(head_dim));
        for (head, row) in layer.chunks_exact_mut(head_bytes).zip(rows) {
            kernels.pack(dtype, row, &mut head[position % BLOCK * row_bytes..][..row_bytes]);
        }
    }

    /// What attention reads of `layer`.
    pub fn layer(&self, layer: usize) -> LayerBlocks<'_> {
        let (group, layer) = self.shape.layers[layer];
        LayerBlocks { shape: &self.shape, blocks: &self.blocks[group], layer }
    }

    /// Bytes held; blocks that are shared count in full.
    pub fn bytes(&self) -> usize {
        let groups = self.shape.groups.iter().zip(self.blocks.iter().zip(&self.spare));
        groups
            .map(|(group, (blocks, spare))| blocks.iter().chain([spare]).flatten().count() * self.shape.block_bytes(group))
            .sum()
    }
}

/// One layer's part of the blocks.
pub struct LayerBlocks<'a> {
    shape: &'a KvShape,
    blocks: &'a [Block],
    layer: usize,
}

impl Blocks for LayerBlocks<'_> {
    fn block(&self, block: usize, kv_head: usize) -> (&[u8], &[u8]) {
        let (head_bytes, layer_bytes) = (self.shape.head_bytes(), self.shape.layer_bytes());
        let block = self.blocks[block].as_ref().expect("a block within the window is there");
        let layer = &block[self.layer * layer_bytes..][..layer_bytes];
        let (keys, values) = layer.split_at(layer.len() / 2);
        (&keys[kv_head * head_bytes..][..head_bytes], &values[kv_head * head_bytes..][..head_bytes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;

    /// Two layers, of which each may have a window.
    fn new(windows: [Option<usize>; 2]) -> KvBlocks {
        let mut groups = vec![Group { window: windows[0], n_layers: 1 }];
        let layers = if windows[0] == windows[1] {
            groups[0].n_layers = 2;
            vec![(0, 0), (0, 1)]
        } else {
            groups.push(Group { window: windows[1], n_layers: 1 });
            vec![(0, 0), (1, 0)]
        };
        KvBlocks::new(KvShape { groups, layers, n_kv_heads: 2, head_dim: 3, dtype: Float::F32 })
    }

    /// Which of a group's blocks are there.
    fn there(kv: &KvBlocks, group: usize) -> Vec<usize> {
        (0..kv.blocks[group].len()).filter(|&i| kv.blocks[group][i].is_some()).collect()
    }

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
        let mut kv = new([None, None]);
        kv.make_writable(0..130).unwrap();
        assert_eq!(kv.blocks[0].len(), 3);
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
        let mut kv = new([None, None]);
        kv.make_writable(0..70).unwrap();
        (0..70).for_each(|p| write(&mut kv, p, p as f32));
        let mut fork = kv.fork().unwrap();
        let same = |a: &KvBlocks, b: &KvBlocks, i: usize| match (&a.blocks[0][i], &b.blocks[0][i]) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        fork.make_writable(70..71).unwrap();
        write(&mut fork, 70, -1.0);
        assert!(same(&kv, &fork, 0), "the full block is shared");
        assert!(!same(&kv, &fork, 1), "the written one is not");
        kv.make_writable(70..71).unwrap();
        write(&mut kv, 70, 7.0);
        assert_eq!((read(&kv, 70).0, read(&fork, 70).0), (10.0, 2.0));
        assert_eq!((read(&kv, 69), read(&fork, 69)), ((72.0, 272.0), (72.0, 272.0)));
        fork.truncate(64);
        assert_eq!(fork.blocks[0].len(), 1);
        drop(fork);
        kv.make_writable(3..4).unwrap(); // the only owner again: nothing to copy
        assert_eq!(read(&kv, 69).0, 72.0);
    }

    #[test]
    fn a_window_lets_go_of_what_it_has_left_behind() {
        let mut kv = new([None, Some(70)]);
        let block = 2 * 2 * 64 * 3 * 4;
        // A step of 300 tokens from position 100 on, in two parts.
        kv.make_writable(0..100).unwrap();
        kv.let_go(100, 0..0);
        assert_eq!((there(&kv, 0), there(&kv, 1)), (vec![0, 1], vec![0, 1]), "position 100 sees 31..=100");
        kv.make_writable(100..300).unwrap();
        kv.let_go(300, 100..100);
        // Position 300 sees 231..=300; the blocks 0 and 1 are what undoing the step needs.
        assert_eq!((there(&kv, 0), there(&kv, 1)), (vec![0, 1, 2, 3, 4], vec![0, 1, 3, 4]));
        assert_eq!(kv.least(), 0);
        kv.make_writable(300..400).unwrap();
        assert!(kv.spare[1].is_none(), "the block that was let go is used again");
        kv.let_go(400, 0..0);
        assert_eq!((there(&kv, 1), kv.blocks[1].len()), (vec![5, 6], 7), "position 400 sees 331..=400");
        assert_eq!((kv.least(), kv.bytes()), (5 * 64 + 69, (7 + 2 + 1) * block));
        kv.truncate(kv.least());
        assert_eq!(there(&kv, 1), [5, 6], "position 389 sees 320..=389");
        kv.truncate(0);
        assert_eq!((kv.least(), kv.blocks[1].len()), (0, 0));
    }

    #[test]
    fn a_fork_keeps_what_the_original_lets_go() {
        let mut kv = new([Some(10), Some(10)]);
        kv.make_writable(0..64).unwrap();
        (0..64).for_each(|p| write(&mut kv, p, p as f32));
        let fork = kv.fork().unwrap();
        kv.make_writable(64..100).unwrap();
        kv.let_go(100, 0..0);
        assert_eq!(there(&kv, 0), [1]);
        assert!(kv.spare[0].is_none(), "a block that a fork holds cannot be used again");
        assert_eq!(read(&fork, 5), (8.0, 208.0));
    }
}
