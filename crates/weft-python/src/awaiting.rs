//! What `op.__await__()` returns: an iterator over the steps of one operation, for `yield from`.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::op::{self, OpObject};
use crate::state::{Ref, State};

/// `weft._weft._Await`.
#[repr(C)]
struct AwaitObject {
    head: PyObject,
    /// A strong reference.
    op: *mut PyObject,
    /// Whether it was asked for its first step.
    begun: AtomicBool,
}

/// A new one.
///
/// # Safety
/// `op` is a live operation.
pub unsafe fn make(state: &State, op: *mut PyObject) -> Py<Owned> {
    // SAFETY: our type; every field is written before anybody sees the object.
    unsafe {
        let object = ffi::allocate(state.class(Ref::Await))?;
        let this: *mut AwaitObject = object.as_ptr().cast();
        (&raw mut (*this).op).write(Owned::from_borrowed(op).into_ptr());
        (&raw mut (*this).begun).write(AtomicBool::new(false));
        Ok(object)
    }
}

fn op_of(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: the interpreter passes a live iterator.
    unsafe { (*slf.cast::<AwaitObject>()).op }
}

unsafe extern "C" fn next(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: a live iterator and its operation.
    unsafe {
        let begun = (*slf.cast::<AwaitObject>()).begun.swap(true, Ordering::Relaxed);
        // The first step of a second iterator must not step what another one waits for.
        if !begun && OpObject::of(op_of(slf)).await_once().is_err() {
            return ptr::null_mut();
        }
        op::iternext(op_of(slf))
    }
}

unsafe extern "C" fn send(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: a live operation. Called by name, the end needs its exception.
    unsafe {
        let result = next(slf);
        if result.is_null() && c::PyErr_Occurred().is_null() {
            c::PyErr_SetNone(c::PyExc_StopIteration);
        }
        result
    }
}

unsafe extern "C" fn throw(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: a live operation; the interpreter's array.
    unsafe { op::throw(op_of(slf), arguments, number, keywords) }
}

unsafe extern "C" fn close(slf: *mut PyObject, none: *mut PyObject) -> *mut PyObject {
    // SAFETY: a live operation.
    unsafe { op::close(op_of(slf), none) }
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector.
    unsafe {
        let stop = ffi::visit(c::Py_TYPE(slf).cast(), visit, argument);
        if stop != 0 {
            return stop;
        }
        ffi::visit(op_of(slf), visit, argument)
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        c::Py_DECREF(op_of(slf));
        ffi::free(slf);
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    use ffi::Method::{Fast, NoArguments, OneArgument};
    let methods = ffi::methods(
        "_Await",
        &[(c"send", OneArgument(send)), (c"throw", Fast(throw)), (c"close", NoArguments(close))],
    );
    let slots = vec![
        ffi::slot(c::Py_tp_iter, crate::channel::itself as *mut c_void),
        ffi::slot(c::Py_tp_iternext, next as *mut c_void),
        ffi::slot(c::Py_tp_traverse, traverse as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_methods, methods.cast()),
    ];
    // SAFETY: the slots are those of an `AwaitObject`.
    unsafe {
        ffi::make_type(
            module,
            c"weft._weft._Await",
            size_of::<AwaitObject>(),
            (c::Py_TPFLAGS_HAVE_GC | c::Py_TPFLAGS_DISALLOW_INSTANTIATION) as u64,
            slots,
        )
    }
}
