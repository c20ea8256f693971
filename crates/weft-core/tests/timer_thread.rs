//! The timer thread: not there before somebody needs it, and never two. A file of its own, for the other tests start it.
//!
//! cargo test -p weft-core --test timer_thread
#![cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]

mod common;

use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use common::*;
use weft_core::{Channel, after, tick};

/// How many threads of this process are timer threads.
fn timer_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc is there");
    // A thread that ends meanwhile has no name any more.
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "weft-timer").count()
}

#[test]
fn one_timer_thread_starts_when_futures_first_wait_for_a_timer() {
    let _clock = tick(Duration::from_secs(3600));
    let channel = Channel::<u8>::new(1);
    after(Duration::from_millis(1)).wait();
    assert!(channel.recv().wait_timeout(Duration::from_millis(1)).is_err());
    assert_eq!(timer_threads(), 0, "a thread that blocks watches its own deadline");
    let together = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                together.wait();
                for _ in 0..20 {
                    block_on(after(Duration::from_micros(200)));
                    assert_eq!(timer_threads(), 1, "eight came at once");
                }
            });
        }
    });
}
