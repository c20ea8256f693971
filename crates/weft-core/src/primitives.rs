//! The one door to atomics, mutexes and threads, so that loom and shuttle can stand in for them.
//!
//! Nothing else in this crate names `std::sync`, `std::thread` or a model checker.

pub(crate) use self::cell::UnsafeCell;
pub(crate) use self::lock::Lock;
pub(crate) use self::order::Order;
pub(crate) use self::parking::Parker;
/// The standard one even under a model checker, whose own cannot hold a trait object.
pub(crate) use std::sync::Arc as PlainArc;
/// For the timers' one static; the models run without timers.
pub(crate) use std::sync::OnceLock;

#[cfg(loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    sync::{Arc, Condvar, Mutex},
    thread,
};
#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    sync::{Arc, Condvar, Mutex},
    thread,
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// Waiting for somebody who is about to finish: a few instructions, unless that thread was interrupted.
///
/// It spins ever longer, then yields the processor (crossbeam-utils' `Backoff` has the same two phases).
pub(crate) struct Backoff(u32);

impl Backoff {
    const SPIN: u32 = 3;
    const YIELD: u32 = 12;

    pub(crate) const fn new() -> Self {
        Self(0)
    }

    /// Waits a moment, each time a little longer.
    #[inline]
    pub(crate) fn snooze(&mut self) {
        if cfg!(any(loom, shuttle)) || self.0 > Self::SPIN {
            thread::yield_now();
        } else {
            for _ in 0..1_u32 << self.0 {
                std::hint::spin_loop();
            }
        }
        if self.0 <= Self::YIELD {
            self.0 += 1;
        }
    }

    /// Whether it is time to sleep instead.
    #[inline]
    pub(crate) fn is_completed(&self) -> bool {
        cfg!(any(loom, shuttle)) || self.0 > Self::YIELD
    }
}

mod parking {
    //! A thread that sleeps until it is told to go on.

    use std::time::Duration;

    /// Whom to tell.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) struct Parker(std::thread::Thread);

    #[cfg(not(any(loom, shuttle)))]
    impl Parker {
        /// The current thread.
        pub(crate) fn current() -> Self {
            Self(std::thread::current())
        }

        #[inline]
        pub(crate) fn unpark(&self) {
            self.0.unpark();
        }

        /// Puts the current thread to sleep until it is unparked, or was already. It may wake for no reason.
        pub(crate) fn park(limit: Option<Duration>) {
            match limit {
                Some(limit) => std::thread::park_timeout(limit),
                None => std::thread::park(),
            }
        }
    }

    // The models' own `unpark` also wakes a thread that waits for a mutex or for another thread's end, which a real one does not.
    #[cfg(any(loom, shuttle))]
    use super::{Condvar, Mutex, PlainArc};

    #[cfg(any(loom, shuttle))]
    #[derive(Clone)]
    pub(crate) struct Parker(PlainArc<(Mutex<bool>, Condvar)>);

    #[cfg(loom)]
    use loom::thread_local as model_local;
    #[cfg(shuttle)]
    use shuttle::thread_local as model_local;

    #[cfg(any(loom, shuttle))]
    model_local! {
        static CURRENT: Parker = Parker(PlainArc::new((Mutex::new(false), Condvar::new())));
    }

    #[cfg(any(loom, shuttle))]
    impl Parker {
        pub(crate) fn current() -> Self {
            CURRENT.with(Self::clone)
        }

        pub(crate) fn unpark(&self) {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_one();
        }

        /// No time passes in a model, so a limit is over at once.
        pub(crate) fn park(limit: Option<Duration>) {
            let Self(shared) = Self::current();
            let mut told = shared.0.lock().unwrap();
            while !*told && limit.is_none() {
                told = shared.1.wait(told).unwrap();
            }
            *told = false;
        }
    }
}

mod order {
    //! The order in which one party takes several locks, or holds several offers: the same for all, so that no two wait for each other.

    /// Kept by whatever is taken in that order. The order is that of the addresses, and costs nothing.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) struct Order;

