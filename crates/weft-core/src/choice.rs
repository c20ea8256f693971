//! Select for Rust programs: of several operations exactly one is performed.
//!
//! The work is done by select.rs; this file lends the operations to it and settles them afterwards. Why a leaked select, or a case
//! that outlives it, is sound: see op.rs.

use std::fmt;
use std::future::Future;
use std::marker::PhantomPinned;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::chan::Wakes;
use crate::op::{Event, Lend, Look, Mode};
use crate::park;
use crate::select::{self, Case, Choice, Outside, Policy};
use crate::waiter::Waiter;

/// Performs exactly one of several operations, blocking the thread; see [`Select`].
///
/// ```
/// use std::time::Duration;
/// use weft_core::{after, channel, select};
///
/// let (words, inbox) = channel::<&str>(1);
/// let (outbox, post) = channel::<u32>(1);
/// words.send("weft").wait().unwrap();
///
/// let mut word = inbox.recv();
/// let mut number = outbox.send(7);
/// let mut late = after(Duration::from_secs(1));
/// match select(&mut [&mut word, &mut number, &mut late]).priority().wait() {
///     0 => assert_eq!(word.wait().unwrap(), "weft"), // chosen: its result is there
///     1 => number.wait().map(drop).unwrap(),
///     _ => panic!("late"),
/// }
/// # drop(post);
/// ```
pub fn select<'s, 'c>(cases: &'s mut [&'c mut dyn Event]) -> Select<'s, 'c> {
    Select { cases, policy: Policy::Random }
}

/// Performs exactly one of several pinned operations: a future whose output is the index of the one performed.
///
/// ```
/// use std::pin::pin;
/// use weft_core::{channel, select_pinned};
///
/// # pollster::block_on(async {
/// let (tx, rx) = channel::<&str>(1);
/// let (tx2, rx2) = channel::<u32>(1);
/// tx2.send(7).await.unwrap();
///
/// let (mut word, mut number) = (pin!(rx.recv()), pin!(rx2.recv()));
/// match select_pinned(&mut [word.as_mut(), number.as_mut()]).await {
///     0 => println!("{}", word.await.unwrap()),
///     _ => assert_eq!(number.await.unwrap(), 7), // chosen: its result is there
/// }
/// # drop(tx);
/// # });
/// ```
pub fn select_pinned<'s, 'c>(
    cases: &'s mut [Pin<&'c mut (dyn Event + Send)>],
) -> SelectPinned<'s, 'c, dyn Event + Send + 'c> {
    SelectPinned::new(cases)
}

/// As [`select_pinned`], for values that stay in one thread: then so does this future.
pub fn select_pinned_local<'s, 'c>(cases: &'s mut [Pin<&'c mut dyn Event>]) -> SelectPinned<'s, 'c, dyn Event + 'c> {
    SelectPinned::new(cases)
}

/// A choice of one among several operations, made by [`select`](select()).
///
/// The result is the index of the operation that was performed: performing it again (`wait`, `try_now`) gives its result at once. The
/// others are as if never tried, and can be performed afterwards. A channel that has ended is ready, its result being the error.
#[must_use = "a select does nothing until it is performed: .wait()"]
pub struct Select<'s, 'c> {
    cases: &'s mut [&'c mut dyn Event],
    policy: Policy,
}

impl Select<'_, '_> {
    /// Takes the first ready one in the order of the list, instead of each with the same probability.
    pub fn priority(mut self) -> Self {
        self.policy = Policy::Priority;
        self
    }

    /// Blocks until one is performed. Without any case, or with all switched off, that is for ever.
    pub fn wait(mut self) -> usize {
        loop {
            if let Some(index) = self.perform(None) {
                return index;
            }
        }
    }

    /// Performs one if that needs no waiting.
    pub fn try_now(mut self) -> Option<usize> {
        glance(self.cases, Mode::Blocking, self.policy).or_else(|| self.attempt())
    }

    /// As [`wait`](Self::wait), but gives up at `deadline`.
    pub fn wait_until(mut self, deadline: Instant) -> Option<usize> {
        loop {
            match self.perform(Some(deadline)) {
                None if Instant::now() < deadline => {}
                answer => return answer,
            }
        }
    }

    /// As [`wait`](Self::wait), but gives up after `timeout`.
    pub fn wait_timeout(self, timeout: Duration) -> Option<usize> {
        match Instant::now().checked_add(timeout) {
            Some(deadline) => self.wait_until(deadline),
            None => Some(self.wait()),
        }
    }

    /// One thorough attempt, without parking.
    fn attempt(&mut self) -> Option<usize> {
        let mut wakes = Wakes::new();
        let chosen = listed(
            self.cases,
            |case| case.case(),
            |cases| {
                // SAFETY: prepared: the nodes are in no queue, and are not parked now.
                unsafe { select::attempt_all(cases, self.policy, false, &mut wakes) }
            },
        );
        if let Some(index) = chosen {
            // SAFETY: it was decided, and it is in no queue.
            unsafe { self.cases[index].settle(true) };
        }
        wakes.wake();
        chosen
    }

