//! An operation in a coroutine: the steps of `await`, and the future that asyncio's task sees while it waits.

use std::ffi::{c_int, c_void};
use std::ptr;

#[cfg(Py_GIL_DISABLED)]
use super::AWAITED;
use super::{Asleep, DECIDED, DEFAULT, DONE, Extra, FRESH, Kind, OpObject, PARKED, POSTPONED, Step, TAKEN};
use crate::ffi::{self, Owned, Py, PyObject, Raised, c};
use crate::home::HomeObject;
use crate::state::State;
use crate::stop;

impl OpObject {
    /// One step in a coroutine: what `await` does.
    #[inline(always)]
    pub fn step(&self) -> Py<Step> {
        let phase = self.phase.get();
        #[cfg(Py_GIL_DISABLED)]
        let phase = if phase == AWAITED {
            self.be_tried(AWAITED);
            FRESH
        } else {
            phase
        };
        match phase {
            FRESH if self.is_on_channel() && !self.channel().state().should_yield() => self.perform_on_channel(),
            PARKED => self.step_parked(),
            _ => self.step_otherwise(),
        }
    }

    #[inline(never)]
    fn step_otherwise(&self) -> Py<Step> {
        match self.phase.get() {
            POSTPONED => {
                self.be_tried(POSTPONED);
                self.perform_step()
            }
            // One on a channel was just told to.
            FRESH if self.is_on_channel() || self.state().should_yield() || self.is_a_turn() => self.postpone(),
            _ => self.perform_step(),
        }
    }

    /// `after(0)`, which is `sleep(0)`: whoever awaits that means to let the others run.
    #[inline]
    fn is_a_turn(&self) -> bool {
        !self.is_on_channel() && matches!(self.extra(), Extra::Time(delay) if self.kind == Kind::After && *delay <= 0.0)
    }

    #[inline(never)]
    pub(super) fn step_parked(&self) -> Py<Step> {
        const ODD: u16 = OpObject::CANCELLED | OpObject::LATE | OpObject::REMOTE | OpObject::BELL;
        let flags = self.flags.get();
        if flags & (Self::ON_CHANNEL | ODD) == Self::ON_CHANNEL && self.waiter().met().is_some() {
            // As `take_up`, of what is mostly here: its one node was claimed, and the reference went with the waker.
            #[cfg(not(Py_GIL_DISABLED))]
            self.flags.set(flags & !Self::LINKED);
            #[cfg(Py_GIL_DISABLED)]
            self.set(Self::LINKED, false);
            self.leave_sleeper();
            return self.result().map(Step::Return);
        }
        if self.is(Self::CANCELLED) {
            self.give_up();
            return Err(self.raise_cancelled());
        }
        if self.is_met() && self.resume()? {
            if self.take(Self::LATE) {
                self.deliver_late()?;
            }
            return self.take_up().map(Step::Return);
        }
        // Somebody stepped the coroutine though nothing has happened: wait on.
        self.set(Self::BLOCKING, true);
        Ok(Step::Yield(self.itself()))
    }

    #[cold]
    pub(super) fn postpone(&self) -> Py<Step> {
        // What has to wait hands the loop back by itself.
        let ready = self.is_ready_now().inspect_err(|_| self.phase.set(DONE))?;
        if !ready || self.state().running_loop()?.is_none() {
            return self.perform_step();
        }
        self.claim_fresh(POSTPONED)?;
        Ok(Step::Yield(ffi::none()))
    }

    /// As `perform_step`, of an operation on a channel.
    #[inline(always)]
    fn perform_on_channel(&self) -> Py<Step> {
        self.begin()?;
        match self.try_channel() {
            Ok(true) => self.result().map(Step::Return),
            Ok(false) => self.suspend(),
            Err(raised) => {
                self.phase.set(DONE);
                Err(raised)
            }
        }
    }

    pub(super) fn perform_step(&self) -> Py<Step> {
        match self.perform_now()? {
            Some(result) => Ok(Step::Return(result)),
            None => self.suspend(),
        }
    }

    /// It has to wait, in the loop that runs here.
    #[inline(never)]
    pub(super) fn suspend(&self) -> Py<Step> {
        let state = self.state();
        let Some(running) = state.running_loop()? else {
            return Err(self.has_no_scheduler());
        };
        let home = HomeObject::of_loop(state, &running)?;
        // SAFETY: just made or found.
        unsafe { HomeObject::of(home.as_ptr()) }.deliver_pending(state)?;
        self.set_home(home);
        Ok(match self.park_or_end()? {
            Some(result) => Step::Return(result),
            None => {
                self.set(Self::BLOCKING, true);
                Step::Yield(self.itself())
            }
        })
    }

