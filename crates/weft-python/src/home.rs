//! A loop's home in weft: where its decided operations wait for their tasks to be stepped, and its timers.
//!
//! An operation that is decided is pushed onto the home's queue; the first push has the loop call `drain` (`call_soon`, or
//! `call_soon_threadsafe` from elsewhere), which steps the whole burst, each task in its own context: one callback of the loop for many hand-offs. A drain
//! hands the loop back after a millisecond (L13).
//!
//! A loop that is closed drops its callbacks. The drain notices (its object is destroyed without having been called), and a push to a
//! closed loop fails; either way what was decided is undone: the values go back to their channels.
//!
//! The home knows its loop by a weak reference only, and is an attribute of the loop: it ends with the loop, and a loop that was dropped with
//! operations parked is garbage together with them. (Not a dictionary with weak keys: what is parked leads to its task, hence to the loop, and
//! would keep its own key alive.)

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::attached::{Attached, Guard};
use crate::context::Scratch;
use crate::ffi::{self, Owned, Py, PyObject, Raised, c};
use crate::group::GroupObject;
use crate::io::{self, Pipe};
use crate::op::OpObject;
use crate::sites::Sites;
use crate::state::{Ref, SLICE_NANOSECONDS, State};
use crate::task::{Current, TaskObject};

/// `weft._weft._Home`.
#[repr(C)]
pub struct HomeObject {
    head: PyObject,
    weak_loop: Owned,
    /// A callback of the loop's is running ours: it will look at its queue before it sleeps.
    turning: AtomicBool,
    inner: Attached<Inner>,
    /// The first of the groups whose processes are tasks of ours, as a list without references: a group takes itself out.
    groups: Cell<*mut GroupObject>,
    /// `run` is stepping a process.
    stepping: Cell<bool>,
    /// A slice was used up: the next drain lets the loop have some turns first. Used in the loop's thread.
    rests: Cell<bool>,
    /// Of the tasks that share their context.
    pub scratch: Scratch,
    /// Where its tasks were spawned.
    pub sites: Sites,
    /// How other places wake the loop. Made when first asked for.
    doorbell: OnceLock<Arc<Doorbell>>,
}

/// A descriptor that a loop watches for other places.
pub struct Doorbell {
    pipe: Pipe,
    rung: AtomicBool,
    /// The loop can watch no descriptor: the place's listening thread is to be told instead.
    deaf: AtomicBool,
}

impl Doorbell {
    /// Whether nobody listens to it.
    pub fn is_deaf(&self) -> bool {
        // Acquire pairs with the Release in `doorbell`. Whoever still rings it has left something in the box before, and the listening
        // thread, which is started after that store, looks there first.
        self.deaf.load(Ordering::Acquire)
    }

    /// Needs no interpreter.
    pub fn ring(&self) {
        // AcqRel: what was left in the box before is seen by whoever swaps it back.
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.pipe.write();
        }
    }
}

/// What is to be stepped, with a reference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    /// Whoever awaited this operation, which is decided.
    Op(*mut OpObject),
    Task(*mut PyObject),
    /// So many tasks of this group are to begin, in the order in which they were spawned: one entry, however many are spawned in a row.
    Begin(*mut GroupObject, u32),
}

impl Ready {
    fn as_ptr(&self) -> *mut PyObject {
        match *self {
            Self::Op(op) => op.cast(),
            Self::Task(task) => task,
            Self::Begin(group, _) => group.cast(),
        }
    }

    /// The task to step, if there is one.
    ///
    /// # Safety
    /// Just taken out by `pop`, and not an operation.
    #[inline]
    unsafe fn into_task(self) -> Option<Owned> {
        // SAFETY: the caller's promise: with the last task of an entry comes its reference to the group, and until then the entry holds it.
        unsafe {
            match self {
                Self::Op(_) => None,
                Self::Task(task) => Owned::from_nullable(task),
                Self::Begin(group, more) => {
                    let task = (*group).begin_one();
                    if more == 0 {
                        c::Py_DECREF(group.cast());
                    }
                    task
                }
            }
        }
    }
}

struct Inner {
    /// The process that was met last by the one being stepped: it goes on before all others, as what it was handed is at hand (Go's `runnext`).
    next: Option<Ready>,
    /// How many in a row went on so.
    in_a_row: u32,
    /// Decided operations, and tasks that are to go on, each with a reference.
    ready: VecDeque<Ready>,
    /// Tasks that gave the loop a turn before they go on.
    deferred: VecDeque<Ready>,
    /// A drain is on its way, or running.
    scheduled: bool,
    /// Deadline (nanoseconds of the loop's clock) and serial number; the operation (with a reference) and the case.
    timers: BTreeMap<(u64, u64), (*mut OpObject, u32)>,
    serial: u64,
    /// When the loop will look at the timers next.
    armed: Option<u64>,
    /// Waiting `selecting` operations: two references each, the second of which goes with the waker when it is claimed.
    standing: HashSet<*mut OpObject>,
    /// Tasks with a cancel that came too late for the operation it met, and its message.
    late: Option<Owned>,
}

// SAFETY: pointers to operations that the home holds references to, used while attached.
unsafe impl Send for Inner {}

impl Inner {
    /// Who goes on. After so many that were handed something, the one that has waited longest. The reference is the caller's, but of a group as
    /// long as more tasks of it are to begin.
    #[inline]
    fn pop(&mut self) -> Option<Ready> {
        if let Some(next) = self.next.take() {
            if self.in_a_row < IN_A_ROW || self.ready.is_empty() {
                self.in_a_row = self.in_a_row.saturating_add(1);
                return Some(next);
            }
            self.ready.push_back(next);
        }
        self.in_a_row = 0;
        if let Some(Ready::Begin(group, count)) = self.ready.front_mut()
            && *count > 1
        {
            *count -= 1;
            return Some(Ready::Begin(*group, *count));
        }
        match self.ready.pop_front() {
            Some(Ready::Begin(group, _)) => Some(Ready::Begin(group, 0)),
            other => other,
        }
    }
}

