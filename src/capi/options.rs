//! Sized option structs: how a struct of any version of the header becomes this version's options.
//!
//! The first field says how large the caller's struct is. Fields are only ever appended, zero always means the default, and no struct
//! here has padding at its end, in which a later field could hide from its size.

use super::guard::null;
use crate::error::{Error, Result};
use crate::format::MapMode;
use crate::kernels::Isa;
use crate::model::{CacheOptions, KvType, Matmul, Weights};
use crate::quantize::Recipe;
use crate::text::UnknownPre;
use std::ffi::c_void;

/// engine_load_options.isa: the best instruction set that this CPU has, unless the environment variable ENGINE_ISA names one.
pub const ENGINE_ISA_AUTO: i32 = 0;
/// Plain code without vector instructions, the slow reference.
pub const ENGINE_ISA_SCALAR: i32 = 1;
/// AVX2, FMA and F16C.
pub const ENGINE_ISA_AVX2: i32 = 2;
/// AVX-512 F, BW, VL and DQ, and VNNI where the CPU has it. On AMD's CPUs (Zen 4 and later) prompts pass through dot products of bfloat16 where the
/// weights are that.
pub const ENGINE_ISA_AVX512: i32 = 3;
/// AVX-512 with VNNI, and for prompts AMX tiles of bfloat16. The system is asked for leave to use tiles, which holds for the whole
/// process and makes its signal frames longer.
pub const ENGINE_ISA_AMX: i32 = 4;
/// NEON. Not in this version: ENGINE_ERR_UNSUPPORTED.
pub const ENGINE_ISA_NEON: i32 = 5;

/// engine_load_options.weights: as they lie in the file, used in place.
pub const ENGINE_WEIGHTS_KEEP: i32 = 0;
/// Converted to 32-bit floats while loading.
pub const ENGINE_WEIGHTS_F32: i32 = 1;
/// Converted to bfloat16 while loading.
pub const ENGINE_WEIGHTS_BF16: i32 = 2;
/// Quantised to 8 bits while loading, or by engine_quantize(). Norms, biases, position tables and routers stay as they are; a matrix
/// whose rows are no whole blocks of the type gets a similar one with shorter blocks, or 16-bit floats.
pub const ENGINE_WEIGHTS_Q8_0: i32 = 3;
/// Quantised to 4 bits (5 in some of the first layers, 6 in the head: llama.cpp's Q4_K_S).
pub const ENGINE_WEIGHTS_Q4_K: i32 = 4;
/// Quantised to 4 bits of the older, coarser kind (6 in the head).
pub const ENGINE_WEIGHTS_Q4_0: i32 = 5;
/// Quantised to 5 bits (6 in the head: llama.cpp's Q5_K_S).
pub const ENGINE_WEIGHTS_Q5_K: i32 = 6;
/// Quantised to 6 bits.
pub const ENGINE_WEIGHTS_Q6_K: i32 = 7;
/// Quantised to 4 bits, and to 6 in the head and half of the attention's values and feed-forward blocks' second matrices: the mixture
/// that most GGUF files have.
pub const ENGINE_WEIGHTS_Q4_K_M: i32 = 8;

/// engine_load_options.mapping: the files are mapped. Loading costs no time and no memory of its own, but as with every
/// mapping the process gets SIGBUS if someone truncates a file while the model is in use.
pub const ENGINE_MAPPING_MAP: i32 = 0;
/// The files are read into memory, on Linux into large pages where there are any, and closed.
pub const ENGINE_MAPPING_COPY: i32 = 1;
/// The files are mapped, and a SIGBUS handler, installed for the process, turns a truncated file into ENGINE_ERR_IO.
pub const ENGINE_MAPPING_GUARDED: i32 = 2;

