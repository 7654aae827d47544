//! A step allocates nothing once it is warm, but for the cache's next block of 64 tokens.

use engine::{CacheOptions, LoadOptions, Model};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
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

#[test]
fn a_warm_step_allocates_nothing() {
    for case in ["llama-bias", "gpt2-f16", "olmo2-gqa-bf16"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case).join("model");
        let model = Model::load(path, LoadOptions { threads: 2, ..LoadOptions::default() }).unwrap();
        let mut cache = model.new_cache(&CacheOptions::default()).unwrap();
        let mut logits = vec![0.0; 20 * model.vocab_size()];
        let tokens: Vec<u32> = (0..20).collect();
        let mut round = || {
            cache.step_all(&tokens, &mut logits).unwrap();
            for token in &tokens {
                cache.step(&[*token], Some(&mut logits[..model.vocab_size()])).unwrap();
            }
            cache.truncate(1).unwrap();
        };
        round();
        // The least of a few: the test harness has threads too, and what they allocate in passing is counted with ours.
        let allocations = || {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            round();
            ALLOCATIONS.load(Ordering::Relaxed) - before
        };
        assert_eq!(std::iter::repeat_with(allocations).take(5).min(), Some(0), "{case}");
    }
}
