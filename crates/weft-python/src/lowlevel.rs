//! Waiting in a scheduler that the extension does not know: the steps of a performance, one by one, and the list of such schedulers.
//!
//! The contract, and what each step means, is written down in `weft.lowlevel`.

use std::ffi::c_int;
use std::sync::atomic::Ordering;

use crate::ffi::{self, Owned, Py, PyObject, Raised, c};
use crate::op::{OpObject, Sleeper};
use crate::state::{Ref, State};
use crate::thread;

/// What a scheduler is asked with.
#[derive(Clone, Copy)]
#[repr(isize)]
enum Part {
    Identify = 0,
    Perform = 1,
}

impl State {
    /// Looks whether a scheduler was imported since the last time, by the number of modules there are.
    #[inline]
    fn look_for_schedulers(&self) -> Py<()> {
        let modules = self.get(Ref::Modules);
        if modules.is_null() {
            return Ok(());
        }
        // SAFETY: a dictionary.
        let count = unsafe { ffi::dictionary_size(modules) };
        if count == self.modules_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.adopt_schedulers(count)
    }

    /// Whether no scheduler of this kind could be running, as was found out when the last module was imported. `false`: it is to be looked for.
    #[inline]
    pub fn awaits_only_here(&self) -> bool {
        let (modules, list) = (self.get(Ref::Modules), self.get(Ref::Awaiting));
        // SAFETY: null or a dictionary, null or a tuple.
        unsafe {
            !modules.is_null()
                && ffi::dictionary_size(modules) == self.modules_seen.load(Ordering::Relaxed)
                && (list.is_null() || c::PyTuple_GET_SIZE(list) == 0)
        }
    }

    #[cold]
    fn adopt_schedulers(&self, count: isize) -> Py<()> {
        // SAFETY: a function without arguments, ours for good.
        unsafe { ffi::call(self.get(Ref::Adopt), &[]) }?;
        // Only now: who comes meanwhile must not go on without them.
        self.modules_seen.store(count, Ordering::Relaxed);
        Ok(())
    }

    /// Whether schedulers of this kind (`Ref::Awaiting` or `Ref::Blocking`) were added.
    #[inline]
    pub fn has_schedulers(&self, kind: Ref) -> Py<bool> {
        self.look_for_schedulers()?;
        let list = self.get(kind);
        // SAFETY: null or a tuple.
        Ok(!list.is_null() && unsafe { c::PyTuple_GET_SIZE(list) } != 0)
    }

    /// The scheduler of this kind that runs here, and which of its parties does.
    #[cold]
    fn scheduler(&self, kind: Ref) -> Py<Option<(Owned, Owned)>> {
        // SAFETY: a tuple of tuples. One that was replaced is kept all the same, so it is there to be held.
        unsafe {
            let list = Owned::from_borrowed(self.get(kind));
            for index in 0..c::PyTuple_GET_SIZE(list.as_ptr()) {
                let scheduler = Owned::from_borrowed(c::PyTuple_GET_ITEM(list.as_ptr(), index));
                let party = ffi::call(c::PyTuple_GET_ITEM(scheduler.as_ptr(), Part::Identify as isize), &[])?;
                if party.as_ptr() != c::Py_None() {
                    return Ok(Some((scheduler, party)));
                }
            }
        }
        Ok(None)
    }

    /// Of the scheduler whose parties await and that runs here: a coroutine or generator that performs `op`.
    #[inline]
    pub fn perform_elsewhere(&self, op: *mut PyObject) -> Py<Option<Owned>> {
        if !self.has_schedulers(Ref::Awaiting)? || self.steps_a_task_of_asyncio()? {
            return Ok(None);
        }
        self.perform_with(Ref::Awaiting, &[op])
    }

    /// Whether asyncio runs here and steps a task: then that is who awaits, whatever its loop runs on.
    fn steps_a_task_of_asyncio(&self) -> Py<bool> {
        Ok(self.running_loop()?.is_some() && self.runs_a_task()?)
    }

    /// Whether such a scheduler runs here: blocking would stop it.
    #[inline]
    pub fn awaits_elsewhere(&self) -> Py<bool> {
        Ok(self.has_schedulers(Ref::Awaiting)?
            && !self.steps_a_task_of_asyncio()?
            && self.scheduler(Ref::Awaiting)?.is_some())
    }

