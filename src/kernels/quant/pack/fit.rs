//! The search for scales.
//!
//! A candidate is an inverse scale v: the integers q nearest to x·v leave residues r = x·v − q. For these q the best scale is that of a
//! line through the residues, r ≈ a·q (+ b), which takes a·Σqr (+ b·Σr) off their Σr². All sums are of residues, not of x, so
//! nothing cancels; in units of x the error is divided by v².
//!
//! Eight candidates go side by side: the compiler makes vectors of them, of whatever width, and every candidate's sums run over
//! the elements in their order.
#![forbid(unsafe_code)]

/// Candidates side by side.
pub(super) const LANES: usize = 8;
/// A number of each candidate.
pub(super) type Lanes = [f32; LANES];

/// Elements smaller than this are zero to every type.
const TINY: f32 = 1e-30;

/// The integer nearest to `v`, halves to even, in `low..=high`.
#[inline(always)]
pub(super) fn nearest(v: f32, low: f32, high: f32) -> f32 {
    // From 2^23 on floats are integers, so the sum is rounded to one. What is too large for that is beyond the ends.
    const SHIFT: f32 = 1.5 * (1 << 23) as f32;
    let v = (v + SHIFT) - SHIFT;
    // Comparisons that are one instruction each, which `clamp` is not.
    let v = if v > low { v } else { low };
    if v < high { v } else { high }
}

/// The squared errors that elements s·q + m leave, q in `low..=high`.
#[inline(always)]
pub(super) fn errors<const N: usize>(x: &[f32; N], s: Lanes, m: Lanes, low: f32, high: f32) -> Lanes {
    let inverse = s.map(super::inverse);
    let mut errors = [0.0; LANES];
    for x in x {
        for i in 0..LANES {
            let y = x - m[i];
            let r = y - s[i] * nearest(y * inverse[i], low, high);
            errors[i] += r * r;
        }
    }
    errors
}

/// The number of the least, the first of equals.
#[inline(always)]
pub(super) fn least(errors: &Lanes) -> usize {
    let mut best = 0;
    for i in 1..LANES {
        if errors[i] < errors[best] {
            best = i;
        }
    }
    best
}

/// Sums over the integers q of each candidate and their residues r.
struct Sums {
    q: Lanes,
    qq: Lanes,
    r: Lanes,
    qr: Lanes,
    rr: Lanes,
}

impl Sums {
    #[inline(always)]
    fn of<const N: usize>(x: &[f32; N], m: f32, inverse: Lanes, low: f32, high: f32) -> Self {
        let [mut sum_q, mut qq, mut sum_r, mut qr, mut rr] = [[0.0; LANES]; 5];
        for x in x {
            let y = x - m;
            for i in 0..LANES {
                let v = y * inverse[i];
                let q = nearest(v, low, high);
                let r = v - q;
                sum_q[i] += q;
                qq[i] += q * q;
                sum_r[i] += r;
                qr[i] += q * r;
                rr[i] += r * r;
            }
        }
        Self { q: sum_q, qq, r: sum_r, qr, rr }
    }
}

/// The s for which elements s·q with q in `-half..half` are nearest to `x`, of those around the ones that map the largest element
/// to an end of the range.
#[inline(always)]
pub(super) fn scale<const N: usize>(x: &[f32; N], half: f32) -> f32 {
    let peak = peak(x);
    if peak.abs() < TINY {
        return 0.0;
    }
    let (mut best, mut least) = (0.0, f32::INFINITY);
    for end in [-half, half - 1.0] {
        let inverse: Lanes = std::array::from_fn(|i| (end + end.signum() * 0.25 * (i as f32 - 4.0)) / peak);
        let Sums { qq, qr, rr, .. } = Sums::of(x, 0.0, inverse, -half, half - 1.0);
        for i in 0..LANES {
            let a = qr[i] / qq[i];
            let error = (rr[i] - a * qr[i]) / (inverse[i] * inverse[i]);
            if error < least {
                (best, least) = ((1.0 + a) / inverse[i], error);
            }
        }
    }
    best
}

/// The element of the largest magnitude.
#[inline(always)]
pub(super) fn peak<const N: usize>(x: &[f32; N]) -> f32 {
    x.iter().fold(0.0f32, |peak, x| if x.abs() > peak.abs() { *x } else { peak })
}

/// The (s, m) for which elements s·q + m with q in `0..=levels` and m ≤ `max_min` are nearest to `x`, of those around the s that
/// spans the elements; s ≥ 0.
#[inline(always)]
pub(super) fn scale_and_min<const N: usize>(x: &[f32; N], levels: f32, max_min: f32) -> (f32, f32) {
    let low = x.iter().fold(max_min, |low, x| if *x < low { *x } else { low });
    let high = x.iter().fold(low, |high, x| if *x > high { *x } else { high });
    let range = high - low;
    if range < TINY {
        return (0.0, low);
    }
    let (mut best, mut least) = ((range / levels, low), f32::INFINITY);
    for steps in 0..2 {
        let inverse: Lanes = std::array::from_fn(|i| (levels + 0.125 * (i as f32 + 8.0 * steps as f32 - 8.0)) / range);
        let sums = Sums::of(x, low, inverse, 0.0, levels);
        let (a, b, errors) = lines(&sums, N as f32, inverse.map(|inverse| (max_min - low) * inverse));
        for i in 0..LANES {
            let (s, error) = ((1.0 + a[i]) / inverse[i], errors[i] / (inverse[i] * inverse[i]));
            if error < least && s > 0.0 {
                (best, least) = ((s, low + b[i] / inverse[i]), error);
            }
        }
    }
    best
}

/// The lines a·q + b with b ≤ `max` through `n` residues, and what they leave of their squares. The q are not all equal: the least
/// element's is 0, the largest's is not.
#[inline(always)]
fn lines(sums: &Sums, n: f32, max: Lanes) -> (Lanes, Lanes, Lanes) {
    let [mut a_, mut b_, mut errors] = [[0.0; LANES]; 3];
    for i in 0..LANES {
        let Sums { q, qq, r, qr, rr } = sums;
        let (q, qq, r, qr, rr) = (q[i], qq[i], r[i], qr[i], rr[i]);
        let b = (qq * r - q * qr) / (n * qq - q * q);
        let b = if b < max[i] { b } else { max[i] };
        let a = (qr - b * q) / qq;
        errors[i] = rr - 2.0 * (a * qr + b * r) + a * a * qq + 2.0 * a * b * q + n * b * b;
        (a_[i], b_[i]) = (a, b);
    }
    (a_, b_, errors)
}
