//! Time as an event: `after`, `at` and `tick`.
//!
//! A thread that blocks watches its own deadline: no other thread takes part. A *future* that waits for a timer needs somebody to wake it: the
//! timer thread, started when the first such future waits. It sleeps exactly until the earliest deadline, for ever while there is
//! none, and is woken early only for a deadline earlier than the one it sleeps for. Nothing polls.
//!
//! True whenever the lock is free: `due` holds the nodes that wait for their deadline, each of which is alive and bound.
//!
//! The order is a balanced tree rather than a heap: a node leaves it in O(log n) without having to know its place in it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use crate::chan::{Outcome, Wakes};
use crate::op::{Kind, Mode, Op};
use crate::primitives::{Lock, OnceLock, Parker, UnsafeCell, thread};
use crate::select::Gate;
use crate::waitq::{LinkPtr, Node, case_of, waiter_of};

/// Waiting for a time: what [`after`] and [`at`] return. Its output is the time at which it was due.
pub type Timer = Op<Alarm>;

/// Waiting for a tick: what [`Tick::recv`] returns. Its output is the time at which it was due.
pub type TickRecv<'a> = Op<NextTick<'a>>;

/// An operation that completes `delay` after it was first performed.
///
/// ```
/// use std::time::{Duration, Instant};
/// let start = Instant::now();
/// let due = weft_core::after(Duration::from_millis(2)).wait();
/// assert!(due >= start + Duration::from_millis(2) && Instant::now() >= due);
/// ```
pub fn after(delay: Duration) -> Timer {
    Op::new(Alarm::new(Start::After(delay)), None)
}

/// An operation that completes at `deadline`.
pub fn at(deadline: Instant) -> Timer {
    Op::new(Alarm::new(Start::At(deadline)), None)
}

/// A clock that ticks every `period`, the first time one period from now. A receiver that is slow finds one tick waiting and has
/// missed the others, as with Go's `time.Tick`.
///
/// ```
/// use std::time::Duration;
/// let mut tick = weft_core::tick(Duration::from_millis(1));
/// let (first, second) = (tick.recv().wait(), tick.recv().wait());
/// assert!(second >= first + Duration::from_millis(1));
/// ```
///
/// # Panics
/// When `period` is zero.
pub fn tick(period: Duration) -> Tick {
    assert!(!period.is_zero(), "a clock needs a period");
    Tick { period, next: Instant::now().checked_add(period) }
}

/// A clock: made by [`tick`].
#[derive(Debug)]
pub struct Tick {
    period: Duration,
    /// `None`: so far away that no clock shows it.
    next: Option<Instant>,
}

impl Tick {
    /// Waits for the next tick.
    pub fn recv(&mut self) -> TickRecv<'_> {
        let start = self.next.map_or(Start::Never, Start::At);
        Op::new(NextTick { alarm: Alarm::new(start), tick: self }, None)
    }

    fn advance(&mut self, due: Instant) {
        let missed = Instant::now().saturating_duration_since(due).as_nanos() / self.period.as_nanos();
        let steps = u32::try_from(missed + 1).unwrap_or(u32::MAX);
        self.next = self.period.checked_mul(steps).and_then(|step| due.checked_add(step));
    }
}

#[derive(Clone, Copy)]
enum Start {
    After(Duration),
    At(Instant),
    Never,
}

/// The kind of [`Timer`].
#[doc(hidden)]
pub struct Alarm {
    start: Start,
    /// Whether the time had come when it was last prepared.
    due: bool,
    mode: Mode,
}

impl Alarm {
    fn new(start: Start) -> Self {
        Self { start, due: false, mode: Mode::Blocking }
    }

    fn key(&self, node: &Node<Instant>) -> Option<(Instant, LinkPtr)> {
        match self.start {
            Start::At(deadline) => Some((deadline, Node::as_link(NonNull::from(node)))),
            Start::After(_) | Start::Never => None,
        }
    }
}

// SAFETY: for a future the timers' lock is the lock, and `park` and `unlink` put the node into their tree; a blocked thread needs
// neither. `commit` decides the slot.
unsafe impl Kind for Alarm {
    type Slot = Instant;
    type Output = Instant;

