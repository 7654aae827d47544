//! Lanes of 32 bits, a lane to a row: of one panel as two vectors of [`Ints`], or of two panels as wider ones.

// Loops by number: what iterators are made of is functions of their own, which a compiler may leave without the CPU's features.
#![allow(clippy::needless_range_loop)]

use super::super::Format;
use super::super::activations::Activations;
use super::super::ints::Ints;
use super::{Panel, QUAD, ROWS, place_of};

/// One instruction set's lanes. A value is the proof that the CPU has its features.
pub(in crate::kernels) trait Lanes: Copy {
    /// A pair of i16.
    type W: Copy;
    /// An i32.
    type I: Copy;
    /// An f32.
    type F: Copy;
    /// Panels whose rows have lanes, one behind the other.
    const PANELS: usize;
    /// Whether signed elements are 128 larger in a panel, and so unsigned.
    const UNSIGNED: bool;
    /// Tokens whose sums are in registers at once.
    const TOKENS: usize;

    /// `[Σ w·q; T]` over the elements of part `part`, q being those of the T tokens at `x`; less the type's offset times Σ q.
    ///
    /// # Safety
    /// There are the panels, and T tokens at `x`.
    unsafe fn sums<F: Format, const T: usize>(self, panels: *const Panel, x: *const Activations, part: usize) -> [Self::I; T];
    /// The same of the `j`th 32 elements, times their parts' scales and the activations' factors, added to `total`.
    ///
    /// # Safety
    /// As for `sums`.
    unsafe fn add_sums<F: Format, const T: usize>(
        self,
        panels: *const Panel,
        x: *const Activations,
        j: usize,
        total: &mut [Self::I; T],
    );

    /// Pairs of each row.
    /// # Safety
    /// Those of the first panel lie at `p`, which is in a panel.
    unsafe fn load_w(self, p: *const [[i16; 2]; ROWS]) -> Self::W;
    /// Numbers of each row.
    /// # Safety
    /// As for `load_w`.
    unsafe fn load_d(self, p: *const [f32; ROWS]) -> Self::F;
    /// 2 i16 in each lane.
    /// # Safety
    /// They lie at `p`.
    unsafe fn splat_pair(self, p: *const i16) -> Self::W;
    /// Products that are in range.
    fn mul_w(self, a: Self::W, b: Self::W) -> Self::W;
    fn zero(self) -> Self::I;
    /// To each lane of `sum` the products of the pairs, modulo 2^32.
    fn add_products(self, sum: Self::I, a: Self::W, b: Self::W) -> Self::I;
    /// Rounded to nearest even.
    fn to_f32(self, a: Self::I) -> Self::F;
    fn splat_f(self, x: f32) -> Self::F;
    /// # Safety
    /// There are so many f32 at `p`, side by side.
    unsafe fn load_f(self, p: *const f32) -> Self::F;
    /// # Safety
    /// There is room for them at `p`.
    unsafe fn store_f(self, p: *mut f32, a: Self::F);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
}

/// Two vectors of eight lanes. Products are summed in 16 bits as long as they fit, then in 32, which takes a scale along.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Two<S>(pub S);

impl<S: Ints> Lanes for Two<S> {
    type W = [S::W; 2];
    type I = [S::I; 2];
    type F = [S::F; 2];
    const PANELS: usize = 1;
    const UNSIGNED: bool = false;
    const TOKENS: usize = 3;

    #[inline(always)]
    unsafe fn sums<F: Format, const T: usize>(self, panels: *const Panel, x: *const Activations, part: usize) -> [[S::I; 2]; T] {
        let (s, quads) = (self.0, F::BYTES.part / QUAD);
        let mut total = [self.zero(); T];
        // SAFETY: the caller's word.
        unsafe {
            if const { F::BYTES.fits() } > 1 {
                self.add_pairs::<F, T>(panels, x, part, [[s.splat_w(1); 2]; T], &mut total);
                return total;
            }
            for k in part * quads..(part + 1) * quads {
                let w = load(s, panels, k);
                let magnitude = [s.magnitude(w[0]), s.magnitude(w[1])];
                for t in 0..T {
                    let q = quad(s, x.add(t), k);
                    for v in 0..2 {
                        total[t][v] = s.add_signed_quads(total[t][v], w[v], magnitude[v], q);
                    }
                }
            }
        }
        total
    }

    #[inline(always)]
    unsafe fn add_sums<F: Format, const T: usize>(
        self,
        panels: *const Panel,
        x: *const Activations,
        j: usize,
        total: &mut [[S::I; 2]; T],
    ) {
        let parts = const { 32 / F::BYTES.part };
        // SAFETY: the caller's word.
        unsafe {
            for part in j * parts..(j + 1) * parts {
                let scales = self.load_w(&raw const (*panels).numbers.scales[place_of::<F>(part)]);
                let mut by = [scales; T];
                for t in 0..T {
                    by[t] = self.mul_w(scales, [self.0.splat_w((*x.add(t)).factors[j]); 2]);
                }
                self.add_pairs::<F, T>(panels, x, part, by, total);
            }
        }
    }

