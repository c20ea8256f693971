//! The task of a process in an asyncio loop: a coroutine stepped from the loop's queue (`home`), which to the program is an asyncio task.
//!
//! What of it every step needs is here; the rest of an asyncio task's methods is Python, in its base class (`weft._task_methods`). It is used from its
//! loop's thread only, as every asyncio task. Without a GIL nothing enforces that, and processes are plain tasks there.
//!
//! True between two steps of a task that is not done, one of:
//!   1. It is queued in its home, once: to begin, after a bare `yield`, or with the operation that was decided.
//!   2. `content` is an operation that is parked, whose `callback` is this task.
//!   3. `content` is another future, which calls `_wakeup` when it is done.
//!   4. It has not begun and is hidden from the collector (`hide`), with its coroutine and its handle; `content` is that handle, not held.
//!
//! asyncio knows the task by its documented hooks for tasks of other types: it is the current task while it is stepped, and one that no group lists
//! is registered while it is not done (those of groups: `weft._asyncio`). Source: CPython, Lib/asyncio/tasks.py, for what a step does.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use crate::context::Entered;
use crate::ffi::{self, First, Owned, Py, PyObject, Raised, c};
use crate::group::GroupObject;
use crate::home::HomeObject;
use crate::op::OpObject;
use crate::origin::Origin;
use crate::sites::Site;
use crate::state::{Ref, State};

/// `Py_READONLY`, which has other names in other versions.
const READ_ONLY: c_int = 1;

const PENDING: u8 = 0;
const CANCELLED: u8 = 1;
const FINISHED: u8 = 2;
const FAILED: u8 = 3;

// In `flags`, above the phase.
const PHASE: u8 = 3;
const MUST_CANCEL: u8 = 1 << 2;
/// asyncio's mark of a future that a task just yielded.
const BLOCKING: u8 = 1 << 3;
/// `more` is a `Rare`.
const RARE: u8 = 1 << 4;
/// Its group, or whoever has the process, has cancelled it.
const ASKED: u8 = 1 << 5;
/// `place` is its group.
const GROUPED: u8 = 1 << 6;
/// `context` is shared with others (`context`): it is not entered.
const SHARES: u8 = 1 << 7;

/// `weft._weft.Task`, in as few words as there can be: a million of them may be parked. Every pointer is a strong reference or null, unless it says
/// otherwise.
#[repr(C)]
pub struct TaskObject {
    head: PyObject,
    coroutine: Cell<*mut PyObject>,
    /// Its context; or a `Rare`, owned by the task, which has that then.
    more: Cell<*mut PyObject>,
    /// While it is not done what the coroutine waits for (of one that is hidden: see `hide`), then what it returned or raised.
    content: Cell<*mut PyObject>,
    /// The group that counts the task among its own while it is not done (not held: a group that ends forgets its tasks), else the home.
    place: Cell<*mut PyObject>,
    /// Its neighbours in the group (not held).
    pub before: Cell<*mut TaskObject>,
    pub after: Cell<*mut TaskObject>,
    /// The interpreter's.
    weak_references: *mut PyObject,
    /// Where it was spawned: a number of the home's.
    site: Site,
    /// How many cancels were asked for, and not taken back. It ends at 255.
    requests: Cell<u8>,
    flags: Cell<u8>,
    /// Of those that its group has spawned.
    pub number: Cell<u32>,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<TaskObject>() <= size_of::<PyObject>() + 64);

/// What most tasks never have. Strong references or null.
#[derive(Default)]
struct Rare {
    /// What was in the place of this.
    context: Slot,
    /// A `str`. Without it: made of the function's name and the number.
    name: Slot,
    /// The message of the cancel that is still to be delivered.
    message: Slot,
    /// A list of pairs: what to call when it is done, and the context for that.
    callbacks: Slot,
    /// The process: it is told at once when the task is done.
    owner: Slot,
    /// A channel that is closed when it is done, for those who join.
    over: Slot,
    /// Of the error it raised, as it was then.
    traceback: Slot,
    /// A dictionary: the attributes that the program gave it.
    attributes: Slot,
    /// Nothing is said when it is dropped before it is done.
    silent: Cell<bool>,
}

/// A strong reference, or null.
struct Slot(Cell<*mut PyObject>);

impl Default for Slot {
    fn default() -> Self {
        Self(Cell::new(ptr::null_mut()))
    }
}

impl Rare {
    fn slots(&self) -> [&Slot; 8] {
        let Self { context, name, message, callbacks, owner, over, traceback, attributes, silent: _ } = self;
        [context, name, message, callbacks, owner, over, traceback, attributes]
    }
}

/// What a step of a coroutine came to.
enum Sent {
    Returned(Owned),
    Yielded(Owned),
}

/// What a step of a task came to.
enum Stepped {
    Returned(Owned),
    Waits,
    /// What it yielded is nothing to wait for: it is to be told so.
    Refused(Owned),
}

/// Which task asyncio takes for the current one, while a home steps several. Ends with what it was before.
pub struct Current<'a> {
    state: &'a State,
    home: &'a HomeObject,
    event_loop: &'a Owned,
    task: Option<Owned>,
    before: Option<Owned>,
    /// Of the loop, as the key of a dictionary.
    #[cfg(not(Py_3_14))]
    hash: isize,
    /// The home's scratch context, while the thread is in it: while tasks that share their context are stepped, and between two such steps.
    entered: Option<Entered>,
}

impl<'a> Current<'a> {
    pub fn new(state: &'a State, home: &'a HomeObject, event_loop: &'a Owned) -> Self {
        Self {
            state,
            home,
            event_loop,
            task: None,
            before: None,
            #[cfg(not(Py_3_14))]
            hash: 0,
            entered: None,
        }
    }

    /// Makes this the current task.
    #[inline]
    fn set(&mut self, task: &Owned) -> Py<()> {
        match &self.task {
            Some(same) if same.as_ptr() == task.as_ptr() => Ok(()),
            _ => self.change(Some(task)),
        }
    }

    /// Leaves the contexts of tasks: what is run now is not a step of one.
    #[inline]
    pub fn leave_context(&mut self) -> Py<()> {
        self.home.scratch.leave(&mut self.entered)
    }

    /// The same, and there is no current task.
    pub fn clear(&mut self) -> Py<()> {
        self.leave_context()?;
        if self.task.is_some() { self.change(None) } else { Ok(()) }
    }

    fn change(&mut self, task: Option<&Owned>) -> Py<()> {
        #[cfg(not(Py_3_14))]
        if let Some(tasks) = self.state.current_tasks()? {
            // SAFETY: live objects.
            unsafe { self.write(tasks, task)? };
            self.task = task.cloned();
            return Ok(());
        }
        self.tell(task)
    }

    /// Writes it where asyncio's `current_task` reads.
    ///
    /// # Safety
    /// A dictionary.
    #[cfg(not(Py_3_14))]
    #[inline]
    unsafe fn write(&mut self, tasks: *mut PyObject, task: Option<&Owned>) -> Py<()> {
        let event_loop = self.event_loop.as_ptr();
        // SAFETY: live objects; what is in a dictionary is borrowed.
        unsafe {
            if self.task.is_none() {
                let before = c::PyDict_GetItemWithError(tasks, event_loop);
                if before.is_null() && !c::PyErr_Occurred().is_null() {
                    return Err(Raised);
                }
                self.before = (!before.is_null()).then(|| Owned::from_borrowed(before));
                self.hash = c::PyObject_Hash(event_loop);
                if self.hash == -1 {
                    return Err(Raised);
                }
            }
            ffi::check(match task.or(self.before.as_ref()) {
                Some(next) => ffi::set_item_known_hash(tasks, event_loop, next.as_ptr(), self.hash),
                None => c::PyDict_DelItem(tasks, event_loop),
            })?;
        }
        Ok(())
    }