/// How many processes in a row go on before those that have waited longer.
const IN_A_ROW: u32 = 16;

/// How many turns the loop has for others after a slice. In the first, behind our own callback, it calls what is due, which resolves the future that a
/// sleeping task waits for; that task's callback comes in the second. In the turn after that it is our turn again.
const TURNS: u8 = 2;

/// How many steps a drain makes between looks at the clock.
const STEPS: u32 = 4;

/// Room for so many is kept in a queue that is empty: a burst of a million is not.
const KEPT: usize = 1024;

/// How often a loop is asked in vain before it is left to the main thread.
const PATIENCE: u32 = 8;

/// Two clocks that are no further apart than this, in seconds, are one clock.
const SAME_CLOCK: f64 = 1.0;
/// By how much a loop is asked again that has called too early, in nanoseconds: uvloop's clock counts milliseconds.
const AGAIN: u64 = 1_000_000;

/// `weft._weft._Drain`: the callable given to the loop, once.
#[repr(C)]
struct DrainObject {
    head: PyObject,
    home: *mut PyObject,
    called: AtomicBool,
    /// How many calls only have the loop call again: others get so many turns.
    waits: Cell<u8>,
}

impl HomeObject {
    /// # Safety
    /// A live home.
    #[inline]
    pub unsafe fn of<'a>(object: *mut PyObject) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*object.cast() }
    }

    #[inline]
    pub fn as_ptr(&self) -> *mut PyObject {
        ptr::from_ref(self).cast_mut().cast()
    }

    #[inline]
    fn inner(&self) -> Guard<'_, Inner> {
        self.inner.borrow()
    }

    /// The home of a loop, made when first asked for.
    pub fn of_loop(state: &State, event_loop: &Owned) -> Py<Owned> {
        // SAFETY: null, or a live home: `dealloc` takes it out first of all, and we are attached. (Without a GIL it could end meanwhile.)
        #[cfg(not(Py_GIL_DISABLED))]
        unsafe {
            let last = state.last_home.load(Ordering::Relaxed);
            if !last.is_null() && Self::of(last).is_of(event_loop.as_ptr()) {
                return Ok(Owned::from_borrowed(last));
            }
        }
        let name = state.get(Ref::NameHome);
        // SAFETY: live objects; a new home is filled before anybody sees it.
        unsafe {
            let known = Owned::from_nullable(c::PyObject_GetAttr(event_loop.as_ptr(), name));
            if known.is_none() {
                if c::PyErr_ExceptionMatches(c::PyExc_AttributeError) == 0 {
                    return Err(Raised);
                }
                c::PyErr_Clear();
            }
            let home = if let Some(home) = known.filter(|home| state.is(home.as_ptr(), Ref::Home)) {
                home
            } else {
                let weak_loop = Owned::from_new(c::PyWeakref_NewRef(event_loop.as_ptr(), ptr::null_mut()))?;
                let home = ffi::allocate(state.class(Ref::Home))?;
                let this: *mut Self = home.as_ptr().cast();
                (&raw mut (*this).weak_loop).write(weak_loop);
                (&raw mut (*this).turning).write(AtomicBool::new(false));
                (&raw mut (*this).groups).write(Cell::new(ptr::null_mut()));
                (&raw mut (*this).stepping).write(Cell::new(false));
                (&raw mut (*this).rests).write(Cell::new(false));
                (&raw mut (*this).scratch).write(Scratch::new());
                (&raw mut (*this).sites).write(Sites::new());
                (&raw mut (*this).doorbell).write(OnceLock::new());
                (&raw mut (*this).inner).write(Attached::new(Inner {
                    next: None,
                    in_a_row: 0,
                    ready: VecDeque::new(),
                    deferred: VecDeque::new(),
                    scheduled: false,
                    timers: BTreeMap::new(),
                    serial: 0,
                    armed: None,
                    standing: HashSet::new(),
                    late: None,
                }));
                ffi::check(c::PyObject_SetAttr(event_loop.as_ptr(), name, home.as_ptr()))?;
                home
            };
            #[cfg(not(Py_GIL_DISABLED))]
            state.last_home.store(home.as_ptr(), Ordering::Relaxed);
            Ok(home)
        }
    }

    pub fn is_of(&self, event_loop: *mut PyObject) -> bool {
        // SAFETY: a weak reference.
        unsafe { ffi::refers_to(self.weak_loop.as_ptr(), event_loop) }
    }

    pub fn add_group(&self, group: &GroupObject) {
        let this = ptr::from_ref(group).cast_mut();
        let next = self.groups.replace(this);
        group.next_group.set(next);
        // SAFETY: null, or a live group.
        if let Some(next) = unsafe { next.as_ref() } {
            next.previous_group.set(this);
        }
    }

    pub fn remove_group(&self, group: &GroupObject) {
        let (previous, next) = (group.previous_group.get(), group.next_group.get());
        // SAFETY: null, or live groups.
        unsafe {
            match previous.as_ref() {
                Some(previous) => previous.next_group.set(next),
                None => self.groups.set(next),
            }
            if let Some(next) = next.as_ref() {
                next.previous_group.set(previous);
            }
        }
    }

    pub fn event_loop(&self) -> Option<Owned> {
        // SAFETY: a weak reference.
        unsafe { ffi::upgrade(self.weak_loop.as_ptr()) }
    }

    /// Whether its loop will call nothing any more.
    pub fn is_closed(&self) -> bool {
        let _aside = ffi::Aside::new();
        // SAFETY: a live object of ours.
        let state = unsafe { State::of(self.as_ptr()) };
        let Some(event_loop) = self.event_loop().filter(|_| !state.is_gone()) else {
            return true;
        };
        // SAFETY: live objects. What fails does not tell.
        unsafe {
            let closed = ffi::call_method(state.get(Ref::IsClosed), &[event_loop.as_ptr()]);
            let closed = closed.and_then(|closed| ffi::check(c::PyObject_IsTrue(closed.as_ptr())));
            closed.map(|truth| truth != 0).unwrap_or_else(|Raised| {
                ffi::unraisable(event_loop.as_ptr());
                false
            })
        }
    }

    /// Queues a decided operation, taking over a reference. `Err` gives it back when the loop is closed.
    pub fn push(&self, op: *mut OpObject) -> Result<(), *mut OpObject> {
        if self.queue(Ready::Op(op)) { Ok(()) } else { Err(op) }
    }

    /// Queues a new task.
    pub fn begin(&self, task: Owned) -> Py<()> {
        if self.queue(Ready::Task(task.as_ptr())) {
            std::mem::forget(task);
            return Ok(());
        }
        Err(ffi::runtime_error("Event loop is closed"))
    }

    /// Queues the task that this group has just taken in. `false`: the loop is closed.
    pub fn begin_next(&self, group: &GroupObject) -> bool {
        let this = ptr::from_ref(group).cast_mut();
        let first = {
            let mut inner = self.inner();
            match inner.ready.back_mut() {
                Some(Ready::Begin(last, count)) if *last == this && *count < u32::MAX => *count += 1,
                _ => {
                    // SAFETY: alive; the entry's reference.
                    unsafe { c::Py_INCREF(group.as_ptr()) };
                    inner.ready.push_back(Ready::Begin(this, 1));
                }
            }
            !std::mem::replace(&mut inner.scheduled, true)
        };
        if first && !self.schedule() {
            let found = {
                let mut inner = self.inner();
                inner.scheduled = false;
                let at =
                    inner.ready.iter().rposition(|queued| matches!(queued, Ready::Begin(last, _) if *last == this));
                at.map(|at| match &mut inner.ready[at] {
                    Ready::Begin(_, count) if *count > 1 => {
                        *count -= 1;
                        None
                    }
                    _ => inner.ready.remove(at),
                })
            };
            let unqueued = found.is_some();
            if let Some(entry) = found.flatten() {
                // SAFETY: the entry's reference. The caller has another one.
                unsafe { c::Py_DECREF(entry.as_ptr()) };
            }
            // Those that came while we found out relied on us.
            self.abandon();
            return !unqueued;
        }
        true
    }

    /// Queues a task that is being stepped, behind a turn of the loop.
    pub fn defer(&self, task: Owned) -> Py<()> {
        let first = {
            let mut inner = self.inner();
            inner.deferred.push_back(Ready::Task(task.into_ptr()));
            !std::mem::replace(&mut inner.scheduled, true)
        };
        if first && !self.schedule() {
            self.abandon();
        }
        Ok(())
    }

    /// Takes over a reference. `false`: the loop is closed, and the reference still the caller's.
    fn queue(&self, ready: Ready) -> bool {
        // Without a GIL there are no processes, and others may be writing there.
        let handed_over = cfg!(not(Py_GIL_DISABLED))
            && self.stepping.get()
            // SAFETY: an operation, with the caller's reference.
            && matches!(ready, Ready::Op(op) if unsafe { (*op).is_of_process() });
        let first = {
            let mut inner = self.inner();
            let behind = if handed_over { inner.next.replace(ready) } else { Some(ready) };
            if let Some(behind) = behind {
                inner.ready.push_back(behind);
            }
            !std::mem::replace(&mut inner.scheduled, true)
        };
        if !first {
            return true;
        }
        // SAFETY: alive; what is called now may drop what keeps it so.
        let _held = unsafe { Owned::from_borrowed(self.as_ptr()) };
        if !self.schedule() {
            // (Then no process is being stepped, and it stands in the queue.)
            let found = {
                let mut inner = self.inner();
                inner.scheduled = false;
                let at = inner.ready.iter().rposition(|queued| *queued == ready);
                at.and_then(|at| inner.ready.remove(at))
            };
            // Those that came while we found out relied on us.
            self.abandon();
            return found.is_none();
        }
        true
    }

    /// Has the loop call a drain. `false`: it is closed.
    fn schedule(&self) -> bool {
        let _aside = ffi::Aside::new();
        // SAFETY: a live object of ours.
        let state = unsafe { State::of(self.as_ptr()) };
        if state.is_gone() {
            return false;
        }
        let mut failures = 0;
        loop {
            let scheduled = (|| {
                let Some(event_loop) = self.event_loop() else {
                    return Ok(false);
                };
                let here = state.running_loop()?;
                let here = here.is_some_and(|running| running.as_ptr() == event_loop.as_ptr());
                // A signal handler may run in the loop's thread while the loop sleeps, or is about to; then it must be woken as from elsewhere.
                let here = here && (self.turning.load(Ordering::Relaxed) || state.runs_a_task()?);
                let method = if here { Ref::CallSoon } else { Ref::CallSoonThreadsafe };
                let drain = self.drain(state, here && self.rests.take())?;
                // SAFETY: live objects.
                match unsafe { ffi::call_method(state.get(method), &[event_loop.as_ptr(), drain.as_ptr()]) } {
                    Ok(_) => Ok(true),
                    Err(Raised) => {
                        drain.mute();
                        let error = ffi::take_error();
                        // SAFETY: live objects.
                        let closed = unsafe {
                            let closed = ffi::call_method(state.get(Ref::IsClosed), &[event_loop.as_ptr()])?;
                            c::PyObject_IsTrue(closed.as_ptr()) == 1
                        };
                        if closed {
                            return Ok(false);
                        }
                        if let Some(error) = error {
                            ffi::restore_error(error);
                        }
                        Err(Raised)
                    }
                }
            })();
            match scheduled {
                Ok(scheduled) => return scheduled,
                Err(Raised) => {
                    // A signal handler raised in the middle of the call. Its exception goes on afterwards; the wake-up must not be lost.
                    let error = ffi::take_error();
                    let memory = error.as_ref().is_some_and(|error| unsafe {
                        // SAFETY: an exception and an exception type.
                        c::PyErr_GivenExceptionMatches(error.as_ptr(), c::PyExc_MemoryError) != 0
                    });
                    let recursion = error.as_ref().is_some_and(|error| unsafe {
                        // SAFETY: as above.
                        c::PyErr_GivenExceptionMatches(error.as_ptr(), c::PyExc_RecursionError) != 0
                    });
                    failures += 1;
                    if recursion || failures == PATIENCE {
                        // There is no room here to call the loop, and there would not be at the next try.
                        self.schedule_later();
                        return true;
                    }
                    if let Some(error) = error {
                        crate::thread::raise_later(error);
                    }
                    if memory {
                        return false;
                    }
                }
            }
        }
    }

    /// Has the loop call a drain again that lets it have its turn.
    ///
    /// # Safety
    /// A drain of ours, which the loop is calling.
    unsafe fn wait_on(&self, drain: *mut PyObject) -> Py<()> {
        let Some(event_loop) = self.event_loop() else {
            return Ok(());
        };
        // SAFETY: live objects.
        unsafe {
            let again = ffi::call_method(State::of(drain).get(Ref::CallSoon), &[event_loop.as_ptr(), drain]);
            if let Err(Raised) = again {
                // It was closed, or a signal handler raised in the middle of the call: the queue must not be lost with this drain.
                let error = ffi::take_error();
                (*drain.cast::<DrainObject>()).called.store(true, Ordering::Relaxed);
                if !self.schedule() {
                    self.abandon();
                }
                return Err(error.map_or(Raised, ffi::restore_error));
            }
        }
        Ok(())
    }

    /// Has the main thread call the loop, from where there is more room.
    #[cold]
    fn schedule_later(&self) {
        extern "C" fn again(home: *mut c_void) -> c_int {
            ffi::edge(-1, || {
                // SAFETY: the reference given below.
                if let Some(home) = unsafe { Owned::from_nullable(home.cast()) } {
                    // SAFETY: a home.
                    let this = unsafe { HomeObject::of(home.as_ptr()) };
                    if !this.schedule() {
                        this.abandon();
                    }
                }
                Ok(0)
            })
        }
        // SAFETY: alive.
        let home = unsafe { Owned::from_borrowed(self.as_ptr()) }.into_ptr();
        if !ffi::call_soon_in_main(again, home.cast()) {
            // No room there either: whoever comes next tries again.
            self.inner().scheduled = false;
            // SAFETY: the reference was not taken.
            drop(unsafe { Owned::from_nullable(home) });
        }
    }

    /// While it lives, the loop is known to be awake.
    pub fn turn(&self) -> Turn<'_> {
        Turn { home: self, before: self.turning.swap(true, Ordering::Relaxed) }
    }

    /// What the loop is to call. `rests`: it lets some turns pass first.
    fn drain(&self, state: &State, rests: bool) -> Py<Drain> {
        // SAFETY: our type; every field is written before anybody sees the object.
        unsafe {
            let object = ffi::allocate(state.class(Ref::Drain))?;
            let this: *mut DrainObject = object.as_ptr().cast();
            (&raw mut (*this).home).write(Owned::from_borrowed(self.as_ptr()).into_ptr());
            (&raw mut (*this).called).write(AtomicBool::new(false));
            (&raw mut (*this).waits).write(Cell::new(if rests { TURNS } else { 0 }));
            Ok(Drain(object))
        }
    }

    /// Steps the tasks of all decided operations, for at most a millisecond.
    fn run(&self) -> Py<()> {
        let _turn = self.turn();
        // SAFETY: a live object of ours.
        let state = unsafe { State::of(self.as_ptr()) };
        let Some(event_loop) = self.event_loop() else {
            self.abandon();
            return Ok(());
        };
        let mut current = Current::new(state, self, &event_loop);
        let start = Instant::now();
        let mut steps = 0_u32;
        loop {
            let next = {
                let mut inner = self.inner();
                let next = inner.pop();
                if next.is_none() {
                    inner.scheduled = false;
                    inner.ready.shrink_to(KEPT);
                }
                next
            };
            let Some(next) = next else {
                drop(current);
                return self.end_turn(false);
            };
            match next {
                Ready::Task(_) | Ready::Begin(..) => {
                    // SAFETY: just taken out.
                    if let Some(task) = unsafe { next.into_task() }
                        && self.step(&task, &mut current).is_err()
                    {
                        self.failed(&task, &mut current)?;
                    }
                }
                Ready::Op(op) => {
                    // SAFETY: the queue held a reference, which is now ours.
                    let _held = unsafe { Owned::from_nullable(op.cast()) };
                    // SAFETY: an operation, held.
                    let op = unsafe { &*op };
                    match op.take_callback() {
                        None => op.set_missed(),
                        Some((callback, context)) => {
                            if self.resume(&mut current, op, &callback, context).is_err() {
                                self.failed(&callback, &mut current)?;
                            }
                        }
                    }
                }
            }
            steps += 1;
            if steps.is_multiple_of(STEPS) && start.elapsed().as_nanos() as u64 > SLICE_NANOSECONDS {
                drop(current);
                return self.end_turn(true);
            }
        }
    }

    /// Gives the loop its turn; when something is left to step, it calls again: `rests`, after some turns.
    fn end_turn(&self, rests: bool) -> Py<()> {
        let more = {
            let mut inner = self.inner();
            let Inner { ready, deferred, .. } = &mut *inner;
            ready.append(deferred);
            inner.scheduled = inner.next.is_some() || !inner.ready.is_empty();
            inner.scheduled
        };
        self.rests.set(more && rests);
        if more && !self.schedule() {
            self.abandon();
        }
        Ok(())
    }

    /// Steps a task of ours.
    #[inline]
    fn step(&self, task: &Owned, current: &mut Current<'_>) -> Py<()> {
        self.stepping.set(true);
        // SAFETY: a task of this home.
        let stepped = unsafe { TaskObject::step(task, current, None) };
        self.stepping.set(false);
        stepped
    }

    /// Goes on with whoever awaited this operation.
    #[inline]
    fn resume(&self, current: &mut Current<'_>, op: &OpObject, callback: &Owned, context: Option<Owned>) -> Py<()> {
        let Some(context) = context else {
            // A callback without a context is a task of ours.
            return self.step(callback, current);
        };
        current.clear()?;
        let future = op.wakes_with(callback)?;
        // SAFETY: live objects; the context is the task's.
        unsafe { ffi::call_in_context(context.as_ptr(), callback.as_ptr(), future) }.map(drop)
    }

    /// A step raised: as a loop's own handle would, end the loop on `SystemExit` and `KeyboardInterrupt`, report anything else.
    #[cold]
    fn failed(&self, callback: &Owned, current: &mut Current<'_>) -> Py<()> {
        {
            let _aside = ffi::Aside::new();
            // If this fails as well, what failed first is told.
            let _ = current.leave_context();
        }
        // SAFETY: live objects and exception types.
        unsafe {
            if c::PyErr_ExceptionMatches(c::PyExc_SystemExit) != 0
                || c::PyErr_ExceptionMatches(c::PyExc_KeyboardInterrupt) != 0
            {
                let raised = ffi::take_error();
                self.end_turn(false)?;
                if let Some(raised) = raised {
                    ffi::restore_error(raised);
                }
                return Err(Raised);
            }
            let Some(error) = ffi::take_error() else {
                return Ok(());
            };
            let report = || {
                let Some(event_loop) = self.event_loop() else {
                    return Ok(());
                };
                let context = Owned::from_new(c::PyDict_New())?;
                let message = ffi::string("Exception in a task stepped by weft")?;
                for (key, value) in [(c"message", &message), (c"exception", &error), (c"callback", callback)] {
                    ffi::check(c::PyDict_SetItemString(context.as_ptr(), key.as_ptr(), value.as_ptr()))?;
                }
                let state = State::of(self.as_ptr());
                ffi::call_method(state.get(Ref::CallExceptionHandler), &[event_loop.as_ptr(), context.as_ptr()])?;
                Ok(())
            };
            let reported: Py<()> = report();
            if reported.is_err() {
                ffi::unraisable(callback.as_ptr());
            }
        }
        Ok(())
    }

    /// The loop was closed with decided operations queued: their values go back.
    fn abandon(&self) {
        let _aside = ffi::Aside::new();
        loop {
            let next = {
                let mut inner = self.inner();
                inner.scheduled = false;
                inner.pop().or_else(|| inner.deferred.pop_front())
            };
            let Some(next) = next else {
                return;
            };
            if let Ready::Op(op) = next {
                // SAFETY: the queue's reference, now ours.
                let _held = unsafe { Owned::from_nullable(op.cast()) };
                // SAFETY: an operation, held.
                unsafe { &*op }.abandon_and_give_back();
            } else {
                // SAFETY: just taken out.
                drop(unsafe { next.into_task() });
            }
        }
    }

    // Timers.

    /// The time of the loop's clock; where that is the monotonic one, as in most loops, read off that itself, for a loop may show the time at
    /// which its turn began.
    fn now(&self, state: &State, event_loop: &Owned) -> Py<f64> {
        // SAFETY: live objects.
        let now = unsafe { ffi::call_method(state.get(Ref::Time), &[event_loop.as_ptr()])? };
        let now = ffi::seconds(now.as_ptr(), "loop.time()")?;
        let monotonic = state.monotonic()?;
        Ok(if (monotonic - now).abs() < SAME_CLOCK { monotonic } else { now })
    }

    /// Decides `case` of a waiting operation after `delay` seconds of the loop's clock.
    pub fn add_timer(&self, op: &OpObject, case: u32, delay: f64) -> Py<(u64, u64)> {
        // SAFETY: a live object of ours.
        let state = unsafe { State::of(self.as_ptr()) };
        let Some(event_loop) = self.event_loop() else {
            return Err(ffi::runtime_error("the event loop is gone"));
        };
        let due = nanoseconds(self.now(state, &event_loop)? + delay);
        let (key, earlier) = {
            let mut inner = self.inner();
            inner.serial += 1;
            let key = (due, inner.serial);
            // SAFETY: alive; the entry's reference.
            unsafe { c::Py_INCREF(op.as_ptr()) };
            inner.timers.insert(key, (op.as_ptr().cast(), case));
            let earlier = inner.armed.is_none_or(|armed| due < armed);
            if earlier {
                inner.armed = Some(due);
            }
            (key, earlier)
        };
        if earlier && let Err(raised) = self.arm(state, &event_loop, due) {
            self.inner().armed = None;
            self.remove_timer(key);
            return Err(raised);
        }
        Ok(key)
    }

    /// Forgets a timer. The loop may look once in vain; that is cheaper than telling it.
    pub fn remove_timer(&self, key: (u64, u64)) {
        let entry = self.inner().timers.remove(&key);
        if let Some((op, _)) = entry {
            // SAFETY: the entry's reference.
            unsafe { c::Py_DECREF(op.cast()) };
        }
    }

    fn arm(&self, state: &State, event_loop: &Owned, due: u64) -> Py<()> {
        // SAFETY: live objects.
        unsafe {
            let when = ffi::float(due as f64 * 1e-9)?;
            let fire = Owned::from_new(c::PyObject_GetAttrString(self.as_ptr(), c"_fire".as_ptr()))?;
            ffi::call_method(state.get(Ref::CallAt), &[event_loop.as_ptr(), when.as_ptr(), fire.as_ptr()])?;
        }
        Ok(())
    }

    /// The loop's clock has come to a deadline.
    fn fire(&self) -> Py<()> {
        let _turn = self.turn();
        // SAFETY: a live object of ours.
        let state = unsafe { State::of(self.as_ptr()) };
        let Some(event_loop) = self.event_loop() else {
            return Ok(());
        };
        let now = nanoseconds(self.now(state, &event_loop)?);
        self.inner().armed = None;
        loop {
            let due = {
                let mut inner = self.inner();
                match inner.timers.first_key_value() {
                    Some((key, _)) if key.0 <= now => inner.timers.pop_first(),
                    _ => None,
                }
            };
            let Some((_, (op, case))) = due else {
                break;
            };
            // SAFETY: the entry's reference goes to whoever is woken.
            unsafe {
                if (*op).decide(case) {
                    drop(OpObject::wake(op));
                } else {
                    c::Py_DECREF(op.cast());
                }
            }
        }
        let next = {
            let mut inner = self.inner();
            let next = inner.timers.first_key_value().map(|(key, _)| key.0);
            match (next, inner.armed) {
                (Some(next), armed) if armed.is_none_or(|armed| next < armed) => {
                    inner.armed = Some(next);
                    Some(next)
                }
                _ => None,
            }
        };
        match next {
            Some(next) => self.arm(state, &event_loop, next.max(now + AGAIN)),
            None => Ok(()),
        }
    }

    // Descriptors.

    /// Decides `case` of a waiting operation when the descriptor is ready. What is watched is a duplicate, returned.
    pub fn watch(&self, op: &OpObject, case: u32, fd: c_int, write: bool) -> Py<c_int> {
        // SAFETY: a live object of ours.
        let state = unsafe { State::of(self.as_ptr()) };
        let Some(event_loop) = self.event_loop() else {
            return Err(ffi::runtime_error("the event loop is gone"));
        };
        let copy = io::duplicate(fd)?;
        let added = (|| {
            let number = ffi::integer(copy as usize)?;
            let case = ffi::integer(case as usize)?;
            let add = if write { Ref::AddWriter } else { Ref::AddReader };
            // SAFETY: live objects.
            unsafe {
                let fire = Owned::from_new(c::PyObject_GetAttrString(op.as_ptr(), c"_fire".as_ptr()))?;
                ffi::call_method(state.get(add), &[event_loop.as_ptr(), number.as_ptr(), fire.as_ptr(), case.as_ptr()])
            }
        })();
        match added {
            Ok(_) => Ok(copy),
            Err(raised) => {
                io::close(copy);
                Err(raised)
            }
        }
    }

    pub fn unwatch(&self, copy: c_int, write: bool) {
        let _aside = ffi::Aside::new();
        // SAFETY: a live object of ours.
        let state = unsafe { State::of(self.as_ptr()) };
        let event_loop = self.event_loop().filter(|_| !state.is_gone());
        if let (Some(event_loop), Ok(number)) = (event_loop, ffi::integer(copy as usize)) {
            let remove = if write { Ref::RemoveWriter } else { Ref::RemoveReader };
            // SAFETY: live objects. A closed loop refuses, and watches nothing any more.
            unsafe {
                if ffi::call_method(state.get(remove), &[event_loop.as_ptr(), number.as_ptr()]).is_err() {
                    c::PyErr_Clear();
                }
            }
        }
        io::close(copy);
    }

    // Waiting `selecting` operations.

    pub fn stand(&self, op: &OpObject) {
        // SAFETY: alive. One reference is the home's, one the waker's.
        unsafe {
            c::Py_INCREF(op.as_ptr());
            c::Py_INCREF(op.as_ptr());
        }
        self.inner().standing.insert(op.as_ptr().cast());
    }

    /// The operation waits no more; `claimed`: the waker's reference has gone with the waker.
    pub fn sit(&self, op: &OpObject, claimed: bool) {
        if self.inner().standing.remove(&op.as_ptr().cast()) {
            // SAFETY: counted in `stand`; the caller's reference keeps the operation alive.
            unsafe {
                c::Py_DECREF(op.as_ptr());
                if !claimed {
                    c::Py_DECREF(op.as_ptr());
                }
            }
        }
    }

    // Other places.

    /// How other places wake this loop; `None`: by the listening thread, as it can watch no descriptor.
    pub fn doorbell(&self, state: &State) -> Option<Arc<Doorbell>> {
        if let Some(known) = self.doorbell.get() {
            return (!known.is_deaf()).then(|| Arc::clone(known));
        }
        let _aside = ffi::Aside::new();
        let bell = match Pipe::new() {
            Ok(pipe) => Arc::new(Doorbell { pipe, rung: AtomicBool::new(false), deaf: AtomicBool::new(false) }),
            Err(Raised) => {
                drop(ffi::take_error());
                return None;
            }
        };
        // First it is known to all, then to the loop: of two threads that come at once only one has it watched, and that is never closed.
        if self.doorbell.set(Arc::clone(&bell)).is_err() {
            return self.doorbell(state);
        }
        let watched = (|| {
            let event_loop = self.event_loop().ok_or_else(|| ffi::runtime_error("the event loop is gone"))?;
            let number = ffi::integer(bell.pipe.reads() as usize)?;
            // SAFETY: live objects.
            unsafe {
                let answer = Owned::from_new(c::PyObject_GetAttrString(self.as_ptr(), c"_answer".as_ptr()))?;
                let here = state.running_loop()?.is_some_and(|running| running.as_ptr() == event_loop.as_ptr());
                if here {
                    let arguments = [event_loop.as_ptr(), number.as_ptr(), answer.as_ptr()];
                    ffi::call_method(state.get(Ref::AddReader), &arguments)?;
                } else {
                    // A loop that sleeps need not see what another thread adds. What is written before is not lost: it stays readable.
                    let add = Owned::from_new(c::PyObject_GetAttr(event_loop.as_ptr(), state.get(Ref::AddReader)))?;
                    let arguments = [event_loop.as_ptr(), add.as_ptr(), number.as_ptr(), answer.as_ptr()];
                    ffi::call_method(state.get(Ref::CallSoonThreadsafe), &arguments)?;
                }
            }
            Ok(())
        })();
        if let Err(Raised) = watched {
            drop(ffi::take_error());
            bell.deaf.store(true, Ordering::Release);
            return None;
        }
        Some(bell)
    }

    /// The loop was rung.
    fn answer(&self) {
        let _turn = self.turn();
        if let Some(bell) = self.doorbell.get() {
            bell.pipe.drain();
            // AcqRel: see `ring`. Who rings from now on writes again.
            bell.rung.swap(false, Ordering::AcqRel);
        }
        // SAFETY: a live object of ours.
        unsafe { State::of(self.as_ptr()) }.place.look();
    }

    // Cancels that came too late.

    /// Delivers a cancel to the running task at its next suspension.
    #[cold]
    pub fn cancel_later(&self, state: &State, message: Option<Owned>) -> Py<()> {
        let task = state.current_task()?;
        // SAFETY: live objects.
        unsafe {
            if task.as_ptr() == c::Py_None() {
                return Ok(());
            }
            let late = {
                let known = self.inner().late.clone();
                match known {
                    Some(late) => late,
                    None => {
                        let late = Owned::from_new(c::PyDict_New())?;
                        self.inner().late = Some(late.clone());
                        late
                    }
                }
            };
            let message = message.unwrap_or_else(ffi::none);
            // With how many requests there are now: when there are fewer, this one was withdrawn.
            let requests = ffi::call_method(state.get(Ref::Cancelling), &[task.as_ptr()])?;
            let entry = ffi::tuple(vec![message, requests])?;
            ffi::check(c::PyDict_SetItem(late.as_ptr(), task.as_ptr(), entry.as_ptr()))?;
            let Some(event_loop) = self.event_loop() else {
                return Ok(());
            };
            let deliver = Owned::from_new(c::PyObject_GetAttrString(self.as_ptr(), c"_deliver".as_ptr()))?;
            ffi::call_method(state.get(Ref::CallSoon), &[event_loop.as_ptr(), deliver.as_ptr(), task.as_ptr()])?;
        }
        Ok(())
    }

    /// Before a task parks: is there a cancel for it? Then it is delivered at this suspension.
    #[inline]
    pub fn deliver_pending(&self, state: &State) -> Py<()> {
        let pending = self.inner().late.is_some();
        if pending {
            let task = state.current_task()?;
            self.deliver(state, task.as_ptr())?;
        }
        Ok(())
    }

    /// Cancels the task anew, unless the request was withdrawn; the count of requests stays what it was.
    #[cold]
    fn deliver(&self, state: &State, task: *mut PyObject) -> Py<()> {
        let late = self.inner().late.clone();
        let Some(late) = late else {
            return Ok(());
        };
        // SAFETY: live objects.
        unsafe {
            let entry = c::PyDict_GetItemWithError(late.as_ptr(), task);
            if entry.is_null() {
                return if c::PyErr_Occurred().is_null() { Ok(()) } else { Err(Raised) };
            }
            let entry = Owned::from_borrowed(entry);
            let message = c::PyTuple_GET_ITEM(entry.as_ptr(), 0);
            let then = ffi::long(c::PyTuple_GET_ITEM(entry.as_ptr(), 1))?;
            ffi::check(c::PyDict_DelItem(late.as_ptr(), task))?;
            if c::PyDict_Size(late.as_ptr()) == 0 {
                let empty = self.inner().late.take();
                drop(empty);
            }
            let done = ffi::call_method(state.get(Ref::Done), &[task])?;
            if c::PyObject_IsTrue(done.as_ptr()) == 1 {
                return Ok(());
            }
            let requests = ffi::call_method(state.get(Ref::Cancelling), &[task])?;
            if ffi::long(requests.as_ptr())? >= then.max(1) {
                if message == c::Py_None() {
                    ffi::call_method(state.get(Ref::Cancel), &[task])?;
                } else {
                    ffi::call_method(state.get(Ref::Cancel), &[task, message])?;
                }
                ffi::call_method(state.get(Ref::Uncancel), &[task])?;
            }
        }
        Ok(())
    }
}