/// engine_load_options.matmul: products with f32 weights are computed in f32.
pub const ENGINE_MATMUL_EXACT: i32 = 0;
/// With prompts, on a CPU with AMX, they may be made of products of bfloat16 numbers: each f32 is the sum of three, six products of
/// which are summed, with an error of f32's own size. Numbers below 2^-126 then count as zero, and those within 0.4 % of f32's
/// largest as infinite. On other CPUs the same as ENGINE_MATMUL_EXACT.
pub const ENGINE_MATMUL_SPLIT: i32 = 1;

/// engine_load_options.flags: where a GGUF file names a pre-tokenizer that this version does not know, texts are split by the default
/// one, which gives other tokens than the model was trained on for some texts; without it, such a file has no tokenizer.
pub const ENGINE_LOAD_DEFAULT_PRE_TOKENIZER: u32 = 1;
/// engine_load_options.flags: each of the model's own threads stays on a physical core of its own, of those that the thread which loads
/// may use; the first of them is left to the threads that call, which are never moved. ENGINE_ERR_BAD_ARGUMENT if there are fewer cores
/// than threads, ENGINE_ERR_UNSUPPORTED on other systems than Linux. Models that are all loaded so share these cores.
pub const ENGINE_LOAD_PIN_THREADS: u32 = 2;

/// engine_cache_options.kv_type: ENGINE_KV_F32.
pub const ENGINE_KV_DEFAULT: i32 = 0;
/// Keys and values as 32-bit floats.
pub const ENGINE_KV_F32: i32 = 1;
/// Keys and values as 16-bit IEEE floats: half the memory.
pub const ENGINE_KV_F16: i32 = 2;
/// Keys and values as bfloat16: half the memory.
pub const ENGINE_KV_BF16: i32 = 3;
/// Keys and values in 8 bits: little more than a quarter of the memory of 32-bit floats. Each integer is to be multiplied by a scale that 32 elements of a key
/// share, and all of a value. Attention then multiplies integers: queries and weights are rounded to 16 bits.
pub const ENGINE_KV_Q8_0: i32 = 4;

/// Called now and then while a model loads or is quantised, on the calling thread, with the fraction done, 0 to 1. Returning false
/// cancels the call, which then gives ENGINE_ERR_CANCELLED. It must return: no C++ exception and no longjmp may leave it.
pub type engine_progress_callback = Option<unsafe extern "C" fn(user_data: *mut c_void, fraction: f32) -> bool>;

/// How to load a model. Make one with engine_load_options_init(), then set what should differ from the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct engine_load_options {
    /// sizeof(engine_load_options); engine_load_options_init() sets it.
    pub struct_size: u32,
    /// Threads that work on a step, the caller's counted in. 0: one for each physical core that this process may use.
    pub threads: u32,
    /// ENGINE_ISA_…; one that this CPU lacks is ENGINE_ERR_UNSUPPORTED.
    pub isa: i32,
    /// ENGINE_WEIGHTS_…
    pub weights: i32,
    /// ENGINE_MAPPING_…
    pub mapping: i32,
    /// 0, or ENGINE_LOAD_… put together with |.
    pub flags: u32,
    /// NULL, or what to call while loading.
    pub progress: engine_progress_callback,
    /// Handed to `progress` as it is.
    pub user_data: *mut c_void,
    /// 1: caches note where the time of their steps goes, at the cost of reading the clock once an op; see engine_cache_profile(). 0: not.
    pub profile: u32,
    /// ENGINE_MATMUL_…
    pub matmul: i32,
}

/// How to make a cache. Make one with engine_cache_options_init(), then set what should differ from the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct engine_cache_options {
    /// sizeof(engine_cache_options); engine_cache_options_init() sets it.
    pub struct_size: u32,
    /// ENGINE_KV_…: the element type of the keys and values.
    pub kv_type: i32,
    /// Most tokens that the cache may hold, at most engine_model_context_length(). 0: that many. Memory is taken as tokens
    /// come, not for this number.
    pub max_tokens: usize,
    /// How many tokens engine_cache_truncate() can take back at least, in models with layers that see only a window of the last
    /// tokens: those layers let go of what is further back. 0: 64. For other models it says nothing: they keep everything.
    pub rewind_tokens: usize,
}

