//! The base of `weft.Group`: what of a group has to be quick, spawning processes in an asyncio loop and forgetting them.
//!
//! A process that is spawned here is a task (`task`) and nothing else; the `weft.Process` that the program is given is a handle of a few words,
//! made for it. Everything unusual (another place, another thread, a name of its own) goes to `Group._spawn`, in Python.
//!
//! True whenever no method of it runs:
//!   1. The tasks of the list are those of this group that are not done, each with a reference; `count` is how many.
//!   2. `open` while tasks may be spawned here: the group was entered and is not being cancelled, and its loop steps tasks of ours.
//!   3. Once `home` is set the group is in that home's list of groups, until the group goes.
//!   4. The tasks that have not begun are the last of the list, from `unbegun` on, and the home's queue has an entry for each; so they begin in the
//!      order in which they were spawned.
//!
//! Only code that is attached touches it. On free-threaded builds it is never open: it has no home and no tasks, and of its fields only the atomic ones are
//! written.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::context;
use crate::ffi::{self, First, Owned, Py, PyObject, c};
use crate::handle;
use crate::home::HomeObject;
use crate::origin::Origin;
use crate::state::{Ref, State};
use crate::task::TaskObject;

/// In a group with more processes than this, those that have not begun are hidden from the collector.
const SEEN: usize = 1024;

/// `weft._weft._Group`.
#[repr(C)]
pub struct GroupObject {
    head: PyObject,
    /// A strong reference, or null.
    home: Cell<*mut PyObject>,
    /// The neighbours in the home's list.
    pub previous_group: Cell<*mut GroupObject>,
    pub next_group: Cell<*mut GroupObject>,
    /// Relaxed, like `awaited` and `next`: what belongs to them is under the group's lock, in Python.
    open: AtomicBool,
    first: Cell<*mut TaskObject>,
    last: Cell<*mut TaskObject>,
    /// The first that has not begun. It and all behind it are queued for that in the home.
    unbegun: Cell<*mut TaskObject>,
    count: Cell<usize>,
    /// The number of the last process.
    next: AtomicU32,
    /// The context that was current at the last spawn, for those that are spawned in the same one; or null. Nobody enters it.
    context: Cell<*mut PyObject>,
    /// The code of the function that was spawned last: it makes coroutines. Or null.
    code: Cell<*mut PyObject>,
    /// The owner waits for the last.
    awaited: AtomicBool,
}

