//! The tables: for each instruction set, the generic kernels compiled with its features.

use super::{Isa, Kernels, attention, float, quant, vector};

/// The table of the instruction set that has `$features`, with vectors of type `$simd` and these quantised products. Each function here is the one that
/// carries the features; all that it calls is inlined into it.
#[cfg(target_arch = "x86_64")]
macro_rules! table {
    ($isa:expr, $simd:path, $products:expr, $features:literal) => {{
        use crate::kernels::attention::{self, BlockProduct};
        use crate::kernels::float::{Element, Floats, Product, convert, in_out, many, out_in};
        use crate::kernels::quant::{self, Format, for_each_format};
        use crate::kernels::vector::{each, math, norm};
        use crate::kernels::{Kernels, Matrix};
        use crate::threads::ColumnsMut;
        use half::{bf16, f16};
        use $simd as Vectors;

        #[target_feature(enable = $features)]
        fn matmul_out_in<E: Element>(p: &Product<'_>, out: &mut ColumnsMut<'_>) {
            // SAFETY: `Kernels` calls its products after `check`.
            unsafe { out_in::matmul::<_, E>(Vectors::new(), p, out) }
        }
        #[target_feature(enable = $features)]
        fn matmul_in_out<E: Element>(p: &Product<'_>, out: &mut ColumnsMut<'_>) {
            // SAFETY: `Kernels` calls its products after `check`.
            unsafe { in_out::matmul::<_, E>(Vectors::new(), p, out) }
        }
        #[target_feature(enable = $features)]
        fn matmul_many(w: Matrix<'_>, first: usize, x: &[f32], scratch: &mut [f32], out: &mut ColumnsMut<'_>) {
            // SAFETY: `Kernels` calls it after its checks.
            unsafe { many::matmul(Vectors::new(), w, first, x, scratch, out) }
        }
        #[target_feature(enable = $features)]
        fn multiply_block<E: Element>(p: &BlockProduct<'_>, out: &mut ColumnsMut<'_>) {
            // SAFETY: `Kernels` calls its products after `check`.
            unsafe { attention::product::multiply::<_, E>(Vectors::new(), p, out) }
        }
        #[target_feature(enable = $features)]
        fn unpack<E: Element>(data: &[u8], out: &mut [f32]) {
            convert::unpack::<_, E>(Vectors::new(), data, out)
        }
        #[target_feature(enable = $features)]
        fn unpack_quant<F: Format>(data: &[u8], out: &mut [f32]) {
            quant::unpack::<F>(data, out)
        }
        #[target_feature(enable = $features)]
        fn pack<E: Element>(src: &[f32], dst: &mut [u8]) {
            convert::pack::<_, E>(Vectors::new(), src, dst)
        }
        #[target_feature(enable = $features)]
        fn rms_norm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
            norm::rms_norm(Vectors::new(), x, weight, eps, y)
        }
        #[target_feature(enable = $features)]
        fn layer_norm(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
            norm::layer_norm(Vectors::new(), x, weight, bias, eps, y)
        }
        #[target_feature(enable = $features)]
        fn add(y: &mut [f32], x: &[f32]) {
            norm::add(Vectors::new(), y, x)
        }
        #[target_feature(enable = $features)]
        fn mul(y: &mut [f32], x: &[f32]) {
            norm::mul(Vectors::new(), y, x)
        }
        #[target_feature(enable = $features)]
        fn scale(y: &mut [f32], factor: f32) {
            norm::scale(Vectors::new(), y, factor)
        }
        #[target_feature(enable = $features)]
        fn blend(y: &mut [f32], a: f32, x: &[f32], b: f32) {
            norm::blend(Vectors::new(), y, a, x, b)
        }
        #[target_feature(enable = $features)]
        fn map<F: each::Map + Default>(y: &mut [f32]) {
            math::map::<_, F>(Vectors::new(), y)
        }
        #[target_feature(enable = $features)]
        fn softcap(y: &mut [f32], cap: f32) {
            math::softcap(Vectors::new(), y, cap)
        }
        #[target_feature(enable = $features)]
        fn max(x: &[f32]) -> f32 {
            norm::max(Vectors::new(), x)
        }
        #[target_feature(enable = $features)]
        fn exp_sum(y: &mut [f32], shift: f32) -> f32 {
            math::exp_sum(Vectors::new(), y, shift)
        }

        Kernels {
            isa: $isa,
            // A Zen 3 and a Zen 4 read a tenth to a quarter less with a kilobyte, which is what they read with none: what is asked for at the end of a
            // task's parts is not wanted.
            ahead: 256,
            blas: false,
            out_in: Floats { f32: matmul_out_in::<f32>, f16: matmul_out_in::<f16>, bf16: matmul_out_in::<bf16> },
            in_out: Floats { f32: matmul_in_out::<f32>, f16: matmul_in_out::<f16>, bf16: matmul_in_out::<bf16> },
            many: Some(matmul_many),
            multiply_block: Floats { f32: multiply_block::<f32>, f16: multiply_block::<f16>, bf16: multiply_block::<bf16> },
            unpack: Floats { f32: unpack::<f32>, f16: unpack::<f16>, bf16: unpack::<bf16> },
            unpack_quant: for_each_format!(unpack_quant),
            products: $products,
            pack: Floats { f32: pack::<f32>, f16: pack::<f16>, bf16: pack::<bf16> },
            rms_norm,
            layer_norm,
            add,
            mul,
            scale,
            blend,
            silu: map::<math::Silu>,
            gelu: map::<math::Gelu>,
            gelu_tanh: map::<math::GeluTanh>,
            relu: map::<math::Relu>,
            relu_squared: map::<math::ReluSquared>,
            quick_gelu: map::<math::QuickGelu>,
            softcap,
            max,
            exp_sum,
            tiles: None,
        }
    }};
}