    #[cfg(Py_3_12)]
    fn tell(&mut self, task: Option<&Owned>) -> Py<()> {
        let swap = self.state.asyncio_function(Ref::SwapCurrentTask, c"_swap_current_task")?;
        let next = match (task, &self.before) {
            (Some(next), _) | (None, Some(next)) => next.as_ptr(),
            // SAFETY: None lives for ever.
            (None, None) => unsafe { c::Py_None() },
        };
        // SAFETY: live objects.
        let before = unsafe { ffi::call(swap, &[self.event_loop.as_ptr(), next])? };
        if self.task.is_none() {
            // SAFETY: as above.
            let none = before.as_ptr() == unsafe { c::Py_None() };
            self.before = (!none).then_some(before);
        }
        self.task = task.cloned();
        Ok(())
    }

    #[cfg(not(Py_3_12))]
    fn tell(&mut self, task: Option<&Owned>) -> Py<()> {
        // SAFETY: live objects.
        unsafe {
            if let Some(old) = self.task.take() {
                let leave = self.state.asyncio_function(Ref::LeaveTask, c"_leave_task")?;
                ffi::call(leave, &[self.event_loop.as_ptr(), old.as_ptr()])?;
            }
            if let Some(new) = task {
                let enter = self.state.asyncio_function(Ref::EnterTask, c"_enter_task")?;
                ffi::call(enter, &[self.event_loop.as_ptr(), new.as_ptr()])?;
                self.task = Some(new.clone());
            }
        }
        Ok(())
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        if self.task.is_some() || self.entered.is_some() {
            let _aside = ffi::Aside::new();
            if self.clear().is_err() {
                ffi::unraisable(self.event_loop.as_ptr());
            }
        }
    }
}

/// A new reference, or None.
fn shown(object: *mut PyObject) -> Owned {
    // SAFETY: null or alive.
    if object.is_null() { ffi::none() } else { unsafe { Owned::from_borrowed(object) } }
}

