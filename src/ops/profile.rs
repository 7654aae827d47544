//! Where a step's time goes: a stop watch that each op presses when it is done.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// What a decoder does, in the order of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Rows of the embedding and of learned positions.
    Embedding,
    /// Norms of a sub-layer's input, with its way to 8 bits or to tiles, and of its output where that has one.
    Norm,
    /// Of a linear's input that is not made for it alone, its way to 8 bits or to tiles; of many tokens with float weights the way to blocks.
    Quantise,
    /// The projection to queries, keys and values.
    Qkv,
    /// Norms, order and clamping of queries, keys and values.
    QkvShape,
    /// Rotary position embedding.
    Rope,
    /// Keys and values into the cache.
    KvWrite,
    /// Attention itself.
    Attention,
    /// The projection behind attention.
    AttentionOutput,
    /// The projection by which a mixture chooses experts.
    Router,
    /// The choice, rows to experts and back.
    Experts,
    /// The first projections of a feed-forward block.
    GateUp,
    /// Activation, and the product of gate and up, with its way to 8 bits or to tiles.
    Activation,
    /// The last projection of a feed-forward block.
    Down,
    /// A sub-layer's output added to the residual stream.
    Residual,
    /// The projection to logits.
    Head,
    /// Scale and cap of logits; in a batch, their way to the requests.
    Logits,
}

impl Op {
    /// All of them, each at the place of its number.
    pub const ALL: [Op; 17] = [
        Op::Embedding,
        Op::Norm,
        Op::Quantise,
        Op::Qkv,
        Op::QkvShape,
        Op::Rope,
        Op::KvWrite,
        Op::Attention,
        Op::AttentionOutput,
        Op::Router,
        Op::Experts,
        Op::GateUp,
        Op::Activation,
        Op::Down,
        Op::Residual,
        Op::Head,
        Op::Logits,
    ];

    /// A short name with a NUL behind it, which C wants.
    pub fn c_name(self) -> &'static std::ffi::CStr {
        match self {
            Op::Embedding => c"embedding",
            Op::Norm => c"norm",
            Op::Quantise => c"quantise",
            Op::Qkv => c"qkv",
            Op::QkvShape => c"qkv_shape",
            Op::Rope => c"rope",
            Op::KvWrite => c"kv_write",
            Op::Attention => c"attention",
            Op::AttentionOutput => c"attention_output",
            Op::Router => c"router",
            Op::Experts => c"experts",
            Op::GateUp => c"gate_up",
            Op::Activation => c"activation",
            Op::Down => c"down",
            Op::Residual => c"residual",
            Op::Head => c"head",
            Op::Logits => c"logits",
        }
    }

    /// A short name.
    pub fn name(self) -> &'static str {
        self.c_name().to_str().unwrap_or_default()
    }
}

/// What one op, or everything, has taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// How often.
    pub calls: u64,
    /// How long.
    pub time: Duration,
    /// Bytes of weights, keys and values that had to be read or written, each counted once in a call; activations are not counted.
    pub bytes: u64,
}

/// What each op has taken in all passes since the last [`Profile::reset`].
#[derive(Clone, Debug)]
pub struct Profile {
    ops: [Taken; Op::ALL.len()],
    passes: Taken,
    /// When the op that is now running began.
    since: Instant,
}

impl Default for Profile {
    fn default() -> Self {
        Self { ops: Default::default(), passes: Taken::default(), since: Instant::now() }
    }
}

impl Profile {
    /// What `op` has taken.
    pub fn of(&self, op: Op) -> Taken {
        self.ops[op as usize]
    }
    /// The passes through the model, and what they took altogether: the sum of all ops.
    pub fn passes(&self) -> Taken {
        self.passes
    }
    /// Forgets everything.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// A pass begins.
    pub(crate) fn begin(&mut self) {
        self.passes.calls += 1;
        self.since = Instant::now();
    }
    /// `op` is done: the time since the last one was done, or since the beginning, was its.
    pub(crate) fn lap(&mut self, op: Op, bytes: usize) {
        let now = Instant::now();
        let time = now - self.since;
        self.since = now;
        let taken = &mut self.ops[op as usize];
        taken.calls += 1;
        for sum in [taken, &mut self.passes] {
            sum.time += time;
            sum.bytes += bytes as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_has_its_number_and_a_name_of_its_own() {
        for (i, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, i);
            assert!(!op.name().is_empty() && Op::ALL[..i].iter().all(|other| other.name() != op.name()));
        }
    }

    #[test]
    fn laps_add_up() {
        let mut profile = Profile::default();
        for _ in 0..2 {
            profile.begin();
            profile.lap(Op::Norm, 0);
            std::thread::sleep(Duration::from_millis(2));
            profile.lap(Op::Qkv, 10);
            profile.lap(Op::Norm, 1);
        }
        let (norm, qkv, passes) = (profile.of(Op::Norm), profile.of(Op::Qkv), profile.passes());
        assert_eq!((norm.calls, qkv.calls, passes.calls), (4, 2, 2));
        assert_eq!((norm.bytes, qkv.bytes, passes.bytes), (2, 20, 22));
        assert!(qkv.time >= Duration::from_millis(4));
        assert_eq!(norm.time + qkv.time, passes.time);
        profile.reset();
        assert_eq!(profile.passes().calls + profile.of(Op::Norm).calls, 0);
    }
}
