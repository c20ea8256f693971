//! Select: of several cases exactly one commits, the others are as if never tried.
//!
//! All locks are taken, in one order (that of their addresses), then the cases are looked at; if none is ready, all are parked
//! before the locks are released. So a select that looks is in no queue and cannot be claimed, and one that is parked is in all
//! of them: two selects that face each other pair, and a select never meets itself. What is parked is decided by its waiter's
//! state word.
//!
//! Source: Go, src/runtime/select.go (lock order, one pass). Reservoir choice: Vitter 1985, algorithm R with one place.

use std::cell::Cell;

use crate::chan::{Chan, Wakes};
use crate::primitives::Lock;
use crate::waitq::Node;

/// Which of several ready cases is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// Each with the same probability.
    #[default]
    Random,
    /// The first listed.
    Priority,
}

/// What can stand in a select.
///
/// # Safety
/// `lock` is the same lock at each call. `commit` returns `true` only when the case's outcome is decided and in its slot. A parked
/// case is in a queue until it is unlinked or claimed.
pub unsafe trait Case {
    /// The lock under which the other methods are called; `None` when there is nothing to lock.
    #[doc(hidden)]
    fn lock(&self) -> Option<&Gate>;
    /// Whether `commit` may succeed, asked without the lock; `None`: only the lock can tell.
    #[doc(hidden)]
    fn hint(&self) -> Option<bool> {
        None
    }
    /// Whether `commit` is likely to succeed.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn ready(&self) -> bool;
    /// Decides the case now, if it can be.
    ///
    /// # Safety
    /// The lock is held; the case is in no queue and its slot belongs to the caller.
    unsafe fn commit(&self, wakes: &mut Wakes) -> bool;
    /// Puts the case in its queue.
    ///
    /// # Safety
    /// The lock is held; the case is bound to a waiter that is armed before the lock is released, and stays where it is.
    unsafe fn park(&self);
    /// Takes the case out of its queue, if it is in.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn unlink(&self);
}

/// A lock as a select sees it, whatever it guards.
#[repr(transparent)]
pub struct Gate(Lock);

impl Gate {
    pub(crate) fn of(lock: &Lock) -> &Self {
        // SAFETY: `Gate` is transparent over `Lock`.
        unsafe { &*std::ptr::from_ref(lock).cast() }
    }

    #[inline]
    pub(crate) fn lock(&self) {
        self.0.lock();
    }

    /// # Safety
    /// The calling thread holds the lock.
    #[inline]
    pub(crate) unsafe fn unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.0.unlock() };
    }
}

/// A send as a case: the value is in the node's slot.
pub struct SendCase<'a, T> {
    /// Where to.
    pub chan: &'a Chan<T>,
    /// The place in the queue.
    pub node: &'a Node<T>,
}

/// A receive as a case: the value comes into the node's slot.
pub struct RecvCase<'a, T> {
    /// Where from.
    pub chan: &'a Chan<T>,
    /// The place in the queue.
    pub node: &'a Node<T>,
}

// SAFETY: the channel's lock is the lock; `commit_send` decides the slot; `park` and `unlink` use the channel's queue.
unsafe impl<T> Case for SendCase<'_, T> {
    fn lock(&self) -> Option<&Gate> {
        Some(Gate::of(&self.chan.lock))
    }
    fn hint(&self) -> Option<bool> {
        Some(self.chan.may_send())
    }
    unsafe fn ready(&self) -> bool {
        // SAFETY: the caller holds the lock.
        unsafe { self.chan.with_locked(|state| state.send_is_ready()) }
    }
    unsafe fn commit(&self, wakes: &mut Wakes) -> bool {
        // SAFETY: the caller holds the lock and owns the slot.
        unsafe { self.chan.with_locked(|state| state.commit_send(self.node, wakes)) }
    }
    unsafe fn park(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.chan.with_locked(|state| state.park(self.node, true)) }
    }
    unsafe fn unlink(&self) {
        // SAFETY: the caller holds the lock; the node can only be in this channel's queues.
        unsafe { self.chan.with_locked(|state| state.unlink(self.node)) };
    }
}

