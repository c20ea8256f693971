//! The `StopIteration` with which an `await` gets its result.
//!
//! The interpreter has no other way to return a value from an awaitable that is no coroutine, and making an exception costs more than the rest
//! of the operation. This subclass keeps the last one for the next, as operations are kept (`op::object`): the same
//! fields first, another deallocator.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;

use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::state::{Ref, State};

/// `weft._weft._Stop`.
#[repr(C)]
struct StopObject {
    base: c::PyStopIterationObject,
    /// A collection has come upon it.
    seen: Cell<bool>,
}

/// Raises it.
#[inline]
pub fn raise(state: &State, value: Owned) {
    // SAFETY: a `StopObject`, whose fields are null, but for `args` when it was kept.
    unsafe {
        let mut object = state.take_stop();
        if !object.is_null() && (*object.cast::<StopObject>()).seen.get() {
            c::Py_DECREF(object);
            object = ptr::null_mut();
        }
        if object.is_null() {
            match ffi::allocate(state.class(Ref::Stop)) {
                Ok(new) => object = new.into_ptr(),
                Err(ffi::Raised) => return,
            }
            (*object.cast::<StopObject>()).base.args = Owned::from_borrowed(state.get(Ref::Empty)).into_ptr();
        }
        (*object.cast::<StopObject>()).base.value = value.into_ptr();
        (*object.cast::<StopObject>()).base.suppress_context = '\0';
        #[cfg(Py_3_12)]
        c::PyErr_SetRaisedException(object);
        #[cfg(not(Py_3_12))]
        {
            let kind = c::Py_TYPE(object).cast();
            c::Py_INCREF(kind);
            c::PyErr_Restore(kind, object, ptr::null_mut());
        }
    }
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector. The base, which is no heap type, leaves the type to us.
    unsafe {
        (*slf.cast::<StopObject>()).seen.set(true);
        let stop = ffi::visit(c::Py_TYPE(slf).cast(), visit, argument);
        match (*c::PyExc_StopIteration.cast::<c::PyTypeObject>()).tp_traverse {
            Some(base) if stop == 0 => base(slf, visit, argument),
            _ => stop,
        }
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; each field is dropped once. As for operations: what is kept has a reference before anything is dropped.
    unsafe {
        let this: *mut StopObject = slf.cast();
        let base = &raw mut (*this).base;
        let kind = c::Py_TYPE(slf);
        let state = State::of_type(kind);
        let others = [(*base).dict, (*base).notes, (*base).traceback, (*base).context, (*base).cause];
        let value = std::mem::replace(&mut (*base).value, ptr::null_mut());
        if (*this).seen.get()
            || others.iter().any(|other| !other.is_null())
            || (*base).args != state.get(Ref::Empty)
            || !state.keep_stop(slf)
        {
            c::PyObject_GC_UnTrack(slf.cast());
            let args = (*base).args;
            c::PyObject_GC_Del(slf.cast());
            others.into_iter().chain([args]).for_each(|field| c::Py_XDECREF(field));
            c::Py_DECREF(kind.cast());
        }
        c::Py_XDECREF(value);
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    // SAFETY: the slots are those of a `StopObject`. The base lives for ever.
    unsafe {
        let base = Owned::from_borrowed(c::PyExc_StopIteration);
        let mut slots = vec![
            ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
            ffi::slot(c::Py_tp_traverse, traverse as *mut c_void),
        ];
        if let Some(clear) = (*base.as_ptr().cast::<c::PyTypeObject>()).tp_clear {
            slots.push(ffi::slot(c::Py_tp_clear, clear as *mut c_void));
        }
        let size = size_of::<StopObject>();
        ffi::make_subtype_of_size(module, c"weft._weft._Stop", size, &base, c::Py_TPFLAGS_HAVE_GC as u64, slots)
    }
}