    fn prepare(&mut self, mode: Mode) {
        let now = Instant::now();
        if let Start::After(delay) = self.start {
            self.start = now.checked_add(delay).map_or(Start::Never, Start::At);
        }
        self.due = matches!(self.start, Start::At(deadline) if deadline <= now);
        self.mode = mode;
    }

    fn now(&mut self, _: &mut Option<Instant>) -> Option<Instant> {
        self.deadline().filter(|_| self.due)
    }

    fn gate(&self) -> Option<&Gate> {
        (self.mode == Mode::Future).then(|| Gate::of(&timers().lock))
    }

    fn hint(&self) -> Option<bool> {
        Some(self.due)
    }
    unsafe fn ready(&self) -> bool {
        self.due
    }

    unsafe fn commit(&self, node: &Node<Instant>, _: &mut Wakes) -> bool {
        if self.due {
            // SAFETY: the caller owns the slot, which is empty.
            unsafe { node.decide(self.deadline(), Outcome::Done) };
        }
        self.due
    }

    unsafe fn park(&self, node: &Node<Instant>) {
        if self.mode == Mode::Future
            && let Some(key) = self.key(node)
        {
            // SAFETY: the caller holds the lock.
            unsafe { timers().with_locked(|state| state.due.insert(key)) };
        }
    }

    unsafe fn unlink(&self, node: &Node<Instant>) {
        if self.mode == Mode::Future
            && let Some(key) = self.key(node)
        {
            // SAFETY: the caller holds the lock.
            unsafe { timers().with_locked(|state| state.due.remove(&key)) };
        }
    }

    fn parked(&self) {
        if self.mode == Mode::Future
            && let Some(deadline) = self.deadline()
        {
            timers().call(deadline);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.start {
            Start::At(deadline) => Some(deadline),
            Start::After(_) | Start::Never => None,
        }
    }

    fn conclude(&mut self, slot: Option<Instant>, _: Outcome) -> Instant {
        match slot.or(self.deadline()) {
            Some(due) => due,
            None => unreachable!("a timer that was met has a deadline"),
        }
    }

    // Time cannot be given back.
    fn undo(&mut self, _: Option<Instant>, _: Outcome) {}
}

/// The kind of [`TickRecv`].
#[doc(hidden)]
pub struct NextTick<'a> {
    alarm: Alarm,
    tick: &'a mut Tick,
}

// SAFETY: that of `Alarm`, to which all is left.
unsafe impl Kind for NextTick<'_> {
    type Slot = Instant;
    type Output = Instant;

    fn prepare(&mut self, mode: Mode) {
        self.alarm.prepare(mode);
    }
    fn now(&mut self, slot: &mut Option<Instant>) -> Option<Instant> {
        let due = self.alarm.now(slot)?;
        self.tick.advance(due);
        Some(due)
    }
    fn gate(&self) -> Option<&Gate> {
        self.alarm.gate()
    }
    fn hint(&self) -> Option<bool> {
        self.alarm.hint()
    }
    unsafe fn ready(&self) -> bool {
        // SAFETY: the caller's promise, here and below.
        unsafe { self.alarm.ready() }
    }
    unsafe fn commit(&self, node: &Node<Instant>, wakes: &mut Wakes) -> bool {
        // SAFETY: as above.
        unsafe { self.alarm.commit(node, wakes) }
    }
    unsafe fn park(&self, node: &Node<Instant>) {
        // SAFETY: as above.
        unsafe { self.alarm.park(node) }
    }
    unsafe fn unlink(&self, node: &Node<Instant>) {
        // SAFETY: as above.
        unsafe { self.alarm.unlink(node) }
    }
    fn parked(&self) {
        self.alarm.parked();
    }
    fn deadline(&self) -> Option<Instant> {
        self.alarm.deadline()
    }
    fn conclude(&mut self, slot: Option<Instant>, outcome: Outcome) -> Instant {
        let due = self.alarm.conclude(slot, outcome);
        self.tick.advance(due);
        due
    }
    fn undo(&mut self, _: Option<Instant>, _: Outcome) {}
}