/// See `HomeObject::turn`.
pub struct Turn<'a> {
    home: &'a HomeObject,
    before: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.home.turning.store(self.before, Ordering::Relaxed);
    }
}

/// Seconds of a clock as whole nanoseconds.
fn nanoseconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9) as u64
}

/// A drain that has not been given to a loop yet.
struct Drain(Owned);

impl Drain {
    fn as_ptr(&self) -> *mut PyObject {
        self.0.as_ptr()
    }

    /// The loop did not take it: it must not report that when it goes.
    fn mute(&self) {
        // SAFETY: a live drain.
        unsafe { &*self.0.as_ptr().cast::<DrainObject>() }.called.store(true, Ordering::Relaxed);
    }
}

unsafe extern "C" fn drain_call(slf: *mut PyObject, _: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes a live drain, which holds its home.
        unsafe {
            let drain = &*slf.cast::<DrainObject>();
            if let Some(fewer) = drain.waits.get().checked_sub(1) {
                drain.waits.set(fewer);
                return HomeObject::of(drain.home).wait_on(slf).map(|()| ffi::none());
            }
            if !drain.called.swap(true, Ordering::Relaxed) {
                HomeObject::of(drain.home).run()?;
            }
        }
        Ok(ffi::none())
    })
}

unsafe extern "C" fn drain_repr(_: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| ffi::string("<weft: step the tasks whose operations were met>"))
}