/// A C struct that begins with `uint32_t struct_size`, for which all bytes zero is a valid value.
///
/// # Safety
/// The implementor is `repr(C)`, begins with a `u32`, and any bytes are a valid value of it.
pub(super) unsafe trait Sized_: Copy {
    const NAME: &'static str;
    /// `size_of` in version 0.1: no caller has a smaller one.
    const FIRST_SIZE: usize;
}

// SAFETY: repr(C), a u32 first; the integers and pointers take any bytes, and so does the callback: it is called only as the caller says.
unsafe impl Sized_ for engine_load_options {
    const NAME: &'static str = "engine_load_options";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, profile);
}
// SAFETY: repr(C), a u32 first, integers only.
unsafe impl Sized_ for engine_cache_options {
    const NAME: &'static str = "engine_cache_options";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, rewind_tokens);
}

/// No version's struct is larger: a size beyond it is memory that was never set, and its tail is not worth looking at.
const LARGEST: usize = 4096;

/// The size that the struct at `pointer` says it has, if that is a possible one.
///
/// # Safety
/// `pointer` is not NULL and its first four bytes can be read.
pub(super) unsafe fn struct_size<T: Sized_>(pointer: *const T) -> Result<usize> {
    // SAFETY: the caller's promise; the first field is a u32. Unaligned: a wild pointer must come as far as its error.
    let size = unsafe { pointer.cast::<u32>().read_unaligned() } as usize;
    if (T::FIRST_SIZE..=LARGEST).contains(&size) {
        return Ok(size);
    }
    let (name, first) = (T::NAME, T::FIRST_SIZE);
    Err(Error::bad_argument(format!("{name}: struct_size is {size}, expected sizeof({name}), at least {first}")))
}

/// The caller's options as this version's struct; `None` for NULL. A smaller struct (an older caller's) is filled up with
/// zeros; a larger one (a newer caller's) is taken if it asks for nothing that this version does not know.
///
/// # Safety
/// `pointer` is NULL or can be read for the `struct_size` bytes that it says.
pub(super) unsafe fn read<T: Sized_>(pointer: *const T) -> Result<Option<T>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL; a struct holds at least its first field.
    let size = unsafe { struct_size(pointer) }?;
    // SAFETY: the caller's promise; bytes have no alignment.
    let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), size) };
    check_tail::<T>(bytes)?;
    let known = &bytes[..size.min(size_of::<T>())];
    // SAFETY: any bytes are a valid T (the trait's promise), and `known` is not longer than it.
    unsafe {
        let mut options = std::mem::zeroed::<T>();
        known.as_ptr().copy_to_nonoverlapping((&raw mut options).cast(), known.len());
        Ok(Some(options))
    }
}

/// What a newer caller's struct has beyond this version's must be zero: it asks for nothing that this version does not know.
pub(super) fn check_tail<T: Sized_>(bytes: &[u8]) -> Result<()> {
    match bytes.iter().skip(size_of::<T>()).position(|byte| *byte != 0) {
        None => Ok(()),
        Some(at) => {
            let (name, at) = (T::NAME, size_of::<T>() + at);
            Err(Error::bad_argument(format!("{name}: byte {at} is set, an option that version {VERSION} does not know")))
        }
    }
}

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn unknown<T>(field: &str, value: impl std::fmt::Display) -> Result<T> {
    Err(Error::bad_argument(format!("{field}: {value} is not a value that version {VERSION} knows")))
}

fn unsupported<T>(field: &str, value: &str) -> Result<T> {
    Err(Error::unsupported(format!("{field}: {value} is not supported in version {VERSION}")))
}

