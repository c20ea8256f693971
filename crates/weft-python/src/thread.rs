//! Performing an operation by blocking a thread: try without releasing the interpreter, else park through its own lock primitive, which signals interrupt.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_longlong, c_ulong, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use weft_link::Lead;

use crate::crossing::remote;
use crate::ffi::{self, Aside, Owned, Py, PyObject, Raised, c, thread_lock};
use crate::io::{self, Pipe};
use crate::op::{Kind, OpObject, Sleeper};
use crate::scope::{self, Scope};
use crate::state::Ref;

const LONGEST_SPIN: Duration = Duration::from_secs(1);

/// For how many sleeps at the most a thread leads no link after some in which something else has woken it.
const REST: u32 = 32;

/// How often a spinning thread waits for an instant between looks at the clock.
const SPINS_PER_LOOK: u32 = 8;

const EMPTY: u32 = 0;
const LOCKED: u32 = 1;
const POLLING: u32 = 2;
const NOTIFIED: u32 = 3;

/// Where one thread sleeps. `unpark` is remembered, so a wake-up that comes before the sleep is not lost.
///
/// `state` says how the owner sleeps; whoever moves it from LOCKED to NOTIFIED releases the lock, exactly once.
pub struct Parker {
    /// The thread's number, as `threading` has it.
    owner: c_ulong,
    state: AtomicU32,
    /// The interpreter's lock, held except for the instant between `unpark` and the end of the sleep.
    lock: AtomicPtr<c_void>,
    /// For sleeps that also watch descriptors; made when first needed.
    pipe: std::sync::OnceLock<Pipe>,
}

thread_local! {
    static MINE: RefCell<Option<Arc<Parker>>> = const { RefCell::new(None) };
    /// For how long this thread looks before it sleeps.
    static SPINS: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// How many sleeps are still to pass before it leads a link again, and how many it will be after the next one in vain.
    static RESTS: Cell<(u32, u32)> = const { Cell::new((0, 1)) };
}

impl Parker {
    fn new() -> Py<Self> {
        // SAFETY: plain calls; a new lock is free, so the acquire does not wait.
        let lock = unsafe {
            let lock = thread_lock::PyThread_allocate_lock();
            if lock.is_null() {
                return Err(ffi::runtime_error("cannot allocate a lock"));
            }
            thread_lock::PyThread_acquire_lock_timed(lock, -1, 0);
            lock
        };
        // SAFETY: plain call.
        let owner = unsafe { thread_lock::PyThread_get_thread_ident() };
        Ok(Self { owner, state: AtomicU32::new(EMPTY), lock: AtomicPtr::new(lock), pipe: std::sync::OnceLock::new() })
    }

    pub fn owner(&self) -> c_ulong {
        self.owner
    }

    /// The calling thread's own.
    pub fn mine() -> Py<Arc<Self>> {
        MINE.with(|mine| {
            let mut mine = mine.borrow_mut();
            if let Some(parker) = &*mine {
                return Ok(Arc::clone(parker));
            }
            let parker = Arc::new(Self::new()?);
            *mine = Some(Arc::clone(&parker));
            Ok(parker)
        })
    }

    /// Wakes the owner, now or from its next sleep. Needs no interpreter.
    pub fn unpark(&self) {
        // AcqRel: what we did before is seen by the owner after its own swap; and LOCKED is seen by one of us only.
        match self.state.swap(NOTIFIED, Ordering::AcqRel) {
            // SAFETY: the owner sleeps on the lock, or is about to, and only we release it.
            LOCKED => unsafe { thread_lock::PyThread_release_lock(self.lock.load(Ordering::Relaxed)) },
            POLLING => {
                if let Some(pipe) = self.pipe.get() {
                    pipe.write();
                }
            }
            _ => {}
        }
    }

    fn lock(&self) -> *mut c_void {
        self.lock.load(Ordering::Relaxed)
    }

    /// Whether a notice was left already, which is taken; otherwise others see from now on how the owner sleeps.
    fn is_notified_before(&self, how: u32) -> bool {
        let notified = self.state.compare_exchange(EMPTY, how, Ordering::AcqRel, Ordering::Acquire).is_err();
        if notified {
            self.state.store(EMPTY, Ordering::Release);
        }
        notified
    }