unsafe extern "C" fn drain_traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector.
    unsafe {
        let stop = ffi::visit(c::Py_TYPE(slf).cast(), visit, argument);
        if stop != 0 {
            return stop;
        }
        ffi::visit((*slf.cast::<DrainObject>()).home, visit, argument)
    }
}

unsafe extern "C" fn drain_dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        let drain = slf.cast::<DrainObject>();
        if !(*drain).called.load(Ordering::Relaxed) {
            ffi::edge((), || {
                HomeObject::of((*drain).home).abandon();
                Ok(())
            });
        }
        c::Py_DECREF((*drain).home);
        ffi::free(slf);
    }
}

unsafe extern "C" fn answer(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: as for `fire`.
        unsafe { HomeObject::of(slf) }.answer();
        Ok(ffi::none())
    })
}

unsafe extern "C" fn fire(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes a live home, here and below.
        unsafe { HomeObject::of(slf) }.fire()?;
        Ok(ffi::none())
    })
}

/// `_tasks()`: the processes of its groups that are not done.
unsafe extern "C" fn tasks(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let mut all = Vec::new();
        // SAFETY: see `fire`; live groups. Nothing that runs here makes or ends one.
        let mut at = unsafe { HomeObject::of(slf) }.groups.get();
        // SAFETY: as above.
        while let Some(group) = unsafe { at.as_ref() } {
            all.extend(group.tasks());
            at = group.next_group.get();
        }
        ffi::list(all)
    })
}