/// What to quantise to, for those of ENGINE_WEIGHTS_… that say so.
pub(super) fn recipe(weights: i32) -> Option<Recipe> {
    Some(match weights {
        ENGINE_WEIGHTS_Q8_0 => Recipe::Q8_0,
        ENGINE_WEIGHTS_Q4_K => Recipe::Q4K,
        ENGINE_WEIGHTS_Q4_0 => Recipe::Q4_0,
        ENGINE_WEIGHTS_Q5_K => Recipe::Q5K,
        ENGINE_WEIGHTS_Q6_K => Recipe::Q6K,
        ENGINE_WEIGHTS_Q4_K_M => Recipe::Q4KM,
        _ => return None,
    })
}

impl engine_load_options {
    pub(super) fn isa(&self) -> Result<Option<Isa>> {
        match self.isa {
            ENGINE_ISA_AUTO => Ok(None),
            ENGINE_ISA_SCALAR => Ok(Some(Isa::Scalar)),
            ENGINE_ISA_AVX2 => Ok(Some(Isa::Avx2)),
            ENGINE_ISA_AVX512 => Ok(Some(Isa::Avx512)),
            ENGINE_ISA_AMX => Ok(Some(Isa::Amx)),
            ENGINE_ISA_NEON => unsupported("isa", "ENGINE_ISA_NEON"),
            other => unknown("isa", other),
        }
    }

    pub(super) fn weights(&self) -> Result<Weights> {
        match self.weights {
            ENGINE_WEIGHTS_KEEP => Ok(Weights::Keep),
            ENGINE_WEIGHTS_F32 => Ok(Weights::F32),
            ENGINE_WEIGHTS_BF16 => Ok(Weights::Bf16),
            other => recipe(other).map_or_else(|| unknown("weights", other), |recipe| Ok(Weights::Quantise(recipe))),
        }
    }

    pub(super) fn mapping(&self) -> Result<MapMode> {
        match self.mapping {
            ENGINE_MAPPING_MAP => Ok(MapMode::Map),
            ENGINE_MAPPING_COPY => Ok(MapMode::Copy),
            ENGINE_MAPPING_GUARDED => Ok(MapMode::Guarded),
            other => unknown("mapping", other),
        }
    }

    /// Whether `flag` is among the flags, all of which must be known.
    fn flag(&self, flag: u32) -> Result<bool> {
        match self.flags & !(ENGINE_LOAD_DEFAULT_PRE_TOKENIZER | ENGINE_LOAD_PIN_THREADS) {
            0 => Ok(self.flags & flag != 0),
            other => unknown("flags", format_args!("{other:#x}")),
        }
    }

    pub(super) fn unknown_pre_tokenizer(&self) -> Result<UnknownPre> {
        Ok(if self.flag(ENGINE_LOAD_DEFAULT_PRE_TOKENIZER)? { UnknownPre::UseDefault } else { UnknownPre::Refuse })
    }

    pub(super) fn pin_threads(&self) -> Result<bool> {
        self.flag(ENGINE_LOAD_PIN_THREADS)
    }

    pub(super) fn profile(&self) -> Result<bool> {
        match self.profile {
            0 | 1 => Ok(self.profile == 1),
            other => unknown("profile", other),
        }
    }

    pub(super) fn matmul(&self) -> Result<Matmul> {
        match self.matmul {
            ENGINE_MATMUL_EXACT => Ok(Matmul::Exact),
            ENGINE_MATMUL_SPLIT => Ok(Matmul::Split),
            other => unknown("matmul", other),
        }
    }
}

impl engine_cache_options {
    fn kv_type(&self) -> Result<KvType> {
        match self.kv_type {
            ENGINE_KV_DEFAULT | ENGINE_KV_F32 => Ok(KvType::F32),
            ENGINE_KV_F16 => Ok(KvType::F16),
            ENGINE_KV_BF16 => Ok(KvType::Bf16),
            ENGINE_KV_Q8_0 => Ok(KvType::Q8_0),
            other => unknown("kv_type", other),
        }
    }
}

