use super::{Packed, Product, Products, Tile, product};
use crate::format::{DType, Float, Quant};
use crate::kernels::quant::tests::random_blocks;
use crate::kernels::testing::*;
use crate::kernels::{Isa, Kernels, Layout, Matrix, table};
use crate::threads::ColumnsMut;
use half::bf16;
use std::ops::Range;

/// Half a unit of bf16 at 1.
const U8: f64 = 1.0 / 256.0;
/// Below it numbers are zero to the unit.
const LEAST: f64 = f32::MIN_POSITIVE as f64;

struct Case {
    dtype: DType,
    layout: Layout,
    n_out: usize,
    n_in: usize,
    m: usize,
    w: Unaligned,
    x: Vec<f32>,
}

impl Case {
    fn new(dtype: DType, layout: Layout, n_out: usize, n_in: usize, m: usize) -> Self {
        let mut random = Random(1 + (n_out * 1_000_003 + n_in * 1009 + m) as u64);
        let x = random.vec(m * n_in);
        let w = match dtype {
            DType::Float(float) => Unaligned::new(float, &random.vec(n_out * n_in)).data().to_vec(),
            DType::Quant(quant) => random_blocks(&mut random, quant, n_out * n_in),
        };
        Self::of(dtype, layout, n_out, n_in, m, &w, x)
    }
    fn of(dtype: DType, layout: Layout, n_out: usize, n_in: usize, m: usize, w: &[u8], x: Vec<f32>) -> Self {
        Self { dtype, layout, n_out, n_in, m, w: Unaligned::of(w), x }
    }
    fn matrix(&self) -> Matrix<'_> {
        let Self { dtype, layout, n_out, n_in, .. } = *self;
        Matrix { dtype, layout, n_out, n_in, data: self.w.data() }
    }
    fn products(&self) -> Products {
        Products::of(self.dtype, true).unwrap()
    }
    /// The outputs `first..` of the tokens `from..from + y.rows()`, packed in `terms` terms.
    fn run_part(&self, kernels: &Kernels, terms: usize, (from, first): (usize, usize), y: &mut ColumnsMut<'_>) {
        let x = &self.x[from * self.n_in..][..y.rows() * self.n_in];
        // What scratch holds must not matter.
        let mut tiles = vec![Tile([u32::MAX; 256]); Packed::len(y.rows(), self.n_in, terms)];
        kernels.pack_tiles(x, self.n_in, terms, &mut tiles);
        let mut scratch = vec![Tile([u32::MAX; 256]); product::scratch(y.rows(), y.cols().len())];
        kernels.matmul_tiles(self.matrix(), first, Packed { tiles: &tiles, terms }, &mut scratch, y);
    }
    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let mut y = vec![f32::NAN; self.m * self.n_out];
        self.run_part(kernels, self.products().terms(), (0, 0), &mut ColumnsMut::whole(&mut y, self.m, self.n_out));
        y
    }
    fn name(&self) -> String {
        let Self { dtype, layout, n_out, n_in, m, .. } = self;
        format!("{} {layout:?} n_out {n_out} n_in {n_in} m {m}", dtype.name())
    }

    /// Against f64, by the two bounds that the module states: of the sums of the terms' products, and of the product itself.
    fn check(&self, name: &str, kernels: &Kernels) {
        let (y, products) = (self.run(kernels), self.products());
        let mut w = vec![0.0; self.n_out * self.n_in];
        table::of(Isa::Scalar).unpack(self.dtype, self.matrix().data, 0, &mut w);
        let pairs: &[(usize, usize)] = match products {
            Products::One => &[(0, 0)],
            Products::Three => &[(0, 0), (1, 0), (0, 1)],
            Products::Six => &[(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)],
        };
        let terms_lost = match (products, self.dtype) {
            (Products::One, DType::Float(_)) => U8,
            (Products::One, _) => 2.0 * U8 + U8 * U8,
            (Products::Three, _) => 2.0 * U8 * U8,
            (Products::Six, _) => 2.0 * U8.powi(3) + U8.powi(4),
        };
        let steps = (self.n_in.div_ceil(32) * pairs.len()) as f64;
        let n = if bf16_only(kernels) { 32.0 * steps } else { 17.0 + steps } * U;
        let (w, x): (Vec<_>, Vec<_>) = (w.iter().map(terms).collect(), self.x.iter().map(terms).collect());
        for (t, c) in (0..self.m).flat_map(|t| (0..self.n_out).map(move |c| (t, c))) {
            let (mut exact, mut size, mut lost, mut sum, mut sum_size) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for k in 0..self.n_in {
                let at = if self.layout == Layout::OutIn { c * self.n_in + k } else { k * self.n_out + c };
                let (w, x) = (&w[at], &x[t * self.n_in + k]);
                exact += w.0 * x.0;
                size += (w.0 * x.0).abs();
                lost += 2.0 * LEAST * (w.0.abs() + x.0.abs());
                for (i, j) in pairs {
                    sum += x.1[*i] * w.1[*j];
                    sum_size += (x.1[*i] * w.1[*j]).abs();
                }
            }
            let y = f64::from(y[t * self.n_out + c]);
            // 34 roundings of a step may each lose a number that is too small.
            let rounding = n / (1.0 - n) * sum_size + 34.0 * steps * LEAST;
            assert!((y - sum).abs() <= rounding, "{name}, {}: [{t}, {c}] is {y}, not {sum} ± {rounding}", self.name());
            // The terms that are too small of a number are together less than twice the first of them.
            let bound = rounding + terms_lost * size + lost;
            assert!((y - exact).abs() <= bound, "{name}, {}: [{t}, {c}] is {y}, not {exact} ± {bound}", self.name());
        }
    }
}