    #[cold]
    fn perform_with(&self, kind: Ref, arguments: &[*mut PyObject]) -> Py<Option<Owned>> {
        let Some((scheduler, _party)) = self.scheduler(kind)? else {
            return Ok(None);
        };
        // SAFETY: a scheduler's tuple; live objects.
        let result = unsafe { ffi::call(c::PyTuple_GET_ITEM(scheduler.as_ptr(), Part::Perform as isize), arguments)? };
        Ok(Some(result))
    }

    /// Of the scheduler whose parties call and that runs here: the result of waiting for `op`.
    pub fn wait_elsewhere(&self, op: &OpObject, timeout: Option<f64>) -> Py<Option<Owned>> {
        if !self.has_schedulers(Ref::Blocking)? {
            return Ok(None);
        }
        let timeout = timeout.map_or_else(|| Ok(ffi::none()), ffi::float)?;
        self.perform_with(Ref::Blocking, &[op.as_ptr(), timeout.as_ptr()])
    }

    /// What tells the party that runs here from others of the same thread: zero for the thread's own (`True`, or no scheduler at all).
    #[inline]
    pub fn party(&self) -> Py<usize> {
        if !self.has_schedulers(Ref::Blocking)? {
            return Ok(0);
        }
        let party = self.scheduler(Ref::Blocking)?.map(|(_, party)| party);
        // SAFETY: True lives for ever.
        Ok(party.filter(|party| party.as_ptr() != unsafe { c::Py_True() }).map_or(0, |party| party.as_ptr().addr()))
    }
}

/// `_add_scheduler(identify, perform, wait)`: one of the two is None.
pub unsafe extern "C" fn add_scheduler(
    module: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes our module and its array.
        unsafe {
            let state = crate::state_of_module(module);
            let [identify, perform, wait] =
                ffi::parameters("_add_scheduler", ["identify", "perform", "wait"], 3, arguments, number, keywords)?;
            for (kind, perform) in [(Ref::Awaiting, perform), (Ref::Blocking, wait)] {
                if perform.is_null() || perform == c::Py_None() {
                    continue;
                }
                let scheduler = ffi::tuple(vec![Owned::from_borrowed(identify), Owned::from_borrowed(perform)])?;
                // Until no other thread has added one meanwhile.
                loop {
                    let known = state.get(kind);
                    let mut all = Vec::new();
                    if !known.is_null() {
                        for index in 0..c::PyTuple_GET_SIZE(known) {
                            all.push(Owned::from_borrowed(c::PyTuple_GET_ITEM(known, index)));
                        }
                    }
                    all.push(scheduler.clone());
                    if state.replace(kind, known, ffi::tuple(all)?) {
                        break;
                    }
                }
            }
            Ok(ffi::none())
        }
    })
}

/// `_scheduler_here()`: `perform` of the scheduler whose parties await and that runs here, or None.
pub unsafe extern "C" fn scheduler_here(module: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes our module; a scheduler's tuple.
        unsafe {
            let state = crate::state_of_module(module);
            if !state.awaits_elsewhere()? {
                return Ok(ffi::none());
            }
            Ok(match state.scheduler(Ref::Awaiting)? {
                None => ffi::none(),
                Some((scheduler, _)) => {
                    Owned::from_borrowed(c::PyTuple_GET_ITEM(scheduler.as_ptr(), Part::Perform as isize))
                }
            })
        }
    })
}

unsafe fn op<'a>(slf: *mut PyObject) -> &'a OpObject {
    // SAFETY: the interpreter passes a live operation.
    unsafe { OpObject::of(slf) }
}

pub unsafe extern "C" fn begin(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: from the interpreter, here and below.
    ffi::edge_object(|| Ok(ffi::boolean(unsafe { op(slf) }.decide_now()?)))
}

/// Whether it could be decided now, as far as one look can tell.
pub unsafe extern "C" fn is_ready(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `begin`.
    ffi::edge_object(|| Ok(ffi::boolean(unsafe { op(slf) }.is_ready_now()?)))
}

/// `recv on channel 'jobs' (...), operation made at app.py:12`, for messages.
/// `_party()`: who waits for it, if somebody does: a task or what is called instead, a thread's number, True where that is not known. None: it
/// does not wait.
pub unsafe extern "C" fn party(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes a live operation.
        unsafe { OpObject::of(slf) }.party()
    })
}

pub unsafe extern "C" fn describe(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `begin`.
    ffi::edge_object(|| ffi::string(unsafe { op(slf) }.description().trim_end_matches(',')))
}

