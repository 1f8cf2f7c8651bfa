//! How many times was memory asked for?
//!
//! The gateway's own allocator, with a count before it. Growing counts as asking; giving back does not.

#![allow(unsafe_code, reason = "an allocator is unsafe to implement; each call goes on as it came")]

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tikv_jemallocator::Jemalloc;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// How many times memory was asked for since the process began, by all threads.
pub(crate) fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// An allocator that counts.
pub(crate) struct Counting;

// SAFETY: every call goes to the inner allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        unsafe { Jemalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        unsafe { Jemalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        unsafe { Jemalloc.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { Jemalloc.dealloc(memory, layout) }
    }
}