/// A number, and its three bf16 terms as the unit takes them.
fn terms(x: &f32) -> (f64, [f64; 3]) {
    let mut rest = *x;
    let terms = std::array::from_fn(|_| {
        let term = bf16::from_f32(rest).to_f32();
        rest -= term;
        if term.is_subnormal() { 0.0 } else { f64::from(term) }
    });
    (f64::from(*x), terms)
}

/// Whether the table's products are dot products.
fn bf16_only(kernels: &Kernels) -> bool {
    kernels.tiles.as_ref().is_some_and(|tiles| tiles.bf16_only)
}

const FLOATS: [DType; 3] = [DType::F32, DType::Float(Float::F16), DType::BF16];

fn layouts(dtype: DType) -> &'static [Layout] {
    if matches!(dtype, DType::Quant(_)) { &[Layout::OutIn] } else { &[Layout::OutIn, Layout::InOut] }
}

fn for_all(mut f: impl FnMut(&str, &Kernels, DType, Layout)) {
    for (name, kernels) in tables_with_tiles() {
        for dtype in FLOATS.into_iter().filter(|dtype| kernels.tile_terms(*dtype, true).is_some()) {
            layouts(dtype).iter().for_each(|layout| f(name, kernels, dtype, *layout));
        }
    }
}

#[test]
fn floats_of_every_length() {
    for_all(|name, kernels, dtype, layout| {
        for n_in in [1, 2, 3, 15, 31, 32, 33, 63, 64, 65, 127, 255, 256, 257, 300] {
            Case::new(dtype, layout, 5, n_in, 2).check(name, kernels);
        }
        // More than a block of inputs, which is 1024, 512 or 256 of them.
        Case::new(dtype, layout, 3, 1091, 18).check(name, kernels);
    });
}

#[test]
fn floats_of_every_number_of_tokens_and_outputs() {
    for_all(|name, kernels, dtype, layout| {
        for m in [1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 65] {
            Case::new(dtype, layout, 2, 37, m).check(name, kernels);
        }
        for n_out in [1, 15, 16, 17, 31, 32, 33, 47, 64, 70] {
            Case::new(dtype, layout, n_out, 21, 3).check(name, kernels);
        }
    });
}

#[test]
fn quantised() {
    for (name, kernels) in tables_with_tiles() {
        if kernels.tile_terms(Quant::Q8_0.into(), true).is_none() {
            continue;
        }
        for quant in Quant::ALL {
            let block = DType::Quant(quant).block_elements();
            for n_in in [block, 256, 512].into_iter().chain((block == 32).then_some(288)) {
                Case::new(quant.into(), Layout::OutIn, 19, n_in, 3).check(name, kernels);
            }
        }
        for quant in [Quant::Q4K, Quant::Q8_0] {
            Case::new(quant.into(), Layout::OutIn, 33, 1280, 17).check(name, kernels);
        }
    }
}