unsafe extern "C" fn deliver(slf: *mut PyObject, task: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `fire`.
        unsafe { HomeObject::of(slf).deliver(State::of(slf), task)? };
        Ok(ffi::none())
    })
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector; nobody holds the lock for long, and a home that is in use is reachable.
    unsafe {
        let home = HomeObject::of(slf);
        let mut objects = vec![c::Py_TYPE(slf).cast(), home.weak_loop.as_ptr(), home.scratch.as_ptr()];
        if let Some(inner) = home.inner.try_borrow() {
            // Of a round of `selecting` that was met, the waker's reference is in the queue now, and counted below.
            let queued = inner.next.iter().chain(&inner.ready).chain(&inner.deferred);
            let once = queued.filter(|ready| !matches!(ready, Ready::Op(op) if inner.standing.contains(op)));
            objects.extend(once.map(Ready::as_ptr));
            objects.extend(inner.timers.values().map(|(op, _)| op.cast::<PyObject>()));
            for op in &inner.standing {
                objects.extend([op.cast::<PyObject>(); 2]);
            }
            objects.extend(inner.late.as_ref().map(Owned::as_ptr));
        }
        for object in objects {
            let stop = ffi::visit(object, visit, argument);
            if stop != 0 {
                return stop;
            }
        }
        home.sites.traverse(visit, argument)
    }
}