impl TaskObject {
    /// # Safety
    /// A live task.
    #[inline]
    pub unsafe fn of<'a>(object: *mut PyObject) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*object.cast() }
    }

    pub fn as_ptr(&self) -> *mut PyObject {
        ptr::from_ref(self).cast_mut().cast()
    }

    #[inline]
    fn phase(&self) -> u8 {
        self.flags.get() & PHASE
    }

    #[inline]
    pub fn is_done(&self) -> bool {
        self.phase() != PENDING
    }

    pub fn is_cancelled(&self) -> bool {
        self.phase() == CANCELLED
    }

    /// What it returned; `None`: it has not, or ended otherwise.
    #[inline]
    pub fn returned(&self) -> Option<Owned> {
        (self.phase() == FINISHED).then(|| shown(self.content.get()))
    }

    #[inline]
    fn is(&self, flag: u8) -> bool {
        self.flags.get() & flag != 0
    }

    #[inline]
    fn set(&self, flag: u8, value: bool) {
        let others = self.flags.get() & !flag;
        self.flags.set(if value { others | flag } else { others });
    }

    /// Whether it was set. It is not any more.
    #[inline]
    fn take(&self, flag: u8) -> bool {
        let before = self.is(flag);
        self.set(flag, false);
        before
    }

    #[inline]
    fn rare(&self) -> Option<&Rare> {
        // SAFETY: what the flag says; ours until `dealloc`.
        self.is(RARE).then(|| unsafe { &*self.more.get().cast::<Rare>() })
    }

    fn make_rare(&self) -> &Rare {
        if !self.is(RARE) {
            let rare = Rare { context: Slot(Cell::new(self.more.get())), ..Rare::default() };
            self.more.set(Box::into_raw(Box::new(rare)).cast());
            self.set(RARE, true);
        }
        // SAFETY: as in `rare`.
        unsafe { &*self.more.get().cast::<Rare>() }
    }

    #[inline]
    fn context(&self) -> &Cell<*mut PyObject> {
        self.rare().map_or(&self.more, |rare| &rare.context.0)
    }

    /// Of what most tasks never have: borrowed, or null.
    fn get(&self, slot: fn(&Rare) -> &Slot) -> *mut PyObject {
        self.rare().map_or(ptr::null_mut(), |rare| slot(rare).0.get())
    }

    fn put(&self, slot: fn(&Rare) -> &Slot, value: Option<Owned>) {
        if value.is_some() || self.is(RARE) {
            ffi::put(&slot(self.make_rare()).0, value);
        }
    }

    /// Whether it is to be reported when it is dropped before it is done.
    fn is_reported(&self) -> bool {
        self.rare().is_none_or(|rare| !rare.silent.get())
    }

    fn set_reported(&self, reported: bool) {
        if !reported || self.is(RARE) {
            self.make_rare().silent.set(!reported);
        }
    }

    fn taken(&self, slot: fn(&Rare) -> &Slot) -> Option<Owned> {
        self.rare().and_then(|rare| ffi::taken(&slot(rare).0))
    }

    /// The message of the cancel that is still to be delivered, if there is one.
    fn message(&self) -> Option<Owned> {
        let message = self.get(|rare| &rare.message);
        // SAFETY: null or alive.
        (!message.is_null()).then(|| unsafe { Owned::from_borrowed(message) })
    }

    /// What the coroutine waits for, or null.
    fn waits_for(&self) -> *mut PyObject {
        if self.is_done() || self.is_hidden() { ptr::null_mut() } else { self.content.get() }
    }

    /// What it returned or raised, or null.
    fn outcome(&self) -> *mut PyObject {
        if self.is_done() { self.content.get() } else { ptr::null_mut() }
    }

    #[inline]
    fn group(&self) -> Option<&GroupObject> {
        // SAFETY: a group takes itself out of its tasks before it goes.
        self.is(GROUPED).then(|| unsafe { GroupObject::of(self.place.get()) })
    }

    #[inline]
    pub fn home(&self) -> &HomeObject {
        // SAFETY: held, here or by the group.
        unsafe {
            HomeObject::of(if self.is(GROUPED) { GroupObject::of(self.place.get()).home() } else { self.place.get() })
        }
    }

    /// From now on it belongs to a group, which has the same home.
    pub fn enter_group(&self, group: &GroupObject) {
        let home = self.place.replace(ptr::from_ref(group).cast_mut().cast());
        self.set(GROUPED, true);
        // SAFETY: the reference was the task's.
        drop(unsafe { Owned::from_nullable(home) });
    }

    /// It does not any more.
    pub fn leave_group(&self, home: Owned) {
        self.place.set(home.into_ptr());
        self.set(GROUPED, false);
    }

    fn origin(&self) -> Origin {
        self.home().sites.origin(self.site)
    }

    fn event_loop(&self) -> Py<Owned> {
        self.home().event_loop().ok_or_else(|| ffi::runtime_error("the event loop is gone"))
    }

    /// A new one, which still has to be queued. Takes over the origin's reference. `shared`: the context is others' too.
    ///
    /// # Safety
    /// `home` is one, `context` a context.
    #[inline]
    pub unsafe fn make(
        state: &State,
        home: &Owned,
        coroutine: Owned,
        (context, shared): (Owned, bool),
        origin: Origin,
    ) -> Py<Owned> {
        // SAFETY: our type; what is not written is null or zero: pending, and asked for nothing.
        unsafe {
            let site = HomeObject::of(home.as_ptr()).sites.enter(origin);
            let object = ffi::allocate(state.class(Ref::WeftTask))
                .inspect_err(|_| HomeObject::of(home.as_ptr()).sites.leave(site))?;
            let this: *mut Self = object.as_ptr().cast();
            (*this).coroutine.set(coroutine.into_ptr());
            (*this).place.set(home.clone().into_ptr());
            (*this).more.set(context.into_ptr());
            (*this).flags.set(if shared { SHARES } else { 0 });
            (&raw mut (*this).site).write(site);
            Ok(object)
        }
    }

    /// The collector is to look neither at a task that has just been queued to begin, nor at its coroutine and its handle, until `show`. It is no
    /// garbage as long as its home has it in the queue, and with a million of them, looking again and again is what most of the time would go into.
    /// A loop that is closed lets go of its queue, which shows them.
    ///
    /// # Safety
    /// Its group's, not begun, and nobody but the group and the handle has had it.
    #[cold]
    pub unsafe fn hide(&self, handle: &Owned) {
        // SAFETY: the caller's promise: live objects, and tracked. The handle takes itself out when it goes.
        unsafe {
            c::PyObject_GC_UnTrack(self.coroutine.get().cast());
            c::PyObject_GC_UnTrack(handle.as_ptr().cast());
            c::PyObject_GC_UnTrack(self.as_ptr().cast());
        }
        self.content.set(handle.as_ptr());
    }

    /// Before it begins, or is forgotten by its group: the deallocator of a coroutine relies on its being tracked.
    #[inline]
    pub fn show(&self) {
        if self.is_hidden() {
            let handle = self.content.replace(ptr::null_mut());
            // SAFETY: what `hide` has untracked: held by this task, which the caller has, and a handle whose memory is there as long as it has not
            // called `forget_handle`. Without a reference it is in the hands of its deallocator (in the callback of a weak reference, or in a
            // list of what is still to be deallocated), which must not find it tracked.
            unsafe {
                c::PyObject_GC_Track(self.as_ptr().cast());
                c::PyObject_GC_Track(self.coroutine.get().cast());
                if !handle.is_null() && c::Py_REFCNT(handle) > 0 {
                    c::PyObject_GC_Track(handle.cast());
                }
            }
        }
    }

    #[inline]
    fn is_hidden(&self) -> bool {
        // SAFETY: a live object of ours.
        unsafe { c::PyObject_GC_IsTracked(self.as_ptr()) == 0 }
    }

    /// The handle goes.
    pub fn forget_handle(&self) {
        if self.is_hidden() {
            self.content.set(ptr::null_mut());
        }
    }

    /// It could not be queued: nobody will step it.
    pub fn discard(&self) {
        self.set_reported(false);
        // SAFETY: a live object of ours, and its coroutine.
        unsafe {
            let _aside = ffi::Aside::new();
            let state = State::of(self.as_ptr());
            if ffi::call_method(state.get(Ref::Close), &[self.coroutine.get()]).is_err() {
                ffi::unraisable(self.as_ptr());
            }
        }
    }

    /// The process is to end.
    pub fn end_by_cancel(&self) -> Py<()> {
        self.set(ASKED, true);
        self.cancel(None).map(drop)
    }

    /// asyncio's cancel.
    fn cancel(&self, message: Option<Owned>) -> Py<bool> {
        if self.is_done() {
            return Ok(false);
        }
        // SAFETY: a live object of ours.
        let state = unsafe { State::of(self.as_ptr()) };
        self.requests.set(self.requests.get().saturating_add(1));
        let waits_for = self.waits_for();
        // SAFETY: null or alive.
        if let Some(waits_for) = unsafe { (!waits_for.is_null()).then(|| Owned::from_borrowed(waits_for)) } {
            let met = if state.is(waits_for.as_ptr(), Ref::Op) {
                // SAFETY: just tested.
                unsafe { OpObject::of(waits_for.as_ptr()) }.cancel_wait(message.clone())
            } else {
                self.cancel_future(state, message.as_ref())?
            };
            if met {
                return Ok(true);
            }
        }
        self.set(MUST_CANCEL, true);
        self.put(|rare| &rare.message, message);
        Ok(true)
    }

    /// One step of `this`, until it waits, or ends. `error` is thrown into it.
    ///
    /// # Safety
    /// A task, of the home that is `current`'s.
    #[inline]
    pub unsafe fn step(this: &Owned, current: &mut Current<'_>, error: Option<Owned>) -> Py<()> {
        // SAFETY: the caller's promise; held while it is stepped.
        let task = unsafe { Self::of(this.as_ptr()) };
        if task.is_done() || task.coroutine.get().is_null() {
            return Ok(());
        }
        match task.step_once(current, this, error) {
            Ok(Stepped::Waits) => Ok(()),
            stepped => task.after_step(current, this, stepped),
        }
    }

    #[inline(never)]
    fn after_step(&self, current: &mut Current<'_>, this: &Owned, mut stepped: Py<Stepped>) -> Py<()> {
        let mut first = First::default();
        loop {
            match stepped {
                Ok(Stepped::Waits) => return Ok(()),
                Ok(Stepped::Refused(refusal)) => {
                    stepped = self.step_again(current, this, refusal);
                    continue;
                }
                Ok(Stepped::Returned(value)) => {
                    if self.flags.get() & (GROUPED | RARE | MUST_CANCEL) != GROUPED {
                        // Somebody is told, or something made.
                        first.keep(current.leave_context());
                    }
                    if self.take(MUST_CANCEL) {
                        match self.cancellation(current.state, None) {
                            Ok(cancelled) => self.conclude(CANCELLED, cancelled, &mut first),
                            Err(Raised) => self.fail(current, &mut first),
                        }
                    } else {
                        self.conclude(FINISHED, value, &mut first);
                    }
                }
                // The coroutine raised, or asyncio would not have it stepped.
                Err(Raised) => self.fail(current, &mut first),
            }
            self.tell(current, this, &mut first);
            return first.raise();
        }
    }

    #[cold]
    fn step_again(&self, current: &mut Current<'_>, this: &Owned, error: Owned) -> Py<Stepped> {
        self.step_once(current, this, Some(error))
    }

    #[inline(always)]
    fn step_once(&self, current: &mut Current<'_>, this: &Owned, mut error: Option<Owned>) -> Py<Stepped> {
        if self.is(MUST_CANCEL) {
            self.set(MUST_CANCEL, false);
            error = Some(self.cancellation(current.state, error)?);
        }
        ffi::put(&self.content, None);
        current.set(this)?;
        match self.send(current, error)? {
            Sent::Yielded(yielded) => Ok(match self.wait_for(current, this, yielded)? {
                None => Stepped::Waits,
                Some(refusal) => Stepped::Refused(refusal),
            }),
            Sent::Returned(value) => Ok(Stepped::Returned(value)),
        }
    }

    /// It ends with the error that is set.
    #[cold]
    fn fail(&self, current: &mut Current<'_>, first: &mut First) {
        let state = current.state;
        let raised = ffi::take_error();
        first.keep(current.leave_context());
        let Some(raised) = raised.or_else(|| {
            // What steps a coroutine has broken the interpreter's rule that a failure has an exception.
            let _ = ffi::runtime_error("a coroutine failed without an exception");
            ffi::take_error()
        }) else {
            return self.conclude(CANCELLED, ffi::none(), first);
        };
        // SAFETY: an exception and exception types, which live as long as the state.
        let is = |kind: *mut PyObject| unsafe { c::PyErr_GivenExceptionMatches(raised.as_ptr(), kind) != 0 };
        // SAFETY: as above.
        let (ends_the_loop, ends_an_iteration) = unsafe {
            (
                is(c::PyExc_KeyboardInterrupt) || is(c::PyExc_SystemExit),
                is(c::PyExc_StopAsyncIteration) || is(c::PyExc_StopIteration),
            )
        };
        if state.cancelled_error().is_ok_and(is) {
            return self.conclude(CANCELLED, raised, first);
        }
        if self.is(ASKED) && is(state.get(Ref::Cancelled)) {
            // It was waiting for a process that was cancelled along with it.
            let cancelled = self.cancellation(state, None).unwrap_or_else(|Raised| {
                ffi::unraisable(self.as_ptr());
                raised.clone()
            });
            if cancelled.as_ptr() != raised.as_ptr() {
                // SAFETY: exceptions; the call takes over a reference.
                unsafe { c::PyException_SetCause(cancelled.as_ptr(), raised.into_ptr()) };
            }
            return self.conclude(CANCELLED, cancelled, first);
        }
        let error = match ends_an_iteration && self.is(GROUPED) {
            true => self.not_a_stop(&raised).unwrap_or_else(|Raised| {
                ffi::unraisable(self.as_ptr());
                raised.clone()
            }),
            false => raised.clone(),
        };
        // SAFETY: an exception.
        self.put(|rare| &rare.traceback, unsafe { Owned::from_nullable(c::PyException_GetTraceback(error.as_ptr())) });
        self.conclude(FAILED, error, first);
        if ends_the_loop {
            // As asyncio's: it goes on out of the loop.
            first.replace(raised);
        }
    }

    /// What stands for an error that would end the iteration of who joins.
    #[cold]
    fn not_a_stop(&self, error: &Owned) -> Py<Owned> {
        let instead = ffi::import(c"weft._process", Some(c"not_a_stop"))?;
        let name = self.name()?;
        // SAFETY: live objects.
        unsafe { ffi::call(instead.as_ptr(), &[error.as_ptr(), name.as_ptr()]) }
    }

    /// The name, made when first asked for.
    fn name(&self) -> Py<Owned> {
        if self.get(|rare| &rare.name).is_null() {
            let coroutine = shown(self.coroutine.get());
            // SAFETY: a live object. What has no name (the collector has taken the coroutine) is a task.
            let function = unsafe { c::PyObject_GetAttrString(coroutine.as_ptr(), c"__name__".as_ptr()) };
            // SAFETY: null, or a new reference.
            let function = match unsafe { Owned::from_nullable(function) } {
                Some(function) => ffi::text(function.as_ptr()),
                None => {
                    // SAFETY: plain call.
                    unsafe { c::PyErr_Clear() };
                    "task".to_owned()
                }
            };
            let name = ffi::string(&format!("{function}-{}", self.number.get()))?;
            self.put(|rare| &rare.name, Some(name));
        }
        Ok(shown(self.get(|rare| &rare.name)))
    }

    /// Steps it in a callback of the loop's.
    fn step_alone(&self, error: Option<Owned>) -> Py<()> {
        // SAFETY: a live object of ours.
        let state = unsafe { State::of(self.as_ptr()) };
        let event_loop = self.event_loop()?;
        let _turn = self.home().turn();
        let mut current = Current::new(state, self.home(), &event_loop);
        // SAFETY: alive, and a task of that home.
        unsafe { Self::step(&Owned::from_borrowed(self.as_ptr()), &mut current, error) }
    }

    #[inline(always)]
    fn send(&self, current: &mut Current<'_>, error: Option<Owned>) -> Py<Sent> {
        let state = current.state;
        let scratch = &current.home.scratch;
        // SAFETY: live objects, held by the task; a context that is the task's own is entered by nobody else.
        unsafe {
            let shares = self.is(SHARES) && scratch.lend(&mut current.entered, self.as_ptr(), self.context().get())?;
            if !shares {
                scratch.leave(&mut current.entered)?;
                self.own_context()?;
                ffi::enter_context(self.context().get())?;
            }
            let sent = match error {
                None => {
                    let mut result = ptr::null_mut();
                    match c::PyIter_Send(self.coroutine.get(), c::Py_None(), &mut result) {
                        c::PySendResult::PYGEN_RETURN => Owned::from_new(result).map(Sent::Returned),
                        c::PySendResult::PYGEN_NEXT => Owned::from_new(result).map(Sent::Yielded),
                        c::PySendResult::PYGEN_ERROR => Err(Raised),
                    }
                }
                Some(error) => throw(state, self.coroutine.get(), &error),
            };
            let left = if !shares {
                ffi::exit_context(self.context().get())
            } else if !self.is(SHARES) {
                // It took it for its own meanwhile.
                scratch.leave(&mut current.entered)
            } else {
                scratch.give_back(&mut current.entered, self.context().get()).map(|own| {
                    if let Some(own) = own {
                        self.set(SHARES, false);
                        ffi::put(self.context(), Some(own));
                    }
                })
            };
            left.and(sent)
        }
    }

    /// The context it runs in, which is shared no more.
    #[inline]
    fn own_context(&self) -> Py<()> {
        if self.is(SHARES) { self.make_context() } else { Ok(()) }
    }

    #[cold]
    fn make_context(&self) -> Py<()> {
        if !self.context().get().is_null() {
            let own = match self.home().scratch.of_user(self.as_ptr()) {
                Some(current) => current,
                // SAFETY: a live context.
                None => unsafe { Owned::from_new(c::PyContext_Copy(self.context().get()))? },
            };
            self.set(SHARES, false);
            ffi::put(self.context(), Some(own));
        }
        Ok(())
    }

    /// The coroutine waits for what it yielded. An error that is returned is for the coroutine.
    #[inline(always)]
    fn wait_for(&self, current: &mut Current<'_>, this: &Owned, yielded: Owned) -> Py<Option<Owned>> {
        let state = current.state;
        if state.is(yielded.as_ptr(), Ref::Op) {
            // SAFETY: just tested.
            let op = unsafe { OpObject::of(yielded.as_ptr()) };
            if op.wakes_task(self.home(), this) {
                ffi::put(&self.content, Some(yielded));
                if self.is(MUST_CANCEL) && op.cancel_wait(self.message()) {
                    self.set(MUST_CANCEL, false);
                    self.put(|rare| &rare.message, None);
                }
                return Ok(None);
            }
        }
        current.leave_context()?;
        // SAFETY: None lives for ever.
        if yielded.as_ptr() == unsafe { c::Py_None() } {
            self.home().defer(this.clone())?;
            return Ok(None);
        }
        match self.wait_for_future(state, this, yielded) {
            Ok(()) => Ok(None),
            Err(Raised) => ffi::take_error().map(Some).ok_or(Raised),
        }
    }

    fn wait_for_future(&self, state: &State, this: &Owned, yielded: Owned) -> Py<()> {
        // SAFETY: live objects.
        unsafe {
            let blocking = Owned::from_nullable(c::PyObject_GetAttr(yielded.as_ptr(), state.get(Ref::NameBlocking)));
            if blocking.is_none() {
                c::PyErr_Clear();
            }
            let shown = |object: &Owned| ffi::text(object.as_ptr());
            let Some(blocking) = blocking.filter(|blocking| blocking.as_ptr() != c::Py_None()) else {
                return Err(ffi::runtime_error(&match c::PyIter_Check(yielded.as_ptr()) {
                    0 => format!("Task got bad yield: {}", shown(&yielded)),
                    _ => format!(
                        "yield was used instead of yield from for generator in task {} with {}",
                        shown(this),
                        shown(&yielded)
                    ),
                }));
            };
            let event_loop = self.event_loop()?;
            let theirs = ffi::call_method(state.get(Ref::GetLoop), &[yielded.as_ptr()])?;
            if theirs.as_ptr() != event_loop.as_ptr() {
                return Err(ffi::runtime_error(&format!(
                    "Task {} got Future {} attached to a different loop",
                    shown(this),
                    shown(&yielded)
                )));
            }
            if ffi::check(c::PyObject_IsTrue(blocking.as_ptr()))? == 0 {
                return Err(ffi::runtime_error(&format!(
                    "yield was used instead of yield from in task {} with {}",
                    shown(this),
                    shown(&yielded)
                )));
            }
            if yielded.as_ptr() == self.as_ptr() {
                return Err(ffi::runtime_error(&format!("Task cannot await on itself: {}", shown(this))));
            }
            ffi::check(c::PyObject_SetAttr(yielded.as_ptr(), state.get(Ref::NameBlocking), c::Py_False()))?;
            let wakeup = Owned::from_new(c::PyObject_GetAttr(self.as_ptr(), state.get(Ref::NameWakeup)))?;
            ffi::call_method(state.get(Ref::AddDoneCallback), &[yielded.as_ptr(), wakeup.as_ptr()])?;
            ffi::put(&self.content, Some(yielded));
            if self.is(MUST_CANCEL) && self.cancel_future(state, self.message().as_ref())? {
                self.set(MUST_CANCEL, false);
                self.put(|rare| &rare.message, None);
            }
        }
        Ok(())
    }

    /// Cancels the future it waits for, which is no operation.
    fn cancel_future(&self, state: &State, message: Option<&Owned>) -> Py<bool> {
        // SAFETY: live objects.
        unsafe {
            let future = Owned::from_borrowed(self.content.get());
            let answer = match message {
                None => ffi::call_method(state.get(Ref::Cancel), &[future.as_ptr()])?,
                Some(message) => {
                    let names = ffi::tuple(vec![ffi::string("msg")?])?;
                    let arguments = [future.as_ptr(), message.as_ptr()];
                    Owned::from_new(c::PyObject_VectorcallMethod(
                        state.get(Ref::Cancel),
                        arguments.as_ptr(),
                        1,
                        names.as_ptr(),
                    ))?
                }
            };
            Ok(ffi::check(c::PyObject_IsTrue(answer.as_ptr()))? != 0)
        }
    }

    /// The `CancelledError` to throw: the one that is on its way already, or a new one with the message of the cancel.
    #[cold]
    fn cancellation(&self, state: &State, error: Option<Owned>) -> Py<Owned> {
        let message = self.taken(|rare| &rare.message);
        let kind = state.cancelled_error()?;
        // SAFETY: live objects.
        unsafe {
            match (error, message) {
                (Some(error), _) if c::PyErr_GivenExceptionMatches(error.as_ptr(), kind) != 0 => Ok(error),
                (_, Some(message)) => ffi::call(kind, &[message.as_ptr()]),
                (_, None) => ffi::call(kind, &[]),
            }
        }
    }

    /// It has ended: its callbacks are due.
    fn conclude(&self, phase: u8, outcome: Owned, first: &mut First) {
        // SAFETY: a live object of ours.
        let state = unsafe { State::of(self.as_ptr()) };
        ffi::put(&self.content, Some(outcome));
        self.flags.set(self.flags.get() & !PHASE | phase);
        if !self.is(GROUPED) {
            let unregister = state.asyncio_function(Ref::UnregisterTask, c"_unregister_task");
            // SAFETY: live objects.
            first.keep(unregister.and_then(|function| unsafe { ffi::call(function, &[self.as_ptr()]) }.map(drop)));
        }
        let Some(callbacks) = self.taken(|rare| &rare.callbacks) else {
            return;
        };
        // SAFETY: a list of pairs. What is called may change it.
        unsafe {
            let mut index = 0;
            while index < c::PyList_GET_SIZE(callbacks.as_ptr()) {
                let pair = Owned::from_borrowed(c::PyList_GET_ITEM(callbacks.as_ptr(), index));
                first.keep(self.call_soon(state, &pair));
                index += 1;
            }
        }
    }

    /// Has the loop call one of the callbacks.
    ///
    /// # Safety
    /// A pair of a callable and a context.
    unsafe fn call_soon(&self, state: &State, pair: &Owned) -> Py<()> {
        let event_loop = self.event_loop()?;
        // SAFETY: the caller's promise.
        unsafe {
            let (function, context) = (c::PyTuple_GET_ITEM(pair.as_ptr(), 0), c::PyTuple_GET_ITEM(pair.as_ptr(), 1));
            let names = ffi::tuple(vec![ffi::string("context")?])?;
            let arguments = [event_loop.as_ptr(), function, self.as_ptr(), context];
            let name = state.get(Ref::CallSoon);
            Owned::from_new(c::PyObject_VectorcallMethod(name, arguments.as_ptr(), 3, names.as_ptr()))?;
        }
        Ok(())
    }

    /// Tells the process and its group that the task is done, with no task current.
    fn tell(&self, current: &mut Current<'_>, this: &Owned, first: &mut First) {
        let state = current.state;
        // SAFETY: live objects.
        let call = |current: &mut Current<'_>, name: Ref, arguments: &[*mut PyObject]| unsafe {
            current.clear().and_then(|()| ffi::call_method(state.get(name), arguments)).map(drop)
        };
        if let Some(owner) = self.taken(|rare| &rare.owner) {
            first.keep(call(current, Ref::OnDone, &[owner.as_ptr(), this.as_ptr()]));
            return;
        }
        // Those who join come first: they shall see this outcome, not the cancellation that a failure is about to bring on them.
        if let Some(over) = self.taken(|rare| &rare.over) {
            first.keep(call(current, Ref::Close, &[over.as_ptr()]));
        }
        let Some(held) = self.held_group() else {
            return;
        };
        // SAFETY: a group.
        let group = unsafe { GroupObject::of(held.as_ptr()) };
        match self.phase() {
            FAILED => first.keep(call(current, Ref::TaskFailed, &[held.as_ptr(), this.as_ptr()])),
            CANCELLED if !group.is_ending() => first.keep(call(current, Ref::NoticeDeadline, &[held.as_ptr()])),
            _ => {}
        }
        // What was called may have ended the group.
        if self.is(GROUPED) {
            drop(group.unlink(self));
        }
        if group.is_awaited_and_empty() {
            first.keep(call(current, Ref::TasksEnded, &[held.as_ptr()]));
        }
    }

    /// Its group, unless that is just being destroyed.
    fn held_group(&self) -> Option<Owned> {
        let group = self.group()?.as_ptr();
        // SAFETY: not freed yet: a group unlinks its tasks before it goes.
        unsafe { (c::Py_REFCNT(group) > 0).then(|| Owned::from_borrowed(group)) }
    }

    /// The dictionary of what the program gave it, made when first asked for.
    fn attributes(&self) -> Py<Owned> {
        if self.get(|rare| &rare.attributes).is_null() {
            // SAFETY: plain call.
            let new = unsafe { Owned::from_new(c::PyDict_New())? };
            self.put(|rare| &rare.attributes, Some(new));
        }
        Ok(shown(self.get(|rare| &rare.attributes)))
    }

    fn invalid(&self, state: &State, message: &str) -> Raised {
        let _ = state;
        match ffi::import(c"asyncio", Some(c"InvalidStateError")) {
            // SAFETY: an exception type.
            Ok(kind) => unsafe { ffi::raise(kind.as_ptr(), message) },
            Err(raised) => raised,
        }
    }
}