impl GroupObject {
    /// # Safety
    /// A live group.
    #[inline]
    pub unsafe fn of<'a>(object: *mut PyObject) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*object.cast() }
    }

    /// Whether it is being cancelled, or has ended.
    pub fn is_ending(&self) -> bool {
        !self.open.load(Ordering::Relaxed)
    }

    pub fn as_ptr(&self) -> *mut PyObject {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// Borrowed; not null as long as there are tasks.
    #[inline]
    pub fn home(&self) -> *mut PyObject {
        self.home.get()
    }

    /// The number of the next process; after four thousand million they repeat.
    fn number(&self) -> u32 {
        // With a GIL nobody comes in between.
        #[cfg(not(Py_GIL_DISABLED))]
        {
            let number = self.next.load(Ordering::Relaxed).wrapping_add(1);
            self.next.store(number, Ordering::Relaxed);
            number
        }
        #[cfg(Py_GIL_DISABLED)]
        self.next.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Takes over a reference.
    fn link(&self, task: Owned) {
        let task: *mut TaskObject = task.into_ptr().cast();
        let last = self.last.replace(task);
        // SAFETY: live tasks.
        unsafe {
            (*task).enter_group(self);
            (*task).before.set(last);
            match last.as_ref() {
                Some(last) => last.after.set(task),
                None => self.first.set(task),
            }
        }
        if self.unbegun.get().is_null() {
            self.unbegun.set(task);
        }
        self.count.set(self.count.get() + 1);
    }

    /// The next task to begin. `None`: the collector has taken them.
    #[inline]
    pub fn begin_one(&self) -> Option<Owned> {
        let task = self.unbegun.get();
        // SAFETY: null, or a live task of the list.
        unsafe {
            let begins = task.as_ref()?;
            self.unbegun.set(begins.after.get());
            begins.show();
            Some(Owned::from_borrowed(task.cast()))
        }
    }

    /// Of a task that was spawned now: what runs meanwhile may have closed the loop, which begins nothing then, or have spawned others.
    #[inline]
    fn has_not_begun(&self, task: &TaskObject) -> bool {
        ptr::eq(self.last.get(), task) && !self.unbegun.get().is_null()
    }

    /// Forgets a task, and gives back the reference. The task remembers the home.
    pub fn unlink(&self, task: &TaskObject) -> Owned {
        if ptr::eq(self.unbegun.get(), task) {
            self.unbegun.set(task.after.get());
            task.show();
        }
        let (before, after) = (task.before.replace(ptr::null_mut()), task.after.replace(ptr::null_mut()));
        // SAFETY: live tasks of this list, with a reference each.
        unsafe {
            match before.as_ref() {
                Some(before) => before.after.set(after),
                None => self.first.set(after),
            }
            match after.as_ref() {
                Some(after) => after.before.set(before),
                None => self.last.set(before),
            }
            task.leave_group(Owned::from_borrowed(self.home()));
            self.count.set(self.count.get() - 1);
            Owned::from_nullable(task.as_ptr()).expect("a task")
        }
    }

    /// The last task has ended: whether the owner is to be told.
    pub fn is_awaited_and_empty(&self) -> bool {
        self.count.get() == 0 && self.awaited.swap(false, Ordering::Relaxed)
    }

    pub fn tasks(&self) -> Vec<Owned> {
        let mut tasks = Vec::with_capacity(self.count.get());
        let mut at = self.first.get();
        // SAFETY: live tasks.
        while let Some(task) = unsafe { at.as_ref() } {
            // SAFETY: as above.
            tasks.push(unsafe { Owned::from_borrowed(task.as_ptr()) });
            at = task.after.get();
        }
        tasks
    }

    /// Whether calling this makes a coroutine. `false` for the rarer kinds that do.
    #[inline]
    fn makes_coroutines(&self, state: &State, callable: *mut PyObject) -> Py<bool> {
        // SAFETY: a live object; its code is alive, too.
        unsafe {
            let code = ffi::code_of(callable);
            if code.is_null() {
                return Ok(false);
            }
            if code == self.code.get() {
                return Ok(true);
            }
            let code = Owned::from_borrowed(code);
            let makes = state.makes_coroutines(&code)?;
            if makes {
                ffi::put(&self.code, Some(code));
            }
            Ok(makes)
        }
    }

    /// The context for a task that is spawned now, and whether others have it too.
    #[inline]
    fn context_for_task(&self) -> Py<(Owned, bool)> {
        // SAFETY: contexts, or null.
        unsafe {
            let current = Owned::from_new(c::PyContext_CopyCurrent())?;
            if !context::can_share() {
                return Ok((current, false));
            }
            let last = self.context.get();
            if !last.is_null() && context::same(last, current.as_ptr()) {
                return Ok((Owned::from_borrowed(last), true));
            }
            ffi::put(&self.context, Some(current.clone()));
            Ok((current, true))
        }
    }

    /// The quick way to spawn. `None`: this is not for it.
    #[inline]
    unsafe fn spawn_here(&self, function: *mut PyObject, arguments: &[*mut PyObject]) -> Py<Option<Owned>> {
        let home = self.home.get();
        // SAFETY: live objects.
        unsafe {
            if !self.open.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let state = State::of(home);
            if !self.makes_coroutines(state, function)? {
                return Ok(None);
            }
            let home = Owned::from_borrowed(home);
            let here = HomeObject::of(home.as_ptr());
            match state.running_loop()? {
                Some(running) if here.is_of(running.as_ptr()) => {}
                _ => return Ok(None),
            }
            let origin = Origin::here();
            let coroutine = match ffi::call(function, arguments) {
                Ok(coroutine) => coroutine,
                Err(raised) => {
                    let mut origin = origin;
                    origin.forget();
                    return Err(raised);
                }
            };
            let context = self.context_for_task().inspect_err(|_| {
                let mut origin = origin;
                origin.forget();
            })?;
            let task = TaskObject::make(state, &home, coroutine, context, origin)?;
            let this = TaskObject::of(task.as_ptr());
            // The handle first, so that nothing fails once the task is queued.
            let process = handle::make(state, task.clone()).inspect_err(|_| this.discard())?;
            this.number.set(self.number());
            self.link(task);
            if !here.begin_next(self) {
                let task = self.unlink(this);
                this.discard();
                drop(task);
                return Err(ffi::runtime_error("Event loop is closed"));
            }
            if self.count.get() > SEEN && self.has_not_begun(this) {
                this.hide(&process);
            }
            if !self.open.load(Ordering::Relaxed) {
                // Something that ran meanwhile, a finalizer or a signal handler, has cancelled the group.
                this.end_by_cancel()?;
            }
            Ok(Some(process))
        }
    }
}

unsafe extern "C" fn new(kind: *mut c::PyTypeObject, _: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: the interpreter passes our type or one derived from it; all zero is an empty group that spawns nothing here.
    ffi::edge_object(|| unsafe { ffi::allocate(kind) })
}

unsafe extern "C" fn spawn(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes a live group, here and below, and an array of arguments.
        unsafe {
            let this = GroupObject::of(slf);
            if keywords.is_null() && number > 0 {
                let given = std::slice::from_raw_parts(arguments, number as usize);
                if let Some(process) = this.spawn_here(given[0], &given[1..])? {
                    return Ok(process);
                }
            }
            if number == 0 {
                return Err(ffi::type_error("spawn() needs the function to call, and then its arguments"));
            }
            let frame = c::PyEval_GetFrame();
            if frame.is_null() {
                return Err(ffi::runtime_error("spawn() was called by no Python code"));
            }
            let caller = Owned::from_borrowed(frame.cast());
            let names = if keywords.is_null() { 0 } else { c::PyTuple_GET_SIZE(keywords) as usize };
            let mut all = vec![slf, caller.as_ptr()];
            all.extend_from_slice(std::slice::from_raw_parts(arguments, number as usize + names));
            let name = ffi::string("_spawn")?;
            Owned::from_new(c::PyObject_VectorcallMethod(name.as_ptr(), all.as_ptr(), number as usize + 2, keywords))
        }
    })
}