    /// Looks for a notice for a while, without sleeping. `between` two looks something else is done, until it returns false. Without the interpreter.
    fn spin(&self, duration: Duration, between: impl Fn() -> bool) {
        if duration.is_zero() {
            return;
        }
        let start = Instant::now();
        // Relaxed: the sleep that follows takes the notice, and what comes with it.
        while self.state.load(Ordering::Relaxed) == EMPTY && start.elapsed() < duration && between() {}
    }

    /// Sleeps until `unpark`, the deadline, or a signal; it is for the caller to look which. Without the interpreter.
    fn sleep(&self, deadline: Option<Instant>) {
        if self.is_notified_before(LOCKED) {
            return;
        }
        // SAFETY: the lock is ours and held; nobody else acquires it.
        let acquired =
            unsafe { thread_lock::PyThread_acquire_lock_timed(self.lock(), deadline.map_or(-1, until), 1) } == 1;
        if self.state.swap(EMPTY, Ordering::AcqRel) == NOTIFIED && !acquired {
            // Whoever notified us has released the lock or is about to: take it back.
            // SAFETY: as above.
            unsafe { thread_lock::PyThread_acquire_lock_timed(self.lock(), -1, 0) };
        }
    }

    /// The same, watching descriptors too; those that are ready are marked.
    fn sleep_polling(&self, watched: &mut [io::Watched], deadline: Option<Instant>) {
        let Some(pipe) = self.pipe.get() else {
            return self.sleep(deadline);
        };
        if self.is_notified_before(POLLING) {
            return;
        }
        io::poll(watched, pipe, deadline);
        self.state.store(EMPTY, Ordering::Release);
        // In any case: whoever notified us may write to the pipe only after we were gone, and that must not end every later sleep.
        pipe.drain();
    }
}

impl Parker {
    /// The same, reading a link of this process meanwhile: what wakes us may well come from there. Whether it did.
    fn sleep_leading(&self, lead: &Lead, deadline: Option<Instant>) -> bool {
        let Some(pipe) = self.pipe.get() else {
            self.sleep(deadline);
            return false;
        };
        loop {
            if self.is_notified_before(POLLING) {
                return true;
            }
            let mut link = [io::Watched::new(0, lead.descriptor(), false)];
            io::poll(&mut link, pipe, deadline);
            // A notice that comes from now on is left in the state alone.
            if self.state.swap(EMPTY, Ordering::AcqRel) == NOTIFIED {
                // As above: the byte in the pipe, if it is there yet.
                pipe.drain();
                return false;
            }
            if !link[0].is_ready() {
                // Woken for an earlier notice, by who left its byte late.
                pipe.drain();
                return false;
            }
            if !lead.serve() {
                return false;
            }
        }
    }
}

impl Drop for Parker {
    fn drop(&mut self) {
        // SAFETY: the last user is gone. The lock is released first, as its contract wants.
        unsafe {
            thread_lock::PyThread_release_lock(self.lock());
            thread_lock::PyThread_free_lock(self.lock());
        }
    }
}

/// Microseconds until then, rounded up; at most what the lock can count.
fn until(deadline: Instant) -> c_longlong {
    let left = deadline.saturating_duration_since(Instant::now());
    c_longlong::try_from(left.as_nanos().div_ceil(1000)).map_or(1 << 40, |us| us.min(1 << 40))
}

/// So many seconds from now; `None` when that is beyond what a clock can say.
pub fn after(seconds: f64) -> Option<Instant> {
    Duration::try_from_secs_f64(seconds).ok().and_then(|duration| Instant::now().checked_add(duration))
}

/// `_spin(seconds)`: for how long this thread is to spin before it sleeps.
pub unsafe extern "C" fn set_spin(_: *mut PyObject, seconds: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let given = ffi::seconds(seconds, "seconds")?;
        match Duration::try_from_secs_f64(given) {
            Ok(duration) if duration <= LONGEST_SPIN => SPINS.set(duration),
            _ => return Err(ffi::value_error(&format!("seconds must be from 0 to 1, not {given}"))),
        }
        Ok(ffi::none())
    })
}

