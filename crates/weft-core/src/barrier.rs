//! A barrier as an event: `sync` completes for all parties at once, and may stand in a select.
//!
//! The last party to come must take all the others, each of which may be a select that is taken elsewhere at the same moment. It *holds*
//! them one after another, in one order (that of their addresses) so that two barriers never wait for each other; when it holds all, it
//! claims all; when one is gone, it lets the others go and parks.
//!
//! Source: Hoare 1985, §2.3 (an event in which several processes take part); Welch, Barnes & Polack 2006 (choice over barriers).

use std::ptr::NonNull;

use crate::chan::{Outcome, Wakes};
use crate::error::SyncError;
use crate::op::{Fallible, Kind, Op};
use crate::primitives::{Lock, UnsafeCell};
use crate::select::{Case, Gate};
use crate::waiter::Waiter;
use crate::waitq::{LinkPtr, Node, Place, Queue, case_of, waiter_of};

/// `parties` processes meet here, again and again.
pub struct Barrier {
    lock: Lock,
    parties: usize,
    queue: UnsafeCell<Queue>,
}

// SAFETY: `queue` is reached only under the lock.
unsafe impl std::marker::Send for Barrier {}
// SAFETY: as above.
unsafe impl std::marker::Sync for Barrier {}

impl Barrier {
    /// For `parties` of them; at least one.
    pub fn new(parties: usize) -> Self {
        Self { lock: Lock::new(), parties: parties.max(1), queue: UnsafeCell::new(Queue::new(Place::Sending)) }
    }

    /// Waits for all parties to come; they pass at once. The output is the order of arrival, 0 for the first.
    ///
    /// ```
    /// let barrier = weft_core::Barrier::new(2);
    /// let order = std::thread::scope(|scope| {
    ///     let other = scope.spawn(|| barrier.sync().wait().unwrap());
    ///     let order = [barrier.sync().wait().unwrap(), other.join().unwrap()];
    ///     order[0] + order[1]
    /// });
    /// assert_eq!(order, 1); // one was first, one was second
    /// ```
    pub fn sync(&self) -> Sync<'_> {
        Op::new(Party { barrier: self }, None)
    }

    /// How many parties meet.
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.lock.lock();
        // SAFETY: the lock is held.
        let count = self.queue.with_mut(|queue| unsafe { parties(&mut *queue).len() });
        // SAFETY: locked above.
        unsafe { self.lock.unlock() };
        count
    }

    /// Shows the waiter of everybody who is parked here, with the lock held: it must neither drop nor wake, nor use the barrier.
    pub fn waiters(&self, mut waiter: impl FnMut(NonNull<Waiter>)) {
        self.lock.lock();
        // SAFETY: the lock is held.
        self.queue.with_mut(|queue| unsafe {
            for parked in (*queue).waiters() {
                waiter(NonNull::from(parked));
            }
        });
        // SAFETY: locked above.
        unsafe { self.lock.unlock() };
    }

    /// Shows a garbage collector the waiters parked here, as [`Chan::visit`](crate::chan::Chan::visit) does.
    pub fn visit(&self, mut waiter: impl FnMut(NonNull<Waiter>)) {
        if self.lock.try_lock() {
            // SAFETY: the lock is held.
            self.queue.with_mut(|queue| unsafe {
                for parked in (*queue).waiters() {
                    waiter(NonNull::from(parked));
                }
            });
            // SAFETY: locked above.
            unsafe { self.lock.unlock() };
        }
    }
}

/// Somebody who waits at the barrier.
struct Waiting {
    /// How many came before.
    arrival: usize,
    link: LinkPtr,
    waiter: *const Waiter,
    case: u32,
}

/// The parties whose offers are open, in the order of their waiters; the nodes of the others are taken out of the queue.
/// A select that stands here twice is one party, with its first case.
///
/// # Safety
/// The barrier's lock is held.
unsafe fn parties(queue: &mut Queue) -> Vec<Waiting> {
    let mut parties: Vec<Waiting> = Vec::new();
    while let Some(link) = queue.pop_front() {
        // SAFETY: linked until now, so alive and bound until we unlock.
        let (waiter, case) = unsafe { (waiter_of(link), case_of(link)) };
        // SAFETY: as above.
        if unsafe { (*waiter).is_waiting() } {
            let arrival = parties.len();
            parties.push(Waiting { arrival, link, waiter, case });
        }
    }
    for party in &parties {
        // SAFETY: taken out above.
        unsafe { queue.push_back(party.link) };
    }
    // SAFETY: linked again, so alive and bound until we unlock.
    parties.sort_unstable_by_key(|party| (unsafe { (*party.waiter).order() }, party.arrival));
    parties.dedup_by_key(|party| party.waiter);
    parties
}

/// Taking part in a barrier as a case; the order of arrival, 0 the first, comes into the node's slot.
pub struct SyncCase<'a> {
    /// Where.
    pub barrier: &'a Barrier,
    /// The place in the queue.
    pub node: &'a Node<usize>,
}