/// What a unit computes is defined to the bit.
#[test]
fn the_same_bits_on_every_unit() {
    for dtype in FLOATS.into_iter().chain(Quant::ALL.map(DType::Quant)) {
        for layout in layouts(dtype) {
            let case = Case::new(dtype, *layout, 33, 512, 17);
            for (name, kernels) in tables_with_tiles() {
                if kernels.tile_terms(dtype, true).is_some() {
                    let want = case.run(if bf16_only(kernels) { &table::EMULATED_DOTS } else { &table::EMULATED_TILES });
                    assert!(bits(&case.run(kernels)) == bits(&want), "{name}, {}", case.name());
                }
            }
        }
    }
}

/// An output's bits are the same for any number of tokens, any cut of the outputs into calls, and any number of terms of which
/// only some are used.
#[test]
fn same_bits_for_any_tokens_and_any_cut() {
    for_all(|name, kernels, dtype, layout| {
        let case = Case::new(dtype, layout, 45, 290, 37);
        let (whole, terms) = (bits(&case.run(kernels)), case.products().terms());
        let mut from = 0;
        for tokens in [1, 2, 17, 16, 1] {
            let mut y = vec![f32::NAN; tokens * 45];
            case.run_part(kernels, 3, (from, 0), &mut ColumnsMut::whole(&mut y, tokens, 45));
            assert_eq!(bits(&y), whole[from * 45..][..tokens * 45], "{name}, {}: tokens", case.name());
            from += tokens;
        }
        for cut in [1, 7, 16, 32, 40] {
            let mut y = vec![f32::NAN; 37 * 45];
            let mut out = ColumnsMut::whole(&mut y, 37, 45);
            for first in (0..45).step_by(cut) {
                case.run_part(kernels, terms, (0, first), &mut out.sub(first..45.min(first + cut)));
            }
            assert_eq!(bits(&y), whole, "{name}, {}: cut {cut}", case.name());
        }
    });
}

/// The blocks of inputs hang on the number of tokens, the bits do not.
#[test]
fn same_bits_for_any_blocks() {
    for terms in 1..=3 {
        for x_terms in terms..=3 {
            for n_tokens in [1, 17, 64, 128, 512, 10_000] {
                let steps = product::block_steps(n_tokens, terms, x_terms);
                assert!(steps > 0 && steps.is_multiple_of(super::pack::GROUP) && steps * terms * 2 <= product::PANEL);
            }
        }
    }
    for (name, kernels) in tables_with_tiles() {
        // 1024 inputs in a block for one token, 256 for so many.
        let case = Case::new(DType::BF16, Layout::OutIn, 1, 600, 1700);
        assert!(product::block_steps(case.m, 1, 1) < product::block_steps(1, 1, 1));
        let whole = bits(&case.run(kernels));
        for t in [0, 31, 1000, 1699] {
            let mut y = [f32::NAN];
            case.run_part(kernels, 1, (t, 0), &mut ColumnsMut::whole(&mut y, 1, 1));
            assert_eq!(y[0].to_bits(), whole[t], "{name}, token {t}");
        }
    }
}

#[test]
fn writes_only_its_columns() {
    for_all(|name, kernels, dtype, layout| {
        let case = Case::new(dtype, layout, 40, 19, 3);
        let whole = case.run(kernels);
        for (first, len, at) in [(0, 40, 5), (3, 1, 0), (7, 8, 31), (9, 17, 20), (1, 33, 2), (4, 0, 9)] {
            let mut y = vec![-7.0; 3 * 50];
            let mut out = ColumnsMut::whole(&mut y, 3, 50);
            case.run_part(kernels, case.products().terms(), (0, first), &mut out.sub(at..at + len));
            for (i, y) in y.iter().enumerate() {
                let (t, c) = (i / 50, i % 50);
                let expected = if (at..at + len).contains(&c) { whole[t * 40 + first + c - at] } else { -7.0 };
                assert_eq!(y.to_bits(), expected.to_bits(), "{name}, {}: {first} {len} {at}, [{t}, {c}]", case.name());
            }
        }
    });
}