    #[cfg(not(any(loom, shuttle)))]
    impl Order {
        pub(crate) const fn new() -> Self {
            Self
        }

        /// Where its keeper, which does not move meanwhile, stands in the order.
        #[inline(always)]
        pub(crate) fn of<T>(&self, keeper: *const T) -> usize {
            keeper.addr()
        }
    }

    /// A model is run many times and must do the same each time, whatever the addresses are: there the order is that of age.
    #[cfg(any(loom, shuttle))]
    pub(crate) struct Order(usize);

    /// The standard one: a checker's own would be a point where threads take turns. It is never set back, as only the order
    /// within one run matters; models that run side by side share it for the same reason.
    #[cfg(any(loom, shuttle))]
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

    #[cfg(any(loom, shuttle))]
    impl Order {
        pub(crate) fn new() -> Self {
            // Relaxed: nothing is handed over, the numbers only have to differ.
            Self(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
        }

        pub(crate) fn of<T>(&self, _: *const T) -> usize {
            self.0
        }
    }
}

mod cell {
    //! `UnsafeCell` with loom's access-tracking interface; without loom it is the standard one.

    #[cfg(loom)]
    pub(crate) use loom::cell::UnsafeCell;

    #[cfg(not(loom))]
    #[derive(Debug, Default)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    #[cfg(not(loom))]
    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

mod lock {
    use std::sync::PoisonError;

    use super::{AtomicU32, Backoff, Condvar, Mutex, Order, Ordering};

    const FREE: u32 = 0;
    const HELD: u32 = 1;
    /// Held, and somebody sleeps, or is about to.
    const AWAITED: u32 = 2;

    /// A mutex without a guard: a select holds the locks of several channels whose types differ.
    ///
    /// Who finds it held spins, yields, and then sleeps. It is held for some tens of nanoseconds, so sleeping means that the holder was
    /// interrupted. (Drepper 2011, "Futexes are tricky", the third mutex; a condition variable stands for the futex.)
    ///
    /// After `unlock` has set it free it may still look at `sleepers`: whoever unlocks must keep the lock alive, not merely hold it.
    pub(crate) struct Lock {
        state: AtomicU32,
        sleepers: Mutex<()>,
        freed: Condvar,
        order: Order,
    }

    impl Lock {
        pub(crate) fn new() -> Self {
            Self { state: AtomicU32::new(FREE), sleepers: Mutex::new(()), freed: Condvar::new(), order: Order::new() }
        }

        /// Where it stands in the order in which several locks are taken.
        #[inline(always)]
        pub(crate) fn order(&self) -> usize {
            self.order.of(self)
        }

        #[inline(always)]
        pub(crate) fn lock(&self) {
            if !self.try_lock() {
                self.wait();
            }
        }

        /// Locks unless somebody holds it.
        #[inline(always)]
        pub(crate) fn try_lock(&self) -> bool {
            // Acquire pairs with the Release in `unlock`: we see what the last holder did.
            self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
        }

        #[cold]
        fn wait(&self) {
            let mut backoff = Backoff::new();
            while !backoff.is_completed() {
                backoff.snooze();
                if self.state.load(Ordering::Relaxed) == FREE && self.try_lock() {
                    return;
                }
            }
            let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
            // Acquire as in `try_lock`. Who gets it here leaves it marked, because others may sleep as well.
            while self.state.swap(AWAITED, Ordering::Acquire) != FREE {
                sleepers = self.freed.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
            }
        }

        /// # Safety
        /// The calling thread holds the lock, and keeps it alive until this returns.
        #[inline(always)]
        pub(crate) unsafe fn unlock(&self) {
            // Release pairs with the Acquire of whoever locks it next.
            if self.state.swap(FREE, Ordering::Release) == AWAITED {
                self.wake();
            }
        }

        #[cold]
        fn wake(&self) {
            // Whoever marked it holds `sleepers` until it sleeps: passing through means that it hears us.
            drop(self.sleepers.lock().unwrap_or_else(PoisonError::into_inner));
            self.freed.notify_one();
        }
    }
}
