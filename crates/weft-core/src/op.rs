//! An operation: something that may have to wait, before, while and after it is performed.
//!
//! An [`Op`] does nothing until it is performed: by blocking the thread ([`wait`](Op::wait)), by `.await`, as a case of a select, or not at all.
//! It holds its own place in the queues, so that performing it allocates nothing.
//!
//! # Why this is sound
//!
//! A queue points into the `Op`: to its node, and to a waiter, which is the `Op`'s own or a select's. That is right as long as nothing
//! moves or goes away while a queue, or a peer that took the node from a queue, has such a pointer.
//!
//! * *Blocking.* The `Op` is a local of `block`, which leaves only after `recall`: the offer was met, or withdrawn and
//!   taken out of its queue. A select that blocks borrows its cases for the whole call and does the same (choice.rs).
//! * *As a future.* It is queued only once pinned. `Pin` promises that its memory stays valid until it was dropped, and `drop` recalls the offer
//!   first. A future that is leaked is never dropped, so its memory stays, too: a peer may still meet the offer, and what it
//!   puts there leaks with it.
//! * *The channel* may go away while a leaked node is in its queue: a queue only points, and does nothing when dropped.
//! * *In a select that is leaked* the case was pinned, and so was the select, whose waiter stays valid for the same reason. The case knows
//!   that it is lent out (`Stage::Lent`) and recalls itself from that waiter before it does anything else.
//! * *Recall* passes through the lock of the queue whenever the offer was withdrawn, because a peer that took the node out may still be
//!   about to look at the waiter. When it was met, `Waiter::met` has waited for the peer to finish, and a wait of one case has only
//!   one queue, from which the peer took it.
//! * *Aliasing.* While queued, the node and the waiter are reached through shared references only; all that peers touch is in
//!   `UnsafeCell`s. `PhantomPinned` makes the `Op` `!Unpin`, for which `&mut` claims no uniqueness (the rule that every
//!   intrusive future relies on until `UnsafePinned` is stable). The `kind` is handed out as `&mut` only while not queued.

use std::fmt;
use std::future::Future;
use std::marker::PhantomPinned;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::chan::{Outcome, Wakes};
use crate::park;
use crate::select::{Case, Gate};
use crate::waiter::Waiter;
use crate::waitq::{Node, case_of};

/// How an operation is about to be performed.
#[derive(Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub enum Mode {
    /// By a thread that watches deadlines itself.
    Blocking,
    /// By a future, which somebody must wake when its time has come.
    Future,
}

/// What differs between operations. Sealed: it cannot be implemented elsewhere.
///
/// # Safety
/// As for [`Case`], with `node` in the place of the case's own node.
#[doc(hidden)]
pub unsafe trait Kind {
    /// What passes through the node's slot.
    type Slot;
    /// What performing the operation gives.
    type Output;

    /// Called before each attempt, while the operation is not queued.
    #[inline]
    fn prepare(&mut self, _: Mode) {}
    /// As [`Case::hint`].
    #[inline]
    fn hint(&self) -> Option<bool> {
        None
    }
    /// Performs the operation if that needs no waiting.
    fn now(&mut self, slot: &mut Option<Self::Slot>) -> Option<Self::Output>;
    /// The lock, as [`Case::lock`].
    fn gate(&self) -> Option<&Gate>;
    /// As [`Case::ready`].
    ///
    /// # Safety
    /// As there, here and below.
    unsafe fn ready(&self) -> bool;
    /// As [`Case::commit`].
    unsafe fn commit(&self, node: &Node<Self::Slot>, wakes: &mut Wakes) -> bool;
    /// As [`Case::park`].
    unsafe fn park(&self, node: &Node<Self::Slot>);
    /// As [`Case::unlink`].
    unsafe fn unlink(&self, node: &Node<Self::Slot>);
    /// Called after the operation was parked and the lock released.
    #[inline]
    fn parked(&self) {}
    /// When a blocked thread must try again by itself.
    #[inline]
    fn deadline(&self) -> Option<Instant> {
        None
    }
    /// The result, from what was decided.
    fn conclude(&mut self, slot: Option<Self::Slot>, outcome: Outcome) -> Self::Output;
    /// The operation was decided, and nobody asks for the result.
    fn undo(&mut self, slot: Option<Self::Slot>, outcome: Outcome);
    /// Whether `restore` does more than to drop the value.
    const RESTORES: bool = false;
    /// The operation is dropped and was never decided.
    #[inline]
    fn restore(&mut self, slot: Option<Self::Slot>) {
        drop(slot);
    }
}