/// Lets go of all operations.
fn release(home: &HomeObject) {
    home.abandon();
    home.scratch.clear();
    let (timers, late) = {
        let mut inner = home.inner();
        (std::mem::take(&mut inner.timers), inner.late.take())
    };
    drop(late);
    loop {
        let first = home.inner().standing.iter().next().copied();
        let Some(op) = first else {
            break;
        };
        // SAFETY: the home holds it. It ends its wait, and that takes it out of the set: the waker must not outlive its reference.
        unsafe {
            let op = Owned::from_borrowed(op.cast());
            OpObject::of(op.as_ptr()).end();
            home.sit(OpObject::of(op.as_ptr()), true);
        }
    }
    // SAFETY: the references counted for these entries.
    unsafe {
        for (op, _) in timers.into_values() {
            c::Py_DECREF(op.cast());
        }
    }
}

unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    ffi::edge(0, || {
        // SAFETY: from the collector.
        release(unsafe { HomeObject::of(slf) });
        Ok(0)
    })
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; each field is dropped once.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        #[cfg(not(Py_GIL_DISABLED))]
        {
            // Relaxed: whoever reads or writes it holds the GIL.
            let last = &State::of(slf).last_home;
            let _ = last.compare_exchange(slf, ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed);
        }
        ffi::edge((), || {
            release(HomeObject::of(slf));
            Ok(())
        });
        let this: *mut HomeObject = slf.cast();
        ptr::drop_in_place(&raw mut (*this).weak_loop);
        ptr::drop_in_place(&raw mut (*this).inner);
        ptr::drop_in_place(&raw mut (*this).doorbell);
        ptr::drop_in_place(&raw mut (*this).sites);
        ffi::free(slf);
    }
}