/// The prefill products of the matrix unit `$unit`, compiled with `$features`.
#[cfg(target_arch = "x86_64")]
macro_rules! tiles {
    ($simd:path, $ints:expr, $unit:path, $features:literal) => {{
        use crate::kernels::quant::row::{self, Row};
        use crate::kernels::quant::{Format, for_each_format};
        use crate::kernels::tiles::{Functions, Tile, Unit, pack_rows};
        use $simd as Vectors;

        #[target_feature(enable = $features)]
        fn pack(x: &[f32], n_in: usize, terms: usize, out: &mut [Tile]) {
            pack_rows(Vectors::new(), x, n_in, terms, out)
        }
        #[target_feature(enable = $features)]
        fn read_row<F: Format>(blocks: &[u8], to: &mut Row) {
            row::read::<_, F>($ints, blocks, to)
        }
        let multiply = multiply_tiles!($simd, $unit, $features);
        Functions { pack, multiply, rows: for_each_format!(read_row), bf16_only: <$unit as Unit>::BF16_ONLY }
    }};
}

/// The product of tiles by `$unit`.
#[cfg(target_arch = "x86_64")]
macro_rules! multiply_tiles {
    ($simd:path, $unit:path, $features:literal) => {{
        use crate::kernels::tiles::{Product, Tile, product};
        use crate::threads::ColumnsMut;
        use $simd as Vectors;

        #[target_feature(enable = $features)]
        fn multiply(p: &Product<'_>, scratch: &mut [Tile], out: &mut ColumnsMut<'_>) {
            // SAFETY: `Kernels` calls it after its checks, and only from a table that was handed out: the unit may be used.
            unsafe { product::multiply::<_, $unit>(Vectors::new(), p, scratch, out) }
        }
        multiply
    }};
}