/// `_accept(loop)`: from now on it may spawn tasks there.
unsafe extern "C" fn accept(slf: *mut PyObject, event_loop: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `spawn`; our module is imported.
        unsafe {
            let module = ffi::import(c"weft._weft", None)?;
            let state = crate::state_of_module(module.as_ptr());
            let home = HomeObject::of_loop(state, &Owned::from_borrowed(event_loop))?;
            state.process_class()?;
            let this = GroupObject::of(slf);
            if cfg!(not(Py_GIL_DISABLED)) && this.home.get().is_null() {
                HomeObject::of(home.as_ptr()).add_group(this);
                this.home.set(home.into_ptr());
                this.open.store(true, Ordering::Relaxed);
            }
        }
        Ok(ffi::none())
    })
}

/// `_number()`: that of the next process.
unsafe extern "C" fn next_number(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `spawn`.
    ffi::edge_object(|| ffi::integer(unsafe { GroupObject::of(slf) }.number() as usize))
}

/// `_cancel_tasks()`.
unsafe extern "C" fn cancel_tasks(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let mut first = First::default();
        // SAFETY: see `spawn`.
        for task in unsafe { GroupObject::of(slf) }.tasks() {
            // SAFETY: a live task.
            first.keep(unsafe { TaskObject::of(task.as_ptr()) }.end_by_cancel());
        }
        first.raise().map(|()| ffi::none())
    })
}

// Properties and no methods, as signals are not handled while one is read or set.

/// `_count`: how many tasks are not done.
unsafe extern "C" fn get_count(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see `spawn`.
    ffi::edge_object(|| ffi::integer(unsafe { GroupObject::of(slf) }.count.get()))
}

/// `_spawns_here`: whether `spawn` may be quick. Set to False when the group is cancelled or ends.
unsafe extern "C" fn get_spawns_here(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see `spawn`.
    ffi::edge_object(|| Ok(ffi::boolean(unsafe { GroupObject::of(slf) }.open.load(Ordering::Relaxed))))
}

unsafe extern "C" fn set_spawns_here(slf: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    // SAFETY: see `spawn`; True lives for ever.
    unsafe {
        let this = GroupObject::of(slf);
        this.open.store(value == c::Py_True() && !this.home.get().is_null(), Ordering::Relaxed);
    }
    0
}

