//! A vector of f32 lanes, of whatever width the instruction set has. The kernels are written once against [`Simd`]; what
//! differs between instruction sets is only the thin layer of intrinsics in the files of this folder.
//!
//! A value of a type that implements `Simd` is the proof that the CPU has its features: it is made by a function that
//! itself needs them, so only `#[target_feature]` functions (the table's) can make one. Everything from there down to the
//! intrinsics is `#[inline(always)]`, so that it is compiled with the features of that one function.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(test)]
pub(super) mod emulated;

/// One instruction set's vectors.
pub(super) trait Simd: Copy {
    /// `LANES` lanes of f32.
    type V: Copy;
    /// `LANES` lanes of 16 bits.
    type H: Copy;
    /// Lanes of a vector.
    const LANES: usize;
    /// Vector registers, from which the kernels choose their tiles.
    const REGISTERS: usize;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c` with one rounding.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The smaller; `b` if either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger; `b` if either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `a · 2^n`, correctly rounded (to a denormal, 0 or infinity too), for integral `|n| ≤ 200` and `1/2 ≤ |a| ≤ 2`.
    fn scale(self, a: Self::V, n: Self::V) -> Self::V;
    /// `2^n` for integral `n` from −126 to 127; 0 for −127.
    fn power(self, n: Self::V) -> Self::V;
    /// The sum of the lanes: lane i and lane i + half are added, and so on down to one.
    fn sum(self, a: Self::V) -> f32;
    /// The largest lane, if none is NaN.
    fn largest(self, a: Self::V) -> f32;
    /// Rows to columns: lane i of vector j becomes lane j of vector i, for the first `LANES` vectors.
    fn transpose(self, rows: &mut [Self::V; MAX_LANES]);

    fn f16_to_f32(self, a: Self::H) -> Self::V;
    fn bf16_to_f32(self, a: Self::H) -> Self::V;
    /// Rounded to nearest even; NaN stays NaN.
    fn f32_to_f16(self, a: Self::V) -> Self::H;
    /// Rounded to nearest even; NaN stays NaN.
    fn f32_to_bf16(self, a: Self::V) -> Self::H;

    /// # Safety
    /// `LANES` f32 lie at `p`, at any alignment.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// # Safety
    /// `n` f32 lie at `p`, at any alignment. Lanes from `n` on are 0.
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::V;
    /// # Safety
    /// There is room for `LANES` f32 at `p`, at any alignment.
    unsafe fn store(self, p: *mut f32, a: Self::V);
    /// # Safety
    /// There is room for `n` f32 at `p`, at any alignment.
    unsafe fn store_first(self, p: *mut f32, n: usize, a: Self::V);
    /// # Safety
    /// `LANES` 16-bit elements lie at `p`, at any alignment.
    unsafe fn load_half(self, p: *const u8) -> Self::H;
    /// # Safety
    /// `n` 16-bit elements lie at `p`, at any alignment. Lanes from `n` on are 0.
    unsafe fn load_half_first(self, p: *const u8, n: usize) -> Self::H;
    /// # Safety
    /// There is room for `LANES` 16-bit elements at `p`, at any alignment.
    unsafe fn store_half(self, p: *mut u8, a: Self::H);
    /// # Safety
    /// There is room for `n` 16-bit elements at `p`, at any alignment.
    unsafe fn store_half_first(self, p: *mut u8, n: usize, a: Self::H);

    /// Signed bytes, four in each lane: vector j has byte j of every lane.
    /// # Safety
    /// `4 · LANES` bytes lie at `p`, at any alignment.
    unsafe fn load_bytes(self, p: *const u8) -> [Self::V; 4];
    /// Both rounded to bf16, to nearest even: in each lane `even` below and `odd` above. The lower 16 bits of a NaN must be 0.
    /// # Safety
    /// There is room for `LANES` u32 at `p`, at any alignment.
    unsafe fn store_bf16_pairs(self, p: *mut u32, even: Self::V, odd: Self::V);

    /// The elements of `x`, at most `LANES` of them; the lanes beyond are `fill`.
    #[inline(always)]
    fn get(self, x: &[f32], fill: f32) -> Self::V {
        if x.len() >= Self::LANES {
            // SAFETY: x has LANES elements.
            unsafe { self.load(x.as_ptr()) }
        } else if fill == 0.0 {
            // SAFETY: x has the elements that are read.
            unsafe { self.load_first(x.as_ptr(), x.len()) }
        } else {
            let mut lanes = [fill; MAX_LANES];
            lanes[..x.len()].copy_from_slice(x);
            // SAFETY: no vector is longer than MAX_LANES.
            unsafe { self.load(lanes.as_ptr()) }
        }
    }

    /// The first lanes of `a` into `y`, as many as there are in `y`.
    #[inline(always)]
    fn put(self, y: &mut [f32], a: Self::V) {
        if y.len() >= Self::LANES {
            // SAFETY: y has LANES elements.
            unsafe { self.store(y.as_mut_ptr(), a) }
        } else {
            // SAFETY: y has the elements that are written.
            unsafe { self.store_first(y.as_mut_ptr(), y.len(), a) }
        }
    }
}

/// The longest vector of any instruction set.
pub(super) const MAX_LANES: usize = 16;