// SAFETY: as for `SendCase`.
unsafe impl<T> Case for RecvCase<'_, T> {
    fn lock(&self) -> Option<&Gate> {
        Some(Gate::of(&self.chan.lock))
    }
    fn hint(&self) -> Option<bool> {
        Some(self.chan.may_recv())
    }
    unsafe fn ready(&self) -> bool {
        // SAFETY: the caller holds the lock.
        unsafe { self.chan.with_locked(|state| state.recv_is_ready()) }
    }
    unsafe fn commit(&self, wakes: &mut Wakes) -> bool {
        // SAFETY: the caller holds the lock and owns the slot.
        unsafe { self.chan.with_locked(|state| state.commit_recv(self.node, wakes)) }
    }
    unsafe fn park(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.chan.with_locked(|state| state.park(self.node, false)) }
    }
    unsafe fn unlink(&self) {
        // SAFETY: the caller holds the lock; the node can only be in this channel's queues.
        unsafe { self.chan.with_locked(|state| state.unlink(self.node)) };
    }
}

/// A case that somebody else decides later, with [`Waiter::claim`](crate::waiter::Waiter::claim) (a timer, a descriptor), or that is ready from the start.
pub struct Outside {
    /// Whether it can be taken at once.
    pub ready: bool,
}

// SAFETY: there is no lock and no queue; a ready case has nothing to put in a slot.
unsafe impl Case for Outside {
    fn lock(&self) -> Option<&Gate> {
        None
    }
    fn hint(&self) -> Option<bool> {
        Some(self.ready)
    }
    unsafe fn ready(&self) -> bool {
        self.ready
    }
    unsafe fn commit(&self, _: &mut Wakes) -> bool {
        self.ready
    }
    unsafe fn park(&self) {}
    unsafe fn unlink(&self) {}
}

/// Takes one ready case, or parks all of them when `park` is set. The committed case's index, or `None`.
///
/// # Safety
/// Each case's node is in no queue. With `park`, each node is bound to one and the same armed waiter with its index in `cases` (or
/// whatever the caller makes of it), and all stay where they are until the waiter was met or withdrawn, and [`unlink`] was called.
pub unsafe fn attempt(cases: &[&dyn Case], policy: Policy, park: bool, wakes: &mut Wakes) -> Option<usize> {
    // SAFETY: the caller's promise.
    unsafe { attempt_one(cases, policy, wakes).or_else(|| attempt_all(cases, policy, park, wakes)) }
}

/// Takes a case that looks ready from outside, under its lock alone.
///
/// A hint that is late does no harm: the commit fails, or the case is found under all locks. It cannot be late for what happened
/// before the select began, because the hint was stored before that happened. So the choice is among those that were ready when
/// the select looked, evenly, or the first listed.
///
/// # Safety
/// As for [`attempt`].
#[inline]
pub(crate) unsafe fn attempt_one(cases: &[&dyn Case], policy: Policy, wakes: &mut Wakes) -> Option<usize> {
    let mut choice = Choice::new(policy);
    for (index, case) in cases.iter().enumerate() {
        // When one does not know, only the locks can tell.
        if case.hint()? && choice.offer(index) {
            break;
        }
    }
    let index = choice.chosen?;
    // SAFETY: the caller's promise.
    unsafe { commit(cases[index], wakes) }.then_some(index)
}

/// Performs a case under its lock alone, if it can be.
///
/// # Safety
/// The case is in no queue, and its slot is the caller's.
#[inline]
pub(crate) unsafe fn commit(case: &dyn Case, wakes: &mut Wakes) -> bool {
    let gate = case.lock();
    if let Some(gate) = gate {
        gate.lock();
    }
    // SAFETY: the lock is held; the slot is the caller's.
    let taken = unsafe { case.commit(wakes) };
    if let Some(gate) = gate {
        // SAFETY: locked above.
        unsafe { gate.unlock() };
    }
    taken
}