    #[cold]
    fn has_no_scheduler(&self) -> Raised {
        let message = format!(
            "{} has to wait, but was awaited outside any scheduler: neither asyncio nor trio runs in this thread; use .wait() to block the thread",
            self.description()
        );
        self.give_up();
        ffi::runtime_error(&message)
    }

    /// A cancel that came too late for this operation is delivered at the task's next suspension.
    #[cold]
    pub(super) fn deliver_late(&self) -> Py<()> {
        if let Asleep::Loop(home) = self.asleep() {
            home.cancel_later(self.state(), self.take_message())?;
        }
        Ok(())
    }

    #[cold]
    pub(super) fn raise_cancelled(&self) -> Raised {
        let message = self.take_message();
        let Ok(kind) = self.state().cancelled_error() else {
            return Raised;
        };
        // SAFETY: an exception type and live objects.
        unsafe {
            match message {
                Some(message) if message.as_ptr() != c::Py_None() => c::PyErr_SetObject(kind, message.as_ptr()),
                _ => c::PyErr_SetNone(kind),
            }
        }
        Raised
    }

    /// A task that steps from `home` was given this operation to wait for. `false`: it cannot be waited for there.
    #[inline]
    pub fn wakes_task(&self, home: &HomeObject, task: &Owned) -> bool {
        if self.phase.get() == PARKED && self.takes_task(home, task) {
            return true;
        }
        let here = matches!(self.asleep(), Asleep::Loop(mine) if ptr::eq(mine, home));
        if !here || self.phase.get() != PARKED || !self.callback().is_null() {
            return false;
        }
        self.set(Self::BLOCKING, false);
        self.set_task(task);
        if self.take(Self::MISSED) {
            // SAFETY: alive; the reference that the queue takes over.
            drop(unsafe { OpObject::wake(self.itself().into_ptr().cast()) });
        }
        true
    }

    /// asyncio's cancel of the future that a task waits for. `false`: nothing is waited for any more.
    pub fn cancel_wait(&self, message: Option<Owned>) -> bool {
        if !self.is_parked() || self.is(Self::CANCELLED) || self.is_somebody_elses() {
            return false;
        }
        if message.is_some() || self.rare().is_some() {
            self.put_message(message);
        }
        if self.withdraw() {
            self.set(Self::CANCELLED, true);
            // SAFETY: alive; the reference that the queue takes over.
            drop(unsafe { OpObject::wake(self.itself().into_ptr().cast()) });
        } else {
            // It was decided: it completes, and we see to it that the cancel is not forgotten.
            self.set(Self::LATE, true);
        }
        true
    }

    /// The future to give to that callback. Borrowed.
    pub fn wakes_with(&self, callback: &Owned) -> Py<*mut PyObject> {
        match self.is(Self::CANCELLED) {
            true => Ok(self.as_ptr()),
            false => self.state().settled_for(callback.as_ptr(), self.as_ptr()),
        }
    }

    pub fn set_missed(&self) {
        self.set(Self::MISSED, true);
    }

    /// Whether a thread, or a party of another scheduler, sleeps on it, which alone may end it.
    pub(super) fn is_somebody_elses(&self) -> bool {
        self.is_parked() && matches!(self.asleep(), Asleep::Thread(_) | Asleep::Elsewhere(..))
    }

    /// The coroutine that awaited this ends here (`GeneratorExit`, or another scheduler's exception): leave no trace.
    pub fn end(&self) {
        match self.phase.get() {
            PARKED => {
                if self.is(Self::CANCELLED) || self.withdraw() {
                    self.give_up();
                } else {
                    self.abandon_and_give_back();
                }
            }
            DECIDED => {
                if self.kind == Kind::NextEvent {
                    if let Some(value) = self.selecting().abandon() {
                        self.selecting().give_back(value);
                    }
                } else if self.winner() != DEFAULT {
                    self.leaf(self.winner()).return_value();
                }
                self.give_up();
            }
            // A leaf ends with its select.
            TAKEN => {}
            _ => self.phase.set(DONE),
        }
    }

    /// Of a decided leaf: puts what it received back into its channel.
    fn return_value(&self) {
        if matches!(self.kind, Kind::Recv | Kind::RecvNext | Kind::RecvMany) && !self.is(Self::DEAD_END) {
            // SAFETY: decided: the slot is ours.
            if let (Some(value), _) = unsafe { self.node.take() } {
                self.return_more();
                let lost = self.via().channel.give_back(value);
                self.via().channel.undelivered(lost);
            }
        }
    }
}

