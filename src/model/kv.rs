//! Keys and values of one sequence, in blocks of [`BLOCK`] tokens that forks share and copy on write.
//!
//! The layers that see equally far are a group; each group has blocks of its own: for each layer the keys,
//! `[n_kv_heads][head_dim][BLOCK]`, then the values, `[n_kv_heads][BLOCK][head_dim]`: both as attention's products read them. In 8 bits each head's
//! lie as [`crate::kernels::bytes`] says.
//! Memory grows by a block; nothing is ever moved. Blocks that a group's window has left behind are let go.
#![forbid(unsafe_code)]

use crate::arch::Spec;
use crate::error::{Error, Result, try_vec};
use crate::format::Float;
use crate::kernels::Kernels;
use crate::ops::Ctx;
use crate::ops::attention::{BLOCK, KvType};
use std::ops::Range;
use std::sync::Arc;

/// The shape of a cache's blocks.
pub struct KvShape {
    groups: Vec<Group>,
    /// Of each layer: its group, and its place in the group's blocks.
    layers: Vec<(usize, usize)>,
    n_kv_heads: usize,
    head_dim: usize,
    kv_type: KvType,
}

/// Layers that see equally far.
struct Group {
    /// Most positions that a token sees, its own counted in; `None`: all.
    window: Option<usize>,
    n_layers: usize,
}

impl KvShape {
    pub fn new(spec: &Spec, kv_type: KvType) -> Self {
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
        Self { groups, layers, n_kv_heads: spec.n_kv_heads, head_dim: spec.head_dim, kv_type }
    }