/// One of several, chosen while they go by.
pub(crate) struct Choice {
    pub(crate) chosen: Option<usize>,
    policy: Policy,
    seen: u32,
}

impl Choice {
    #[inline]
    pub(crate) fn new(policy: Policy) -> Self {
        Self { chosen: None, policy, seen: 0 }
    }

    /// One more that is ready; `true`: the others need not be looked at.
    #[inline]
    pub(crate) fn offer(&mut self, index: usize) -> bool {
        self.seen += 1;
        if self.seen == 1 || (self.policy == Policy::Random && below(self.seen) == 0) {
            self.chosen = Some(index);
        }
        self.policy == Policy::Priority
    }
}

/// Takes one ready case under the locks of all, or parks all.
///
/// # Safety
/// As for [`attempt`].
pub(crate) unsafe fn attempt_all(cases: &[&dyn Case], policy: Policy, park: bool, wakes: &mut Wakes) -> Option<usize> {
    let mut few = [std::ptr::null(); 8];
    let mut many;
    let locks: &mut [*const Lock] = if cases.len() <= few.len() {
        &mut few
    } else {
        many = vec![std::ptr::null(); cases.len()];
        &mut many
    };
    let mut count = 0;
    for case in cases {
        if let Some(gate) = case.lock() {
            locks[count] = &raw const gate.0;
            count += 1;
        }
    }
    let locks = &mut locks[..count];
    // SAFETY: the cases keep their channels alive.
    locks.sort_unstable_by_key(|lock| unsafe { (**lock).order() });
    // Each lock once, though the same channel may stand in several cases.
    let mut last = std::ptr::null();
    for lock in locks.iter() {
        if *lock != last {
            last = *lock;
            // SAFETY: the cases keep their channels alive.
            unsafe { (**lock).lock() };
        }
    }
    let taken = loop {
        // SAFETY: all locks are held, here and below.
        let Some(index) = (unsafe { choose(cases, policy) }) else {
            break None;
        };
        // A peer that looked ready may have been claimed through another channel meanwhile: then look again.
        // SAFETY: as above; the slots are the caller's.
        if unsafe { cases[index].commit(wakes) } {
            break Some(index);
        }
    };
    if taken.is_none() && park {
        for case in cases {
            // SAFETY: as above, and the caller's promise about nodes and waiter.
            unsafe { case.park() };
        }
    }
    let mut last = std::ptr::null();
    for lock in locks.iter() {
        if *lock != last {
            last = *lock;
            // SAFETY: locked above, by this thread.
            unsafe { (**lock).unlock() };
        }
    }
    taken
}

/// Takes the nodes of all cases out of their queues, one lock at a time.
///
/// # Safety
/// The caller owns the cases; their waiter is no longer armed.
pub unsafe fn unlink(cases: &[&dyn Case]) {
    for case in cases {
        if let Some(Gate(lock)) = case.lock() {
            lock.lock();
            // SAFETY: the lock is held.
            unsafe {
                case.unlink();
                lock.unlock();
            }
        }
    }
}

/// # Safety
/// The locks of all cases are held.
unsafe fn choose(cases: &[&dyn Case], policy: Policy) -> Option<usize> {
    let mut choice = Choice::new(policy);
    for (index, case) in cases.iter().enumerate() {
        // SAFETY: the caller's promise.
        if unsafe { case.ready() } && choice.offer(index) {
            break;
        }
    }
    choice.chosen
}

thread_local! {
    static RANDOM: Cell<u64> = Cell::new(seed());
}

/// A seed that differs between threads and runs: the standard library's own random keys.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() | 1
}

/// A uniform number below `n`, from this thread's own generator: xorshift64* (Vigna 2016) and Lemire's multiplication (2019; its bias is below n / 2^32).
pub fn below(n: u32) -> u32 {
    if cfg!(any(loom, shuttle)) {
        // A model must do the same each time.
        return 0;
    }
    RANDOM.with(|state| {
        let mut x = state.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        let random = x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((random * u64::from(n)) >> 32) as u32
    })
}