/// `coroutine.throw(error)`.
///
/// # Safety
/// Live objects.
#[cold]
unsafe fn throw(state: &State, coroutine: *mut PyObject, error: &Owned) -> Py<Sent> {
    // SAFETY: the caller's promise; an exception type.
    unsafe {
        if let Ok(yielded) = ffi::call_method(state.get(Ref::Throw), &[coroutine, error.as_ptr()]) {
            return Ok(Sent::Yielded(yielded));
        }
        if c::PyErr_ExceptionMatches(c::PyExc_StopIteration) == 0 {
            return Err(Raised);
        }
        let stop = ffi::take_error().ok_or(Raised)?;
        Owned::from_new(c::PyObject_GetAttr(stop.as_ptr(), state.get(Ref::NameValue))).map(Sent::Returned)
    }
}

// Methods.

/// `Task(coroutine, loop, name, owner)`: a task that begins soon. `owner._on_done(task)` is called at once when it is done.
unsafe extern "C" fn new(
    kind: *mut c::PyTypeObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: what the interpreter passed to tp_new; our type, every field is written.
        unsafe {
            let names = ["coroutine", "loop", "name", "owner"];
            let [coroutine, event_loop, name, owner] = ffi::parameters_of_new("Task", names, 4, arguments, keywords)?;
            if owner.is_null() {
                return Err(ffi::type_error("Task() needs a coroutine, a loop, a name and an owner"));
            }
            let state = State::of_type(kind);
            let home = HomeObject::of_loop(state, &Owned::from_borrowed(event_loop))?;
            let owned = |object: *mut PyObject| Some(Owned::from_borrowed(object));
            let coroutine = Owned::from_borrowed(coroutine);
            let context = Owned::from_new(c::PyContext_CopyCurrent())?;
            let task = TaskObject::make(state, &home, coroutine, (context, false), Origin::UNKNOWN)?;
            let this = TaskObject::of(task.as_ptr());
            this.put(|rare| &rare.name, owned(name));
            this.put(|rare| &rare.owner, owned(owner));
            let register = state.asyncio_function(Ref::RegisterTask, c"_register_task")?;
            ffi::call(register, &[task.as_ptr()])?;
            let begun = HomeObject::of(home.as_ptr()).begin(task.clone());
            if begun.is_err() {
                this.set_reported(false);
            }
            begun.map(|()| task)
        }
    })
}

