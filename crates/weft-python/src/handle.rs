//! The handle of a process that is a task of ours, as `spawn` returns it: what of it programs ask for each process, `done` and the result.
//!
//! All else is Python, in the class that derives from this (`weft._stepped`). A handle has its task from the moment it is made, and nothing else.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::state::{Ref, State};
use crate::task::TaskObject;

/// `weft._weft._Handle`.
#[repr(C)]
struct HandleObject {
    head: PyObject,
    /// A strong reference; null only when the collector has taken it.
    task: Cell<*mut PyObject>,
}

impl HandleObject {
    /// # Safety
    /// A live handle.
    unsafe fn of<'a>(object: *mut PyObject) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*object.cast() }
    }

    fn held(&self) -> Option<&TaskObject> {
        // SAFETY: null, or a task that we hold.
        unsafe { self.task.get().cast::<TaskObject>().as_ref() }
    }

    fn task(&self) -> Py<&TaskObject> {
        self.held().ok_or_else(|| ffi::runtime_error("the process is being collected as garbage"))
    }
}

/// The handle of this task.
#[inline]
pub fn make(state: &State, task: Owned) -> Py<Owned> {
    let kind = state.process_class()?;
    // SAFETY: a class that derives from ours without fields of its own, and has no `__init__`.
    unsafe {
        let handle = ffi::allocate(kind.cast())?;
        HandleObject::of(handle.as_ptr()).task.set(task.into_ptr());
        Ok(handle)
    }
}

unsafe extern "C" fn get_done(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: the interpreter passes a live handle, here and below.
    ffi::edge_object(|| Ok(ffi::boolean(unsafe { HandleObject::of(slf) }.task()?.is_done())))
}

unsafe extern "C" fn cancelled(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `get_done`.
    ffi::edge_object(|| Ok(ffi::boolean(unsafe { HandleObject::of(slf) }.task()?.is_cancelled())))
}

unsafe extern "C" fn result(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `get_done`.
        unsafe {
            let task = HandleObject::of(slf).task()?;
            match task.returned() {
                Some(value) => Ok(value),
                None => ffi::call_method(State::of(task.as_ptr()).get(Ref::NoResult), &[slf]),
            }
        }
    })
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector. What visits the instances of a class that derives from this one leaves the type to us.
    unsafe {
        match ffi::visit(c::Py_TYPE(slf).cast(), visit, argument) {
            0 => ffi::visit(HandleObject::of(slf).task.get(), visit, argument),
            stop => stop,
        }
    }
}

unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    // SAFETY: from the collector, which found it unreachable.
    drop(ffi::taken(unsafe { &HandleObject::of(slf).task }));
    0
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        let this = HandleObject::of(slf);
        if let Some(task) = this.held() {
            task.forget_handle();
        }
        ffi::drop_contents(ffi::taken(&this.task));
        ffi::free(slf);
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    use ffi::Method::NoArguments;
    let methods = ffi::methods("_Handle", &[(c"cancelled", NoArguments(cancelled)), (c"result", NoArguments(result))]);
    let properties = ffi::properties("_Handle", &[(c"done", get_done, None)]);
    let members = ffi::table("_Handle", "members", || {
        let task = c::PyMemberDef {
            name: c"_task".as_ptr(),
            type_code: c::Py_T_OBJECT_EX,
            offset: offset_of!(HandleObject, task) as isize,
            flags: c::Py_READONLY,
            doc: ptr::null(),
        };
        vec![task, c::PyMemberDef::default()]
    });
    let slots = vec![
        ffi::slot(c::Py_tp_traverse, traverse as *mut c_void),
        ffi::slot(c::Py_tp_clear, clear as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_methods, methods.cast()),
        ffi::slot(c::Py_tp_getset, properties.cast()),
        ffi::slot(c::Py_tp_members, members.cast()),
    ];
    let flags = (c::Py_TPFLAGS_HAVE_GC | c::Py_TPFLAGS_BASETYPE | c::Py_TPFLAGS_DISALLOW_INSTANTIATION) as u64;
    // SAFETY: the slots are those of a `HandleObject`.
    unsafe { ffi::make_type(module, c"weft._weft._Handle", size_of::<HandleObject>(), flags, slots) }
}