/// Quantised products compiled with `$features`, by vectors of type `$ints`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! products {
    ($ints:path, $features:literal) => {{
        use crate::kernels::attention::bytes::{self, ByteProduct};
        use crate::kernels::quant::activations::{self, Activations, Scaling};
        use crate::kernels::quant::ints::Ints;
        use crate::kernels::quant::{self, Format, Product, for_each_format};
        use crate::threads::ColumnsMut;
        use $ints as Vectors;

        #[target_feature(enable = $features)]
        fn quantise(x: &[f32], n_in: usize, scaling: Scaling, out: &mut ColumnsMut<'_, Activations>) {
            activations::quantise(Vectors::new(), x, n_in, scaling, out)
        }

        #[target_feature(enable = $features)]
        fn matmul<F: Format>(p: &Product<'_>, scratch: &mut [f32], out: &mut ColumnsMut<'_>) {
            // SAFETY: `Kernels` calls its products after `check`.
            unsafe { quant::matmul::<_, F>(Vectors::new(), p, scratch, out) }
        }
        #[target_feature(enable = $features)]
        fn put_key(key: &[f32], position: usize, keys: &mut [u8]) {
            bytes::put_key(key, position, keys)
        }
        #[target_feature(enable = $features)]
        fn put_value(value: &[f32], position: usize, values: &mut [u8]) {
            bytes::put_value(value, position, values)
        }
        #[target_feature(enable = $features)]
        fn to_words(x: &[f32], words: &mut [i16]) -> f32 {
            bytes::to_words(x, words)
        }
        #[target_feature(enable = $features)]
        fn multiply_keys(p: &ByteProduct<'_>, out: &mut ColumnsMut<'_>) {
            // SAFETY: `Kernels` calls it after its check.
            unsafe { bytes::multiply_keys(Vectors::new().rows(), p, out) }
        }
        #[target_feature(enable = $features)]
        fn multiply_values(p: &ByteProduct<'_>, out: &mut ColumnsMut<'_>) {
            // SAFETY: `Kernels` calls it after its check.
            unsafe { bytes::multiply_values(Vectors::new().rows(), p, out) }
        }
        quant::Products {
            quantise,
            matmul: for_each_format!(matmul),
            bytes: bytes::Functions { put_key, put_value, to_words, multiply_keys, multiply_values },
        }
    }};
}

/// Plain Rust, on any CPU.
static SCALAR: Kernels = SCALAR_TABLE;
const SCALAR_TABLE: Kernels = Kernels {
    isa: Isa::Scalar,
    ahead: 0,
    blas: true,
    out_in: float::scalar::OUT_IN,
    in_out: float::scalar::IN_OUT,
    many: None,
    multiply_block: attention::scalar::MULTIPLY,
    unpack: float::scalar::UNPACK,
    unpack_quant: quant::UNPACK,
    products: quant::PRODUCTS,
    pack: float::scalar::PACK,
    rms_norm: vector::scalar::rms_norm,
    layer_norm: vector::scalar::layer_norm,
    add: vector::scalar::add,
    mul: vector::scalar::mul,
    scale: vector::scalar::scale,
    blend: vector::scalar::blend,
    silu: vector::scalar::silu,
    gelu: vector::scalar::gelu,
    gelu_tanh: vector::scalar::gelu_tanh,
    relu: vector::scalar::relu,
    relu_squared: vector::scalar::relu_squared,
    quick_gelu: vector::scalar::quick_gelu,
    softcap: vector::scalar::softcap,
    max: vector::scalar::max,
    exp_sum: vector::scalar::exp_sum,
    tiles: None,
};

/// Quantised products by NEON, all else plain.
#[cfg(target_arch = "aarch64")]
static NEON: Kernels = Kernels { isa: Isa::Neon, products: NEON_PRODUCTS, ..SCALAR_TABLE };
#[cfg(target_arch = "aarch64")]
const NEON_PRODUCTS: quant::Products = products!(super::quant::ints::neon::Neon, "neon");