struct Timers {
    lock: Lock,
    state: UnsafeCell<State>,
}

struct State {
    due: BTreeSet<(Instant, LinkPtr)>,
    thread: Option<thread::Thread>,
    /// It is being started, and will look at all that is there.
    starting: bool,
    /// When the thread will look again; `None`: when it is woken.
    alarm: Option<Instant>,
}

// SAFETY: `state` is reached only under the lock; the nodes in it may be met from any thread.
unsafe impl Send for Timers {}
// SAFETY: as above.
unsafe impl Sync for Timers {}

fn timers() -> &'static Timers {
    static TIMERS: OnceLock<Timers> = OnceLock::new();
    TIMERS.get_or_init(|| Timers {
        lock: Lock::new(),
        state: UnsafeCell::new(State { due: BTreeSet::new(), thread: None, starting: false, alarm: None }),
    })
}

impl Timers {
    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        self.lock.lock();
        // SAFETY: locked above, and unlocked afterwards.
        unsafe {
            let result = self.with_locked(f);
            self.lock.unlock();
            result
        }
    }

    /// # Safety
    /// The caller holds the lock.
    unsafe fn with_locked<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        // SAFETY: the caller's promise.
        self.state.with_mut(|state| f(unsafe { &mut *state }))
    }

    /// Makes sure that the thread looks at `deadline`.
    ///
    /// # Panics
    /// When the thread has to be started and cannot be.
    fn call(&'static self, deadline: Instant) {
        enum Next {
            Nothing,
            Wake(thread::Thread),
            Start,
        }
        let next = self.with(|state| match &state.thread {
            None if state.starting => Next::Nothing,
            None => {
                state.starting = true;
                Next::Start
            }
            Some(_) if state.alarm.is_some_and(|alarm| alarm <= deadline) => Next::Nothing,
            Some(thread) => {
                state.alarm = Some(deadline);
                Next::Wake(thread.clone())
            }
        });
        match next {
            Next::Nothing => {}
            Next::Wake(thread) => thread.unpark(),
            Next::Start => {
                let started = thread::Builder::new().name("weft-timer".into()).spawn(move || self.run());
                if let Err(error) = started {
                    self.with(|state| state.starting = false);
                    panic!("the timer thread cannot be started: {error}");
                }
            }
        }
    }

    fn run(&self) {
        self.with(|state| state.thread = Some(thread::current()));
        loop {
            let mut wakes = Wakes::new();
            let mut now = Instant::now();
            let alarm = self.with(|state| {
                while let Some((deadline, _)) = state.due.first() {
                    if *deadline > now {
                        // A clock read is cheap beside a sleep that turns out too short.
                        now = Instant::now();
                        if *deadline > now {
                            break;
                        }
                    }
                    if let Some((deadline, link)) = state.due.pop_first() {
                        // SAFETY: in the tree until now, so alive and bound, with a slot for an `Instant`.
                        unsafe { meet(deadline, link, &mut wakes) };
                    }
                }
                state.alarm = state.due.first().map(|(deadline, _)| *deadline);
                state.alarm
            });
            // A waker that panics must not end the thread that everybody relies on.
            drop(catch_unwind(AssertUnwindSafe(|| wakes.wake())));
            match alarm {
                Some(alarm) => Parker::park(Some(alarm.saturating_duration_since(Instant::now()))),
                None => Parker::park(None),
            }
        }
    }
}

/// # Safety
/// `link` is that of a `Node<Instant>`, alive, bound, and in no queue any more. The lock is held.
unsafe fn meet(deadline: Instant, link: LinkPtr, wakes: &mut Wakes) {
    // SAFETY: the caller's promise; the claim gives us the slot.
    unsafe {
        if let Some(claim) = (*waiter_of(link)).claim(case_of(link)) {
            link.cast::<Node<Instant>>().as_ref().decide(Some(deadline), Outcome::Done);
            wakes.push(claim.finish());
        }
    }
}