/// Makes both types.
pub fn make_types(module: *mut PyObject) -> Py<(Owned, Owned)> {
    use ffi::Method::{NoArguments, OneArgument};
    let methods = ffi::methods(
        "_Home",
        &[
            (c"_answer", NoArguments(answer)),
            (c"_fire", NoArguments(fire)),
            (c"_deliver", OneArgument(deliver)),
            (c"_tasks", NoArguments(tasks)),
        ],
    );
    let home = vec![
        ffi::slot(c::Py_tp_traverse, traverse as *mut c_void),
        ffi::slot(c::Py_tp_clear, clear as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_methods, methods.cast()),
    ];
    let drain = vec![
        ffi::slot(c::Py_tp_call, drain_call as *mut c_void),
        ffi::slot(c::Py_tp_repr, drain_repr as *mut c_void),
        ffi::slot(c::Py_tp_traverse, drain_traverse as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, drain_dealloc as *mut c_void),
    ];
    let flags = (c::Py_TPFLAGS_HAVE_GC | c::Py_TPFLAGS_DISALLOW_INSTANTIATION) as u64;
    // SAFETY: the slots are those of a `HomeObject` and a `DrainObject`.
    unsafe {
        Ok((
            ffi::make_type(module, c"weft._weft._Home", size_of::<HomeObject>(), flags, home)?,
            ffi::make_type(module, c"weft._weft._Drain", size_of::<DrainObject>(), flags, drain)?,
        ))
    }
}
