//! A step allocates nothing once it is warm, but for the cache's next block of 64 tokens; where all layers have windows, not even
//! that.

use engine::{Cache, CacheOptions, LoadOptions, Model};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is the system's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn load(case: &str) -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case);
    let path = if path.is_dir() { path.join("model") } else { path };
    Model::load(path, LoadOptions { threads: 2, profile: true, ..LoadOptions::default() }).unwrap()
}

/// What `round` allocates on caches that `warm` makes: the least of a few, as the test harness has threads too, and what they
/// allocate in passing is counted with ours.
fn allocations(warm: impl Fn() -> Cache, mut round: impl FnMut(&mut Cache)) -> Option<usize> {
    let count = || {
        let mut cache = warm();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        round(&mut cache);
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    std::iter::repeat_with(count).take(5).min()
}

#[test]
fn a_warm_step_allocates_nothing() {
    let whole = ["llama-bias", "gpt2-f16", "olmo2-gqa-bf16", "cohere2-4", "phi3-longrope-4", "falcon-new-5", "quant/mixed.gguf"];
    let mixtures = ["mixtral-4", "qwen3-moe-dense-layers-5", "olmoe-clip-5"];
    for case in whole.into_iter().chain(mixtures) {
        let model = load(case);
        let tokens: Vec<u32> = (0..20).collect();
        let round = |cache: &mut Cache, logits: &mut [f32]| {
            cache.step_all(&tokens, logits).unwrap();
            for token in &tokens {
                cache.step(&[*token], Some(&mut logits[..model.vocab_size()])).unwrap();
            }
            cache.truncate(1).unwrap();
        };
        let mut logits = vec![0.0; 20 * model.vocab_size()];
        let warm = || {
            let mut cache = model.new_cache(&CacheOptions::default()).unwrap();
            round(&mut cache, &mut vec![0.0; 20 * model.vocab_size()]);
            cache
        };
        assert_eq!(allocations(warm, |cache| round(cache, &mut logits)), Some(0), "{case}");
    }
    // Windows of 20 tokens, and 64 to go back: at 150 tokens a block has been let go, which is the one from 192 tokens on.
    for case in ["mistral-window-4", "mixtral-window-5"] {
        let model = load(case);
        let tokens: Vec<u32> = (0..250).map(|i| i % 50).collect();
        let mut logits = vec![0.0; model.vocab_size()];
        let warm = || {
            let mut cache = model.new_cache(&CacheOptions::default()).unwrap();
            cache.step(&tokens[..150], None).unwrap();
            cache
        };
        let round = |cache: &mut Cache| tokens[150..].iter().for_each(|t| cache.step(&[*t], Some(&mut logits)).unwrap());
        assert_eq!(allocations(warm, round), Some(0), "{case}");
    }
}