/// The core's cache options.
///
/// # Safety
/// As for [`read`].
pub(super) unsafe fn cache(pointer: *const engine_cache_options) -> Result<CacheOptions> {
    // SAFETY: the caller's promise.
    let Some(options) = (unsafe { read(pointer) })? else {
        return Ok(CacheOptions::default());
    };
    Ok(CacheOptions { max_tokens: options.max_tokens, kv_type: options.kv_type()?, rewind_tokens: options.rewind_tokens })
}

/// Copies `value` into the caller's struct, as much of it as that holds; what a newer caller's struct has beyond is set to zero.
///
/// # Safety
/// `pointer` is NULL or can be written for the `struct_size` bytes that it says.
pub(super) unsafe fn write<T: Sized_>(mut value: T, pointer: *mut T, name: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL; a struct holds at least its first field.
    let size = unsafe { struct_size(pointer) }?;
    // SAFETY: the first field of both is the u32 struct_size (the trait's promise) and stays as the caller set it; the copy is
    // not longer than either struct, and the caller promised `size` bytes.
    unsafe {
        (&raw mut value).cast::<u32>().write(size as u32);
        pointer.cast::<u8>().write_bytes(0, size);
        (&raw const value).cast::<u8>().copy_to_nonoverlapping(pointer.cast(), size.min(size_of::<T>()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn structs_have_no_padding_at_their_end() {
        assert_eq!(size_of::<engine_load_options>(), 6 * 4 + 2 * 8 + 2 * 4);
        assert_eq!(size_of::<engine_cache_options>(), 2 * 4 + 2 * 8);
        assert_eq!(size_of::<crate::capi::engine_op_profile>(), 2 * 4 + 8 + 3 * 8);
        assert_eq!(size_of::<crate::capi::engine_quantize_options>(), 4 * 4 + 2 * 8);
        assert_eq!(size_of::<crate::capi::engine_model_info>(), 2 * 4 + 2 * 8 + 5 * 8 + 4 * 8);
    }

    #[test]
    fn sizes_of_other_versions() {
        #[repr(C)]
        struct Newer {
            known: engine_cache_options,
            later: [u8; 24],
        }
        let first = size_of::<engine_cache_options>() as u32;
        let known = engine_cache_options { struct_size: first, kv_type: ENGINE_KV_F16, max_tokens: 7, rewind_tokens: 9 };
        let mut newer = Newer { known, later: [0; 24] };
        let pointer = (&raw const newer).cast();
        let read = |size: u32, tail: u8| {
            newer.known.struct_size = size;
            newer.later[8] = tail;
            // SAFETY: `newer` has 48 bytes; sizes beyond are refused before they are read.
            unsafe { cache(pointer) }.map(|options| (options.max_tokens, options.rewind_tokens))
        };
        let mut read = read;
        assert_eq!(read(first, 0).unwrap(), (7, 9));
        assert_eq!(read(first + 24, 0).unwrap(), (7, 9));
        assert_eq!(read(first, 1).unwrap(), (7, 9));
        assert_eq!(read(16, 0).unwrap(), (7, 0), "a caller from before rewind_tokens");
        assert!(read(first + 24, 1).unwrap_err().message().contains("byte 32 is set"));
        let mut bytes = [0u8; 32];
        let odd = 1 - bytes.as_ptr() as usize % 2;
        bytes[odd..odd + 4].copy_from_slice(&16u32.to_ne_bytes());
        // SAFETY: 16 bytes at an odd address.
        assert_eq!(unsafe { cache(bytes[odd..].as_ptr().cast()) }.unwrap().max_tokens, 0);
        for size in [0, 3, 4, 15, 4097, u32::MAX] {
            assert!(read(size, 0).unwrap_err().message().contains(&format!("struct_size is {size}, ")));
        }
    }
}