unsafe extern "C" fn done(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: the interpreter passes a live task, here and below.
    ffi::edge_object(|| Ok(ffi::boolean(unsafe { TaskObject::of(slf) }.is_done())))
}

unsafe extern "C" fn cancelled(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `done`.
    ffi::edge_object(|| Ok(ffi::boolean(unsafe { TaskObject::of(slf) }.is_cancelled())))
}

unsafe extern "C" fn cancel(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `done`.
        unsafe {
            let [message] = ffi::parameters("cancel", ["msg"], 1, arguments, number, keywords)?;
            let message = (!message.is_null() && message != c::Py_None()).then(|| Owned::from_borrowed(message));
            Ok(ffi::boolean(TaskObject::of(slf).cancel(message)?))
        }
    })
}

unsafe extern "C" fn cancelling(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `done`.
    ffi::edge_object(|| ffi::integer(unsafe { TaskObject::of(slf) }.requests.get() as usize))
}

unsafe extern "C" fn uncancel(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `done`.
        let this = unsafe { TaskObject::of(slf) };
        let requests = this.requests.get().saturating_sub(1);
        this.requests.set(requests);
        if requests == 0 {
            this.set(MUST_CANCEL, false);
        }
        ffi::integer(requests as usize)
    })
}

unsafe extern "C" fn result(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `done`.
        let (this, state) = unsafe { (TaskObject::of(slf), State::of(slf)) };
        match this.phase() {
            PENDING => Err(this.invalid(state, "Result is not ready.")),
            FINISHED => Ok(shown(this.outcome())),
            // SAFETY: it is an exception. It has the traceback again that it had then, or each who asks would leave lines in it.
            FAILED => unsafe {
                let error = Owned::from_borrowed(this.outcome());
                c::PyException_SetTraceback(error.as_ptr(), shown(this.get(|rare| &rare.traceback)).as_ptr());
                Err(ffi::raise_object(error.as_ptr()))
            },
            _ => Err(raise_cancelled(this, state)),
        }
    })
}