/// An operation that can be given up.
#[doc(hidden)]
pub trait Fallible: Kind {
    /// The result of not waiting at all.
    fn would_block(self, slot: Option<Self::Slot>) -> Self::Output;
    /// The result of having waited in vain.
    fn timeout(self, slot: Option<Self::Slot>) -> Self::Output;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not performed: in no queue, and the slot holds what it was made with.
    Fresh,
    /// Waiting, with its own waiter.
    Parked,
    /// Waiting, as a case of a select whose waiter this is.
    Lent(*const Waiter),
    /// Decided: the slot and its outcome tell the result, which nobody has asked for yet.
    Decided,
    /// The result was handed out.
    Spent,
}

/// An operation: performed once, by [`wait`](Self::wait) or its siblings, by `.await`, or as a case of a [`select`](crate::select()).
///
/// What is dropped before it was decided is as if it had never been made. What is dropped after it was decided, and before its
/// result was looked at, is undone: a received value goes back to the front of its channel.
///
/// Once a select has chosen an operation, performing it gives the result at once.
#[must_use = "an operation does nothing until it is performed: .wait(), .await or select"]
pub struct Op<K: Kind> {
    kind: K,
    node: Node<K::Slot>,
    waiter: Waiter,
    stage: Stage,
    _pinned: PhantomPinned,
}

// SAFETY: node and waiter may be used from any thread when the slot's value may; the pointer in `Stage::Lent` is to a waiter, too.
unsafe impl<K: Kind + Send> Send for Op<K> where K::Slot: Send {}

impl<K: Kind> Op<K> {
    #[inline(always)]
    pub(crate) fn new(kind: K, slot: Option<K::Slot>) -> Self {
        Self { kind, node: Node::new(slot), waiter: Waiter::new(), stage: Stage::Fresh, _pinned: PhantomPinned }
    }

    /// Performs the operation, blocking this thread as long as it must.
    #[inline(always)]
    pub fn wait(self) -> K::Output {
        match self.perform(None) {
            Ok(output) => output,
            Err(_) => unreachable!("without a limit it waits until it is decided"),
        }
    }

    #[inline(always)]
    fn perform(self, limit: Option<Instant>) -> Result<K::Output, (K, Option<K::Slot>)> {
        match self.begin() {
            Ok(output) => Ok(output),
            Err((kind, slot)) => block(kind, slot, limit),
        }
    }

    /// Performs the operation if that needs no waiting; else its parts come back.
    #[inline(always)]
    fn begin(self) -> Result<K::Output, (K, Option<K::Slot>)> {
        // It can be moved, so it is in no queue (see above).
        debug_assert!(!matches!(self.stage, Stage::Parked | Stage::Lent(_)));
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used again, and not dropped. Its waiter holds no waker while it is not armed.
        let mut kind = unsafe { ptr::read(&raw const this.kind) };
        // SAFETY: the slot is ours: nothing is offered.
        let (mut slot, outcome) = unsafe { this.node.take() };
        match this.stage {
            Stage::Fresh => {}
            Stage::Decided => return Ok(kind.conclude(slot, outcome)),
            _ => spent(),
        }
        kind.prepare(Mode::Blocking);
        match kind.now(&mut slot) {
            Some(output) => Ok(output),
            None => Err((kind, slot)),
        }
    }

