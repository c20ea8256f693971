//! Blocking a thread until its offer is met.
//!
//! A waker for the current thread is made once and kept. Waiting yields the processor for a while, then parks; waking a thread that
//! has not parked yet costs no system call. A park may return for no reason, and may have been woken by a wait that is over, so
//! its return means nothing: the waiter's state word is asked each time.

use std::cell::{Cell, OnceCell};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use crate::primitives::{Parker, PlainArc, thread};
use crate::waiter::Waiter;

struct Unpark(Parker);

impl Wake for Unpark {
    fn wake(self: PlainArc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &PlainArc<Self>) {
        self.0.unpark();
    }
}

/// A waker for the current thread.
pub(crate) fn waker() -> Waker {
    thread_local! {
        static CURRENT: OnceCell<Waker> = const { OnceCell::new() };
    }
    let make = || Waker::from(PlainArc::new(Unpark(Parker::current())));
    if cfg!(any(loom, shuttle)) {
        // A model's thread is not the operating system's.
        return make();
    }
    // While a thread's locals are being destroyed there is nothing to keep it in.
    CURRENT.try_with(|current| current.get_or_init(make).clone()).unwrap_or_else(|_| make())
}

thread_local! {
    /// How often this thread looks, giving way to others in between, before it sleeps.
    static PATIENCE: Cell<u32> = const { Cell::new(MOST) };
}

/// Between looking `LEAST` and `MOST` times: more when it has just helped, less when it has not. A thread whose peers are quick
/// need not sleep and be woken; one that waits for long wastes little.
const LEAST: u32 = 4;
const MOST: u32 = 256;
/// However often, not longer than this.
const ENOUGH: Duration = Duration::from_micros(200);

/// Waits a little, until `is_so`. `false`: it is time to sleep.
///
/// It gives way at once, without spinning before: on two processors spinning cost more than it gained in every row of
/// benches/channels.rs.
fn patiently(is_so: impl Fn() -> bool) -> bool {
    if cfg!(any(loom, shuttle)) {
        return is_so();
    }
    let patience = PATIENCE.try_with(Cell::get).unwrap_or(LEAST);
    let start = Instant::now();
    for looked in 0..patience {
        if is_so() {
            let _ = PATIENCE.try_with(|patience| patience.set((patience.get() + looked).min(MOST)));
            return true;
        }
        // Others may keep the processor for long; one that sleeps gets it back sooner than one that gives way.
        if start.elapsed() > ENOUGH {
            break;
        }
        thread::yield_now();
    }
    let _ = PATIENCE.try_with(|patience| patience.set((patience.get() / 2).max(LEAST)));
    is_so()
}

/// Blocks until the waiter was met; `false` when `until` came first. The waiter is still armed then, and may be met at any moment.
pub(crate) fn wait(waiter: &Waiter, until: Option<Instant>) -> bool {
    if patiently(|| waiter.met().is_some()) {
        return true;
    }
    loop {
        match until {
            None => Parker::park(None),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return waiter.met().is_some();
                }
                Parker::park(Some(left));
            }
        }
        if waiter.met().is_some() {
            return true;
        }
    }
}

/// The earlier of two deadlines, where `None` is never.
pub(crate) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