    #[inline(always)]
    unsafe fn load_w(self, p: *const [[i16; 2]; ROWS]) -> [S::W; 2] {
        // SAFETY: the caller's word.
        unsafe { [self.0.load_w(p.cast()), self.0.load_w(p.cast::<i16>().add(16))] }
    }
    #[inline(always)]
    unsafe fn load_d(self, p: *const [f32; ROWS]) -> [S::F; 2] {
        // SAFETY: the caller's word.
        unsafe { self.load_f(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_pair(self, p: *const i16) -> [S::W; 2] {
        // SAFETY: the caller's word.
        [unsafe { self.0.splat_pair(p) }; 2]
    }
    #[inline(always)]
    fn mul_w(self, a: [S::W; 2], b: [S::W; 2]) -> [S::W; 2] {
        [self.0.mul_w(a[0], b[0]), self.0.mul_w(a[1], b[1])]
    }
    #[inline(always)]
    fn zero(self) -> [S::I; 2] {
        [self.0.zero(); 2]
    }
    #[inline(always)]
    fn add_products(self, sum: [S::I; 2], a: [S::W; 2], b: [S::W; 2]) -> [S::I; 2] {
        [self.0.add_products(sum[0], a[0], b[0]), self.0.add_products(sum[1], a[1], b[1])]
    }
    #[inline(always)]
    fn to_f32(self, a: [S::I; 2]) -> [S::F; 2] {
        [self.0.to_f32(a[0]), self.0.to_f32(a[1])]
    }
    #[inline(always)]
    fn splat_f(self, x: f32) -> [S::F; 2] {
        [self.0.splat_f(x); 2]
    }
    #[inline(always)]
    unsafe fn load_f(self, p: *const f32) -> [S::F; 2] {
        // SAFETY: the caller's word.
        unsafe { [self.0.load_f(p), self.0.load_f(p.add(8))] }
    }
    #[inline(always)]
    unsafe fn store_f(self, p: *mut f32, a: [S::F; 2]) {
        // SAFETY: the caller's word.
        unsafe {
            self.0.store_f(p, a[0]);
            self.0.store_f(p.add(8), a[1]);
        }
    }
    #[inline(always)]
    fn add(self, a: [S::F; 2], b: [S::F; 2]) -> [S::F; 2] {
        [self.0.add(a[0], b[0]), self.0.add(a[1], b[1])]
    }
    #[inline(always)]
    fn sub(self, a: [S::F; 2], b: [S::F; 2]) -> [S::F; 2] {
        [self.0.sub(a[0], b[0]), self.0.sub(a[1], b[1])]
    }
    #[inline(always)]
    fn mul(self, a: [S::F; 2], b: [S::F; 2]) -> [S::F; 2] {
        [self.0.mul(a[0], b[0]), self.0.mul(a[1], b[1])]
    }
}

impl<S: Ints> Two<S> {
    /// [`Lanes::add_sums`], multiplied by `by`, which is in range of 16 bits.
    ///
    /// # Safety
    /// As for `sums`.
    #[inline(always)]
    unsafe fn add_pairs<F: Format, const T: usize>(
        self,
        panels: *const Panel,
        x: *const Activations,
        part: usize,
        by: [[S::W; 2]; T],
        total: &mut [[S::I; 2]; T],
    ) {
        let s = self.0;
        let (quads, fits) = (F::BYTES.part / QUAD, const { F::BYTES.fits() });
        // SAFETY: the caller's word; quads and parts are those of a block.
        unsafe {
            let mut pairs = [[s.splat_w(0); 2]; T];
            if F::BYTES.offset > 0 {
                for t in 0..T {
                    pairs[t] = self.splat_pair((&raw const (*x.add(t)).offsets[part]).cast());
                }
            }
            for i in 0..quads {
                let k = part * quads + i;
                let w = load(s, panels, k);
                let magnitude = if F::BYTES.signed { [s.magnitude(w[0]), s.magnitude(w[1])] } else { w };
                for t in 0..T {
                    let q = quad(s, x.add(t), k);
                    for v in 0..2 {
                        let two = if F::BYTES.signed { s.signed_pairs(w[v], magnitude[v], q) } else { s.pairs(w[v], q) };
                        pairs[t][v] = s.add_w(pairs[t][v], two);
                    }
                }
                if (i + 1) % fits == 0 || i + 1 == quads {
                    for t in 0..T {
                        total[t] = self.add_products(total[t], pairs[t], by[t]);
                        pairs[t] = [s.splat_w(0); 2];
                    }
                }
            }
        }
    }
}

/// The kth quads of a panel.
///
/// # Safety
/// It lies there.
#[inline(always)]
unsafe fn load<S: Ints>(s: S, panel: *const Panel, k: usize) -> [S::B; 2] {
    // SAFETY: the caller's word; there are 64 bytes.
    unsafe {
        let w = (&raw const (*panel).w[k]).cast();
        [s.load(w), s.load(w.add(32))]
    }
}

/// Activations 4·k to 4·k + 3, in all lanes.
///
/// # Safety
/// There is a token at `x`.
#[inline(always)]
unsafe fn quad<S: Ints>(s: S, x: *const Activations, k: usize) -> S::B {
    // SAFETY: the caller's word.
    unsafe { s.splat_quad((&raw const (*x).q).cast::<u8>().add(QUAD * k)) }
}
