//! Types whose blocks of 256 elements have one binary16 scale (and one for minima), and small integers to scale their parts.
//!
//! Each part is fitted by itself; then the block's scale is such that the largest of the parts' scales is the largest integer, and each
//! part takes, of the integers next to its own scale, those that leave the least error with the elements' integers rounded anew. With
//! all integers known, the block's scales are fitted once more, and the parts choose again.
#![forbid(unsafe_code)]

use super::fit::{LANES, Lanes, errors, least, nearest, peak, scale, scale_and_min};
use super::{half, inverse};
use half::f16;

type Block = [f32; 256];

/// The integers of a part of 32: scale, minimum, elements.
struct Part {
    scale: f32,
    min: f32,
    error: f32,
}

/// Q4_K's and Q5_K's block: element i of part j is d·scale\[j\]·q\[i\] − e·min\[j\], with 8 parts of 32.
struct Affine {
    d: f16,
    e: f16,
    parts: [Part; 8],
    error: f32,
}

/// The largest integer that scales a part of Q4_K and Q5_K.
const LAST: f32 = 63.0;
/// The steps from a part's own scale and minimum that are tried. All but the two in which they work against each other.
const NEIGHBOURS: [(f32, f32); LANES] =
    [(0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0), (1.0, 1.0), (-1.0, -1.0), (2.0, 1.0)];

impl Affine {
    #[inline(always)]
    fn of(x: &Block, levels: f32) -> Self {
        let x = x.as_chunks::<32>().0;
        let fits: [(f32, f32); 8] = std::array::from_fn(|j| {
            let (s, m) = scale_and_min(&x[j], levels, 0.0);
            (s, -m)
        });
        let (s, m) = fits.iter().fold((0.0f32, 0.0f32), |(s, m), fit| (s.max(fit.0), m.max(fit.1)));
        let first = Self::choose(x, half(s / LAST), half(m / LAST), levels, |j| fits[j]);
        let (d, e) = first.refit(x, levels);
        let second = Self::choose(x, d, e, levels, |j| {
            let part = &first.parts[j];
            (first.d.to_f32_const() * part.scale, first.e.to_f32_const() * part.min)
        });
        if second.error < first.error { second } else { first }
    }

    /// The parts' integers for the block's scales `d` and `e`; a part's own are about `near`.
    #[inline(always)]
    fn choose(x: &[[f32; 32]], d: f16, e: f16, levels: f32, near: impl Fn(usize) -> (f32, f32)) -> Self {
        let (d32, e32) = (d.to_f32_const(), e.to_f32_const());
        let mut block_error = 0.0;
        let parts = std::array::from_fn(|j| {
            let (s, m) = near(j);
            let (s, m) = (nearest(s * inverse(d32), 0.0, LAST), nearest(m * inverse(e32), 0.0, LAST));
            // One that would leave 0..=63 is tried as the end itself.
            let scales: Lanes = NEIGHBOURS.map(|(step, _)| (s + step).clamp(0.0, LAST));
            let mins: Lanes = NEIGHBOURS.map(|(_, step)| (m + step).clamp(0.0, LAST));
            let errors = errors(&x[j], scales.map(|s| d32 * s), mins.map(|m| -e32 * m), 0.0, levels);
            let i = least(&errors);
            let best = Part { scale: scales[i], min: mins[i], error: errors[i] };
            block_error += best.error;
            best
        });
        Affine { d, e, parts, error: block_error }
    }

    /// The block's scales that are best for the integers: least squares of x ≈ d·(scale·q) − e·min.
    #[inline(always)]
    fn refit(&self, x: &[[f32; 32]], levels: f32) -> (f16, f16) {
        let [mut aa, mut ab, mut bb, mut xa, mut xb] = [0.0f64; 5];
        for (x, part) in x.iter().zip(&self.parts) {
            let (s, m) = (self.d.to_f32_const() * part.scale, self.e.to_f32_const() * part.min);
            let q = integers(x, s, m, levels);
            let lanes = |f: &dyn Fn(usize) -> f32| f64::from((0..32).map(f).sum::<f32>());
            let (qq, q_sum, xq) = (lanes(&|i| q[i] * q[i]), lanes(&|i| q[i]), lanes(&|i| x[i] * q[i]));
            let (scale, min) = (f64::from(part.scale), f64::from(part.min));
            aa += scale * scale * qq;
            ab += scale * min * q_sum;
            bb += min * min * 32.0;
            xa += scale * xq;
            xb += min * lanes(&|i| x[i]);
        }
        let spread = aa * bb - ab * ab;
        let e = if spread > 1e-9 * aa * bb { (ab * xa - xb * aa) / spread } else { self.e.to_f64_const() };
        let d = if aa > 0.0 { (xa + e * ab) / aa } else { 0.0 };
        if d >= 0.0 && e >= 0.0 { (half(d as f32), half(e as f32)) } else { (self.d, self.e) }
    }

    /// d, e, and the scales and minima in their 12 bytes: what unpacking reads.
    #[inline(always)]
    fn head(&self) -> [u8; 16] {
        let mut head = [0; 16];
        head[..2].copy_from_slice(&self.d.to_le_bytes());
        head[2..4].copy_from_slice(&self.e.to_le_bytes());
        let integers: [(u8, u8); 8] = std::array::from_fn(|j| (self.parts[j].scale as u8, self.parts[j].min as u8));
        for (j, (scale, min)) in integers.into_iter().enumerate() {
            if j < 4 {
                head[4 + j] |= scale;
                head[8 + j] |= min;
            } else {
                head[8 + j] = scale & 15 | min << 4;
                head[j] |= scale >> 4 << 6;
                head[4 + j] |= min >> 4 << 6;
            }
        }
        head
    }