/// `_awaited`: whether `_tasks_ended()` is to be called when the last task is done.
unsafe extern "C" fn get_awaited(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see `spawn`.
    ffi::edge_object(|| Ok(ffi::boolean(unsafe { GroupObject::of(slf) }.awaited.load(Ordering::Relaxed))))
}

unsafe extern "C" fn set_awaited(slf: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    // SAFETY: see `spawn`; True lives for ever.
    unsafe { GroupObject::of(slf).awaited.store(value == c::Py_True(), Ordering::Relaxed) };
    0
}

/// `_tasks`: those that are not done.
unsafe extern "C" fn get_tasks(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see `spawn`.
    ffi::edge_object(|| ffi::list(unsafe { GroupObject::of(slf) }.tasks()))
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector.
    unsafe {
        let this = GroupObject::of(slf);
        // Of a class that derives from this one: what visits its instances leaves the type to us.
        let mut stop = ffi::visit(c::Py_TYPE(slf).cast(), visit, argument);
        if stop == 0 {
            stop = ffi::visit(this.home.get(), visit, argument);
        }
        if stop == 0 {
            stop = ffi::visit(this.context.get(), visit, argument);
        }
        if stop == 0 {
            stop = ffi::visit(this.code.get(), visit, argument);
        }
        let mut at = this.first.get();
        while stop == 0
            && let Some(task) = at.as_ref()
        {
            stop = ffi::visit(task.as_ptr(), visit, argument);
            at = task.after.get();
        }
        stop
    }
}

unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    ffi::edge(0, || {
        // SAFETY: from the collector.
        unsafe { release(slf) };
        Ok(0)
    })
}

/// # Safety
/// Nobody uses the group any more.
unsafe fn release(slf: *mut PyObject) {
    // SAFETY: the caller's promise.
    unsafe {
        let this = GroupObject::of(slf);
        this.open.store(false, Ordering::Relaxed);
        ffi::put(&this.context, None);
        ffi::put(&this.code, None);
        if this.home().is_null() {
            return;
        }
        HomeObject::of(this.home()).remove_group(this);
        let mut left = Vec::with_capacity(this.count.get());
        while let Some(first) = this.first.get().as_ref() {
            left.push(this.unlink(first));
        }
        let Some(home) = ffi::taken(&this.home) else {
            return;
        };
        // Those that go on without it, and are no garbage with it, are asyncio's to know now.
        let _aside = ffi::Aside::new();
        let state = State::of(home.as_ptr());
        for task in left.iter().filter(|task| {
            !state.is_gone() && c::Py_REFCNT(task.as_ptr()) > 1 && c::PyObject_GC_IsFinalized(task.as_ptr()) == 0
        }) {
            let register = state.asyncio_function(Ref::RegisterTask, c"_register_task");
            if register.and_then(|function| ffi::call(function, &[task.as_ptr()])).is_err() {
                ffi::unraisable(task.as_ptr());
            }
        }
        ffi::drop_contents(left);
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        release(slf);
        ffi::free(slf);
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    use ffi::Method::{Fast, NoArguments, OneArgument};
    let methods = ffi::methods(
        "_Group",
        &[
            (c"spawn", Fast(spawn)),
            (c"_accept", OneArgument(accept)),
            (c"_number", NoArguments(next_number)),
            (c"_cancel_tasks", NoArguments(cancel_tasks)),
        ],
    );
    let properties = ffi::properties(
        "_Group",
        &[
            (c"_tasks", get_tasks, None),
            (c"_count", get_count, None),
            (c"_spawns_here", get_spawns_here, Some(set_spawns_here)),
            (c"_awaited", get_awaited, Some(set_awaited)),
        ],
    );
    let slots = vec![
        ffi::slot(c::Py_tp_new, new as *mut c_void),
        ffi::slot(c::Py_tp_traverse, traverse as *mut c_void),
        ffi::slot(c::Py_tp_clear, clear as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_methods, methods.cast()),
        ffi::slot(c::Py_tp_getset, properties.cast()),
    ];
    let flags = (c::Py_TPFLAGS_HAVE_GC | c::Py_TPFLAGS_BASETYPE) as u64;
    // SAFETY: the slots are those of a `GroupObject`.
    unsafe { ffi::make_type(module, c"weft._weft._Group", size_of::<GroupObject>(), flags, slots) }
}