// The steps, for the interpreter.

pub(super) unsafe extern "C" fn am_send(
    slf: *mut PyObject,
    _: *mut PyObject,
    result: *mut *mut PyObject,
) -> c::PySendResult {
    // SAFETY: the interpreter passes a live operation, here and below, and a place for the result.
    ffi::edge(c::PySendResult::PYGEN_ERROR, || unsafe {
        *result = ptr::null_mut();
        Ok(match OpObject::of(slf).step()? {
            Step::Return(value) => {
                *result = value.into_ptr();
                c::PySendResult::PYGEN_RETURN
            }
            Step::Yield(value) => {
                *result = value.into_ptr();
                c::PySendResult::PYGEN_NEXT
            }
        })
    })
}

/// Ends a coroutine's wait with a value: for `None` no exception at all, which the interpreter takes for `StopIteration()`.
#[inline]
pub(super) fn stop_iteration(state: &State, value: Owned) -> Raised {
    // SAFETY: None lives for ever.
    if value.as_ptr() != unsafe { c::Py_None() } {
        stop::raise(state, value);
    }
    Raised
}

pub unsafe extern "C" fn iternext(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `am_send`.
    let op = unsafe { OpObject::of(slf) };
    ffi::edge_object(|| match op.step()? {
        Step::Yield(value) => Ok(value),
        Step::Return(value) => Err(stop_iteration(op.state(), value)),
    })
}

/// `__await__()`, called by name: an iterator for `yield from`. (`await` itself steps the operation, which cannot be iterated: a forgotten `await` in
/// `a, b = channel.recv()` must not receive.)
pub(super) unsafe extern "C" fn explicit_await(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `am_send`.
    ffi::edge_object(|| unsafe {
        let state = OpObject::of(slf).state();
        match state.perform_elsewhere(slf)? {
            None => crate::awaiting::make(state, slf),
            Some(coroutine) => ffi::iterator_of(&coroutine),
        }
    })
}

