//! The `StopIteration` with which an `await` gets its result.
//!
//! The interpreter has no other way to return a value from an awaitable that is no coroutine, and making an exception costs more than the rest
//! of the operation. This subclass keeps the memory of the last one for the next: same layout, another deallocator.

use std::ffi::c_void;
use std::ptr;

use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::state::{Ref, State};

/// Raises it.
#[inline]
pub fn raise(state: &State, value: Owned) {
    // SAFETY: the memory is that of a `PyStopIterationObject`, whose fields are all null when it is new or spare.
    unsafe {
        let kind = state.class(Ref::Stop);
        let spare = state.take_stop();
        let object = if spare.is_null() {
            match ffi::allocate(kind) {
                Ok(object) => object.into_ptr(),
                Err(ffi::Raised) => return,
            }
        } else {
            let object = c::PyObject_Init(spare, kind);
            c::PyObject_GC_Track(object.cast());
            object
        };
        let stop: *mut c::PyStopIterationObject = object.cast();
        (*stop).args = Owned::from_borrowed(state.get(Ref::Empty)).into_ptr();
        (*stop).value = value.into_ptr();
        #[cfg(Py_3_12)]
        c::PyErr_SetRaisedException(object);
        #[cfg(not(Py_3_12))]
        {
            c::Py_INCREF(kind.cast());
            c::PyErr_Restore(kind.cast(), object, ptr::null_mut());
        }
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; each field is dropped once, and is null afterwards.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        let stop: *mut c::PyStopIterationObject = slf.cast();
        for field in [
            &raw mut (*stop).value,
            &raw mut (*stop).args,
            &raw mut (*stop).dict,
            &raw mut (*stop).notes,
            &raw mut (*stop).traceback,
            &raw mut (*stop).context,
            &raw mut (*stop).cause,
        ] {
            let old = field.replace(ptr::null_mut());
            if !old.is_null() {
                c::Py_DECREF(old);
            }
        }
        let kind = c::Py_TYPE(slf);
        let unused = State::of_type(kind).keep_stop(slf);
        if !unused.is_null() {
            c::PyObject_GC_Del(unused.cast());
        }
        c::Py_DECREF(kind.cast());
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    let slots = vec![ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void)];
    // SAFETY: no field is added; traversal is inherited. The base lives for ever.
    unsafe {
        let base = Owned::from_borrowed(c::PyExc_StopIteration);
        ffi::make_subtype(module, c"weft._weft._Stop", &base, ffi::IMMUTABLE, slots)
    }
}