    /// Offers it with its own waiter; `true`: it was decided at once.
    ///
    /// # Safety
    /// It is fresh and prepared, and stays where it is until it was recalled. The waiter is armed.
    unsafe fn offer(&self, wakes: &mut Wakes) -> bool {
        // SAFETY: fresh: the node is in no queue.
        unsafe { self.node.bind(&raw const self.waiter, 0) };
        // SAFETY: the lock, where there is one, is held; the rest is the caller's promise.
        unsafe {
            let Some(gate) = self.kind.gate() else {
                return self.kind.ready() && self.kind.commit(&self.node, wakes);
            };
            gate.lock();
            let decided = self.kind.commit(&self.node, wakes);
            if !decided {
                self.kind.park(&self.node);
            }
            gate.unlock();
            decided
        }
    }

    /// Takes the offer back, if it is out: afterwards the operation is in no queue, and fresh, decided or spent.
    fn recall(&mut self) {
        match self.stage {
            Stage::Parked => {
                if self.waiter.withdraw() {
                    // The waker is dropped last: it is foreign.
                    // SAFETY: withdrawn: the waiter is ours.
                    let waker = unsafe { self.waiter.clear() };
                    self.take_out();
                    self.stage = Stage::Fresh;
                    drop(waker);
                } else {
                    let met = self.waiter.met();
                    debug_assert!(met.is_some());
                    self.stage = Stage::Decided;
                }
            }
            Stage::Lent(waiter) => {
                // SAFETY: only a select that was leaked leaves its cases lent, and its waiter stays valid (see above).
                let waiter = unsafe { &*waiter };
                waiter.withdraw();
                let met = waiter.met();
                self.take_out();
                // SAFETY: we alone bind it.
                let case = unsafe { case_of(Node::as_link(NonNull::from(&self.node))) };
                self.stage = if met == Some(case) { Stage::Decided } else { Stage::Fresh };
            }
            Stage::Fresh | Stage::Decided | Stage::Spent => {}
        }
    }

    /// Takes the node out of its queue.
    fn take_out(&self) {
        if let Some(gate) = self.kind.gate() {
            gate.lock();
            // SAFETY: the lock is held.
            unsafe {
                self.kind.unlink(&self.node);
                gate.unlock();
            }
        }
    }

    /// The result of a decided operation.
    #[inline]
    fn conclude(&mut self) -> K::Output {
        debug_assert!(self.stage == Stage::Decided);
        // SAFETY: decided, and in no queue: the slot is ours.
        let (slot, outcome) = unsafe { self.node.take() };
        self.stage = Stage::Spent;
        self.kind.conclude(slot, outcome)
    }

    /// Leaves no trace, as far as that is possible.
    #[cold]
    fn undo(&mut self) {
        self.recall();
        // SAFETY: in no queue: the slot is ours.
        let (slot, outcome) = unsafe { self.node.take() };
        match self.stage {
            Stage::Decided => self.kind.undo(slot, outcome),
            _ => self.kind.restore(slot),
        }
    }

    /// Performs a fresh operation if that needs no waiting.
    #[inline]
    fn now(&mut self) -> Option<K::Output> {
        // SAFETY: fresh: the slot is ours, here and below.
        let (mut slot, _) = unsafe { self.node.take() };
        // In case a waker panics: an operation whose slot is empty must not be offered.
        self.stage = Stage::Spent;
        let output = self.kind.now(&mut slot);
        if output.is_none() {
            // SAFETY: as above. What `put` returns is the `None` that `take` left.
            drop(unsafe { self.node.put(slot) });
            self.stage = Stage::Fresh;
        }
        output
    }
}

impl<K: Fallible> Op<K> {
    /// Performs the operation only if that needs no waiting, else its error is `WouldBlock`.
    #[inline(always)]
    pub fn try_now(self) -> K::Output {
        match self.begin() {
            Ok(output) => output,
            Err((kind, slot)) => kind.would_block(slot),
        }
    }

    /// As [`wait`](Self::wait), but gives up at `deadline`, with the error `Timeout`.
    pub fn wait_until(self, deadline: Instant) -> K::Output {
        match self.perform(Some(deadline)) {
            Ok(output) => output,
            Err((kind, slot)) => kind.timeout(slot),
        }
    }

    /// As [`wait`](Self::wait), but gives up after `timeout`, with the error `Timeout`.
    pub fn wait_timeout(self, timeout: Duration) -> K::Output {
        match Instant::now().checked_add(timeout) {
            Some(deadline) => self.wait_until(deadline),
            None => self.wait(),
        }
    }
}

