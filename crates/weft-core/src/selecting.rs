//! A standing select over many channels: registered once, served in turn, at a cost per event that does not depend on how many there are.
//!
//! Each channel holds one node of the registration among its parked receivers. While its consumer waits, the registration is a receiver
//! like any other and the first channel with a value claims it. While its consumer is busy, a channel that would have met it
//! takes the node out and leaves it in the *ready* list, a FIFO; the consumer looks there first, and a channel it was just
//! served from goes behind those that became ready meanwhile. Values are taken only when asked for.
//!
//! True whenever `Ready`'s lock is free:
//!   1. The consumer waits only while the list is empty.
//!   2. A node is in its channel's queue, in the list, or it is the one served last.
//!
//! Locks: a channel's, then the list's; never two channels'.
//!
//! A registration stands at a *place*, a small number that is given to another when it has left. Whoever kept a place while others
//! could use the select may find somebody else there; a [`Key`] names one registration alone.

use std::ops::Deref;
use std::ptr::NonNull;
use std::task::Waker;

use crate::chan::{Chan, End, Outcome, Received, Wakes};
use crate::primitives::{Arc, Lock, UnsafeCell};
use crate::waiter::{Claim, Standing, Waiter};
use crate::waitq::{LinkPtr, Node, Place, Queue, case_of, place_of};

/// The case with which a waiting consumer is claimed to look at the ready list again. Of an operation's waiter, it says in the same way that nothing
/// has happened but that its owner is to look again at what it waits for.
pub const LOOK: u32 = 0x3fff_ffff;

/// The list of nodes that were missed while the consumer was busy.
pub(crate) struct Ready {
    lock: Lock,
    list: UnsafeCell<Queue>,
}

impl Ready {
    pub(crate) fn new() -> Self {
        Self { lock: Lock::new(), list: UnsafeCell::new(Queue::new(Place::Ready)) }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Queue) -> R) -> R {
        self.lock.lock();
        // SAFETY: we hold the lock.
        let result = self.list.with_mut(|list| f(unsafe { &mut *list }));
        // SAFETY: locked above.
        unsafe { self.lock.unlock() };
        result
    }

    /// Claims the waiting consumer, or leaves `node` in the list.
    ///
    /// # Safety
    /// `node` is bound to `waiter`, and is in no queue.
    pub(crate) unsafe fn claim_or_miss<'q>(&self, waiter: &'q Waiter, case: u32, node: LinkPtr) -> Option<Claim<'q>> {
        self.with(|list| {
            // Under this lock the consumer cannot begin to wait, so that no miss goes unseen (1).
            let claim = waiter.claim(case);
            if claim.is_none() {
                // SAFETY: the caller's promise; its owner takes it out of the list before it goes away.
                unsafe { list.push_back(node) };
            }
            claim
        })
    }

    /// Leaves `node` in the list unless the consumer waits; `true` when it was left.
    ///
    /// # Safety
    /// As for `claim_or_miss`.
    pub(crate) unsafe fn miss_unless_waiting(&self, waiter: &Waiter, node: LinkPtr) -> bool {
        self.with(|list| {
            let missed = !waiter.is_waiting();
            if missed {
                // SAFETY: as in `claim_or_miss`.
                unsafe { list.push_back(node) };
            }
            missed
        })
    }
}

/// Names one registration, also after it has left: no other gets the same key (before 2^32 more were made).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key {
    place: u32,
    serial: u32,
}

impl Key {
    /// The place the registration stands at, or stood at.
    pub fn place(self) -> u32 {
        self.place
    }

    /// The key as a number, for [`from_bits`](Self::from_bits).
    pub fn to_bits(self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.place)
    }

    /// The key that gave this number.
    pub fn from_bits(bits: u64) -> Self {
        Self { place: bits as u32, serial: (bits >> 32) as u32 }
    }
}

/// What a consumer gets.
pub enum Next<T> {
    /// A value, from the registration at this place.
    Value(u32, T),
    /// The registration at this place has left, because its channel ended.
    Left(u32, End, Arc<Chan<T>>),
    /// Nothing is ready; the waker will be called.
    Parked,
    /// No channel is registered.
    Empty,
}