#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = table!(Isa::Avx2, super::simd::avx2::Avx2, AVX2_PRODUCTS, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
const AVX2_PRODUCTS: quant::Products = products!(super::quant::ints::avx2::Avx2, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = AVX512_TABLE;
#[cfg(target_arch = "x86_64")]
const AVX512_TABLE: Kernels = Kernels {
    // A Sapphire Rapids read up to a fifth more with a kilobyte; OpenBLAS had 86 % of its peak.
    ahead: 1024,
    blas: true,
    ..AVX512_OF_ANY
};
#[cfg(target_arch = "x86_64")]
const AVX512_OF_ANY: Kernels =
    table!(Isa::Avx512, super::simd::avx512::Avx512, AVX2_PRODUCTS, "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq");
/// AVX-512 with VNNI, which all but the first CPUs with AVX-512 have.
#[cfg(target_arch = "x86_64")]
static AVX512_VNNI: Kernels = AVX512_VNNI_TABLE;
#[cfg(target_arch = "x86_64")]
const AVX512_VNNI_TABLE: Kernels = Kernels { products: VNNI_PRODUCTS, ..AVX512_TABLE };
#[cfg(target_arch = "x86_64")]
const VNNI_PRODUCTS: quant::Products =
    products!(super::quant::ints::avx2::Vnni, "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni");

/// The same of AMD's CPUs (Zen 4 and later), with dot products of bf16: on a Zen 4 they multiply twice as much as FMA, and our kernel of f32 is faster
/// than OpenBLAS's.
#[cfg(target_arch = "x86_64")]
static AVX512_AMD: Kernels = Kernels { products: VNNI_PRODUCTS, tiles: Some(DOTS), ..AVX512_OF_ANY };
#[cfg(target_arch = "x86_64")]
const DOTS: super::tiles::Functions = super::tiles::Functions {
    multiply: multiply_tiles!(
        super::simd::avx512::Avx512,
        crate::kernels::tiles::dots::Dots,
        "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"
    ),
    bf16_only: <super::tiles::dots::Dots as super::tiles::Unit>::BF16_ONLY,
    ..AMX_TILES
};

/// AVX-512 with VNNI, and tiles.
#[cfg(target_arch = "x86_64")]
pub(super) static AMX: Kernels = Kernels { isa: Isa::Amx, tiles: Some(AMX_TILES), ..AVX512_VNNI_TABLE };
#[cfg(target_arch = "x86_64")]
const AMX_TILES: super::tiles::Functions = tiles!(
    super::simd::avx512::Avx512,
    crate::kernels::quant::ints::avx2::Avx2::new(),
    crate::kernels::tiles::amx::Amx,
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"
);

/// The generic kernels at the width of AVX-512, whatever the CPU has.
#[cfg(all(test, target_arch = "x86_64"))]
pub(super) static EMULATED: Kernels = EMULATED_TABLE;
#[cfg(all(test, target_arch = "x86_64"))]
const EMULATED_TABLE: Kernels = table!(Isa::Avx512, super::simd::emulated::Emulated, quant::PRODUCTS, "sse2");
/// With tiles that are emulated too.
#[cfg(all(test, target_arch = "x86_64"))]
pub(super) static EMULATED_TILES: Kernels = Kernels { tiles: Some(EMULATED_UNIT), ..EMULATED_TABLE };
#[cfg(all(test, target_arch = "x86_64"))]
const EMULATED_UNIT: super::tiles::Functions = tiles!(
    super::simd::emulated::Emulated,
    crate::kernels::quant::ints::plain::Plain,
    crate::kernels::tiles::emulated::Emulated,
    "sse2"
);

/// With dot products that are emulated.
#[cfg(all(test, target_arch = "x86_64"))]
pub(super) static EMULATED_DOTS: Kernels = Kernels {
    tiles: Some(super::tiles::Functions {
        multiply: multiply_tiles!(super::simd::emulated::Emulated, crate::kernels::tiles::emulated::Dots, "sse2"),
        bf16_only: <super::tiles::emulated::Dots as super::tiles::Unit>::BF16_ONLY,
        ..EMULATED_UNIT
    }),
    ..EMULATED_TABLE
};

/// The vectors of AVX2 with emulated tiles.
#[cfg(all(test, target_arch = "x86_64"))]
pub(super) static AVX2_EMULATED_TILES: Kernels = Kernels {
    tiles: Some(tiles!(
        super::simd::avx2::Avx2,
        crate::kernels::quant::ints::avx2::Avx2::new(),
        crate::kernels::tiles::emulated::Emulated,
        "avx2,fma,f16c"
    )),
    ..table!(Isa::Avx2, super::simd::avx2::Avx2, AVX2_PRODUCTS, "avx2,fma,f16c")
};

/// The table of `isa`, which this CPU must have.
pub(super) fn of(isa: Isa) -> &'static Kernels {
    assert!(isa.available());
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => &AVX2,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if is_x86_feature_detected!("avx512vnni") => {
            if super::isa::is_amd() && is_x86_feature_detected!("avx512bf16") { &AVX512_AMD } else { &AVX512_VNNI }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => &AVX512,
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => &AMX,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => &NEON,
        _ => &SCALAR,
    }
}
