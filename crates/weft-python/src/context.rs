//! Contexts that processes share until they change them.
//!
//! What a task sets in its context no other task sees. But most processes set nothing, so those that were spawned in the same context share one
//! object, which nobody enters: each step is made in a *scratch* copy of it, of which the home has one, and a task that changed the copy keeps it.
//! The copy stays entered from one step to the next, until something else is to be run.
//!
//! A context was changed when it leads to another table of variables; the tables themselves never change (PEP 567). Where a context has the
//! pointer (`ctx_vars`, Include/internal/pycore_context.h, the same from 3.7 to 3.15) is tried out when the module is loaded. Where it is not found, each
//! task has a context of its own.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ffi::{self, Owned, Py, PyObject, c};

/// `struct _pycontextobject`, as far as it matters.
#[repr(C)]
struct Context {
    head: PyObject,
    previous: *mut PyObject,
    variables: *mut PyObject,
}

/// Of the process: every interpreter of it is the same build. Relaxed: both ways give the same.
static TRUSTED: AtomicBool = AtomicBool::new(false);

/// Whether contexts can be told apart.
#[inline]
pub fn can_share() -> bool {
    TRUSTED.load(Ordering::Relaxed)
}

/// Whether the variables of both are the same ones.
///
/// # Safety
/// Live contexts, and [`can_share`].
#[inline]
pub unsafe fn same(one: *mut PyObject, other: *mut PyObject) -> bool {
    // SAFETY: the caller's promise; probed.
    unsafe { (*one.cast::<Context>()).variables == (*other.cast::<Context>()).variables }
}

/// Finds out whether a context is what we take it for.
pub fn probe() -> Py<()> {
    // SAFETY: new objects of our own. Of a context nothing is read beyond its size.
    let found = unsafe {
        let name = c"weft".as_ptr();
        let variable = Owned::from_new(c::PyContextVar_New(name, ptr::null_mut()))?;
        let set = |context: &Owned, value: *mut PyObject| {
            ffi::enter_context(context.as_ptr())?;
            let token = Owned::from_new(c::PyContextVar_Set(variable.as_ptr(), value));
            ffi::exit_context(context.as_ptr())?;
            token.map(drop)
        };
        let one = Owned::from_new(c::PyContext_New())?;
        set(&one, c::Py_None())?;
        let copy = Owned::from_new(c::PyContext_Copy(one.as_ptr()))?;
        let changed = Owned::from_new(c::PyContext_Copy(one.as_ptr()))?;
        set(&changed, c::Py_True())?;
        let fits = (*c::Py_TYPE(one.as_ptr())).tp_basicsize as usize >= size_of::<Context>();
        fits && leads_to_its_variables(&one)
            && leads_to_its_variables(&changed)
            && same(one.as_ptr(), copy.as_ptr())
            && !same(one.as_ptr(), changed.as_ptr())
    };
    TRUSTED.store(found && cfg!(not(Py_GIL_DISABLED)), Ordering::Relaxed);
    Ok(())
}

/// Whether what we take for the pointer is what a collector is shown.
unsafe fn leads_to_its_variables(context: &Owned) -> bool {
    unsafe extern "C" fn visit(object: *mut PyObject, sought: *mut c_void) -> c_int {
        c_int::from(object.cast() == sought)
    }
    // SAFETY: a live context; its traverse function shows what it leads to, and stops at the first that `visit` is content with.
    unsafe {
        let variables = (*context.as_ptr().cast::<Context>()).variables;
        let traverse = (*c::Py_TYPE(context.as_ptr())).tp_traverse;
        !variables.is_null()
            && traverse.is_some_and(|traverse| traverse(context.as_ptr(), visit, variables.cast()) == 1)
    }
}

/// The copy in which tasks that share a context are stepped.
pub struct Scratch {
    /// Null, or a strong reference.
    context: Cell<*mut PyObject>,
    /// The task that is in it now, or null. Only compared.
    user: Cell<*mut PyObject>,
    /// It is the thread's current context.
    entered: Cell<bool>,
}