    #[inline(always)]
    fn integers(&self, x: &Block, levels: f32) -> [[u8; 32]; 8] {
        let (x, d, e) = (x.as_chunks::<32>().0, self.d.to_f32_const(), self.e.to_f32_const());
        std::array::from_fn(|j| {
            let part = &self.parts[j];
            integers(&x[j], d * part.scale, e * part.min, levels).map(|q| q as u8)
        })
    }
}

/// The integers of s·q − m.
#[inline(always)]
fn integers(x: &[f32; 32], s: f32, m: f32, levels: f32) -> [f32; 32] {
    let inverse = inverse(s);
    x.map(|x| nearest((x + m) * inverse, 0.0, levels))
}

/// Nibbles of two parts at a time: the first's below, the second's above.
#[inline(always)]
fn nibbles(q: &[[u8; 32]; 8], out: &mut [u8]) {
    for (pair, out) in q.as_chunks::<2>().0.iter().zip(out.chunks_exact_mut(32)) {
        for i in 0..32 {
            out[i] = pair[0][i] & 15 | (pair[1][i] & 15) << 4;
        }
    }
}

#[inline(always)]
pub(super) fn q4_k(x: &Block, block: &mut [u8; 144]) {
    let fit = Affine::of(x, 15.0);
    block[..16].copy_from_slice(&fit.head());
    nibbles(&fit.integers(x, 15.0), &mut block[16..]);
}

#[inline(always)]
pub(super) fn q5_k(x: &Block, block: &mut [u8; 176]) {
    let fit = Affine::of(x, 31.0);
    let q = fit.integers(x, 31.0);
    block[..16].copy_from_slice(&fit.head());
    for i in 0..32 {
        block[16 + i] = (0..8).fold(0, |bits, j| bits | q[j][i] >> 4 << j);
    }
    nibbles(&q, &mut block[48..]);
}

/// Q6_K's block: element i of part j is d·scale\[j\]·q\[i\], with 16 parts of 16 and q in −32..32.
struct Symmetric {
    d: f16,
    scales: [f32; 16],
    error: f32,
}

impl Symmetric {
    #[inline(always)]
    fn of(x: &[[f32; 16]]) -> Self {
        let fits: [f32; 16] = std::array::from_fn(|j| scale(&x[j], 32.0));
        let peak = peak(&fits);
        let first = Self::choose(x, half(peak / -128.0), |j| fits[j]);
        let second = Self::choose(x, first.refit(x), |j| first.d.to_f32_const() * first.scales[j]);
        if second.error < first.error { second } else { first }
    }

    #[inline(always)]
    fn choose(x: &[[f32; 16]], d: f16, near: impl Fn(usize) -> f32) -> Self {
        let d32 = d.to_f32_const();
        let mut block_error = 0.0;
        let scales = std::array::from_fn(|j| {
            let s = nearest(near(j) * inverse(d32), -128.0, 127.0);
            let scales: Lanes = std::array::from_fn(|i| (s + i as f32 - 4.0).clamp(-128.0, 127.0));
            let errors = errors(&x[j], scales.map(|s| d32 * s), [0.0; LANES], -32.0, 31.0);
            let i = least(&errors);
            block_error += errors[i];
            scales[i]
        });
        Self { d, scales, error: block_error }
    }

    /// The block's scale that is best for the integers.
    #[inline(always)]
    fn refit(&self, x: &[[f32; 16]]) -> f16 {
        let (mut aa, mut xa) = (0.0f64, 0.0f64);
        for (x, (q, scale)) in x.iter().zip(self.integers(x).iter().zip(self.scales)) {
            let (mut qq, mut xq) = (0.0, 0.0);
            for i in 0..16 {
                qq += q[i] * q[i];
                xq += x[i] * q[i];
            }
            aa += f64::from(scale * scale) * f64::from(qq);
            xa += f64::from(scale) * f64::from(xq);
        }
        if aa > 0.0 { half((xa / aa) as f32) } else { self.d }
    }

    #[inline(always)]
    fn integers(&self, x: &[[f32; 16]]) -> [[f32; 16]; 16] {
        std::array::from_fn(|j| {
            let inverse = inverse(self.d.to_f32_const() * self.scales[j]);
            x[j].map(|x| nearest(x * inverse, -32.0, 31.0))
        })
    }
}

#[inline(always)]
pub(super) fn q6_k(x: &Block, block: &mut [u8; 210]) {
    let x = x.as_chunks::<16>().0;
    let fit = Symmetric::of(x);
    let q = fit.integers(x);
    let q = |i: usize| (q[i / 16][i % 16] + 32.0) as u8;
    // Each half of the block: 4 vectors of 32 in 64 bytes of nibbles and 32 bytes of pairs.
    for h in 0..2 {
        for i in 0..32 {
            let q: [u8; 4] = std::array::from_fn(|v| q(128 * h + 32 * v + i));
            block[64 * h + i] = q[0] & 15 | (q[2] & 15) << 4;
            block[64 * h + 32 + i] = q[1] & 15 | (q[3] & 15) << 4;
            block[128 + 32 * h + i] = q[0] >> 4 | q[1] >> 4 << 2 | q[2] >> 4 << 4 | q[3] >> 4 << 6;
        }
    }
    for (byte, scale) in block[192..208].iter_mut().zip(fit.scales) {
        *byte = scale as i8 as u8;
    }
    block[208..].copy_from_slice(&fit.d.to_le_bytes());
}