/// Whether it has a timer or a descriptor.
pub unsafe extern "C" fn is_outside(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `begin`.
    ffi::edge_object(|| Ok(ffi::boolean(unsafe { op(slf) }.has_outside())))
}

pub unsafe extern "C" fn park(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `begin`; the interpreter's array.
        unsafe {
            let [wake, gone] = ffi::parameters("_park", ["wake", "gone"], 2, arguments, number, keywords)?;
            let gone = Owned::from_nullable(gone).inspect(|gone| c::Py_INCREF(gone.as_ptr()));
            let gone = gone.filter(|gone| gone.as_ptr() != c::Py_None());
            for callable in [wake].into_iter().chain(gone.as_ref().map(Owned::as_ptr)) {
                if callable.is_null() || c::PyCallable_Check(callable) == 0 {
                    return Err(ffi::type_error("_park() needs a callable that wakes, and one that tells or None"));
                }
            }
            let sleeper = Sleeper::Elsewhere(Owned::from_borrowed(wake), gone);
            Ok(ffi::boolean(op(slf).park_undecided(sleeper)?))
        }
    })
}

pub unsafe extern "C" fn resume(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `begin`.
    ffi::edge_object(|| unsafe {
        op(slf).check_parked()?;
        Ok(ffi::boolean(op(slf).is_met() && op(slf).resume()?))
    })
}

pub unsafe extern "C" fn withdraw(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `begin`.
    ffi::edge_object(|| unsafe {
        op(slf).check_parked()?;
        let withdrawn = op(slf).withdraw();
        if withdrawn {
            op(slf).give_up();
        }
        Ok(ffi::boolean(withdrawn))
    })
}

pub unsafe extern "C" fn take(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `begin`.
    ffi::edge_object(|| unsafe { op(slf) }.take_decided())
}

pub unsafe extern "C" fn undo(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `begin`.
        unsafe { op(slf) }.end();
        Ok(ffi::none())
    })
}

pub unsafe extern "C" fn skip(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `begin`.
        unsafe { op(slf) }.skip();
        Ok(ffi::none())
    })
}

/// `(seconds, case)` of the timer that is due first, or None.
pub unsafe extern "C" fn timer(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `begin`.
        let op = unsafe { op(slf) };
        let Some((due, case)) = op.with_leaves(thread::first_timer) else {
            return Ok(ffi::none());
        };
        // The time that a delay has just been given, on whatever clock: not what little of it is left on ours.
        let left = match op.delay_of(case) {
            Some(delay) => delay,
            None => (due - op.state().monotonic()?).max(0.0),
        };
        if !left.is_finite() {
            return Ok(ffi::none());
        }
        ffi::tuple(vec![ffi::float(left)?, ffi::integer(case as usize)?])
    })
}

/// `(descriptor, to write, case)` of each descriptor it waits for.
pub unsafe extern "C" fn descriptors(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `begin`.
        let found = unsafe { op(slf) }.with_leaves(|leaves| {
            leaves
                .iter()
                .enumerate()
                // SAFETY: the operation holds its leaves.
                .filter_map(|(case, leaf)| unsafe { (**leaf).descriptor() }.map(|fd| (fd, *leaf, case)))
                .collect::<Vec<(c_int, _, usize)>>()
        });
        let mut all = Vec::new();
        for (fd, leaf, case) in found {
            // SAFETY: as above.
            let to_write = unsafe { (*leaf).kind() } == crate::op::Kind::Writable;
            all.push(ffi::tuple(vec![ffi::integer(fd as usize)?, ffi::boolean(to_write), ffi::integer(case)?])?);
        }
        ffi::list(all)
    })
}

impl OpObject {
    /// Whether there is anything to watch but channels.
    fn has_outside(&self) -> bool {
        use crate::op::Kind::{After, At, Readable, Tick, Writable};
        self.with_leaves(|leaves| {
            // SAFETY: the operation holds its leaves.
            leaves.iter().any(|leaf| matches!(unsafe { &**leaf }.kind(), After | At | Tick | Readable | Writable))
        })
    }

    /// An error when it does not wait.
    fn check_parked(&self) -> Py<()> {
        match self.is_parked() {
            true => Ok(()),
            false => Err(self.not_parked()),
        }
    }

    #[cold]
    fn not_parked(&self) -> Raised {
        ffi::runtime_error(&format!("{} does not wait: park it first", self.description()))
    }
}
