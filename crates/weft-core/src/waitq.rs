//! An intrusive FIFO of waiting parties: O(1) push, pop and unlink, no allocation.
//!
//! A `Link` is the part of a [`Node`] that does not depend on the value's type. It belongs to its owner, who must take it out
//! of the queue before it goes away. Every method is called with the lock of the channel (or barrier) that owns the queue held.

use std::ptr::{self, NonNull};

use crate::chan::Outcome;
use crate::primitives::UnsafeCell;
use crate::waiter::{Claim, Waiter};

/// The links of a queue, the offer a node stands for, and what became of it. (The outcome belongs to the slot; it is here because here is room.)
#[repr(C)]
pub(crate) struct Link {
    neighbours: UnsafeCell<Neighbours>,
    waiter: UnsafeCell<*const Waiter>,
    case: UnsafeCell<u32>,
    place: UnsafeCell<Place>,
    outcome: UnsafeCell<Outcome>,
}

struct Neighbours {
    next: *const Link,
    prev: *const Link,
}

impl Link {
    /// # Safety
    /// As for [`Queue::push_back`], with the lock held.
    #[inline]
    unsafe fn set(&self, neighbours: Neighbours, place: Place) {
        // SAFETY: the caller's promise.
        self.neighbours.with_mut(|mine| unsafe { *mine = neighbours });
        // SAFETY: as above.
        self.place.with_mut(|mine| unsafe { *mine = place });
    }
}

/// Which queue a node stands in. It changes only under the lock of that queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Nowhere,
    /// A channel's senders, or a barrier's parties.
    Sending,
    /// A channel's receivers.
    Receiving,
    /// The list of what a persistent registration missed (selecting.rs).
    Ready,
}

/// One case of one wait: a place in a queue, and the slot through which the value passes.
///
/// For a send the slot holds the value until it is taken; what is left in it after the commit was displaced by the overflow policy.
/// For a receive it is empty until a value is put in.
#[repr(C)]
pub struct Node<T> {
    // First, so that a pointer to the node is a pointer to its link.
    link: Link,
    slot: UnsafeCell<Option<T>>,
}

// SAFETY: the link is guarded by the queue's lock, the slot and the outcome by the waiter's state word (waiter.rs, invariants 1 and 2).
unsafe impl<T: Send> Send for Node<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Node<T> {}

impl<T> Node<T> {
    /// A node with `value` in its slot.
    #[inline]
    pub fn new(value: Option<T>) -> Self {
        Self {
            link: Link {
                neighbours: UnsafeCell::new(Neighbours { next: ptr::null(), prev: ptr::null() }),
                waiter: UnsafeCell::new(ptr::null()),
                case: UnsafeCell::new(0),
                place: UnsafeCell::new(Place::Nowhere),
                outcome: UnsafeCell::new(Outcome::Pending),
            },
            slot: UnsafeCell::new(value),
        }
    }

    /// Says whose offer this node is, and which of its cases.
    ///
    /// # Safety
    /// The node is in no queue. `waiter` outlives the node's stay in any queue.
    #[inline]
    pub unsafe fn bind(&self, waiter: *const Waiter, case: u32) {
        // SAFETY: not linked: the owner is alone.
        self.link.waiter.with_mut(|mine| unsafe { *mine = waiter });
        // SAFETY: as above.
        self.link.case.with_mut(|mine| unsafe { *mine = case });
    }

    /// What became of the case, and what its slot holds; the slot is left empty.
    ///
    /// # Safety
    /// The slot is the caller's: nothing was offered yet, or `Waiter::met` returned this case, or the offer was withdrawn.
    #[inline]
    pub unsafe fn take(&self) -> (Option<T>, Outcome) {
        // SAFETY: the caller's promise.
        let outcome = self.link.outcome.with(|outcome| unsafe { *outcome });
        // SAFETY: as above.
        (self.slot.with_mut(|slot| unsafe { (*slot).take() }), outcome)
    }

    /// Fills the slot again and forgets the outcome.
    ///
    /// # Safety
    /// As for [`take`](Self::take).
    #[inline]
    pub unsafe fn put(&self, value: Option<T>) -> Option<T> {
        // SAFETY: the caller's promise.
        unsafe { self.mark(Outcome::Pending) };
        // SAFETY: as above.
        self.slot.with_mut(|slot| unsafe { std::mem::replace(&mut *slot, value) })
    }