/// Performs an operation by blocking this thread for at most `timeout` seconds.
pub fn wait(op: &OpObject, timeout: Option<f64>) -> Py<Owned> {
    let state = op.state();
    let scope = scope::current(state)?;
    if let Some(scope) = &scope
        && op.is_fresh()
        && scope.is_cancelled(state)?
    {
        op.give_up();
        return Err(cancelled(op));
    }
    if let Some(result) = op.perform_now()? {
        return Ok(result);
    }
    if timeout == Some(0.0) {
        if let Some(result) = op.perform_in_root()? {
            return Ok(result);
        }
        op.give_up();
        return Err(timed_out(op, 0.0));
    }
    if state.running_loop()?.is_some() || state.awaits_elsewhere()? {
        op.give_up();
        let message = format!(
            "{} would block the event loop that runs in this thread: use `await` instead of .wait()",
            op.description()
        );
        // SAFETY: an exception type.
        return Err(unsafe { ffi::raise(state.get(Ref::BlockingInLoopError), &message) });
    }
    match state.wait_elsewhere(op, timeout) {
        Ok(None) => {}
        Ok(Some(result)) => return Ok(result),
        Err(raised) => {
            if op.is_running() {
                op.give_up();
            }
            return Err(raised);
        }
    }
    let deadline = timeout.and_then(after);
    let parker = Parker::mine()?;
    let spins = SPINS.get();
    let mut watched = op.with_leaves(io::watched);
    if parker.pipe.get().is_none() {
        if !watched.is_empty() {
            let _ = parker.pipe.set(Pipe::new()?);
        } else if op.is_sharing() && remote::has_links() {
            // Without one it sleeps as any other.
            match Pipe::new() {
                Ok(pipe) => drop(parker.pipe.set(pipe)),
                Err(Raised) => drop(ffi::take_error()),
            }
        }
    }
    // From here on, a cancelled scope unparks us.
    let _parked = scope.as_ref().map(|scope| scope.enroll(&parker));
    if let Some(result) = op.perform_parked(Sleeper::Thread(Arc::clone(&parker)))? {
        return Ok(result);
    }
    loop {
        // A signal that came since Python code last ran here would be noticed only after the sleep.
        // SAFETY: plain call.
        if unsafe { c::PyErr_CheckSignals() } < 0 {
            return interrupted(op);
        }
        // A signal handler that waited for something itself may have slept through our wake-up.
        if op.is_met() && op.resume()? {
            return op.take_up();
        }
        let until = match first_deadline(op, deadline, scope.as_deref()) {
            Ok(until) => until,
            Err(Raised) => return interrupted(op),
        };
        // SAFETY: the thread state comes back before Python is used again.
        unsafe {
            let thread = c::PyEval_SaveThread();
            if watched.is_empty() {
                match lead_of(op, &parker) {
                    Some(lead) => {
                        parker.spin(spins, || lead.serve());
                        match parker.sleep_leading(&lead, until) {
                            true => RESTS.set((0, 1)),
                            false => RESTS.set((RESTS.get().1, REST.min(RESTS.get().1 * 2))),
                        }
                    }
                    None => {
                        parker.spin(spins, || {
                            (0..SPINS_PER_LOOK).for_each(|_| std::hint::spin_loop());
                            true
                        });
                        parker.sleep(until);
                    }
                }
            } else {
                parker.sleep_polling(&mut watched, until);
            }
            c::PyEval_RestoreThread(thread);
        }
        if op.is_met() && op.resume()? {
            return op.take_up();
        }
        if !op.is_parked() {
            // Nobody else ends what this thread performs.
            return Err(op.place_left());
        }
        for watched in &watched {
            if watched.is_ready() && op.decide(watched.case()) {
                return op.take_up();
            }
        }
        match op.with_leaves(|leaves| due_now(op, leaves)) {
            Ok(Some(case)) if op.decide(case) => return op.take_up(),
            Ok(_) => {}
            Err(Raised) => return interrupted(op),
        }
        if let Some(scope) = &scope {
            match scope.is_cancelled(state) {
                Ok(false) => {}
                Ok(true) => {
                    if op.withdraw() {
                        op.give_up();
                        return Err(cancelled(op));
                    }
                    return op.take_up();
                }
                Err(Raised) => return interrupted(op),
            }
        }
        if let (Some(deadline), Some(seconds)) = (deadline, timeout)
            && Instant::now() >= deadline
        {
            if op.withdraw() {
                op.give_up();
                return Err(timed_out(op, seconds));
            }
            return op.take_up();
        }
    }
}

/// What the thread is to read while it sleeps: a link, for an operation that another process may meet, unless that was no use lately.
fn lead_of(op: &OpObject, parker: &Arc<Parker>) -> Option<Lead> {
    if !op.is_sharing() {
        return None;
    }
    if let (rests @ 1.., next) = RESTS.get() {
        RESTS.set((rests - 1, next));
        return None;
    }
    parker.pipe.get()?;
    let parker = Arc::clone(parker);
    remote::lead(Arc::new(move || parker.unpark()))
}