/// Blocks until the operation is decided, or gives its parts back at `limit`.
#[cold]
#[inline(never)]
fn block<K: Kind>(kind: K, slot: Option<K::Slot>, limit: Option<Instant>) -> Result<K::Output, (K, Option<K::Slot>)> {
    if limit.is_some_and(|limit| limit <= Instant::now()) {
        return Err((kind, slot));
    }
    let until = park::earlier(limit, kind.deadline());
    // From here to `recall` it does not move. Should anything unwind, `drop` recalls it.
    let mut op = Op::new(kind, slot);
    let mut wakes = Wakes::new();
    // SAFETY: the waiter is new, and so is the node.
    let decided = unsafe {
        op.waiter.arm(park::waker());
        op.offer(&mut wakes)
    };
    if decided {
        // SAFETY: decided while being made: it was in no queue.
        let waker = unsafe { op.waiter.disarm() };
        op.stage = Stage::Decided;
        wakes.wake();
        drop(waker);
    } else {
        op.stage = Stage::Parked;
        park::wait(&op.waiter, until);
        op.recall();
    }
    if op.stage == Stage::Decided {
        return Ok(op.conclude());
    }
    // The time is over: the caller's, or the one the operation waited for.
    op.begin()
}

#[cold]
fn spent() -> ! {
    panic!("an operation is performed once")
}

impl<K: Kind> Future for Op<K> {
    type Output = K::Output;

    /// # Panics
    /// When the operation was performed before.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<K::Output> {
        // SAFETY: nothing is moved out; what is moved while fresh is only the slot's content.
        let this = unsafe { self.get_unchecked_mut() };
        if let Stage::Lent(_) = this.stage {
            this.recall();
        }
        match this.stage {
            Stage::Fresh => {
                this.kind.prepare(Mode::Future);
                if let Some(output) = this.now() {
                    return Poll::Ready(output);
                }
                let waker = context.waker().clone();
                let mut wakes = Wakes::new();
                // SAFETY: fresh, so the waiter is ours and the node in no queue; pinned, and `drop` recalls it.
                let decided = unsafe {
                    this.waiter.arm(waker);
                    this.offer(&mut wakes)
                };
                if !decided {
                    this.stage = Stage::Parked;
                    this.kind.parked();
                    return Poll::Pending;
                }
                this.stage = Stage::Decided;
                // SAFETY: decided while being made: it was in no queue.
                let waker = unsafe { this.waiter.disarm() };
                wakes.wake();
                drop(waker);
            }
            Stage::Parked => {
                if this.waiter.met().is_none() && this.waiter.refresh(context.waker()) {
                    return Poll::Pending;
                }
                this.recall();
            }
            Stage::Decided => {}
            Stage::Lent(_) | Stage::Spent => spent(),
        }
        Poll::Ready(this.conclude())
    }
}

impl<K: Kind> Drop for Op<K> {
    #[inline]
    fn drop(&mut self) {
        match self.stage {
            Stage::Spent => {}
            // What is in the slot goes with the node.
            Stage::Fresh if !K::RESTORES => {}
            _ => self.undo(),
        }
    }
}

impl<K: Kind> fmt::Debug for Op<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stage {
            Stage::Fresh => "Op(not performed)",
            Stage::Parked | Stage::Lent(_) => "Op(waiting)",
            Stage::Decided => "Op(decided)",
            Stage::Spent => "Op(done)",
        })
    }
}

// SAFETY: the kind's promise, with the operation's own node.
unsafe impl<K: Kind> Case for Op<K> {
    #[inline]
    fn lock(&self) -> Option<&Gate> {
        self.kind.gate()
    }
    #[inline]
    fn hint(&self) -> Option<bool> {
        self.kind.hint()
    }
    #[inline]
    unsafe fn ready(&self) -> bool {
        // SAFETY: the caller's promise, here and below.
        unsafe { self.kind.ready() }
    }
    #[inline]
    unsafe fn commit(&self, wakes: &mut Wakes) -> bool {
        // SAFETY: as above.
        unsafe { self.kind.commit(&self.node, wakes) }
    }
    #[inline]
    unsafe fn park(&self) {
        // SAFETY: as above.
        unsafe { self.kind.park(&self.node) }
    }
    #[inline]
    unsafe fn unlink(&self) {
        // SAFETY: as above.
        unsafe { self.kind.unlink(&self.node) }
    }
}