    /// `None`: a deadline has come, `limit` or a case's.
    fn perform(&mut self, limit: Option<Instant>) -> Option<usize> {
        if let Some(index) = glance(self.cases, Mode::Blocking, self.policy) {
            return Some(index);
        }
        if limit.is_some_and(|limit| limit <= Instant::now()) {
            return self.attempt();
        }
        let until = self.cases.iter().fold(limit, |until, case| park::earlier(until, case.deadline()));
        let waiter = Waiter::new();
        // The cases are borrowed for the whole call, and so stay where they are; the guard takes them back, however we leave.
        let mut guard = Settle { select: self, waiter: &waiter, chosen: None };
        // SAFETY: the waiter is new, the cases are prepared, and the guard settles them before the waiter goes away.
        unsafe {
            waiter.arm(park::waker());
            for (index, case) in guard.select.cases.iter_mut().enumerate() {
                case.lend(&raw const waiter, index as u32);
            }
        }
        let mut wakes = Wakes::new();
        let policy = guard.select.policy;
        guard.chosen = listed(
            guard.select.cases,
            |case| case.case(),
            |cases| {
                // SAFETY: as above.
                unsafe { select::attempt_all(cases, policy, true, &mut wakes) }
            },
        );
        if guard.chosen.is_none() {
            park::wait(&waiter, until);
        }
        let chosen = guard.finish();
        wakes.wake();
        chosen
    }
}

/// A case as a select has it: borrowed, pinned or not.
trait Held {
    type Event: Event + ?Sized;
    /// The case, which is not to be moved.
    fn event(&mut self) -> &mut Self::Event;
}

impl<'c> Held for &'c mut dyn Event {
    type Event = dyn Event + 'c;
    #[inline]
    fn event(&mut self) -> &mut Self::Event {
        *self
    }
}

impl<E: Event + ?Sized> Held for Pin<&mut E> {
    type Event = E;
    #[inline]
    fn event(&mut self) -> &mut E {
        // SAFETY: nothing in this file moves a case.
        unsafe { self.as_mut().get_unchecked_mut() }
    }
}

/// Prepares all cases, and performs one of those that look ready, unless it turns out not to be.
fn glance<C: Held>(cases: &mut [C], mode: Mode, policy: Policy) -> Option<usize> {
    let mut decided = None;
    let mut known = true;
    let mut choice = Choice::new(policy);
    for (index, case) in cases.iter_mut().enumerate() {
        match case.event().prepare(mode) {
            Look::Decided => decided = decided.or(Some(index)),
            Look::Ready => drop(choice.offer(index)),
            Look::NotReady => {}
            Look::Unknown => known = false,
        }
    }
    if decided.is_some() || !known {
        return decided;
    }
    let case = cases[choice.chosen?].event();
    let mut wakes = Wakes::new();
    // SAFETY: prepared: it is in no queue, and its slot is ours.
    let done = unsafe { select::commit(case.case(), &mut wakes) };
    if done {
        // SAFETY: decided, and in no queue.
        unsafe { case.settle(true) };
    }
    wakes.wake();
    choice.chosen.filter(|_| done)
}

/// Takes the cases back from the waiter they were lent to.
struct Settle<'a, 's, 'c> {
    select: &'a mut Select<'s, 'c>,
    waiter: &'a Waiter,
    chosen: Option<usize>,
}

impl Settle<'_, '_, '_> {
    fn finish(mut self) -> Option<usize> {
        self.settle();
        let chosen = self.chosen;
        std::mem::forget(self);
        chosen
    }

    fn settle(&mut self) {
        if self.chosen.is_none() {
            self.chosen = recall(self.waiter);
            listed(
                self.select.cases,
                |case| case.case(),
                |cases| {
                    // SAFETY: the cases are ours, and the offer is closed.
                    unsafe { unlink_others(cases, self.chosen) };
                },
            );
        }
        for (index, case) in self.select.cases.iter_mut().enumerate() {
            // SAFETY: in no queue any more; chosen when decided.
            unsafe { case.settle(self.chosen == Some(index)) };
        }
        // SAFETY: the offer is closed and no queue knows the waiter.
        drop(unsafe { self.waiter.clear() });
    }
}

impl Drop for Settle<'_, '_, '_> {
    fn drop(&mut self) {
        self.settle();
    }
}

/// Closes the offer: the case it was met with, if it was.
fn recall(waiter: &Waiter) -> Option<usize> {
    if waiter.withdraw() {
        return None;
    }
    waiter.met().map(|case| case as usize)
}

/// # Safety
/// As for [`select::unlink`].
unsafe fn unlink_others(cases: &[&dyn Case], chosen: Option<usize>) {
    // Whoever met the chosen case took it out of its queue, and has finished with the waiter.
    let (before, after) = match chosen {
        Some(index) => (&cases[..index], &cases[index + 1..]),
        None => (cases, &[][..]),
    };
    // SAFETY: the caller's promise.
    unsafe {
        select::unlink(before);
        select::unlink(after);
    }
}