struct Registration<T> {
    node: Node<T>,
    chan: Arc<Chan<T>>,
    serial: u32,
}

/// A box whose content is only ever shared: queues keep pointers to it, which moving a `Box` would invalidate (a `Box` claims
/// to be the only way to its content).
struct Fixed<T>(NonNull<T>);

// SAFETY: it owns a `T`, and shares it with whoever finds it in a queue.
unsafe impl<T: Send + Sync> Send for Fixed<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Fixed<T> {}

impl<T> Fixed<T> {
    fn new(content: T) -> Self {
        Self(NonNull::from(Box::leak(Box::new(content))))
    }
}

impl<T> Deref for Fixed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: alive until `drop`; nobody makes a `&mut` to it.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        // SAFETY: it came from a box, and its owner took it out of every queue before.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// A standing select of receives. Used by one consumer.
///
/// When it is dropped, a value that it was handed and never asked for goes back to its channel, and whoever gets it there is woken;
/// a value that the channel takes no more (and counts as dropped) is dropped last. [`dissolve`](Self::dissolve) leaves that to the caller.
pub struct Selecting<T> {
    // Queues point to the waiter and the nodes while the `Selecting` itself may move.
    standing: Fixed<Standing>,
    registrations: Vec<Option<Fixed<Registration<T>>>>,
    free: Vec<u32>,
    /// The next registration's.
    serial: u32,
    served: Option<u32>,
    parked: bool,
}

impl<T> Default for Selecting<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Selecting<T> {
    /// With no channel.
    pub fn new() -> Self {
        Self {
            standing: Fixed::new(Standing::new()),
            registrations: Vec::new(),
            free: Vec::new(),
            serial: 0,
            served: None,
            parked: false,
        }
    }

    fn ready(&self) -> &Ready {
        &self.standing.ready
    }

    /// Registers a channel, at the place that is returned. A waiting consumer looks at it at once.
    pub fn add(&mut self, chan: Arc<Chan<T>>) -> (u32, Wakes) {
        let place = self.free.pop().unwrap_or(self.registrations.len() as u32);
        let registration = Fixed::new(Registration { node: Node::new(None), chan, serial: self.serial });
        self.serial = self.serial.wrapping_add(1);
        // SAFETY: a new node is in no queue; the waiter is fixed and goes away after every node was unlinked (`Drop`).
        unsafe { registration.node.bind(self.waiter(), place) };
        let link = Node::as_link(NonNull::from(&registration.node));
        if place as usize == self.registrations.len() {
            self.registrations.push(Some(registration));
        } else {
            self.registrations[place as usize] = Some(registration);
        }
        let mut wakes = Wakes::new();
        self.ready().with(|list| {
            // SAFETY: the node is in no queue, and is unlinked before it goes away.
            unsafe { list.push_back(link) };
            if let Some(claim) = self.standing.waiter.claim(LOOK) {
                wakes.push(claim.finish());
            }
        });
        (place, wakes)
    }

    /// Puts another waker in the place of the one that the consumer waits with, if it waits. The other one is returned, to be dropped.
    pub fn rearm(&self, waker: Waker) -> Option<Waker> {
        match self.standing.waiter.rearm(waker) {
            Ok(before) => before,
            Err(waker) => Some(waker),
        }
    }

    /// The key of the registration at a place.
    pub fn key(&self, place: u32) -> Option<Key> {
        let registration = self.registrations.get(place as usize)?.as_ref()?;
        Some(Key { place, serial: registration.serial })
    }

    /// Takes the registration with this key out, unless it has left; else as [`discard`](Self::discard).
    pub fn discard_key(&mut self, key: Key) -> Option<(Option<T>, Arc<Chan<T>>)> {
        if self.key(key.place) != Some(key) {
            return None;
        }
        self.discard(key.place)
    }