// SAFETY: the barrier's lock is the lock; `commit` fills the slot of every party; `park` and `unlink` use the barrier's queue.
unsafe impl Case for SyncCase<'_> {
    fn lock(&self) -> Option<&Gate> {
        Some(Gate::of(&self.barrier.lock))
    }
    unsafe fn ready(&self) -> bool {
        // SAFETY: the caller's promise, here and below.
        unsafe { self.barrier.ready() }
    }
    unsafe fn commit(&self, wakes: &mut Wakes) -> bool {
        // SAFETY: as above.
        unsafe { self.barrier.commit(self.node, wakes) }
    }
    unsafe fn park(&self) {
        // SAFETY: as above.
        unsafe { self.barrier.park(self.node) }
    }
    unsafe fn unlink(&self) {
        // SAFETY: as above.
        unsafe { self.barrier.unlink(self.node) }
    }
}

impl Barrier {
    /// # Safety
    /// The lock is held, here and below.
    unsafe fn ready(&self) -> bool {
        // SAFETY: the caller's promise.
        self.queue.with_mut(|queue| unsafe { parties(&mut *queue).len() + 1 >= self.parties })
    }

    /// Lets everybody pass, if `node` is the last that was missing.
    ///
    /// # Safety
    /// As for [`Case::commit`].
    unsafe fn commit(&self, node: &Node<usize>, wakes: &mut Wakes) -> bool {
        // SAFETY: the lock is held: linked nodes and their waiters are alive. A party is left alone once its claim is finished.
        self.queue.with_mut(|queue| unsafe {
            let queue = &mut *queue;
            let mut parties = parties(queue);
            if parties.len() + 1 < self.parties {
                return false;
            }
            // In the order of their waiters. All are held: there are never more than needed, because the one that completes
            // the number takes all.
            for (held, party) in parties.iter().enumerate() {
                if !(*party.waiter).hold() {
                    for party in &parties[..held] {
                        (*party.waiter).let_go();
                    }
                    return false;
                }
            }
            parties.sort_unstable_by_key(|party| party.arrival);
            for (arrival, party) in parties.into_iter().enumerate() {
                queue.unlink(party.link);
                let claim = (*party.waiter).claim_held(party.case);
                party.link.cast::<Node<usize>>().as_ref().decide(Some(arrival), Outcome::Done);
                wakes.push(claim.finish());
            }
            node.decide(Some(self.parties - 1), Outcome::Done);
            true
        })
    }

    /// # Safety
    /// As for [`Case::park`].
    unsafe fn park(&self, node: &Node<usize>) {
        // SAFETY: the caller holds the lock, and its promise about the node.
        self.queue.with_mut(|queue| unsafe { (*queue).push_back(Node::as_link(NonNull::from(node))) });
    }

    /// # Safety
    /// The lock is held. If the node is in a barrier's queue, it is in this one's.
    unsafe fn unlink(&self, node: &Node<usize>) {
        // SAFETY: the caller's promise.
        self.queue.with_mut(|queue| unsafe { (*queue).unlink(Node::as_link(NonNull::from(node))) });
    }
}

/// Taking part in a barrier: what [`Barrier::sync`] returns. Its output is the order of arrival, 0 for the first.
pub type Sync<'a> = Op<Party<'a>>;

/// The kind of [`Sync`].
#[doc(hidden)]
pub struct Party<'a> {
    barrier: &'a Barrier,
}

// SAFETY: as for `SyncCase`, to which all is left.
unsafe impl Kind for Party<'_> {
    type Slot = usize;
    type Output = Result<usize, SyncError>;

    fn now(&mut self, _: &mut Option<usize>) -> Option<Self::Output> {
        let node = Node::new(None);
        let mut wakes = Wakes::new();
        self.barrier.lock.lock();
        // SAFETY: the lock is held; the node is new.
        let (done, (arrival, _)) = unsafe {
            let done = self.commit(&node, &mut wakes);
            self.barrier.lock.unlock();
            (done, node.take())
        };
        wakes.wake();
        arrival.filter(|_| done).map(Ok)
    }
    fn gate(&self) -> Option<&Gate> {
        Some(Gate::of(&self.barrier.lock))
    }
    unsafe fn ready(&self) -> bool {
        // SAFETY: the caller's promise, here and below.
        unsafe { self.barrier.ready() }
    }
    unsafe fn commit(&self, node: &Node<usize>, wakes: &mut Wakes) -> bool {
        // SAFETY: as above.
        unsafe { self.barrier.commit(node, wakes) }
    }
    unsafe fn park(&self, node: &Node<usize>) {
        // SAFETY: as above.
        unsafe { self.barrier.park(node) }
    }
    unsafe fn unlink(&self, node: &Node<usize>) {
        // SAFETY: as above.
        unsafe { self.barrier.unlink(node) }
    }
    fn conclude(&mut self, slot: Option<usize>, _: Outcome) -> Self::Output {
        slot.ok_or(SyncError::WouldBlock)
    }
    // The other parties have passed, and nothing can call them back.
    fn undo(&mut self, _: Option<usize>, _: Outcome) {}
}

impl Fallible for Party<'_> {
    fn would_block(self, _: Option<usize>) -> Self::Output {
        Err(SyncError::WouldBlock)
    }
    fn timeout(self, _: Option<usize>) -> Self::Output {
        Err(SyncError::Timeout)
    }
}