    /// Decides the case: what is in the slot, and what became of it.
    ///
    /// # Safety
    /// As for [`take`](Self::take), or the caller claimed the node. The slot is empty.
    #[inline]
    pub unsafe fn decide(&self, value: Option<T>, outcome: Outcome) {
        // SAFETY: the caller's promise. Nothing is dropped: the slot was empty.
        self.slot.with_mut(|slot| unsafe {
            debug_assert!((*slot).is_none());
            ptr::write(slot, value);
        });
        // SAFETY: as above.
        unsafe { self.mark(outcome) };
    }

    /// The value in the slot, which is left empty.
    ///
    /// # Safety
    /// As for [`decide`](Self::decide), but that the slot holds a value.
    #[inline]
    pub(crate) unsafe fn empty(&self) -> T {
        // SAFETY: the caller's promise.
        self.slot.with_mut(|slot| unsafe { (*slot).take().unwrap_unchecked() })
    }

    /// Says what became of the case; the slot stays as it is.
    ///
    /// # Safety
    /// As for [`decide`](Self::decide), but for the slot.
    #[inline]
    pub(crate) unsafe fn mark(&self, outcome: Outcome) {
        // SAFETY: the caller's promise.
        self.link.outcome.with_mut(|mine| unsafe { *mine = outcome });
    }

    /// Lets `f` look at the value in the slot, for a garbage collector's sake.
    ///
    /// # Safety
    /// No other thread changes the slot meanwhile.
    pub unsafe fn peek<R>(&self, f: impl FnOnce(Option<&T>) -> R) -> R {
        // SAFETY: the caller's promise.
        self.slot.with(|slot| f(unsafe { (*slot).as_ref() }))
    }

    #[inline]
    pub(crate) fn as_link(this: NonNull<Self>) -> LinkPtr {
        this.cast()
    }
}

/// A pointer to a node, whatever the type of its value.
pub(crate) type LinkPtr = NonNull<Link>;

/// The queue: a doubly linked list through the nodes.
pub(crate) struct Queue {
    head: *const Link,
    tail: *const Link,
    place: Place,
}

impl Queue {
    pub(crate) const fn new(place: Place) -> Self {
        Self { head: ptr::null(), tail: ptr::null(), place }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// # Safety
    /// The node is in no queue and stays where it is until it left this one. Its waiter outlives its stay.
    #[inline]
    pub(crate) unsafe fn push_back(&mut self, node: LinkPtr) {
        // SAFETY: linked nodes are alive (their owners unlink them first) and guarded by the lock the caller holds.
        unsafe {
            debug_assert!(place_of(node) == Place::Nowhere);
            node.as_ref().set(Neighbours { next: ptr::null(), prev: self.tail }, self.place);
            match self.tail.as_ref() {
                Some(tail) => tail.neighbours.with_mut(|neighbours| (*neighbours).next = node.as_ptr()),
                None => self.head = node.as_ptr(),
            }
        }
        self.tail = node.as_ptr();
    }

    /// Takes `node` out if it is in.
    ///
    /// # Safety
    /// If the node is in a queue of this queue's kind, it is in this one.
    #[inline]
    pub(crate) unsafe fn unlink(&mut self, node: LinkPtr) -> bool {
        // SAFETY: as in `push_back`.
        unsafe {
            if place_of(node) != self.place {
                return false;
            }
            let link = node.as_ref();
            link.place.with_mut(|place| *place = Place::Nowhere);
            let (prev, next) = link.neighbours.with(|neighbours| ((*neighbours).prev, (*neighbours).next));
            match prev.as_ref() {
                Some(prev) => prev.neighbours.with_mut(|neighbours| (*neighbours).next = next),
                None => self.head = next,
            }
            match next.as_ref() {
                Some(next) => next.neighbours.with_mut(|neighbours| (*neighbours).prev = prev),
                None => self.tail = prev,
            }
            true
        }
    }

    /// Takes out the first node whose offer is still open, and claims it. Nodes whose offer is gone are taken out on the way;
    /// those of a persistent registration leave word that they were missed.
    ///
    /// # Safety
    /// All nodes in the queue are nodes of a `T`.
    #[inline]
    pub(crate) unsafe fn claim_first<'q, T>(&mut self) -> Option<(&'q Node<T>, Claim<'q>)> {
        loop {
            let first = NonNull::new(self.head.cast_mut())?;
            // SAFETY: a linked node is alive, and so is its waiter; the claim keeps both alive until it is finished, because
            // the owner waits for `DONE` before it goes away. The lifetime 'q ends there (callers finish before unlocking).
            unsafe {
                let (waiter, case) = (waiter_of(first), case_of(first));
                self.unlink(first);
                let claim = match Waiter::ready(waiter) {
                    None => (*waiter).claim(case),
                    Some(ready) => ready.claim_or_miss(&*waiter, case, first),
                };
                if let Some(claim) = claim {
                    return Some((first.cast::<Node<T>>().as_ref(), claim));
                }
            }
        }
    }

