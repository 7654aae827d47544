//! 16 lanes in plain Rust, for tests: the generic kernels at the width of AVX-512, on any machine.

use super::Simd;
use half::{bf16, f16};

#[derive(Clone, Copy)]
pub(in crate::kernels) struct Emulated(());

impl Emulated {
    pub fn new() -> Self {
        Self(())
    }
}

type V = [f32; 16];
type H = [u16; 16];

fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

fn halve(a: V, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut a = a;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            a[i] = f(a[i], a[i + half]);
        }
    }
    a[0]
}

impl Simd for Emulated {
    type V = V;
    type H = H;
    const LANES: usize = 16;
    const REGISTERS: usize = 32;

    fn splat(self, x: f32) -> V {
        [x; 16]
    }
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }
    fn fma(self, a: V, b: V, c: V) -> V {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    fn min(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    fn round(self, a: V) -> V {
        a.map(f32::round_ties_even)
    }
    fn scale(self, a: V, n: V) -> V {
        zip(a, n, |a, n| (f64::from(a) * f64::from(n).exp2()) as f32)
    }
    fn power(self, n: V) -> V {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    fn sum(self, a: V) -> f32 {
        halve(a, |a, b| a + b)
    }
    fn largest(self, a: V) -> f32 {
        halve(a, f32::max)
    }
    fn transpose(self, rows: &mut [V; 16]) {
        *rows = std::array::from_fn(|i| std::array::from_fn(|j| rows[j][i]));
    }

    fn f16_to_f32(self, a: H) -> V {
        a.map(|bits| f16::from_bits(bits).to_f32())
    }
    fn bf16_to_f32(self, a: H) -> V {
        a.map(|bits| bf16::from_bits(bits).to_f32())
    }
    fn f32_to_f16(self, a: V) -> H {
        a.map(|x| f16::from_f32(x).to_bits())
    }
    fn f32_to_bf16(self, a: V) -> H {
        a.map(|x| bf16::from_f32(x).to_bits())
    }

    unsafe fn load(self, p: *const f32) -> V {
        // SAFETY: the caller's word.
        unsafe { p.cast::<V>().read_unaligned() }
    }
    unsafe fn load_first(self, p: *const f32, n: usize) -> V {
        // SAFETY: the caller's word; lanes from n on are not read.
        std::array::from_fn(|i| if i < n { unsafe { p.add(i).read_unaligned() } } else { 0.0 })
    }
    unsafe fn store(self, p: *mut f32, a: V) {
        // SAFETY: the caller's word.
        unsafe { p.cast::<V>().write_unaligned(a) }
    }
    unsafe fn store_first(self, p: *mut f32, n: usize, a: V) {
        for (i, x) in a.iter().enumerate().take(n) {
            // SAFETY: the caller's word.
            unsafe { p.add(i).write_unaligned(*x) }
        }
    }
    unsafe fn load_half(self, p: *const u8) -> H {
        // SAFETY: the caller's word.
        unsafe { p.cast::<H>().read_unaligned() }
    }
    unsafe fn load_half_first(self, p: *const u8, n: usize) -> H {
        // SAFETY: the caller's word; lanes from n on are not read.
        std::array::from_fn(|i| if i < n { unsafe { p.cast::<u16>().add(i).read_unaligned() } } else { 0 })
    }
    unsafe fn store_half(self, p: *mut u8, a: H) {
        // SAFETY: the caller's word.
        unsafe { p.cast::<H>().write_unaligned(a) }
    }
    unsafe fn store_half_first(self, p: *mut u8, n: usize, a: H) {
        for (i, x) in a.iter().enumerate().take(n) {
            // SAFETY: the caller's word.
            unsafe { p.cast::<u16>().add(i).write_unaligned(*x) }
        }
    }
    unsafe fn load_bytes(self, p: *const u8) -> [V; 4] {
        // SAFETY: the caller's word.
        let bytes = unsafe { p.cast::<[[i8; 4]; 16]>().read_unaligned() };
        std::array::from_fn(|j| bytes.map(|lane| f32::from(lane[j])))
    }
    unsafe fn store_bf16_pairs(self, p: *mut u32, even: V, odd: V) {
        let (even, odd) = (self.f32_to_bf16(even), self.f32_to_bf16(odd));
        let pairs: [u32; 16] = std::array::from_fn(|i| u32::from(odd[i]) << 16 | u32::from(even[i]));
        // SAFETY: the caller's word.
        unsafe { p.cast::<[u32; 16]>().write_unaligned(pairs) }
    }
}
