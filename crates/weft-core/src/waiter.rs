//! A waiter: one party's wait, on one channel or, in a select, on several.
//!
//! A wait is an offer. Whoever can meet it *claims* it, fills or empties the slot of the case it met, *finishes*, and wakes the
//! party after unlocking. The state word decides every race: between two channels that both want the same select,
//! between a peer and a cancel, between a peer and a timer.
//!
//! ```text
//!            arm                claim               finish
//!   IDLE ---------> WAITING ------------> CLAIMED(i) -------> DONE(i)
//!                    |   ^  \
//!           withdraw |   |   hold / let go (an instant, by a barrier or the owner)
//!                    v   |
//!               WITHDRAWN HELD
//! ```
//!
//! True at all times:
//!   1. Only the party that moved WAITING to CLAIMED or HELD touches `wake`, and the slot of case `i`, until it finishes or lets go.
//!   2. In IDLE, DONE and WITHDRAWN both belong to the owner alone.
//!   3. HELD and CLAIMED last for a bounded number of instructions and no lock is taken in them, so that others may wait for their end
//!      while they hold a channel's lock.
//!
//! Source: the state word of a select is Reppy's (Concurrent ML, 1991: an event's commit flag) and Go's `selectDone`.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::task::{RawWakerVTable, Waker};

use crate::primitives::{AtomicU32, Backoff, Order, Ordering, UnsafeCell};
use crate::selecting::Ready;

const IDLE: u32 = 0;
const WAITING: u32 = 1;
const HELD: u32 = 2;
const WITHDRAWN: u32 = 3;
const CLAIMED: u32 = 0x4000_0000;
const DONE: u32 = 0x8000_0000;
const CASE: u32 = 0x3fff_ffff;

/// One party's wait. It must stay where it is while armed: queues point to it.
pub struct Waiter {
    state: AtomicU32,
    /// It is the beginning of a [`Standing`].
    persistent: bool,
    wake: UnsafeCell<Option<Waker>>,
    order: Order,
}

/// The waiter of a persistent registration, and where it leaves word of what it missed.
#[repr(C)]
pub(crate) struct Standing {
    // First, so that a pointer to it is a pointer to the whole.
    pub(crate) waiter: Waiter,
    pub(crate) ready: Ready,
}

impl Standing {
    pub(crate) fn new() -> Self {
        Self { waiter: Waiter { persistent: true, ..Waiter::new() }, ready: Ready::new() }
    }
}

// SAFETY: invariants 1 and 2 give `wake` one user at a time; the state word hands it over with Release/Acquire.
unsafe impl Send for Waiter {}
// SAFETY: as above.
unsafe impl Sync for Waiter {}

impl Default for Waiter {
    fn default() -> Self {
        Self::new()
    }
}

impl Waiter {
    /// A waiter that waits for nothing yet.
    pub fn new() -> Self {
        Self { state: AtomicU32::new(IDLE), persistent: false, wake: UnsafeCell::new(None), order: Order::new() }
    }

    /// Whether this is the waiter of a [`Selecting`](crate::selecting::Selecting).
    pub fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// Where a persistent registration leaves word of what it missed; `None` for a wait that is made once.
    ///
    /// # Safety
    /// A live waiter, as nodes are bound to it: the pointer leads to the whole of a [`Standing`] if it is persistent.
    #[inline]
    pub(crate) unsafe fn ready<'a>(this: *const Self) -> Option<&'a Ready> {
        // SAFETY: the caller's promise; only `Standing::new` makes persistent ones.
        unsafe { (*this).persistent.then(|| &(*this.cast::<Standing>()).ready) }
    }

    /// Opens the offer: from now on a peer that finds one of its nodes in a queue may claim it.
    ///
    /// # Safety
    /// The caller owns the waiter, and it is idle, done or withdrawn, with no node in any queue.
    #[inline]
    pub unsafe fn arm(&self, waker: Waker) {
        // SAFETY: invariant 2: nobody else looks at `wake` in these states.
        self.wake.with_mut(|wake| unsafe { *wake = Some(waker) });
        // Release pairs with the Acquire in `claim` and `hold`: the claimer sees `wake`. (The queue's lock orders it too.)
        self.state.store(WAITING, Ordering::Release);
    }

    /// Closes an offer that no queue holds (it was met while being made, or never parked).
    ///
    /// # Safety
    /// The caller owns the waiter and none of its nodes is in any queue.
    #[inline]
    pub unsafe fn disarm(&self) -> Option<Waker> {
        self.state.store(IDLE, Ordering::Relaxed);
        // SAFETY: no node, no claimer: the owner is alone.
        self.wake.with_mut(|wake| unsafe { (*wake).take() })
    }

