//! What only attached threads use, a few instructions at a time: where there is a GIL, that is its lock.
//!
//! It is let go before anything of the interpreter's is called that may run other code, or let other threads run. So with a GIL it is never found
//! in use, and no atomic operation is needed; without one this is a mutex.

#[cfg(not(Py_GIL_DISABLED))]
use std::cell::Cell;
#[cfg(not(Py_GIL_DISABLED))]
use std::cell::{RefCell, RefMut};
#[cfg(Py_GIL_DISABLED)]
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
#[cfg(Py_GIL_DISABLED)]
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

#[cfg(not(Py_GIL_DISABLED))]
pub struct Attached<T>(RefCell<T>);
#[cfg(not(Py_GIL_DISABLED))]
pub type Guard<'a, T> = RefMut<'a, T>;

#[cfg(Py_GIL_DISABLED)]
pub struct Attached<T>(Mutex<T>);
#[cfg(Py_GIL_DISABLED)]
pub type Guard<'a, T> = MutexGuard<'a, T>;

impl<T> Attached<T> {
    pub fn new(value: T) -> Self {
        #[cfg(not(Py_GIL_DISABLED))]
        return Self(RefCell::new(value));
        #[cfg(Py_GIL_DISABLED)]
        Self(Mutex::new(value))
    }

    /// The caller is attached.
    #[inline]
    pub fn borrow(&self) -> Guard<'_, T> {
        #[cfg(not(Py_GIL_DISABLED))]
        return self.0.borrow_mut();
        #[cfg(Py_GIL_DISABLED)]
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for a collector; `None`: it is in use.
    pub fn try_borrow(&self) -> Option<Guard<'_, T>> {
        #[cfg(not(Py_GIL_DISABLED))]
        return self.0.try_borrow_mut().ok();
        #[cfg(Py_GIL_DISABLED)]
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A number of an object that only attached threads look at. Without a GIL it is an atomic one, for itself: relaxed, but where it says otherwise.
macro_rules! number {
    ($name:ident, $number:ident, $atomic:ident) => {
        #[cfg(not(Py_GIL_DISABLED))]
        pub struct $name(Cell<$number>);
        #[cfg(Py_GIL_DISABLED)]
        pub struct $name($atomic);

        #[allow(dead_code)] // not each of them is used of both
        impl $name {
            #[inline(always)]
            pub fn new(value: $number) -> Self {
                #[cfg(not(Py_GIL_DISABLED))]
                return Self(Cell::new(value));
                #[cfg(Py_GIL_DISABLED)]
                Self($atomic::new(value))
            }

            #[inline(always)]
            pub fn get(&self) -> $number {
                #[cfg(not(Py_GIL_DISABLED))]
                return self.0.get();
                #[cfg(Py_GIL_DISABLED)]
                self.0.load(Ordering::Relaxed)
            }

            #[inline(always)]
            pub fn set(&self, value: $number) {
                #[cfg(not(Py_GIL_DISABLED))]
                return self.0.set(value);
                #[cfg(Py_GIL_DISABLED)]
                self.0.store(value, Ordering::Relaxed)
            }

            /// What it was before.
            #[inline(always)]
            pub fn swap(&self, value: $number) -> $number {
                #[cfg(not(Py_GIL_DISABLED))]
                return self.0.replace(value);
                #[cfg(Py_GIL_DISABLED)]
                self.0.swap(value, Ordering::Relaxed)
            }

            /// As `set`: who sees it by `see`, or moves on from it by `exchange`, sees what was done before.
            #[inline(always)]
            pub fn tell(&self, value: $number) {
                #[cfg(not(Py_GIL_DISABLED))]
                return self.0.set(value);
                // Release pairs with the Acquire of these two.
                #[cfg(Py_GIL_DISABLED)]
                self.0.store(value, Ordering::Release)
            }

            #[inline(always)]
            pub fn see(&self) -> $number {
                #[cfg(not(Py_GIL_DISABLED))]
                return self.0.get();
                // Acquire pairs with the Release of `tell` and `exchange`.
                #[cfg(Py_GIL_DISABLED)]
                self.0.load(Ordering::Acquire)
            }

            /// Sets it if it is `before`; `Err`: what it is. It tells and sees.
            #[inline(always)]
            pub fn exchange(&self, before: $number, value: $number) -> Result<(), $number> {
                #[cfg(not(Py_GIL_DISABLED))]
                return match self.0.get() {
                    found if found == before => Ok(self.0.set(value)),
                    found => Err(found),
                };
                #[cfg(Py_GIL_DISABLED)]
                self.0.compare_exchange(before, value, Ordering::AcqRel, Ordering::Relaxed).map(drop)
            }

            /// Of flags: sets these, or takes them away, in one step.
            #[inline(always)]
            pub fn put(&self, flags: $number, value: bool) {
                #[cfg(not(Py_GIL_DISABLED))]
                {
                    let others = self.0.get() & !flags;
                    self.0.set(if value { others | flags } else { others });
                }
                #[cfg(Py_GIL_DISABLED)]
                match value {
                    true => self.0.fetch_or(flags, Ordering::Relaxed),
                    false => self.0.fetch_and(!flags, Ordering::Relaxed),
                };
            }

            /// Takes them away, in one step. Whether one was set.
            #[inline(always)]
            pub fn take(&self, flags: $number) -> bool {
                #[cfg(not(Py_GIL_DISABLED))]
                return self.0.replace(self.0.get() & !flags) & flags != 0;
                #[cfg(Py_GIL_DISABLED)]
                return self.0.fetch_and(!flags, Ordering::Relaxed) & flags != 0;
            }

            /// Of these flags sets those in `chosen`. Two steps without a GIL: nobody looks at these between.
            #[inline(always)]
            pub fn choose(&self, flags: $number, chosen: $number) {
                #[cfg(not(Py_GIL_DISABLED))]
                self.0.set(self.0.get() & !flags | chosen);
                #[cfg(Py_GIL_DISABLED)]
                {
                    self.put(flags, false);
                    self.put(chosen, true);
                }
            }
        }
    };
}

number!(Byte, u8, AtomicU8);
number!(Bits, u16, AtomicU16);