#[test]
fn tiny_and_huge_numbers() {
    for_all(|name, kernels, dtype, layout| {
        let float = if let DType::Float(float) = dtype { float } else { return };
        for exponent in [-149, -140, -126, -120, -24, -14, 0, 15, 60, 120] {
            let scale = |exponent: i32, x: Vec<f32>| -> Vec<f32> {
                x.into_iter().map(|x| (f64::from(x) * f64::from(exponent).exp2()) as f32).collect()
            };
            let mut random = Random(5);
            let w = random.vec(11 * 45);
            let of_w = if float == Float::F16 { exponent.clamp(-24, 15) } else { exponent };
            let w = Unaligned::new(float, &scale(of_w, w)).data().to_vec();
            // Neither the products nor their sums overflow.
            let x = scale((-exponent).min(0), random.vec(2 * 45));
            Case::of(dtype, layout, 11, 45, 2, &w, x).check(name, kernels);
        }
    });
}

#[test]
fn what_is_no_number_stays_in_its_output() {
    for_all(|name, kernels, dtype, layout| {
        let float = if let DType::Float(float) = dtype { float } else { return };
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let (n_out, n_in, m) = (18, 40, 3);
            let mut w = vec![1.0; n_out * n_in];
            w[if layout == Layout::OutIn { 17 * n_in + 33 } else { 33 * n_out + 17 }] = bad;
            let mut x = vec![1.0; m * n_in];
            x[n_in + 7] = bad;
            let y = Case::of(dtype, layout, n_out, n_in, m, Unaligned::new(float, &w).data(), x).run(kernels);
            for (i, y) in y.iter().enumerate() {
                let (t, c) = (i / n_out, i % n_out);
                let right = match (t == 1 || c == 17, dtype == DType::BF16 && !bad.is_nan()) {
                    (false, _) => *y == n_in as f32,
                    (true, true) => *y == bad,
                    (true, false) => !y.is_finite(),
                };
                assert!(right, "{name} {} {layout:?} {bad}: [{t}, {c}] is {y}", dtype.name());
            }
        }
    });
}

#[test]
fn no_inputs_and_no_tokens() {
    for (_, kernels) in tables_with_tiles() {
        let w = Matrix { dtype: DType::BF16, layout: Layout::OutIn, n_out: 3, n_in: 0, data: &[] };
        let mut y = [f32::NAN; 6];
        let mut scratch = vec![Tile::ZERO; product::scratch(2, 3)];
        kernels.matmul_tiles(w, 0, Packed { tiles: &[], terms: 1 }, &mut scratch, &mut ColumnsMut::whole(&mut y, 2, 3));
        assert_eq!(y, [0.0; 6]);
        assert!(Case::new(DType::BF16, Layout::OutIn, 5, 5, 0).run(kernels).is_empty());
    }
}

/// Threads are the host's, which must not find tiles in them.
#[cfg(target_os = "linux")]
#[test]
fn tiles_are_given_back() {
    if let Some((_, kernels)) = amx_or_emulated().filter(|_| !Isa::Amx.available()) {
        Case::new(DType::BF16, Layout::OutIn, 33, 70, 17).run(kernels);
        assert!(super::trapped::released());
    }
}

#[test]
fn which_weights() {
    for (_, kernels) in tables_with_tiles() {
        let unless_dots = |terms| (!bf16_only(kernels)).then_some(terms);
        assert_eq!((kernels.tile_terms(DType::F32, false), kernels.tile_terms(DType::F32, true)), (None, unless_dots(3)));
        assert_eq!(kernels.tile_terms(DType::BF16, false), Some(1));
        assert_eq!(kernels.tile_terms(Quant::Q4K.into(), true), unless_dots(1));
    }
    assert_eq!(table::of(Isa::Scalar).tile_terms(DType::BF16, true), None);
}

/// Weights of outputs and steps, converted with the vectors and by the unit of a table of this name.
struct Packing {
    name: &'static str,
    kernels: &'static Kernels,
    pack: Pack,
}