unsafe extern "C" fn exception(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `done`.
        let (this, state) = unsafe { (TaskObject::of(slf), State::of(slf)) };
        match this.phase() {
            PENDING => Err(this.invalid(state, "Exception is not set.")),
            FINISHED => Ok(ffi::none()),
            FAILED => Ok(shown(this.outcome())),
            _ => Err(raise_cancelled(this, state)),
        }
    })
}

/// The first time the very exception that ended it, with its traceback, later a new one: it must not be kept by the frames that it passes.
#[cold]
fn raise_cancelled(this: &TaskObject, state: &State) -> Raised {
    // SAFETY: live objects.
    unsafe {
        match ffi::taken(&this.content) {
            Some(error) => {
                let arguments = c::PyObject_GetAttrString(error.as_ptr(), c"args".as_ptr());
                match Owned::from_nullable(arguments) {
                    Some(arguments) if c::PyTuple_GET_SIZE(arguments.as_ptr()) > 0 => {
                        let message = Owned::from_borrowed(c::PyTuple_GET_ITEM(arguments.as_ptr(), 0));
                        this.put(|rare| &rare.message, Some(message));
                    }
                    Some(_) => {}
                    None => c::PyErr_Clear(),
                }
                ffi::raise_object(error.as_ptr())
            }
            None => {
                let Ok(kind) = state.cancelled_error() else {
                    return Raised;
                };
                match this.get(|rare| &rare.message) {
                    message if message.is_null() => c::PyErr_SetNone(kind),
                    message => c::PyErr_SetObject(kind, message),
                }
                Raised
            }
        }
    }
}

unsafe extern "C" fn get_loop(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `done`.
    // None when it is gone: asyncio asks this of every task it knows, whichever loop it is looking for.
    ffi::edge_object(|| Ok(unsafe { TaskObject::of(slf) }.home().event_loop().unwrap_or_else(ffi::none)))
}

unsafe extern "C" fn get_coro(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `done`.
    ffi::edge_object(|| Ok(shown(unsafe { TaskObject::of(slf) }.coroutine.get())))
}

unsafe extern "C" fn get_context(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `done`.
    let this = unsafe { TaskObject::of(slf) };
    ffi::edge_object(|| this.own_context().map(|()| shown(this.context().get())))
}

unsafe extern "C" fn get_name(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `done`.
    ffi::edge_object(|| unsafe { TaskObject::of(slf) }.name())
}

