//! Contexts that processes share until they change them.
//!
//! What a task sets in its context no other task sees. But most processes set nothing, so those that were spawned in the same context share one
//! object, which nobody enters: each step is made in a *scratch* copy of it, of which the home has one, and a task that changed the copy keeps it.
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
}

impl Scratch {
    pub fn new() -> Self {
        Self { context: Cell::new(ptr::null_mut()), user: Cell::new(ptr::null_mut()) }
    }

    pub fn as_ptr(&self) -> *mut PyObject {
        self.context.get()
    }

    pub fn clear(&self) {
        ffi::put(&self.context, None);
    }

    /// Whether a task is in it: a step in the middle of another one needs a context of its own.
    #[inline]
    pub fn is_used(&self) -> bool {
        !self.user.get().is_null()
    }

    /// A context with the variables of `shared`, for one step of `user`. Nobody uses it.
    ///
    /// # Safety
    /// A live context, and [`can_share`].
    #[inline]
    pub unsafe fn borrow(&self, user: *mut PyObject, shared: *mut PyObject) -> Py<Owned> {
        debug_assert!(!self.is_used());
        // SAFETY: the caller's promise; ours is null or alive.
        unsafe {
            if self.context.get().is_null() || !same(self.context.get(), shared) {
                let copy = Owned::from_new(c::PyContext_Copy(shared))?;
                ffi::put(&self.context, Some(copy));
            }
            self.user.set(user);
            Ok(Owned::from_borrowed(self.context.get()))
        }
    }

    /// The step has ended. `keeps`: the context is the task's own from now on.
    #[inline]
    pub fn give_back(&self, user: *mut PyObject, context: &Owned, keeps: bool) {
        if self.user.get() == user {
            self.user.set(ptr::null_mut());
        }
        if keeps && self.context.get() == context.as_ptr() {
            self.clear();
        }
    }

    /// The context that the task is in, if it is one of these: its own from now on.
    pub fn of_user(&self, user: *mut PyObject) -> Option<Owned> {
        if self.user.get() == user { ffi::taken(&self.context) } else { None }
    }
}