/// Calls `f` with the cases as select.rs wants them.
#[inline]
fn listed<C, R>(
    cases: &[C],
    case: impl for<'a> Fn(&'a C) -> &'a dyn Case,
    f: impl for<'a> FnOnce(&'a [&'a dyn Case]) -> R,
) -> R {
    let mut few: [&dyn Case; 8] = [&Outside { ready: false }; 8];
    if cases.len() <= few.len() {
        for (place, each) in few.iter_mut().zip(cases) {
            *place = case(each);
        }
        return f(&few[..cases.len()]);
    }
    f(&cases.iter().map(case).collect::<Vec<_>>())
}

impl fmt::Debug for Select<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Select({} cases, {:?})", self.cases.len(), self.policy)
    }
}

/// A choice of one among several pinned operations, made by [`select_pinned`]; a future.
///
/// Its output is the index of the operation that was performed: awaiting that one gives its result at once. The others are as if
/// never tried. Dropped before it is ready it has done nothing, unless one was decided at that moment: then that one keeps its result.
#[must_use = "a select does nothing until it is awaited"]
pub struct SelectPinned<'s, 'c, E: Event + ?Sized> {
    cases: &'s mut [Pin<&'c mut E>],
    policy: Policy,
    waiter: Waiter,
    parked: bool,
    _pinned: PhantomPinned,
}

impl<'s, 'c, E: Event + ?Sized> SelectPinned<'s, 'c, E> {
    fn new(cases: &'s mut [Pin<&'c mut E>]) -> Self {
        Self { cases, policy: Policy::Random, waiter: Waiter::new(), parked: false, _pinned: PhantomPinned }
    }

    /// Takes the first ready one in the order of the list, instead of each with the same probability.
    pub fn priority(mut self) -> Self {
        self.policy = Policy::Priority;
        self
    }

    fn park(&mut self) -> Option<usize> {
        let mut wakes = Wakes::new();
        let policy = self.policy;
        let chosen = listed(
            self.cases,
            |case| case.case(),
            |cases| {
                // SAFETY: prepared: the nodes are in no queue. They are lent to our waiter, and we are pinned: `drop` settles.
                unsafe { select::attempt_all(cases, policy, true, &mut wakes) }
            },
        );
        if chosen.is_some() {
            // SAFETY: nothing was parked.
            unsafe { self.settle(chosen) };
        }
        wakes.wake();
        chosen
    }

    /// # Safety
    /// No case is in a queue; the chosen one was decided.
    unsafe fn settle(&mut self, chosen: Option<usize>) {
        self.parked = false;
        for (index, case) in self.cases.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { case.event().settle(chosen == Some(index)) };
        }
    }

    fn recall(&mut self) -> Option<usize> {
        let chosen = recall(&self.waiter);
        listed(
            self.cases,
            |case| case.case(),
            |cases| {
                // SAFETY: the cases are ours, and the offer is closed.
                unsafe { unlink_others(cases, chosen) };
            },
        );
        // SAFETY: unlinked above.
        unsafe { self.settle(chosen) };
        // SAFETY: the offer is closed and no queue knows the waiter.
        drop(unsafe { self.waiter.clear() });
        chosen
    }
}

impl<E: Event + ?Sized> Future for SelectPinned<'_, '_, E> {
    type Output = usize;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<usize> {
        // SAFETY: nothing is moved out.
        let this = unsafe { self.get_unchecked_mut() };
        if this.parked {
            if this.waiter.met().is_none() && this.waiter.refresh(context.waker()) {
                return Poll::Pending;
            }
            if let Some(index) = this.recall() {
                return Poll::Ready(index);
            }
        }
        if let Some(index) = glance(this.cases, Mode::Future, this.policy) {
            return Poll::Ready(index);
        }
        let waker = context.waker().clone();
        // SAFETY: no node is in a queue, so the waiter is ours; we and the cases are pinned, and `drop` settles them.
        unsafe {
            this.waiter.arm(waker);
            for (index, case) in this.cases.iter_mut().enumerate() {
                case.event().lend(&raw const this.waiter, index as u32);
            }
        }
        this.parked = true;
        if let Some(index) = this.park() {
            // SAFETY: decided while being made: no queue knows the waiter.
            drop(unsafe { this.waiter.disarm() });
            return Poll::Ready(index);
        }
        for case in this.cases.iter() {
            case.parked();
        }
        Poll::Pending
    }
}

impl<E: Event + ?Sized> Drop for SelectPinned<'_, '_, E> {
    fn drop(&mut self) {
        if self.parked {
            self.recall();
        }
    }
}

impl<E: Event + ?Sized> fmt::Debug for SelectPinned<'_, '_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SelectPinned({} cases, {:?})", self.cases.len(), self.policy)
    }
}