/// `_join(channel)`: a channel that is closed when the task is done, this one if there is none yet. None: it is done.
unsafe extern "C" fn join(slf: *mut PyObject, channel: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `done`.
        let this = unsafe { TaskObject::of(slf) };
        if this.is_done() {
            return Ok(ffi::none());
        }
        if this.get(|rare| &rare.over).is_null() {
            // SAFETY: alive.
            this.put(|rare| &rare.over, Some(unsafe { Owned::from_borrowed(channel) }));
        }
        Ok(shown(this.get(|rare| &rare.over)))
    })
}

/// `_end()`: the process is to end.
unsafe extern "C" fn end(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `done`.
        unsafe { TaskObject::of(slf) }.end_by_cancel()?;
        Ok(ffi::none())
    })
}

/// `_spawned_at()`: file and line.
unsafe extern "C" fn spawned_at(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `done`.
        match unsafe { TaskObject::of(slf) }.origin().place() {
            Some((file, line)) => ffi::string(&format!("{file}:{line}")),
            None => ffi::string("unknown"),
        }
    })
}

unsafe extern "C" fn set_name(slf: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `done`.
        unsafe {
            let name = Owned::from_new(c::PyObject_Str(name))?;
            TaskObject::of(slf).put(|rare| &rare.name, Some(name));
        }
        Ok(ffi::none())
    })
}

unsafe extern "C" fn add_done_callback(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `done`.
        unsafe {
            let [function, context] =
                ffi::parameters("add_done_callback", ["fn", "context"], 1, arguments, number, keywords)?;
            if function.is_null() {
                return Err(ffi::type_error("add_done_callback() needs a callable"));
            }
            let context = match context {
                null if null.is_null() => Owned::from_new(c::PyContext_CopyCurrent())?,
                context => Owned::from_borrowed(context),
            };
            let pair = ffi::tuple(vec![Owned::from_borrowed(function), context])?;
            let this = TaskObject::of(slf);
            if this.is_done() {
                this.call_soon(State::of(slf), &pair)?;
            } else if this.get(|rare| &rare.callbacks).is_null() {
                this.put(|rare| &rare.callbacks, Some(ffi::list(vec![pair])?));
            } else {
                ffi::check(c::PyList_Append(this.get(|rare| &rare.callbacks), pair.as_ptr()))?;
            }
        }
        Ok(ffi::none())
    })
}

/// `_wakeup(future)`: what it waited for is done.
unsafe extern "C" fn wakeup(slf: *mut PyObject, future: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `done`.
        unsafe {
            // A future that it was told to wait for, and then not: its cancel failed.
            if TaskObject::of(slf).waits_for() != future {
                return Ok(ffi::none());
            }
            let error = match ffi::call_method(State::of(slf).get(Ref::Result), &[future]) {
                Ok(_) => None,
                Err(Raised) => ffi::take_error(),
            };
            TaskObject::of(slf).step_alone(error)?;
        }
        Ok(ffi::none())
    })
}

macro_rules! property {
    ($name:ident, $this:ident => $value:expr) => {
        unsafe extern "C" fn $name(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
            ffi::edge_object(|| {
                // SAFETY: see `done`.
                let $this = unsafe { TaskObject::of(slf) };
                $value
            })
        }
    };
}

property!(get_blocking, this => Ok(ffi::boolean(this.is(BLOCKING))));
property!(get_must_cancel, this => Ok(ffi::boolean(this.is(MUST_CANCEL))));
property!(get_waits_for, this => Ok(shown(this.waits_for())));
property!(get_callbacks, this => Ok(shown(this.get(|rare| &rare.callbacks))));
property!(get_reported, this => Ok(ffi::boolean(this.is_reported())));
property!(get_coroutine, this => Ok(shown(this.coroutine.get())));
property!(get_event_loop, this => this.event_loop());
property!(get_cancel_message, this => Ok(shown(this.get(|rare| &rare.message))));
property!(get_state, this => ffi::string(match this.phase() {
    PENDING => "PENDING",
    CANCELLED => "CANCELLED",
    _ => "FINISHED",
}));
property!(get_result, this => Ok(match this.phase() {
    FINISHED => shown(this.outcome()),
    _ => ffi::none(),
}));
property!(get_traceback, this => Ok(shown(this.get(|rare| &rare.traceback))));
property!(get_asked, this => Ok(ffi::boolean(this.is(ASKED))));
property!(get_group, this => Ok(this.held_group().unwrap_or_else(ffi::none)));
property!(get_attributes, this => this.attributes());
property!(get_exception, this => Ok(match this.phase() {
    FAILED => shown(this.outcome()),
    _ => ffi::none(),
}));

/// Attributes of the program's own are in a dictionary that only a task has that was given some.
unsafe extern "C" fn get_attribute(slf: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `done`; a live name.
    unsafe {
        let attributes = TaskObject::of(slf).get(|rare| &rare.attributes);
        if !attributes.is_null() {
            // None of its names is one that the type sets: see `set_attribute`.
            let found = c::PyDict_GetItemWithError(attributes, name);
            if !found.is_null() {
                return Owned::from_borrowed(found).into_ptr();
            }
            if !c::PyErr_Occurred().is_null() {
                return ptr::null_mut();
            }
        }
        c::PyObject_GenericGetAttr(slf, name)
    }
}

unsafe extern "C" fn set_attribute(slf: *mut PyObject, name: *mut PyObject, value: *mut PyObject) -> c_int {
    ffi::edge(-1, || {
        // SAFETY: see `done`; live objects, and null to delete.
        unsafe {
            // Those of every object are not the program's own, and a type has some by the same names that its instances do not.
            let shown = ffi::text(name);
            if shown.starts_with("__") && shown.ends_with("__") {
                return ffi::check(c::PyObject_GenericSetAttr(slf, name, value));
            }
            let of_type = Owned::from_nullable(c::PyObject_GetAttr(c::Py_TYPE(slf).cast(), name));
            match of_type {
                Some(of_type) if (*c::Py_TYPE(of_type.as_ptr())).tp_descr_set.is_some() => {
                    return ffi::check(c::PyObject_GenericSetAttr(slf, name, value));
                }
                Some(_) => {}
                None if c::PyErr_ExceptionMatches(c::PyExc_AttributeError) != 0 => c::PyErr_Clear(),
                None => return Err(Raised),
            }
            let this = TaskObject::of(slf);
            if value.is_null() && this.get(|rare| &rare.attributes).is_null() {
                return ffi::check(c::PyObject_GenericSetAttr(slf, name, value));
            }
            let attributes = this.attributes()?;
            if !value.is_null() {
                return ffi::check(c::PyDict_SetItem(attributes.as_ptr(), name, value));
            }
            if ffi::check(c::PyDict_Contains(attributes.as_ptr(), name))? == 0 {
                return ffi::check(c::PyObject_GenericSetAttr(slf, name, value));
            }
            ffi::check(c::PyDict_DelItem(attributes.as_ptr(), name))
        }
    })
}

/// What an attribute is set to; null: it is deleted.
unsafe fn truth(value: *mut PyObject) -> Py<bool> {
    // SAFETY: null or alive.
    Ok(!value.is_null() && ffi::check(unsafe { c::PyObject_IsTrue(value) })? != 0)
}

unsafe fn set_flag(task: &TaskObject, flag: u8, value: *mut PyObject) -> c_int {
    ffi::edge(-1, || {
        // SAFETY: as `truth` asks for.
        task.set(flag, unsafe { truth(value)? });
        Ok(0)
    })
}

