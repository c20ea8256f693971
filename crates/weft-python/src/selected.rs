//! `Selected(case, value)`: what a select comes to.
//!
//! The class with its fields is in `weft._results`. The public one is a subclass that differs in one thing: its memory is kept for the next
//! one, as making and ending an instance of a Python class costs as much as a receive.

use std::ffi::c_void;

use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::state::{Ref, State};

/// A new one.
#[inline]
pub fn make(state: &State, case: *mut PyObject, value: Owned) -> Py<Owned> {
    let kind = state.class(Ref::Selected);
    // SAFETY: a subclass of tuple, with room for two; it is filled before anybody sees it. Spare memory is that of one that has ended.
    unsafe {
        let spare = state.take_selected();
        let tuple = match spare.is_null() {
            true => Owned::from_new(c::PyType_GenericAlloc(kind, 2))?,
            false => Owned::from_new(c::PyObject_InitVar(spare.cast(), kind, 2).cast())?,
        };
        // Nothing that is part of a cycle is in it: the collector need not know it, as with the tuples of the interpreter.
        let simple = !ffi::may_be_in_a_cycle(case) && !ffi::may_be_in_a_cycle(value.as_ptr());
        // A tuple keeps its hash from 3.14 on; -1 says that it was not asked for yet.
        #[cfg(Py_3_14)]
        {
            (*tuple.as_ptr().cast::<c::PyTupleObject>()).ob_hash = -1;
        }
        c::PyTuple_SET_ITEM(tuple.as_ptr(), 0, Owned::from_borrowed(case).into_ptr());
        c::PyTuple_SET_ITEM(tuple.as_ptr(), 1, value.into_ptr());
        if !spare.is_null() && !simple {
            c::PyObject_GC_Track(spare.cast());
        }
        Ok(tuple)
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; each item is dropped once. A tuple made by a method of the class may have another length.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        let length = c::Py_SIZE(slf);
        ffi::drop_contents((0..length).filter_map(|index| Owned::from_nullable(c::PyTuple_GET_ITEM(slf, index))));
        let kind = c::Py_TYPE(slf);
        let kept = length == 2 && State::of_type(kind).keep_selected(slf);
        if !kept {
            c::PyObject_GC_Del(slf.cast());
        }
        c::Py_DECREF(kind.cast());
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    let base = ffi::import(c"weft._results", Some(c"Selected"))?;
    let slots = vec![
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_doc, crate::docs::doc("Selected", "").cast_mut().cast()),
    ];
    // SAFETY: no field is added; traversal is inherited. The base is a class, which nobody makes immutable.
    unsafe { ffi::make_subtype(module, c"weft.Selected", &base, 0, slots) }
}
