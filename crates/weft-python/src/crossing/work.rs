//! How an operation's look whether its channels are shared, and what it does then, become one step.
//!
//! What is put into a shared channel must be a payload, and what parks there needs a bell (`share`). With a GIL an operation looks, and nothing is called
//! before it has put its value in or parked: nobody else has run in between, and all of this file is nothing. Where threads run at the same time
//! another one might share the channel, turn over what it holds and send an end of it away, all between the look and the step. So there:
//!
//! - Who shares says so first (the channel is *sharing*, and the place counts one more), then waits until nobody is at work, then turns over.
//! - An operation reads the count ([`Seen`]) before it looks. It then goes to work, and steps back if the count is another by then: it looks again.
//!
//! Either the operation sees the new count, or who shares sees it at work, and waits: each writes first and then reads what the other one writes, all
//! four in one order (`SeqCst`). At work nothing is called that may run Python code or wait for the interpreter, so the wait is for a few instructions.
//!
//! An operation on one channel is at work on that; what has several (a select, a `selecting`) is at work in the place, for all of them.
//! So is one on a barrier, which moves to the root in the same way.

#[cfg(not(Py_GIL_DISABLED))]
use std::marker::PhantomData;
#[cfg(Py_GIL_DISABLED)]
use std::sync::atomic::{AtomicU32, Ordering};

use super::place::Place;

/// How many channels of the place had been shared when somebody was about to look.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    #[cfg(Py_GIL_DISABLED)]
    pub number: u64,
}

/// Where parties are at work.
#[derive(Default)]
pub struct Work {
    #[cfg(Py_GIL_DISABLED)]
    parties: AtomicU32,
}

/// While it lives, its party is at work.
#[must_use = "what is done after this was dropped is not done at work"]
pub struct AtWork<'a> {
    #[cfg(Py_GIL_DISABLED)]
    work: &'a Work,
    #[cfg(not(Py_GIL_DISABLED))]
    work: PhantomData<&'a Work>,
}

impl Work {
    /// Goes to work. `None`: something was shared since then, look again.
    #[inline]
    pub fn begin(&self, place: &Place, seen: Seen) -> Option<AtWork<'_>> {
        #[cfg(not(Py_GIL_DISABLED))]
        {
            let _ = (place, seen);
            Some(AtWork::with_a_gil())
        }
        #[cfg(Py_GIL_DISABLED)]
        {
            // SeqCst pairs with `Place::count_shared` and `wait`, see above.
            self.parties.fetch_add(1, Ordering::SeqCst);
            let at_work = AtWork { work: self };
            (place.shared() == seen.number).then_some(at_work)
        }
    }

    /// Returns when nobody is at work who has not seen what was counted before.
    pub fn wait(&self) {
        // SeqCst: as above. What was done at work is seen from here on (the Release in `drop`).
        #[cfg(Py_GIL_DISABLED)]
        while self.parties.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
    }
}

#[cfg(not(Py_GIL_DISABLED))]
impl AtWork<'_> {
    /// Who has the GIL.
    #[inline]
    pub fn with_a_gil() -> Self {
        Self { work: PhantomData }
    }
}

impl Drop for AtWork<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release pairs with `wait`.
        #[cfg(Py_GIL_DISABLED)]
        self.work.parties.fetch_sub(1, Ordering::Release);
        #[cfg(not(Py_GIL_DISABLED))]
        let _ = self.work;
    }
}