    /// Takes out whichever registration is at this place. A value that had just been handed to it comes back, to be given back to
    /// the channel.
    pub fn discard(&mut self, place: u32) -> Option<(Option<T>, Arc<Chan<T>>)> {
        let registration = self.registrations.get_mut(place as usize)?.take()?;
        self.unlink(&registration);
        self.free.push(place);
        if self.served == Some(place) {
            self.served = None;
        }
        let met = self.parked && self.standing.waiter.met() == Some(place);
        let value = if met {
            // SAFETY: the waiter was met with this case, so the slot is ours; the node is in no queue.
            unsafe { registration.node.take().0 }
        } else {
            None
        };
        // Whoever met the node has left it alone since: `unlink` passed through the channel's lock.
        let chan = Arc::clone(&registration.chan);
        Some((value, chan))
    }

    fn unlink(&self, registration: &Registration<T>) {
        let link = Node::as_link(NonNull::from(&registration.node));
        let chan = &registration.chan;
        chan.lock.lock();
        // SAFETY: both locks are held: the node's place is ours to read, and it is in this channel's queue, the list, or none.
        unsafe {
            chan.with_locked(|state| state.unlink(&registration.node));
            self.ready().with(|list| list.unlink(link));
            debug_assert!(place_of(link) == Place::Nowhere);
            chan.lock.unlock();
        }
    }

    /// How many channels are registered.
    pub fn len(&self) -> usize {
        self.registrations.len() - self.free.len()
    }

    /// Whether no channel is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The channels registered, with their places.
    pub fn channels(&self) -> impl Iterator<Item = (u32, &Arc<Chan<T>>)> {
        self.registrations
            .iter()
            .enumerate()
            .filter_map(|(place, slot)| slot.as_ref().map(|registration| (place as u32, &registration.chan)))
    }

    /// The next event, or parks with the waker that `waker` makes. After a wake-up, call it again.
    pub fn next(&mut self, mut waker: impl FnMut() -> Waker, wakes: &mut Wakes) -> Next<T> {
        if self.parked {
            match self.standing.waiter.met() {
                None => return Next::Parked,
                Some(place) => {
                    self.parked = false;
                    if let Some(next) = self.met(place) {
                        return next;
                    }
                }
            }
        }
        if let Some(place) = self.served.take()
            && let Some(registration) = &self.registrations[place as usize]
        {
            let link = Node::as_link(NonNull::from(&registration.node));
            // SAFETY: the node served last is in no queue (2).
            self.ready().with(|list| unsafe { list.push_back(link) });
        }
        loop {
            let mut first = self.ready().with(Queue::pop_front);
            if first.is_none() {
                if self.is_empty() {
                    return Next::Empty;
                }
                // Made before the lock is taken: a waker is foreign.
                let mut spare = Some(waker());
                first = self.ready().with(|list| {
                    let first = list.pop_front();
                    if first.is_none()
                        && let Some(waker) = spare.take()
                    {
                        // SAFETY: the waiter is ours and not armed; peers that hold one of its nodes wait for this lock (1).
                        unsafe { self.standing.waiter.arm(waker) };
                    }
                    first
                });
            }
            let Some(first) = first else {
                self.parked = true;
                return Next::Parked;
            };
            // SAFETY: a node of ours; we alone bind it.
            let place = unsafe { case_of(first) };
            let Some(registration) = &self.registrations[place as usize] else {
                unreachable!("a discarded registration is in no list");
            };
            let chan = &registration.chan;
            chan.lock.lock();
            // SAFETY: the lock is held; the node is in no queue, and is unlinked before it goes away.
            let received = unsafe {
                let received = chan.with_locked(|state| state.recv_now(wakes));
                if let Received::Wait = received {
                    chan.with_locked(|state| state.park(&registration.node, false));
                }
                chan.lock.unlock();
                received
            };
            match received {
                Received::Done(value) => {
                    self.served = Some(place);
                    return Next::Value(place, value);
                }
                Received::Wait => {}
                Received::Ended(end) => return self.leave(place, end),
            }
        }
    }