/// Outputs from one on and how many, and steps.
type Pack = unsafe fn(&Product<'_>, (usize, usize), Range<usize>, &mut [Tile]);

impl Packing {
    fn check(&self, case: &Case, (first, n): (usize, usize), steps: Range<usize>) {
        let Case { n_out, n_in, .. } = *case;
        let mut w = vec![0.0; n_out * n_in];
        table::of(Isa::Scalar).unpack(case.dtype, case.matrix().data, 0, &mut w);
        let (x, rows) = (Packed { tiles: &[], terms: 1 }, &self.kernels.tiles.as_ref().unwrap().rows);
        let p = Product { kernels: self.kernels, w: case.matrix(), first: 0, x, products: Products::One, rows };
        let mut tiles = vec![Tile([u32::MAX; 256]); 2 * steps.len()];
        // SAFETY: this CPU has what the kernel is for; outputs and steps are those of the matrix.
        unsafe { (self.pack)(&p, (first, n), steps.clone(), &mut tiles) };
        for (pair, step) in tiles.chunks_exact(2).zip(steps) {
            for (i, k) in (0..32).flat_map(|i| (0..32).map(move |k| (i, k))) {
                let dword = pair[i / 16].0[k / 2 * 16 + i % 16];
                let got = bf16::from_bits((dword >> (k % 2 * 16)) as u16);
                let is = bf16::from_f32(if i < n { w[(first + i) * n_in + 32 * step + k] } else { 0.0 });
                // Equal are zeros of either sign. What is infinite may be NaN.
                let same = got == is || got.is_nan() && !is.is_finite();
                assert!(same, "{}, {}: output {first} + {i}, step {step}, input {k}: {got}, not {is}", self.name, case.name());
            }
        }
    }
}

fn packings() -> Vec<Packing> {
    use super::pack::pack_weights;
    use super::{Unit, amx::Amx, emulated::Emulated};
    use crate::kernels::simd::{avx2, avx512, emulated};

    unsafe fn plain(p: &Product<'_>, outputs: (usize, usize), steps: Range<usize>, out: &mut [Tile]) {
        // SAFETY: there is nothing that a CPU might not have.
        unsafe { pack_weights::<_, _, 1>(emulated::Emulated::new(), &Emulated::new(), p, outputs, steps, out) }
    }
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2(p: &Product<'_>, outputs: (usize, usize), steps: Range<usize>, out: &mut [Tile]) {
        // SAFETY: there is nothing that this CPU might not have.
        unsafe { pack_weights::<_, _, 1>(avx2::Avx2::new(), &Emulated::new(), p, outputs, steps, out) }
    }
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn amx(p: &Product<'_>, outputs: (usize, usize), steps: Range<usize>, out: &mut [Tile]) {
        // SAFETY: the unit is there, as it was seen below.
        unsafe { pack_weights::<_, _, 1>(avx512::Avx512::new(), &Amx::new(), p, outputs, steps, out) }
    }
    let mut packings = vec![Packing { name: "plain", kernels: &table::EMULATED_TILES, pack: plain }];
    if Isa::Avx2.available() {
        packings.push(Packing { name: "avx2", kernels: &table::AVX2_EMULATED_TILES, pack: avx2 });
    }
    if let Some((name, kernels)) = amx_or_emulated() {
        packings.push(Packing { name, kernels, pack: amx });
    }
    packings
}

/// Quantised weights in tiles are what they are in f32, rounded; whatever the bytes are, so with scales of every kind.
#[test]
fn quantised_weights_are_rounded_once() {
    let mut random = Random(3);
    for quant in Quant::ALL {
        let dtype = DType::Quant(quant);
        let block = dtype.block_elements();
        for (n_in, steps) in [(block, 0..1), (1024, 0..32), (768, 8..24), (256 + block * 3, 8..9)] {
            let any: Vec<u8> = (0..dtype.bytes(40 * n_in).unwrap()).map(|_| random.bits() as u8).collect();
            for bytes in [any, random_blocks(&mut random, quant, 40 * n_in)] {
                let case = Case::of(dtype, Layout::OutIn, 40, n_in, 0, &bytes, Vec::new());
                for (packing, outputs) in packings().iter().flat_map(|p| [(0, 32), (3, 17), (39, 1), (20, 16)].map(|o| (p, o))) {
                    packing.check(&case, outputs, steps.clone());
                }
            }
        }
    }
}