    /// Bytes of one head's keys, and of its values, in one block.
    fn head_bytes(&self) -> (usize, usize) {
        self.kv_type.head_bytes(self.head_dim)
    }
    /// Bytes of one layer in one block.
    fn layer_bytes(&self) -> usize {
        let (keys, values) = self.head_bytes();
        self.n_kv_heads * (keys + values)
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
    /// Stores keys and values, `[k | v][n_kv_heads][head_dim]`, at `position` of a layer's part of a block.
    fn write(&self, kernels: &Kernels, layer: &mut [u8], position: usize, kv: &[f32]) {
        let (keys, values) = kv.split_at(kv.len() / 2);
        let (key_bytes, value_bytes) = self.head_bytes();
        let (to_keys, to_values) = layer.split_at_mut(self.n_kv_heads * key_bytes);
        for (to, key) in to_keys.chunks_exact_mut(key_bytes).zip(keys.chunks_exact(self.head_dim)) {
            match self.kv_type.float() {
                Some(dtype) => put_key(kernels, dtype, key, position, to),
                None => kernels.put_key(key, position, to),
            }
        }
        for (to, value) in to_values.chunks_exact_mut(value_bytes).zip(values.chunks_exact(self.head_dim)) {
            match self.kv_type.float() {
                Some(dtype) => {
                    let row = self.head_dim * dtype.size();
                    kernels.pack(dtype, value, &mut to[position * row..][..row]);
                }
                None => kernels.put_value(value, position, to),
            }
        }
    }
    /// Bytes of a block of a group.
    fn block_bytes(&self, group: &Group) -> usize {
        group.n_layers * self.layer_bytes()
    }
}

/// A key of floats into a block's keys.
fn put_key(kernels: &Kernels, dtype: Float, key: &[f32], position: usize, keys: &mut [u8]) {
    let size = dtype.size();
    let mut packed = [0; 64 * 4];
    for (rows, key) in keys.chunks_mut(64 * BLOCK * size).zip(key.chunks(64)) {
        let packed = &mut packed[..key.len() * size];
        kernels.pack(dtype, key, packed);
        match dtype {
            Float::F32 => put_column::<4>(packed, position, rows),
            Float::F16 | Float::Bf16 => put_column::<2>(packed, position, rows),
        }
    }
}

/// Elements of N bytes, one to each row of a block's keys, at `position`.
fn put_column<const N: usize>(elements: &[u8], position: usize, rows: &mut [u8]) {
    for (row, element) in rows.chunks_exact_mut(BLOCK * N).zip(elements.chunks_exact(N)) {
        row[position * N..][..N].copy_from_slice(element);
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

    /// Stores keys and values of `layer` at the positions from `first` on, which [`Self::make_writable`] covered: each token's are the
    /// last `2 * n_kv_heads * head_dim` elements of its row of `qkv: [n_tokens, width]`.
    pub fn write(&mut self, ctx: &mut Ctx<'_>, layer: usize, first: usize, qkv: &[f32], width: usize) {
        let (shape, kernels) = (&*self.shape, ctx.kernels);
        let (group, layer) = shape.layers[layer];
        let (from, end) = (first / BLOCK, first + qkv.len() / width);
        let blocks = &mut self.blocks[group][from..end.div_ceil(BLOCK)];
        ctx.pool.for_each_rows(ctx.workers, blocks, 1, 1, |_, i, block| {
            let block = block[0].as_mut().and_then(Arc::get_mut).expect("make_writable left us the only owner");
            let positions = (from + i) * BLOCK;
            for position in first.max(positions)..end.min(positions + BLOCK) {
                let row = &qkv[(position - first) * width..][..width];
                let kv = &row[width - 2 * shape.n_kv_heads * shape.head_dim..];
                shape.write(kernels, &mut block[layer * shape.layer_bytes()..][..shape.layer_bytes()], position % BLOCK, kv);
            }
        });
    }

    /// How keys and values are held.
    pub fn kv_type(&self) -> KvType {
        self.shape.kv_type
    }

    /// Bytes of a position in one layer.
    pub fn position_bytes(&self) -> usize {
        self.shape.layer_bytes() / BLOCK
    }

    /// One kv head's keys and values of `layer` in a block.
    pub fn block(&self, layer: usize, block: usize, kv_head: usize) -> (&[u8], &[u8]) {
        let ((key_bytes, value_bytes), layer_bytes) = (self.shape.head_bytes(), self.shape.layer_bytes());
        let (group, layer) = self.shape.layers[layer];
        let block = self.blocks[group][block].as_ref().expect("a block within the window is there");
        let layer = &block[layer * layer_bytes..][..layer_bytes];
        let (keys, values) = layer.split_at(self.shape.n_kv_heads * key_bytes);
        (&keys[kv_head * key_bytes..][..key_bytes], &values[kv_head * value_bytes..][..value_bytes])
    }

    /// Bytes held; blocks that are shared count in full.
    pub fn bytes(&self) -> usize {
        let groups = self.shape.groups.iter().zip(self.blocks.iter().zip(&self.spare));
        groups
            .map(|(group, (blocks, spare))| blocks.iter().chain([spare]).flatten().count() * self.shape.block_bytes(group))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;
    use crate::ops::Worker;
    use crate::threads::Pool;

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
        KvBlocks::new(KvShape { groups, layers, n_kv_heads: 2, head_dim: 3, kv_type: KvType::F32 })
    }

    /// Which of a group's blocks are there.
    fn there(kv: &KvBlocks, group: usize) -> Vec<usize> {
        (0..kv.blocks[group].len()).filter(|&i| kv.blocks[group][i].is_some()).collect()
    }

    fn write(kv: &mut KvBlocks, position: usize, value: f32) {
        let (kernels, pool) = (Kernels::select(Some(Isa::Scalar)).unwrap(), Pool::new(1).unwrap());
        let ctx = &mut Ctx { kernels, pool: &pool, workers: &mut [Worker::default()], few: usize::MAX, profile: None };
        for layer in 0..2 {
            let row: [f32; 12] = std::array::from_fn(|i| {
                let value = value + if i < 6 { 0.0 } else { 100.0 * (layer as f32 + 1.0) };
                value + (i % 6) as f32
            });
            kv.write(ctx, layer, position, &row, row.len());
        }
    }

    /// (first key element of head 1, first value element of head 1) in layer 1.
    fn read(kv: &KvBlocks, position: usize) -> (f32, f32) {
        let (keys, values) = kv.block(1, position / BLOCK, 1);
        let at = |bytes: &[u8], element: usize| f32::from_le_bytes(bytes[element * 4..][..4].try_into().unwrap());
        (at(keys, position % BLOCK), at(values, position % BLOCK * 3))
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