    /// Takes the offer for `case`, unless it is already taken or withdrawn.
    #[inline]
    pub fn claim(&self, case: u32) -> Option<Claim<'_>> {
        let mut backoff = Backoff::new();
        loop {
            // Acquire pairs with `arm`; Release lets the owner, who sees CLAIMED, order itself after us.
            match self.state.compare_exchange(WAITING, CLAIMED | case, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Claim::of(self, case)),
                Err(HELD) => backoff.snooze(),
                Err(_) => return None,
            }
        }
    }

    /// Where it stands in the order in which several are held.
    #[inline]
    pub(crate) fn order(&self) -> usize {
        self.order.of(self)
    }

    /// Holds the offer for an instant without taking it. The answer to `true` is [`let_go`](Self::let_go) or
    /// [`claim_held`](Self::claim_held).
    pub(crate) fn hold(&self) -> bool {
        let mut backoff = Backoff::new();
        loop {
            match self.state.compare_exchange(WAITING, HELD, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return true,
                Err(HELD) => backoff.snooze(),
                Err(_) => return false,
            }
        }
    }

    pub(crate) fn let_go(&self) {
        self.state.store(WAITING, Ordering::Release);
    }

    pub(crate) fn claim_held(&self, case: u32) -> Claim<'_> {
        self.state.store(CLAIMED | case, Ordering::Relaxed);
        Claim::of(self, case)
    }

    /// Takes the offer back. `true`: nobody met it, and nobody will. `false`: it was met; [`met`](Self::met) tells the case.
    ///
    /// The nodes stay in their queues until the owner unlinks them; peers that find them pass on.
    #[inline]
    pub fn withdraw(&self) -> bool {
        let mut backoff = Backoff::new();
        loop {
            match self.state.compare_exchange(WAITING, WITHDRAWN, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return true,
                Err(HELD) => backoff.snooze(),
                Err(_) => return false,
            }
        }
    }

    /// The case that was met, once its claimer has finished; `None` while nobody claimed the offer.
    #[inline]
    pub fn met(&self) -> Option<u32> {
        let mut backoff = Backoff::new();
        loop {
            // Acquire pairs with the Release in `Claim::finish`: the slot's new content is ours to read.
            let state = self.state.load(Ordering::Acquire);
            if state & DONE != 0 {
                return Some(state & CASE);
            }
            if state & CLAIMED == 0 {
                return None;
            }
            backoff.snooze();
        }
    }

    /// Whether the offer is open.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), WAITING | HELD)
    }

    /// Puts another waker in place of the one given to [`arm`](Self::arm); `Err` gives it back when the offer is no longer open.
    /// The old waker is returned, to be dropped by the caller outside every lock.
    pub fn rearm(&self, waker: Waker) -> Result<Option<Waker>, Waker> {
        if !self.hold() {
            return Err(waker);
        }
        // SAFETY: invariant 1: we hold the offer.
        let old = self.wake.with_mut(|wake| unsafe { (*wake).replace(waker) });
        self.let_go();
        Ok(old)
    }

    /// Looks at what the waker given to [`arm`](Self::arm) carries, if it was made with this table and the offer is open. The offer is held
    /// meanwhile, so that whatever the waker stands for is still there: a few instructions, nothing foreign.
    pub fn with_data<R>(&self, table: &'static RawWakerVTable, look: impl FnOnce(*const ()) -> R) -> Option<R> {
        if !self.hold() {
            return None;
        }
        // SAFETY: invariant 1: we hold the offer.
        let data = self.wake.with(|wake| unsafe {
            (*wake).as_ref().filter(|wake| std::ptr::eq(wake.vtable(), table)).map(Waker::data)
        });
        let seen = data.map(look);
        self.let_go();
        seen
    }

    /// Makes sure that `waker` is the one to be called; nothing is cloned when it is already. `false`: the offer is no longer open.
    pub(crate) fn refresh(&self, waker: &Waker) -> bool {
        if !self.hold() {
            return false;
        }
        // SAFETY: invariant 1: we hold the offer. `will_wake` runs nothing foreign: it compares two pairs of pointers.
        let same = self.wake.with(|wake| unsafe { (*wake).as_ref().is_some_and(|wake| wake.will_wake(waker)) });
        self.let_go();
        // A clone may run foreign code, which must not happen while we hold the offer (3).
        same || self.rearm(waker.clone()).is_ok()
    }

    /// Drops a waker that nobody used. For the owner, after `withdraw` or `met`.
    ///
    /// # Safety
    /// The caller owns the waiter, which is not armed.
    pub unsafe fn clear(&self) -> Option<Waker> {
        // SAFETY: invariant 2.
        self.wake.with_mut(|wake| unsafe { (*wake).take() })
    }
}

/// A taken offer. Its slot is the claimer's until [`finish`](Self::finish).
#[must_use = "a claimed party waits until the claim is finished"]
pub struct Claim<'a> {
    // Not a reference: that would have to stay valid until `finish` returns, and the owner may be gone by then.
    waiter: NonNull<Waiter>,
    case: u32,
    _waiter: PhantomData<&'a Waiter>,
}

impl<'a> Claim<'a> {
    #[inline]
    fn of(waiter: &'a Waiter, case: u32) -> Self {
        Self { waiter: NonNull::from(waiter), case, _waiter: PhantomData }
    }

    /// Hands the slot back to its owner and returns the waker, to be called after every lock is released.
    ///
    /// The owner may be gone the moment this returns.
    #[must_use = "the party sleeps until this waker is called"]
    #[inline]
    pub fn finish(self) -> Option<Waker> {
        let waiter = self.waiter.as_ptr();
        // SAFETY: the owner waits for `DONE` before it goes away; invariant 1: claiming gave us `wake`.
        let waker = unsafe { (*waiter).wake.with_mut(|wake| (*wake).take()) };
        // Release pairs with the Acquire in `met`.
        // SAFETY: as above. It is gone as soon as it sees this, and we do not look at it again.
        unsafe { (*waiter).state.store(DONE | self.case, Ordering::Release) };
        waker
    }
}