/// How a case looks before a select has locked anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(hidden)]
pub enum Look {
    /// Its result is there: it was chosen before, and nobody has asked for it.
    Decided,
    /// It may be performed now.
    Ready,
    /// It may not.
    NotReady,
    /// Only its lock can tell.
    Unknown,
}

/// What a select does with its cases. Sealed.
///
/// # Safety
/// `case` is the same case each time, decided by its own methods only.
#[doc(hidden)]
pub unsafe trait Lend {
    /// The case itself.
    fn case(&self) -> &dyn Case;
    /// Called before each attempt: how it looks, without a lock.
    fn prepare(&mut self, mode: Mode) -> Look;
    /// Binds it to the waiter of a select, as its case `index`.
    ///
    /// # Safety
    /// It is prepared. The waiter stays valid until `settle`; when a select is leaked, for ever.
    unsafe fn lend(&mut self, waiter: *const Waiter, index: u32);
    /// The select is over.
    ///
    /// # Safety
    /// It is in no queue; `chosen` when it was decided.
    unsafe fn settle(&mut self, chosen: bool);
    /// After it was parked.
    fn parked(&self);
    /// When a blocked select must look again by itself.
    fn deadline(&self) -> Option<Instant>;
}

/// What can stand in a [`select`](crate::select()): any [`Op`], or an `Option` of one, where `None` is a case that is switched off.
pub trait Event: Lend {}

impl<K: Kind> Event for Op<K> {}

// SAFETY: `case` is the operation itself.
unsafe impl<K: Kind> Lend for Op<K> {
    #[inline]
    fn case(&self) -> &dyn Case {
        self
    }

    #[inline]
    fn prepare(&mut self, mode: Mode) -> Look {
        match self.stage {
            Stage::Fresh => {}
            Stage::Spent => spent(),
            _ => self.recall(),
        }
        if self.stage == Stage::Decided {
            return Look::Decided;
        }
        self.kind.prepare(mode);
        match self.kind.hint() {
            Some(true) => Look::Ready,
            Some(false) => Look::NotReady,
            None => Look::Unknown,
        }
    }

    #[inline]
    unsafe fn lend(&mut self, waiter: *const Waiter, index: u32) {
        self.stage = Stage::Lent(waiter);
        // SAFETY: prepared: the node is in no queue; the rest is the caller's promise.
        unsafe { self.node.bind(waiter, index) };
    }

    #[inline]
    unsafe fn settle(&mut self, chosen: bool) {
        self.stage = if chosen { Stage::Decided } else { Stage::Fresh };
    }

    #[inline]
    fn parked(&self) {
        self.kind.parked();
    }

    #[inline]
    fn deadline(&self) -> Option<Instant> {
        self.kind.deadline()
    }
}

impl<E: Event> Event for Option<E> {}

// SAFETY: that of the content, or a case that never happens.
unsafe impl<E: Event> Lend for Option<E> {
    fn case(&self) -> &dyn Case {
        match self {
            Some(event) => event.case(),
            None => &crate::select::Outside { ready: false },
        }
    }

    fn prepare(&mut self, mode: Mode) -> Look {
        self.as_mut().map_or(Look::NotReady, |event| event.prepare(mode))
    }

    unsafe fn lend(&mut self, waiter: *const Waiter, index: u32) {
        if let Some(event) = self {
            // SAFETY: the caller's promise.
            unsafe { event.lend(waiter, index) };
        }
    }

    unsafe fn settle(&mut self, chosen: bool) {
        if let Some(event) = self {
            // SAFETY: the caller's promise.
            unsafe { event.settle(chosen) };
        }
    }

    fn parked(&self) {
        if let Some(event) = self {
            event.parked();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.as_ref().and_then(Lend::deadline)
    }
}