/// A scratch context that was entered, and is until [`Scratch::leave`]: for several steps, one after the other.
pub struct Entered {
    /// The thread holds it.
    context: *mut PyObject,
    /// How many references it had then. One that somebody else knows (a token, of a variable that was set to what it was already) is taken for
    /// changed.
    count: isize,
}

impl Entered {
    /// Whether its variables are still those of `shared`.
    ///
    /// # Safety
    /// A live context, and [`can_share`].
    #[inline]
    unsafe fn is_like(&self, shared: *mut PyObject) -> bool {
        // SAFETY: the caller's promise.
        unsafe { same(self.context, shared) && c::Py_REFCNT(self.context) == self.count }
    }
}

impl Scratch {
    pub fn new() -> Self {
        Self { context: Cell::new(ptr::null_mut()), user: Cell::new(ptr::null_mut()), entered: Cell::new(false) }
    }

    pub fn as_ptr(&self) -> *mut PyObject {
        self.context.get()
    }

    pub fn clear(&self) {
        ffi::put(&self.context, None);
    }

    /// Has the thread be in a context with the variables of `shared`, for one step of `user`. `false`: it is in use, a step in the middle of another
    /// one needs a context of its own.
    ///
    /// # Safety
    /// A live context, and [`can_share`]; what is entered is ours.
    #[inline]
    pub unsafe fn lend(&self, entered: &mut Option<Entered>, user: *mut PyObject, shared: *mut PyObject) -> Py<bool> {
        // SAFETY: the caller's promise.
        if !entered.as_ref().is_some_and(|entered| unsafe { entered.is_like(shared) }) {
            self.leave(entered)?;
            // SAFETY: as above.
            if !unsafe { self.enter(entered, shared)? } {
                return Ok(false);
            }
        }
        self.user.set(user);
        Ok(true)
    }

    /// # Safety
    /// As for [`lend`](Self::lend); nothing is entered.
    unsafe fn enter(&self, entered: &mut Option<Entered>, shared: *mut PyObject) -> Py<bool> {
        if self.entered.get() {
            return Ok(false);
        }
        // SAFETY: the caller's promise; ours is null or alive, and entered by nobody.
        unsafe {
            let known = self.context.get();
            if known.is_null() || !same(known, shared) || c::Py_REFCNT(known) != 1 {
                let copy = Owned::from_new(c::PyContext_Copy(shared))?;
                ffi::put(&self.context, Some(copy));
            }
            let context = self.context.get();
            ffi::enter_context(context)?;
            self.entered.set(true);
            *entered = Some(Entered { context, count: c::Py_REFCNT(context) as isize });
        }
        Ok(true)
    }

    /// The step has ended, in which the task still shared its context. A context that is returned is the task's own from now on, and not entered
    /// any more.
    ///
    /// # Safety
    /// As for [`lend`](Self::lend).
    #[inline]
    pub unsafe fn give_back(&self, entered: &mut Option<Entered>, shared: *mut PyObject) -> Py<Option<Owned>> {
        self.user.set(ptr::null_mut());
        match entered {
            // SAFETY: the caller's promise.
            Some(lent) if !unsafe { lent.is_like(shared) } => {
                // SAFETY: the thread holds it.
                let own = unsafe { Owned::from_borrowed(lent.context) };
                self.clear();
                self.leave(entered)?;
                Ok(Some(own))
            }
            _ => Ok(None),
        }
    }

    /// The thread leaves the context, if it is in one of these.
    #[inline]
    pub fn leave(&self, entered: &mut Option<Entered>) -> Py<()> {
        match entered.take() {
            None => Ok(()),
            Some(entered) => {
                self.user.set(ptr::null_mut());
                self.entered.set(false);
                // SAFETY: entered by us, and the last one.
                unsafe { ffi::exit_context(entered.context) }
            }
        }
    }

    /// The context that the task is in, if it is one of these: its own from now on.
    pub fn of_user(&self, user: *mut PyObject) -> Option<Owned> {
        if self.user.get() == user { ffi::taken(&self.context) } else { None }
    }
}
