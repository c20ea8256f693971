//! What one interpreter's copy of the module holds. No Python object is in a Rust static.

#[cfg(not(Py_GIL_DISABLED))]
use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use crate::crossing::place::Place;
use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::op::{Rare, Select};

macro_rules! refs {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {
        /// The names of the module's references.
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Ref { $($(#[$attribute])* $name),* }
        const COUNT: usize = [$($(#[$attribute])* stringify!($name)),*].len();
    };
}

refs! {
    // Types.
    Channel, Sender, Receiver, Op, Selected, Statistics, Selecting, Tick, Barrier, Scope, Home, Drain, Stop, Await, WeftTask, Memory,
    // Errors and the search for schedulers, from the Python files.
    Closed, Poisoned, NoReceivers, WouldBlock, BlockingInLoopError, ForkedChannelError, Cancelled, Adopt,
    // Names.
    CallSoon, CallSoonThreadsafe, CallAt, Time, IsClosed, AddReader, AddWriter, RemoveReader, RemoveWriter, CallExceptionHandler,
    NameChannel, NameValue, NameCase, NameHome, NameBlocking, NameWakeup, Done, Cancelling, Cancel, Uncancel, Default, Fileno,
    GetLoop, AddDoneCallback, Result, Throw, OnDone, Close, TaskFailed, NoticeDeadline, TasksEnded, NoResult, NameFlags,
    // `()`.
    Empty,
    // Found when first needed.
    GetRunningLoop, CurrentTask, CancelledError, Monotonic, Task, Settled, RegisterTask, UnregisterTask, SteppedProcess,
    Flatten, Blame, Unpickle, Rebuild,
    #[cfg(not(Py_3_14))] CurrentTasks,
    #[cfg(Py_3_12)] SwapCurrentTask,
    #[cfg(not(Py_3_12))] EnterTask,
    #[cfg(not(Py_3_12))] LeaveTask,
    // Schedulers that were added: tuples of (identify, perform). And `sys.modules`.
    Awaiting, Blocking, Modules,
}

/// One per interpreter and import.
pub struct State {
    refs: [AtomicPtr<PyObject>; COUNT],
    /// Operations that completed without suspending, counted to hand the loop back in time.
    immediate: AtomicU32,
    slice: AtomicU64,
    /// How many modules there were when we looked for schedulers last.
    pub modules_seen: AtomicIsize,
    /// How many there were when asyncio was looked for in vain.
    asyncio_missed: AtomicIsize,
    epoch: Instant,
    /// Operations that have ended, for the next ones. Objects like any other, which the collector sees, with a reference that is ours.
    #[cfg(not(Py_GIL_DISABLED))]
    spare: UnsafeCell<Vec<*mut PyObject>>,
    /// The same of a `Selected`, or null.
    #[cfg(not(Py_GIL_DISABLED))]
    spare_selected: Cell<*mut PyObject>,
    /// What operations that have ended had behind their words, each a `Box`.
    #[cfg(not(Py_GIL_DISABLED))]
    spare_rare: UnsafeCell<Vec<*mut Rare>>,
    /// Room for the cases of a select, empty.
    #[cfg(not(Py_GIL_DISABLED))]
    spare_select: Cell<Option<Box<Select>>>,
    /// A `Stop` that has ended, or null: kept as operations are.
    #[cfg(not(Py_GIL_DISABLED))]
    spare_stop: Cell<*mut PyObject>,
    /// The C function behind `_get_running_loop`, once that is found to be a plain one, and what it is called with, which that keeps alive.
    #[cfg(not(Py_GIL_DISABLED))]
    running_loop: Cell<Option<(c::PyCFunction, *mut PyObject)>>,
    /// The home that was asked for last, or null. Borrowed, or it would keep a closed loop's tasks alive: a home that ends takes itself out.
    #[cfg(not(Py_GIL_DISABLED))]
    pub last_home: AtomicPtr<PyObject>,
    /// What was in the place of a reference before: whoever borrowed it may still use it.
    replaced: Mutex<Vec<Owned>>,
    /// This interpreter, for others.
    pub place: Arc<Place>,
}

// SAFETY: what is spare is touched only while attached, which where there is a GIL is one thread at a time.
unsafe impl Sync for State {}
// SAFETY: as above.
unsafe impl Send for State {}

/// How much memory is kept: a burst of parked operations is not.
#[cfg(not(Py_GIL_DISABLED))]
const SPARE: usize = 256;

/// `inspect.CO_COROUTINE`.
const CO_COROUTINE: std::ffi::c_long = 0x80;
/// After how many immediate completions the clock is looked at.
const LOOK_EVERY: u32 = 256;
/// How long a loop's tasks may go on without handing it back (L13).
pub const SLICE_NANOSECONDS: u64 = 1_000_000;

impl State {
    pub fn new() -> Self {
        Self {
            refs: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            immediate: AtomicU32::new(0),
            slice: AtomicU64::new(0),
            modules_seen: AtomicIsize::new(0),
            asyncio_missed: AtomicIsize::new(0),
            epoch: Instant::now(),
            #[cfg(not(Py_GIL_DISABLED))]
            spare: UnsafeCell::new(Vec::with_capacity(SPARE)),
            #[cfg(not(Py_GIL_DISABLED))]
            spare_selected: Cell::new(ptr::null_mut()),
            #[cfg(not(Py_GIL_DISABLED))]
            spare_rare: UnsafeCell::new(Vec::with_capacity(SPARE)),
            #[cfg(not(Py_GIL_DISABLED))]
            spare_select: Cell::new(None),
            #[cfg(not(Py_GIL_DISABLED))]
            spare_stop: Cell::new(ptr::null_mut()),
            #[cfg(not(Py_GIL_DISABLED))]
            running_loop: Cell::new(None),
            #[cfg(not(Py_GIL_DISABLED))]
            last_home: AtomicPtr::new(ptr::null_mut()),
            replaced: Mutex::default(),
            place: Arc::new(Place::new()),
        }
    }

    /// An operation that has ended, for the next one: it is seen by the collector, its fields are those of none, and the reference is the
    /// caller's. Null: there is none.
    #[inline]
    pub fn take_op(&self) -> *mut PyObject {
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: attached; each has a reference that is ours. One that somebody has found by the collector's lists is left to him.
        unsafe {
            while let Some(object) = (*self.spare.get()).pop() {
                if c::Py_REFCNT(object) == 1 {
                    ffi::take_up(object);
                    return object;
                }
                c::Py_DECREF(object);
            }
        }
        ptr::null_mut()
    }

    /// Keeps an operation that has ended. `false`: the caller is to free it.
    ///
    /// # Safety
    /// At the end of its `tp_dealloc`, once; its fields are those of none.
    #[inline]
    pub unsafe fn keep_op(&self, object: *mut PyObject) -> bool {
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: attached; nobody has a reference any more.
        unsafe {
            let spare = &mut *self.spare.get();
            if spare.len() < SPARE && !self.is_gone() {
                ffi::keep(object);
                spare.push(object);
                return true;
            }
        }
        let _ = object;
        false
    }

    /// The `Stop` that was kept, as for [`take_op`](Self::take_op). Null: there is none.
    #[inline]
    pub fn take_stop(&self) -> *mut PyObject {
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: as for `take_op`.
        unsafe {
            let object = self.spare_stop.get();
            if !object.is_null() {
                self.spare_stop.set(ptr::null_mut());
                if c::Py_REFCNT(object) == 1 {
                    ffi::take_up(object);
                    return object;
                }
                c::Py_DECREF(object);
            }
        }
        ptr::null_mut()
    }

    /// Keeps a `Stop` that has ended. `false`: the caller is to free it.
    ///
    /// # Safety
    /// As for [`keep_op`](Self::keep_op).
    #[inline]
    pub unsafe fn keep_stop(&self, object: *mut PyObject) -> bool {
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: as above.
        unsafe {
            if self.spare_stop.get().is_null() && !self.is_gone() {
                ffi::keep(object);
                self.spare_stop.set(object);
                return true;
            }
        }
        let _ = object;
        false
    }

    /// Memory for a `Selected`, or null: without a type, and not seen by the collector.
    #[inline]
    pub fn take_selected(&self) -> *mut PyObject {
        #[cfg(not(Py_GIL_DISABLED))]
        return self.spare_selected.replace(ptr::null_mut());
        #[cfg(Py_GIL_DISABLED)]
        ptr::null_mut()
    }

    /// Keeps the memory of a `Selected` that has ended. `false`: it is the caller's to free.
    #[inline]
    pub fn keep_selected(&self, object: *mut PyObject) -> bool {
        #[cfg(not(Py_GIL_DISABLED))]
        if self.spare_selected.get().is_null() && !self.is_gone() {
            self.spare_selected.set(object);
            return true;
        }
        let _ = object;
        false
    }

    /// Room for the cases of a select, empty.
    #[inline]
    pub fn take_select(&self) -> Box<Select> {
        #[cfg(not(Py_GIL_DISABLED))]
        if let Some(select) = self.spare_select.take() {
            return select;
        }
        Box::default()
    }

    /// Keeps that of a select that has ended; it is empty again.
    #[inline]
    pub fn keep_select(&self, select: Box<Select>) {
        #[cfg(not(Py_GIL_DISABLED))]
        if !self.is_gone() {
            self.spare_select.set(Some(select));
            return;
        }
        drop(select);
    }

    /// Room for what is rare of an operation.
    #[inline]
    pub fn take_rare(&self) -> Box<Rare> {
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: attached; a box that was kept.
        unsafe {
            if let Some(rare) = (*self.spare_rare.get()).pop() {
                return Box::from_raw(rare);
            }
        }
        Box::new(Rare::new())
    }

    /// Keeps that of an operation that has ended; it is as new.
    #[inline]
    pub fn keep_rare(&self, rare: Box<Rare>) {
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: attached.
        unsafe {
            let spare = &mut *self.spare_rare.get();
            if spare.len() < SPARE && !self.is_gone() {
                spare.push(Box::into_raw(rare));
                return;
            }
        }
        drop(rare);
    }

    /// The state of the module that made the type of `object`, one of ours.
    ///
    /// # Safety
    /// `object` is a live instance of one of our types.
    #[inline]
    pub unsafe fn of<'a>(object: *mut PyObject) -> &'a Self {
        // SAFETY: our types belong to the module, whose state is a `State`, and an object keeps its type and that the module.
        unsafe { Self::of_type(c::Py_TYPE(object)) }
    }

    /// # Safety
    /// One of our types.
    #[inline]
    pub unsafe fn of_type<'a>(kind: *mut c::PyTypeObject) -> &'a Self {
        // SAFETY: as in `of`; the state lives as long as the module, which the type holds.
        unsafe {
            let state = c::PyType_GetModuleState(kind).cast::<*const Self>();
            if state.is_null() || (*state).is_null() {
                return Self::gone();
            }
            &**state
        }
    }

    /// For objects that outlive their module, in the last garbage collection of an interpreter: a state without anything in it.
    #[cold]
    fn gone() -> &'static Self {
        static GONE: OnceLock<State> = OnceLock::new();
        // SAFETY: plain call; the type said that it has no module.
        unsafe { c::PyErr_Clear() };
        GONE.get_or_init(Self::new)
    }

    /// Whether the module is gone: nothing must be asked of it.
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.get(Ref::Op).is_null()
    }

    /// A reference that is there from the start (or, for those found when first needed, maybe null). Borrowed.
    #[inline]
    pub fn get(&self, name: Ref) -> *mut PyObject {
        self.refs[name as usize].load(Ordering::Acquire)
    }

    /// As a type.
    #[inline]
    pub fn class(&self, name: Ref) -> *mut c::PyTypeObject {
        self.get(name).cast()
    }

    /// Whether `object` is exactly of one of our types.
    #[inline]
    pub fn is(&self, object: *mut PyObject, name: Ref) -> bool {
        // SAFETY: `object` is alive.
        unsafe { c::Py_TYPE(object) == self.class(name) }
    }

    /// Sets a reference that nobody has asked for yet.
    pub fn set(&self, name: Ref, value: Owned) {
        let old = self.refs[name as usize].swap(value.into_ptr(), Ordering::AcqRel);
        // SAFETY: the reference was ours.
        drop(unsafe { Owned::from_nullable(old) });
    }

    /// Sets one that may be in use. `false`: it is not `known` any more.
    pub fn replace(&self, name: Ref, known: *mut PyObject, value: Owned) -> bool {
        // AcqRel: who gets it sees what is in it; and we what is in the other one.
        let replaced = self.refs[name as usize]
            .compare_exchange(known, value.as_ptr(), Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if replaced {
            std::mem::forget(value);
            // SAFETY: null, or a reference that was ours. Another thread may have read it, and hold it only a moment later: it stays.
            let known = unsafe { Owned::from_nullable(known) };
            self.replaced.lock().unwrap_or_else(|e| e.into_inner()).extend(known);
        }
        replaced
    }

    /// A reference found when first needed.
    fn found(&self, name: Ref, find: impl FnOnce() -> Py<Owned>) -> Py<*mut PyObject> {
        let known = self.get(name);
        if !known.is_null() {
            return Ok(known);
        }
        let found = find()?;
        // Another thread may have found one meanwhile: its borrowers rely on it.
        match self.refs[name as usize].compare_exchange(
            ptr::null_mut(),
            found.as_ptr(),
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => Ok(found.into_ptr()),
            Err(known) => Ok(known),
        }
    }

    /// The asyncio loop that runs in this thread, or `None`. Does not import asyncio: where it was not imported, no loop runs.
    #[inline]
    pub fn running_loop(&self) -> Py<Option<Owned>> {
        #[cfg(not(Py_GIL_DISABLED))]
        if let Some((function, module)) = self.running_loop.get() {
            // SAFETY: what the interpreter would call for it (`METH_NOARGS`).
            return unsafe { Owned::from_new(function(module, ptr::null_mut())) }.map(Self::unless_none);
        }
        self.ask_running_loop()
    }

    #[inline]
    fn unless_none(object: Owned) -> Option<Owned> {
        // SAFETY: None lives for ever.
        (object.as_ptr() != unsafe { c::Py_None() }).then_some(object)
    }

    #[inline(never)]
    fn ask_running_loop(&self) -> Py<Option<Owned>> {
        let get = match self.get(Ref::GetRunningLoop) {
            known if !known.is_null() => known,
            _ => match self.find_asyncio()? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        // SAFETY: a function without arguments.
        unsafe { ffi::call(get, &[]) }.map(Self::unless_none)
    }

    /// `_get_running_loop`, once asyncio is imported. Looked for anew when the number of modules has changed.
    #[cold]
    fn find_asyncio(&self) -> Py<Option<*mut PyObject>> {
        let modules = self.get(Ref::Modules);
        if modules.is_null() {
            return Ok(None);
        }
        // SAFETY: a dictionary and a C string; the function is borrowed from `found`.
        unsafe {
            let count = c::PyDict_Size(modules);
            if count == self.asyncio_missed.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let name = ffi::string("asyncio.events")?;
            let Some(module) = Owned::from_nullable(c::PyImport_GetModule(name.as_ptr())) else {
                self.asyncio_missed.store(count, Ordering::Relaxed);
                return if c::PyErr_Occurred().is_null() { Ok(None) } else { Err(ffi::Raised) };
            };
            let function = c::PyObject_GetAttrString(module.as_ptr(), c"_get_running_loop".as_ptr());
            let Some(function) = Owned::from_nullable(function) else {
                // asyncio is just being imported.
                c::PyErr_Clear();
                return Ok(None);
            };
            let function = self.found(Ref::GetRunningLoop, || Ok(function))?;
            #[cfg(not(Py_GIL_DISABLED))]
            if c::PyCFunction_CheckExact(function) != 0 && c::PyCFunction_GetFlags(function) == c::METH_NOARGS {
                let direct = c::PyCFunction_GetFunction(function);
                self.running_loop.set(direct.map(|direct| (direct, c::PyCFunction_GetSelf(function))));
            }
            Ok(Some(function))
        }
    }

    /// `asyncio.current_task()`: the task that runs, or `None`.
    pub fn current_task(&self) -> Py<Owned> {
        let function = self.found(Ref::CurrentTask, || ffi::import(c"asyncio", Some(c"current_task")))?;
        // SAFETY: a function without arguments.
        unsafe { ffi::call(function, &[]) }
    }

    /// What a task is woken with when its operation was met: for asyncio's own task, which has called for `callback`, a future that it reads
    /// without a call; for any other `op` itself.
    #[inline]
    pub fn settled_for(&self, callback: *mut PyObject, op: *mut PyObject) -> Py<*mut PyObject> {
        // SAFETY: live objects; a builtin function's `self` is borrowed.
        unsafe {
            if c::PyCFunction_CheckExact(callback) == 0 {
                return Ok(op);
            }
            let task = c::PyCFunction_GetSelf(callback);
            let kind = self.found(Ref::Task, || ffi::import(c"asyncio", Some(c"Task")))?;
            if task.is_null() || c::PyObject_TypeCheck(task, kind.cast()) == 0 {
                return Ok(op);
            }
        }
        self.found(Ref::Settled, || {
            // Imported since asyncio was adopted, so a fork in another thread finds it whole.
            let make = ffi::import(c"weft._asyncio", Some(c"settled"))?;
            // SAFETY: a function without arguments.
            unsafe { ffi::call(make.as_ptr(), &[]) }
        })
    }

    /// Whether the loop of this thread, which runs, is stepping a task.
    pub fn runs_a_task(&self) -> Py<bool> {
        let task = self.current_task()?;
        // SAFETY: None lives for ever.
        Ok(task.as_ptr() != unsafe { c::Py_None() })
    }

    /// `asyncio.CancelledError`.
    pub fn cancelled_error(&self) -> Py<*mut PyObject> {
        self.found(Ref::CancelledError, || ffi::import(c"asyncio", Some(c"CancelledError")))
    }

    /// One of asyncio's hooks for tasks of other types. Borrowed.
    #[inline]
    pub fn asyncio_function(&self, name: Ref, text: &CStr) -> Py<*mut PyObject> {
        self.found(name, || ffi::import(c"asyncio.tasks", Some(text)))
    }

    /// The dictionary that asyncio keeps the current task of each loop in, until 3.13; `None` where it is not what we know. To write there takes a
    /// fifth of what a call of asyncio's own function takes, and it is done for every step of a task. Borrowed.
    #[cfg(not(Py_3_14))]
    #[inline]
    pub fn current_tasks(&self) -> Py<Option<*mut PyObject>> {
        let found = self.found(Ref::CurrentTasks, || {
            let attribute = |module: &CStr, name: &CStr| ffi::import(module, Some(name));
            let same = |name: &CStr| -> Py<Option<Owned>> {
                let (public, theirs) = (attribute(c"asyncio.tasks", name)?, attribute(c"_asyncio", name)?);
                Ok((public.as_ptr() == theirs.as_ptr()).then_some(public))
            };
            let known = (|| Ok((same(c"_current_tasks")?, same(c"current_task")?, same(c"_enter_task")?)))();
            let tasks: Option<Owned> = match known {
                Ok((Some(tasks), Some(_), Some(_))) => Some(tasks),
                Ok(_) => None,
                Err(ffi::Raised) => {
                    // SAFETY: plain call.
                    unsafe { c::PyErr_Clear() };
                    None
                }
            };
            // SAFETY: a live object.
            Ok(tasks.filter(|tasks| unsafe { c::PyDict_CheckExact(tasks.as_ptr()) } != 0).unwrap_or_else(ffi::none))
        })?;
        // SAFETY: None lives for ever.
        Ok((found != unsafe { c::Py_None() }).then_some(found))
    }

    /// The class of such handles. Borrowed.
    pub fn process_class(&self) -> Py<*mut PyObject> {
        self.found(Ref::SteppedProcess, || ffi::import(c"weft._stepped", Some(c"SteppedProcess")))
    }

    /// Whether a function with this code makes a coroutine.
    pub fn makes_coroutines(&self, code: &Owned) -> Py<bool> {
        // SAFETY: live objects.
        let flags = unsafe { Owned::from_new(c::PyObject_GetAttr(code.as_ptr(), self.get(Ref::NameFlags)))? };
        Ok(ffi::long(flags.as_ptr())? & CO_COROUTINE != 0)
    }

    /// What Python does for values on their way. Borrowed.
    pub fn crossing(&self, name: Ref, text: &CStr) -> Py<*mut PyObject> {
        self.found(name, || ffi::import(c"weft._crossing", Some(text)))
    }

    /// `time.monotonic()`.
    pub fn monotonic(&self) -> Py<f64> {
        let function = self.found(Ref::Monotonic, || ffi::import(c"time", Some(c"monotonic")))?;
        // SAFETY: a function without arguments that returns a float.
        let now = unsafe { ffi::call(function, &[])? };
        ffi::seconds(now.as_ptr(), "time.monotonic()")
    }

    /// Counts an operation that completed without suspending. `true`: its task has run for long enough, let it hand the loop back.
    ///
    /// It is a measure, not a lock: threads that race here at worst yield once too often.
    #[inline]
    pub fn should_yield(&self) -> bool {
        let count = self.immediate.load(Ordering::Relaxed).wrapping_add(1);
        self.immediate.store(count, Ordering::Relaxed);
        count.is_multiple_of(LOOK_EVERY) && self.slice_is_over()
    }

    #[cold]
    fn slice_is_over(&self) -> bool {
        let now = self.epoch.elapsed().as_nanos() as u64;
        let over = now.saturating_sub(self.slice.load(Ordering::Relaxed)) > SLICE_NANOSECONDS;
        if over {
            self.slice.store(now, Ordering::Relaxed);
        }
        over
    }

    /// `tp_traverse` of the module.
    ///
    /// # Safety
    /// From the collector.
    pub unsafe fn traverse(&self, visit: c::visitproc, argument: *mut c_void) -> c_int {
        for reference in &self.refs {
            // SAFETY: our references are alive.
            let stop = unsafe { ffi::visit(reference.load(Ordering::Relaxed), visit, argument) };
            if stop != 0 {
                return stop;
            }
        }
        // Never found locked: nothing is called under this lock.
        if let Ok(replaced) = self.replaced.try_lock() {
            for reference in &*replaced {
                // SAFETY: as above.
                let stop = unsafe { ffi::visit(reference.as_ptr(), visit, argument) };
                if stop != 0 {
                    return stop;
                }
            }
        }
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: attached, and what is spare is alive.
        unsafe {
            for object in (*self.spare.get()).iter().chain([&self.spare_stop.get()]) {
                let stop = ffi::visit(*object, visit, argument);
                if stop != 0 {
                    return stop;
                }
            }
        }
        0
    }

    /// Interned names and what the Python files define.
    pub fn fill(&self) -> Py<()> {
        let names: [(Ref, &CStr); 33] = [
            (Ref::CallSoon, c"call_soon"),
            (Ref::CallSoonThreadsafe, c"call_soon_threadsafe"),
            (Ref::CallAt, c"call_at"),
            (Ref::Time, c"time"),
            (Ref::IsClosed, c"is_closed"),
            (Ref::AddReader, c"add_reader"),
            (Ref::AddWriter, c"add_writer"),
            (Ref::RemoveReader, c"remove_reader"),
            (Ref::RemoveWriter, c"remove_writer"),
            (Ref::CallExceptionHandler, c"call_exception_handler"),
            (Ref::NameChannel, c"channel"),
            (Ref::NameValue, c"value"),
            (Ref::NameCase, c"case"),
            (Ref::NameHome, c"_weft_home"),
            (Ref::NameBlocking, c"_asyncio_future_blocking"),
            (Ref::NameWakeup, c"_wakeup"),
            (Ref::GetLoop, c"get_loop"),
            (Ref::AddDoneCallback, c"add_done_callback"),
            (Ref::Result, c"result"),
            (Ref::Throw, c"throw"),
            (Ref::OnDone, c"_on_done"),
            (Ref::Close, c"close"),
            (Ref::TaskFailed, c"_task_failed"),
            (Ref::NoticeDeadline, c"_notice_deadline"),
            (Ref::TasksEnded, c"_tasks_ended"),
            (Ref::NoResult, c"_no_result"),
            (Ref::NameFlags, c"co_flags"),
            (Ref::Done, c"done"),
            (Ref::Cancelling, c"cancelling"),
            (Ref::Cancel, c"cancel"),
            (Ref::Uncancel, c"uncancel"),
            (Ref::Default, c"default"),
            (Ref::Fileno, c"fileno"),
        ];
        for (name, text) in names {
            // SAFETY: a C string.
            self.set(name, unsafe { Owned::from_new(c::PyUnicode_InternFromString(text.as_ptr()))? });
        }
        self.set(Ref::Empty, ffi::tuple(Vec::new())?);
        // SAFETY: a dictionary that the interpreter keeps.
        self.set(Ref::Modules, unsafe { Owned::from_borrowed(c::PyImport_GetModuleDict()) });
        let errors = [
            (Ref::Closed, c"Closed"),
            (Ref::Poisoned, c"Poisoned"),
            (Ref::NoReceivers, c"NoReceivers"),
            (Ref::WouldBlock, c"WouldBlock"),
            (Ref::BlockingInLoopError, c"BlockingInLoopError"),
            (Ref::ForkedChannelError, c"ForkedChannelError"),
            (Ref::Cancelled, c"Cancelled"),
        ];
        for (name, text) in errors {
            self.set(name, ffi::import(c"weft._errors", Some(text))?);
        }
        self.set(Ref::Adopt, ffi::import(c"weft._schedulers", Some(c"adopt"))?);
        Ok(())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // SAFETY: attached; the memory is ours, and so are the references.
        unsafe {
            #[cfg(not(Py_GIL_DISABLED))]
            for object in std::mem::take(&mut *self.spare.get()) {
                c::Py_DECREF(object);
            }
            #[cfg(not(Py_GIL_DISABLED))]
            c::Py_XDECREF(self.spare_stop.replace(ptr::null_mut()));
            #[cfg(not(Py_GIL_DISABLED))]
            for rare in std::mem::take(&mut *self.spare_rare.get()) {
                drop(Box::from_raw(rare));
            }
            #[cfg(not(Py_GIL_DISABLED))]
            if !self.spare_selected.get().is_null() {
                c::PyObject_GC_Del(self.spare_selected.get().cast());
            }
            for reference in &self.refs {
                drop(Owned::from_nullable(reference.swap(ptr::null_mut(), Ordering::AcqRel)));
            }
        }
    }
}