unsafe extern "C" fn set_blocking(slf: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    // SAFETY: see `done`.
    unsafe { set_flag(TaskObject::of(slf), BLOCKING, value) }
}

unsafe extern "C" fn set_asked(slf: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    // SAFETY: see `done`.
    unsafe { set_flag(TaskObject::of(slf), ASKED, value) }
}

unsafe extern "C" fn set_reported(slf: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    ffi::edge(-1, || {
        // SAFETY: see `done`; null or alive.
        unsafe { TaskObject::of(slf).set_reported(truth(value)?) };
        Ok(0)
    })
}

unsafe extern "C" fn set_cancel_message(slf: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    // SAFETY: see `done`; null means deletion.
    unsafe {
        let message = (!value.is_null()).then(|| Owned::from_borrowed(value));
        TaskObject::of(slf).put(|rare| &rare.message, message);
    }
    0
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector.
    unsafe {
        let this = TaskObject::of(slf);
        let mut stop = 0;
        let mut see = |object: *mut PyObject| {
            if stop == 0 {
                stop = ffi::visit(object, visit, argument);
            }
        };
        see(c::Py_TYPE(slf).cast());
        see(this.coroutine.get());
        if !this.is_hidden() {
            see(this.content.get());
        }
        if !this.is(GROUPED) {
            see(this.place.get());
        }
        match this.rare() {
            None => see(this.more.get()),
            Some(rare) => rare.slots().into_iter().for_each(|slot| see(slot.0.get())),
        }
        stop
    }
}

/// Drops what may lead back to the task.
///
/// # Safety
/// Nobody steps it any more.
unsafe fn release(slf: *mut PyObject) {
    // SAFETY: the caller's promise; each is dropped once.
    unsafe {
        let this = TaskObject::of(slf);
        let cells = [&this.coroutine, this.context(), &this.content].into_iter();
        let rare = this.rare().into_iter().flat_map(Rare::slots).map(|slot| &slot.0);
        ffi::drop_contents(cells.chain(rare).filter_map(ffi::taken));
    }
}

unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    ffi::edge(0, || {
        // SAFETY: from the collector, which found it unreachable.
        unsafe { release(slf) };
        Ok(0)
    })
}

/// As asyncio's: a task that is dropped before it is done is reported to its loop.
unsafe extern "C" fn finalize(slf: *mut PyObject) {
    ffi::edge((), || {
        // SAFETY: alive, as finalizers are given it.
        let this = unsafe { TaskObject::of(slf) };
        if this.is_done() || !this.is_reported() || this.coroutine.get().is_null() {
            return Ok(());
        }
        let _aside = ffi::Aside::new();
        // SAFETY: live objects.
        unsafe {
            let state = State::of(slf);
            let Some(event_loop) = this.home().event_loop().filter(|_| !state.is_gone()) else {
                return Ok(());
            };
            let report = || {
                let context = Owned::from_new(c::PyDict_New())?;
                let message = ffi::string("Task was destroyed but it is pending!")?;
                ffi::check(c::PyDict_SetItemString(context.as_ptr(), c"task".as_ptr(), slf))?;
                ffi::check(c::PyDict_SetItemString(context.as_ptr(), c"message".as_ptr(), message.as_ptr()))?;
                ffi::call_method(state.get(Ref::CallExceptionHandler), &[event_loop.as_ptr(), context.as_ptr()])
            };
            if report().is_err() {
                ffi::unraisable(slf);
            }
        }
        Ok(())
    });
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; each field is dropped once.
    unsafe {
        // Of one that is done there is nothing to report.
        if !TaskObject::of(slf).is_done() && c::PyObject_CallFinalizerFromDealloc(slf) != 0 {
            return; // the report kept it
        }
        c::PyObject_GC_UnTrack(slf.cast());
        let this = TaskObject::of(slf);
        if !this.weak_references.is_null() {
            c::PyObject_ClearWeakRefs(slf);
        }
        release(slf);
        if this.is(RARE) {
            drop(Box::from_raw(this.more.get().cast::<Rare>()));
        }
        if let Some(home) = ffi::taken(&this.place) {
            HomeObject::of(home.as_ptr()).sites.leave(this.site);
        }
        ffi::free(slf);
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    use ffi::Method::{Fast, NoArguments, OneArgument};
    let base = ffi::import(c"weft._task_methods", Some(c"TaskMethods"))?;
    let methods = ffi::methods(
        "Task",
        &[
            (c"done", NoArguments(done)),
            (c"cancelled", NoArguments(cancelled)),
            (c"cancel", Fast(cancel)),
            (c"cancelling", NoArguments(cancelling)),
            (c"uncancel", NoArguments(uncancel)),
            (c"result", NoArguments(result)),
            (c"exception", NoArguments(exception)),
            (c"get_loop", NoArguments(get_loop)),
            (c"get_coro", NoArguments(get_coro)),
            (c"get_context", NoArguments(get_context)),
            (c"get_name", NoArguments(get_name)),
            (c"set_name", OneArgument(set_name)),
            (c"add_done_callback", Fast(add_done_callback)),
            (c"_wakeup", OneArgument(wakeup)),
            (c"_join", OneArgument(join)),
            (c"_end", NoArguments(end)),
            (c"_spawned_at", NoArguments(spawned_at)),
        ],
    );
    let properties = ffi::properties(
        "Task",
        &[
            (c"_asyncio_future_blocking", get_blocking, Some(set_blocking)),
            (c"_must_cancel", get_must_cancel, None),
            (c"_fut_waiter", get_waits_for, None),
            (c"_callbacks", get_callbacks, None),
            (c"_log_destroy_pending", get_reported, Some(set_reported)),
            (c"_coro", get_coroutine, None),
            (c"_loop", get_event_loop, None),
            (c"_cancel_message", get_cancel_message, Some(set_cancel_message)),
            (c"_state", get_state, None),
            (c"_result", get_result, None),
            (c"_exception", get_exception, None),
            (c"_traceback", get_traceback, None),
            (c"_asked", get_asked, Some(set_asked)),
            (c"_group", get_group, None),
            (c"__dict__", get_attributes, None),
        ],
    );
    let members = ffi::table("Task", "members", || {
        let member = |name: &'static std::ffi::CStr, offset: usize| c::PyMemberDef {
            name: name.as_ptr(),
            type_code: c::Py_T_PYSSIZET,
            offset: offset as isize,
            flags: READ_ONLY,
            doc: ptr::null(),
        };
        vec![member(c"__weaklistoffset__", offset_of!(TaskObject, weak_references)), c::PyMemberDef::default()]
    });
    let slots = vec![
        ffi::slot(c::Py_tp_new, new as *mut c_void),
        ffi::slot(c::Py_tp_traverse, traverse as *mut c_void),
        ffi::slot(c::Py_tp_clear, clear as *mut c_void),
        ffi::slot(c::Py_tp_finalize, finalize as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_methods, methods.cast()),
        ffi::slot(c::Py_tp_getset, properties.cast()),
        ffi::slot(c::Py_tp_members, members.cast()),
        ffi::slot(c::Py_tp_getattro, get_attribute as *mut c_void),
        ffi::slot(c::Py_tp_setattro, set_attribute as *mut c_void),
    ];
    // SAFETY: the slots are those of a `TaskObject`; the base is a class without fields.
    unsafe {
        ffi::make_subtype_of_size(
            module,
            c"weft._weft.Task",
            size_of::<TaskObject>(),
            &base,
            c::Py_TPFLAGS_HAVE_GC as u64,
            slots,
        )
    }
}