/// An exception is set while the operation is parked: it ends the wait. If the operation was decided meanwhile, the commit wins: it
/// completes, and the exception is raised right after it.
#[cold]
fn interrupted(op: &OpObject) -> Py<Owned> {
    let error = ffi::take_error();
    if op.withdraw() {
        op.give_up();
        if let Some(error) = error {
            ffi::restore_error(error);
        }
        return Err(Raised);
    }
    if let Some(error) = error {
        raise_later(error);
    }
    op.take_up()
}

/// The first moment at which there is something to do besides being met.
fn first_deadline(op: &OpObject, timeout: Option<Instant>, scope: Option<&Scope>) -> Py<Option<Instant>> {
    let scope = match scope {
        Some(scope) => scope.instant(op.state())?,
        None => None,
    };
    let timer = op.with_leaves(|leaves| next_due(op, leaves))?;
    Ok([timeout, scope, timer].into_iter().flatten().min())
}

/// The same for `__next__`: the end of the iteration is no error.
pub fn wait_in_iteration(op: &OpObject) -> Py<Owned> {
    wait(op, None).inspect_err(|_| {
        // SAFETY: an exception type; no error at all is what ends a `for`.
        unsafe {
            if c::PyErr_ExceptionMatches(c::PyExc_StopAsyncIteration) != 0 {
                c::PyErr_Clear();
            }
        }
    })
}

/// When the first timer among the leaves is due, and its case.
pub fn first_timer(leaves: &[*mut OpObject]) -> Option<(f64, u32)> {
    let mut first: Option<(f64, u32)> = None;
    for (case, leaf) in leaves.iter().enumerate() {
        // SAFETY: the operation holds its leaves.
        let leaf = unsafe { &**leaf };
        if matches!(leaf.kind(), Kind::After | Kind::At | Kind::Tick) && first.is_none_or(|(due, _)| leaf.due() < due) {
            first = Some((leaf.due(), case as u32));
        }
    }
    first
}

/// When the first timer among the leaves is due.
fn next_due(op: &OpObject, leaves: &[*mut OpObject]) -> Py<Option<Instant>> {
    match first_timer(leaves) {
        None => Ok(None),
        Some((due, _)) => Ok(after((due - op.state().monotonic()?).max(0.0))),
    }
}

/// The case of a timer that is due.
fn due_now(op: &OpObject, leaves: &[*mut OpObject]) -> Py<Option<u32>> {
    let mut now = None;
    for (case, leaf) in leaves.iter().enumerate() {
        // SAFETY: the operation holds its leaves.
        let leaf = unsafe { &**leaf };
        if matches!(leaf.kind(), Kind::After | Kind::At | Kind::Tick) {
            let now = match now {
                Some(now) => now,
                None => *now.insert(op.state().monotonic()?),
            };
            if leaf.due() <= now {
                return Ok(Some(case as u32));
            }
        }
    }
    Ok(None)
}

#[cold]
fn timed_out(op: &OpObject, seconds: f64) -> Raised {
    let message = format!("{} was not met within {seconds} s and was withdrawn", op.description());
    // SAFETY: an exception type.
    unsafe { ffi::raise(c::PyExc_TimeoutError, &message) }
}

#[cold]
fn cancelled(op: &OpObject) -> Raised {
    let message = format!("{} was withdrawn: the group this thread belongs to was cancelled", op.description());
    // SAFETY: an exception type.
    unsafe { ffi::raise(op.state().get(Ref::Cancelled), &message) }
}

/// Raises `error` in the main thread, where signal handlers run, as soon as it runs Python code again.
pub fn raise_later(error: Owned) {
    extern "C" fn raise(error: *mut c_void) -> c_int {
        // SAFETY: the reference given below.
        if let Some(error) = unsafe { Owned::from_nullable(error.cast()) } {
            ffi::restore_error(error);
        }
        -1
    }
    let pointer = error.into_ptr();
    if !ffi::call_soon_in_main(raise, pointer.cast()) {
        // The interpreter's queue is full: report it rather than lose it.
        let _aside = Aside::new();
        // SAFETY: the reference was not taken.
        if let Some(error) = unsafe { Owned::from_nullable(pointer) } {
            ffi::restore_error(error);
            ffi::unraisable(std::ptr::null_mut());
        }
    }
}
