//! Blocking a thread until its offer is met.
//!
//! A waker for the current thread is made once and kept; waiting spins a little, then parks. Waking a thread that still spins costs no
//! system call. A park may return for no reason, and may have been woken by a wait that is over, so its return means
//! nothing: the waiter's state word is asked each time.

use std::cell::OnceCell;
use std::task::{Wake, Waker};
use std::time::Instant;

use crate::primitives::{Backoff, Parker, PlainArc};
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
    CURRENT
        .try_with(|current| current.get_or_init(make).clone())
        .unwrap_or_else(|_| make())
}

/// Blocks until the waiter was met; `false` when `until` came first. The waiter is still armed then, and may be met at any moment.
pub(crate) fn wait(waiter: &Waiter, until: Option<Instant>) -> bool {
    let mut backoff = Backoff::new();
    loop {
        if waiter.met().is_some() {
            return true;
        }
        if !backoff.is_completed() {
            backoff.snooze();
        } else if let Some(until) = until {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            Parker::park(Some(left));
        } else {
            Parker::park(None);
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