    /// Whether some node's offer is open. Nodes in front of it whose offer is gone are taken out, as by `claim_first`.
    pub(crate) fn has_open(&mut self) -> bool {
        loop {
            let Some(first) = NonNull::new(self.head.cast_mut()) else {
                return false;
            };
            // SAFETY: as in `claim_first`.
            unsafe {
                let waiter = waiter_of(first);
                if (*waiter).is_waiting() {
                    return true;
                }
                self.unlink(first);
                if let Some(ready) = Waiter::ready(waiter) {
                    if ready.miss_unless_waiting(&*waiter, first) {
                        continue;
                    }
                    self.push_front(first);
                    return true;
                }
            }
        }
    }

    /// # Safety
    /// As for `push_back`.
    unsafe fn push_front(&mut self, node: LinkPtr) {
        // SAFETY: as in `push_back`.
        unsafe {
            node.as_ref().set(Neighbours { next: self.head, prev: ptr::null() }, self.place);
            match self.head.as_ref() {
                Some(head) => head.neighbours.with_mut(|neighbours| (*neighbours).prev = node.as_ptr()),
                None => self.tail = node.as_ptr(),
            }
        }
        self.head = node.as_ptr();
    }

    /// Takes out the first node, whatever its offer; `None` when the queue is empty.
    pub(crate) fn pop_front(&mut self) -> Option<LinkPtr> {
        let first = NonNull::new(self.head.cast_mut())?;
        // SAFETY: it is in this queue.
        unsafe { self.unlink(first) };
        Some(first)
    }

    /// Shows the values in the slots of all nodes whose offer is open, which is held meanwhile.
    ///
    /// # Safety
    /// All nodes in the queue are nodes of a `T`, of waits that are made once, and hold a value to be sent.
    pub(crate) unsafe fn change<T>(&mut self, mut change: impl FnMut(&mut T)) {
        let mut at = self.head;
        while let Some(link) = NonNull::new(at.cast_mut()) {
            // SAFETY: a linked node and its waiter are alive; who holds the offer has its slot (waiter.rs, 1).
            unsafe {
                at = link.as_ref().neighbours.with(|neighbours| (*neighbours).next);
                let waiter = &*waiter_of(link);
                if waiter.hold() {
                    link.cast::<Node<T>>().as_ref().slot.with_mut(|slot| (*slot).iter_mut().for_each(&mut change));
                    waiter.let_go();
                }
            }
        }
    }

    /// The waiters of all linked nodes, first to last.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        let mut at = self.head;
        std::iter::from_fn(move || {
            let link = NonNull::new(at.cast_mut())?;
            // SAFETY: linked nodes and their waiters are alive while the caller's borrow of the queue, hence the lock, lasts.
            unsafe {
                at = link.as_ref().neighbours.with(|neighbours| (*neighbours).next);
                Some(&*waiter_of(link))
            }
        })
    }
}

/// Where a node stands.
///
/// # Safety
/// The caller holds the lock of every queue the node could be in, or owns the node alone.
pub(crate) unsafe fn place_of(node: LinkPtr) -> Place {
    // SAFETY: the caller's promise.
    unsafe { node.as_ref().place.with(|place| *place) }
}

/// The case a node is bound to.
///
/// # Safety
/// Nobody binds the node meanwhile.
pub(crate) unsafe fn case_of(node: LinkPtr) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { node.as_ref().case.with(|case| *case) }
}

/// The waiter a node is bound to.
///
/// # Safety
/// Nobody binds the node meanwhile.
pub(crate) unsafe fn waiter_of(node: LinkPtr) -> *const Waiter {
    // SAFETY: the caller's promise.
    unsafe { node.as_ref().waiter.with(|waiter| *waiter) }
}
