//! Loops over rows, four vectors at a time: their ends are looked for once in four, and an addition takes as many cycles as four
//! of them need. What is done in them is a type with a function of its own, not a closure: that would lack the CPU's features.

use crate::kernels::simd::Simd;

/// Vectors at a time.
pub(super) const AT_ONCE: usize = 4;

/// A function of one vector.
pub(in crate::kernels) trait Map: Copy {
    /// Its value at `x`.
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V;
}

/// A function of two vectors.
pub(super) trait Pair: Copy {
    /// Its value at `y` and `x`.
    fn of<S: Simd>(self, s: S, y: S::V, x: S::V) -> S::V;
}

/// y = f(y)
#[inline(always)]
pub(super) fn each<S: Simd, F: Map>(s: S, y: &mut [f32], f: F) {
    let mut groups = y.chunks_exact_mut(AT_ONCE * S::LANES);
    for y in &mut groups {
        for y in y.chunks_exact_mut(S::LANES) {
            s.put(y, f.of(s, s.get(y, 0.0)));
        }
    }
    for y in groups.into_remainder().chunks_mut(S::LANES) {
        s.put(y, f.of(s, s.get(y, 0.0)));
    }
}

/// y = f(y, x), of equal lengths.
#[inline(always)]
pub(super) fn each_pair<S: Simd, F: Pair>(s: S, y: &mut [f32], x: &[f32], f: F) {
    let mut groups = y.chunks_exact_mut(AT_ONCE * S::LANES);
    let of_x = x.chunks_exact(AT_ONCE * S::LANES);
    let rest = of_x.remainder();
    for (y, x) in (&mut groups).zip(of_x) {
        for (y, x) in y.chunks_exact_mut(S::LANES).zip(x.chunks_exact(S::LANES)) {
            s.put(y, f.of(s, s.get(y, 0.0), s.get(x, 0.0)));
        }
    }
    for (y, x) in groups.into_remainder().chunks_mut(S::LANES).zip(rest.chunks(S::LANES)) {
        s.put(y, f.of(s, s.get(y, 0.0), s.get(x, 0.0)));
    }
}

/// Each vector of `x` taken into one of four in turn, as f(that, x); lanes beyond `x` are `fill`.
#[inline(always)]
pub(super) fn fold<S: Simd, F: Pair>(s: S, x: &[f32], start: f32, fill: f32, f: F) -> [S::V; AT_ONCE] {
    let mut taken = [s.splat(start); AT_ONCE];
    let groups = x.chunks_exact(AT_ONCE * S::LANES);
    let rest = groups.remainder();
    for x in groups {
        for (taken, x) in taken.iter_mut().zip(x.chunks_exact(S::LANES)) {
            *taken = f.of(s, *taken, s.get(x, fill));
        }
    }
    for (taken, x) in taken.iter_mut().zip(rest.chunks(S::LANES)) {
        *taken = f.of(s, *taken, s.get(x, fill));
    }
    taken
}
