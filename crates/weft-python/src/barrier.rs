//! `Barrier`: so many parties meet, again and again.

use std::ffi::{c_int, c_void};
use std::ptr;

use weft_core::barrier::Barrier;

use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::op;
use crate::state::State;

/// `weft.Barrier`.
#[repr(C)]
pub struct BarrierObject {
    head: PyObject,
    pub barrier: Barrier,
}

impl BarrierObject {
    /// # Safety
    /// A live `Barrier`.
    pub unsafe fn of<'a>(object: *mut PyObject) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*object.cast() }
    }
}

unsafe extern "C" fn new(
    kind: *mut c::PyTypeObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: what the interpreter passed to tp_new; our type, every field is written.
        unsafe {
            let [parties] = ffi::parameters_of_new("Barrier", ["parties"], 1, arguments, keywords)?;
            if parties.is_null() {
                return Err(ffi::type_error("Barrier() needs the number of parties"));
            }
            let parties = crate::channel::count(parties, "parties", 1)?;
            let object = ffi::allocate(kind)?;
            (&raw mut (*object.as_ptr().cast::<BarrierObject>()).barrier).write(Barrier::new(parties));
            Ok(object)
        }
    })
}

unsafe extern "C" fn sync(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: the interpreter passes a live barrier, here and below.
    ffi::edge_object(|| op::sync(unsafe { State::of(slf) }, slf))
}

unsafe extern "C" fn get_parties(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see `sync`.
    ffi::edge_object(|| ffi::integer(unsafe { BarrierObject::of(slf) }.barrier.parties()))
}

unsafe extern "C" fn get_waiting(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see `sync`.
    ffi::edge_object(|| ffi::integer(unsafe { BarrierObject::of(slf) }.barrier.waiting()))
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector.
    unsafe {
        let mut stop = ffi::visit(c::Py_TYPE(slf).cast(), visit, argument);
        BarrierObject::of(slf).barrier.visit(|waiter| {
            if stop == 0 {
                stop = ffi::visit(op::of_waiter(waiter), visit, argument);
            }
        });
        stop
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; nobody is parked, for whoever is holds one.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        ptr::drop_in_place(&raw mut (*slf.cast::<BarrierObject>()).barrier);
        ffi::free(slf);
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    use ffi::Method::NoArguments;
    let methods = ffi::methods("Barrier", &[(c"sync", NoArguments(sync))]);
    let properties = ffi::properties("Barrier", &[(c"parties", get_parties, None), (c"waiting", get_waiting, None)]);
    let slots = vec![
        ffi::slot(c::Py_tp_new, new as *mut c_void),
        ffi::slot(c::Py_tp_doc, crate::docs::doc("Barrier", "").cast_mut().cast()),
        ffi::slot(c::Py_tp_traverse, traverse as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_methods, methods.cast()),
        ffi::slot(c::Py_tp_getset, properties.cast()),
    ];
    // SAFETY: the slots are those of a `BarrierObject`.
    unsafe { ffi::make_type(module, c"weft.Barrier", size_of::<BarrierObject>(), c::Py_TPFLAGS_HAVE_GC as u64, slots) }
}