pub unsafe extern "C" fn throw(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    _: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`; the interpreter's array.
        unsafe {
            if number == 0 {
                return Err(ffi::type_error("throw() needs an exception"));
            }
            let op = OpObject::of(slf);
            if op.is_somebody_elses() {
                return Err(op.misused(PARKED));
            }
            let first = *arguments;
            let error = if c::PyExceptionInstance_Check(first) != 0 {
                Owned::from_borrowed(first)
            } else {
                let value = if number > 1 { *arguments.add(1) } else { c::Py_None() };
                if c::PyExceptionInstance_Check(value) != 0 {
                    Owned::from_borrowed(value)
                } else if value == c::Py_None() {
                    ffi::call(first, &[])?
                } else {
                    ffi::call(first, &[value])?
                }
            };
            if number > 2 && *arguments.add(2) != c::Py_None() {
                c::PyException_SetTraceback(error.as_ptr(), *arguments.add(2));
            }
            let decided = op.phase.get() == PARKED && !op.is(OpObject::CANCELLED) && !op.withdraw();
            if decided && c::PyErr_GivenExceptionMatches(error.as_ptr(), op.state().cancelled_error()?) != 0 {
                // The commit wins: it completes, and the cancel comes at the next suspension.
                op.deliver_late()?;
                let value = op.take_up()?;
                stop::raise(op.state(), value);
                return Err(Raised);
            }
            if decided {
                op.end();
            } else {
                op.give_up();
            }
            Err(ffi::raise_object(error.as_ptr()))
        }
    })
}

pub unsafe extern "C" fn close(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        let op = unsafe { OpObject::of(slf) };
        if op.is_somebody_elses() {
            return Err(op.misused(PARKED));
        }
        op.end();
        Ok(ffi::none())
    })
}

/// What `await` asks for first, once: so a second `await` ends here, and does not step what another one waits for.
pub(super) unsafe extern "C" fn am_await(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `am_send`.
    let op = unsafe { OpObject::of(slf) };
    if cfg!(not(Py_GIL_DISABLED)) && op.is_fresh() && op.is_on_channel() && op.channel().state().awaits_only_here() {
        return op.itself().into_ptr();
    }
    await_somewhere(op)
}

/// The same, of any operation.
#[inline(never)]
fn await_somewhere(op: &OpObject) -> *mut PyObject {
    ffi::edge_object(|| {
        op.check_fresh()?;
        match op.state().perform_elsewhere(op.as_ptr())? {
            None => op.await_once().map(|()| op.itself()),
            Some(coroutine) => ffi::iterator_of(&coroutine),
        }
    })
}

// asyncio's future protocol, which a task drives (asyncio.isfuture, Task.__step).

pub(super) unsafe extern "C" fn get_blocking(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see `am_send`.
    let op = unsafe { OpObject::of(slf) };
    if !op.is_parked() || op.is_somebody_elses() {
        // Not a future, as asyncio.isfuture() sees it: ensure_future() and gather() wrap it in a task.
        return ffi::none().into_ptr();
    }
    ffi::boolean(op.is(OpObject::BLOCKING)).into_ptr()
}

pub(super) unsafe extern "C" fn set_blocking(slf: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    ffi::edge(-1, || {
        // SAFETY: see `am_send`; null means deletion.
        unsafe {
            let truth = !value.is_null() && ffi::check(c::PyObject_IsTrue(value))? != 0;
            OpObject::of(slf).set(OpObject::BLOCKING, truth);
        }
        Ok(0)
    })
}

pub(super) unsafe extern "C" fn get_loop(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        let op = unsafe { OpObject::of(slf) };
        if op.is_parked()
            && let Asleep::Loop(home) = op.asleep()
            && let Some(event_loop) = home.event_loop()
        {
            return Ok(event_loop);
        }
        Err(ffi::runtime_error("the operation waits in no loop"))
    })
}

pub(super) unsafe extern "C" fn add_done_callback(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        unsafe {
            let op = OpObject::of(slf);
            let as_a_task_does = number == 1
                && !keywords.is_null()
                && c::PyTuple_GET_SIZE(keywords) == 1
                && ffi::is_text(c::PyTuple_GET_ITEM(keywords, 0), c"context");
            let [callback, context] = if as_a_task_does {
                [*arguments, *arguments.add(1)]
            } else {
                ffi::parameters("add_done_callback", ["fn", "context"], 1, arguments, number, keywords)?
            };
            if callback.is_null() {
                return Err(ffi::type_error("add_done_callback() needs a callable"));
            }
            // Of one that waits in a loop alone: else nobody would call it.
            if !op.is_parked() || op.is_somebody_elses() {
                return Err(ffi::runtime_error(&format!("{} waits in no loop", op.description())));
            }
            let context = if context.is_null() || context == c::Py_None() {
                Owned::from_new(c::PyContext_CopyCurrent())?
            } else {
                Owned::from_borrowed(context)
            };
            if !op.set_callback(Owned::from_borrowed(callback), context) {
                return Err(ffi::runtime_error(&format!("{} is awaited by somebody else already", op.description())));
            }
            if op.take(OpObject::MISSED) {
                drop(OpObject::wake(op.itself().into_ptr().cast()));
            }
            Ok(ffi::none())
        }
    })
}

pub(super) unsafe extern "C" fn future_done(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `am_send`.
    let op = unsafe { OpObject::of(slf) };
    let parked = op.is_parked();
    ffi::edge_object(|| Ok(ffi::boolean(!parked || op.is(OpObject::CANCELLED) || op.is_met())))
}

pub(super) unsafe extern "C" fn future_cancelled(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `am_send`.
    ffi::edge_object(|| Ok(ffi::boolean(unsafe { OpObject::of(slf) }.is(OpObject::CANCELLED))))
}

pub(super) unsafe extern "C" fn future_result(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        let op = unsafe { OpObject::of(slf) };
        if op.is(OpObject::CANCELLED) {
            op.give_up();
            return Err(op.raise_cancelled());
        }
        Ok(ffi::none())
    })
}

pub(super) unsafe extern "C" fn cancel(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        unsafe {
            let [message] = ffi::parameters("cancel", ["msg"], 1, arguments, number, keywords)?;
            let message = (!message.is_null()).then(|| Owned::from_borrowed(message));
            Ok(ffi::boolean(OpObject::of(slf).cancel_wait(message)))
        }
    })
}

/// `_fire(case)`: a descriptor is ready.
pub(super) unsafe extern "C" fn fire(slf: *mut PyObject, case: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let case = ffi::long(case)?;
        // SAFETY: see `am_send`.
        unsafe {
            let op = OpObject::of(slf);
            if !op.is_parked() {
                return Ok(ffi::boolean(false));
            }
            // Called by the loop, which will look at its queue before it sleeps.
            let home = match op.asleep() {
                Asleep::Loop(home) => Some(Owned::from_borrowed(home.as_ptr())),
                _ => None,
            };
            let _turn = home.as_ref().map(|home| HomeObject::of(home.as_ptr()).turn());
            let decided = op.decide(case as u32);
            if decided {
                drop(OpObject::wake(op.itself().into_ptr().cast()));
            }
            Ok(ffi::boolean(decided))
        }
    })
}