    fn met(&mut self, place: u32) -> Option<Next<T>> {
        if place == LOOK {
            return None;
        }
        let registration = self.registrations[place as usize].as_ref()?;
        // SAFETY: the waiter was met with this case: the slot is ours.
        match unsafe { registration.node.take() } {
            (Some(value), _) => {
                // SAFETY: as above; the slot is made ready for the next time.
                unsafe { registration.node.put(None) };
                self.served = Some(place);
                Some(Next::Value(place, value))
            }
            (None, Outcome::Ended(end)) => Some(self.leave(place, end)),
            (None, _) => None,
        }
    }

    fn leave(&mut self, place: u32, end: End) -> Next<T> {
        match self.discard(place) {
            Some((_, chan)) => Next::Left(place, end, chan),
            None => Next::Empty,
        }
    }

    /// The consumer no longer waits. `false`: an event has come, [`next`](Self::next) will tell it at once.
    pub fn withdraw(&mut self) -> bool {
        drop(self.take_back());
        !self.parked
    }

    fn take_back(&mut self) -> Option<Waker> {
        if !self.parked || !self.standing.waiter.withdraw() {
            return None;
        }
        self.parked = false;
        // SAFETY: withdrawn: the waiter is ours.
        unsafe { self.standing.waiter.clear() }
    }

    /// A parked consumer is to be woken through `waker` from now on.
    pub(crate) fn refresh(&self, waker: &Waker) {
        if self.parked {
            // When the offer is no longer open, `next` tells why.
            self.standing.waiter.refresh(waker);
        }
    }

    /// Wakes a waiting consumer to look again: after the last channel was discarded it has nothing to wait for.
    pub fn nudge(&self) -> Wakes {
        let mut wakes = Wakes::new();
        self.ready().with(|_| {
            if let Some(claim) = self.standing.waiter.claim(LOOK) {
                wakes.push(claim.finish());
            }
        });
        wakes
    }

    /// What a parked consumer was met with, for one that will not come for it.
    pub fn take_met(&mut self) -> Option<Next<T>> {
        if !self.parked {
            return None;
        }
        let place = self.standing.waiter.met()?;
        self.parked = false;
        self.met(place)
    }

    /// Whether a parked consumer has something to look at: [`next`](Self::next) will not say [`Next::Parked`] before it has looked.
    pub fn is_met(&self) -> bool {
        !self.parked || self.standing.waiter.met().is_some()
    }

    /// The waiter, for identification only.
    pub fn waiter(&self) -> *const Waiter {
        self.standing.0.as_ptr().cast()
    }

    /// Ends it. A value that it was handed and never asked for comes back, to be given back to its channel.
    #[must_use = "the value belongs to the channel"]
    pub fn dissolve(mut self) -> Option<(T, Arc<Chan<T>>)> {
        self.take_all_out().value
    }

    /// Takes all registrations out. Nothing foreign runs before the last is out: it may panic, and queues point to us until then.
    fn take_all_out(&mut self) -> Remains<T> {
        let waker = self.take_back();
        let mut value = None;
        let mut chans = Vec::with_capacity(self.len());
        for place in 0..self.registrations.len() as u32 {
            match self.discard(place) {
                // At most one: a wait is met once.
                Some((Some(handed), chan)) => value = Some((handed, chan)),
                Some((None, chan)) => chans.push(chan),
                None => {}
            }
        }
        Remains { value, _chans: chans, _waker: waker }
    }
}

/// What is left of a select when all registrations are out. To drop it may run foreign code.
struct Remains<T> {
    /// What it was handed and never asked for.
    value: Option<(T, Arc<Chan<T>>)>,
    /// One of these may be the last share of its channel.
    _chans: Vec<Arc<Chan<T>>>,
    _waker: Option<Waker>,
}

impl<T> Drop for Selecting<T> {
    fn drop(&mut self) {
        let mut remains = self.take_all_out();
        if let Some((value, chan)) = remains.value.take() {
            let (refused, wakes) = chan.give_back(value);
            wakes.wake();
            drop(refused);
        }
    }
}
