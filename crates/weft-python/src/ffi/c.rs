//! The C API as weft calls it: pyo3-ffi's, except for the calls during which Python code may run.
//!
//! Before 3.14 an interpreter that ends makes an end of every other thread that still wants to run Python code: with `pthread_exit`, in the middle
//! of whatever that thread has called. This unwinds the stack, and a Rust frame that is not prepared for it aborts the process. So a daemon thread
//! whose Python code was called by weft stops here for ever instead, as every thread does in 3.14. (pyo3-ffi does the same, but only in the calls
//! that attach a thread.) The landing pads are all this costs.

#![allow(non_snake_case)] // the names are C's
#![allow(dead_code)] // not each of them is called for every version of Python

use std::ffi::{c_char, c_double, c_int, c_long, c_longlong};

pub use pyo3_ffi::*;

/// Dropped by an unwinding stack: the thread goes no further.
struct Stop;

impl Drop for Stop {
    #[cold]
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

macro_rules! may_run_python {
    ($($(#[$which:meta])* fn $name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?;)*) => {
        /// The same functions, declared as ones that may unwind.
        mod raw {
            use super::*;

            unsafe extern "C-unwind" {
                $($(#[$which])* pub fn $name($($argument: $kind),*) $(-> $result)?;)*
            }
        }

        $(
            /// # Safety
            /// As in the C API.
            $(#[$which])*
            #[inline(always)]
            pub unsafe fn $name($($argument: $kind),*) $(-> $result)? {
                let stop = Stop;
                // SAFETY: the caller's promise.
                let result = unsafe { raw::$name($($argument),*) };
                std::mem::forget(stop);
                result
            }
        )*
    };
}

may_run_python! {
    fn PyObject_Vectorcall(
        callable: *mut PyObject, arguments: *const *mut PyObject, count: usize, names: *mut PyObject
    ) -> *mut PyObject;
    fn PyObject_VectorcallMethod(
        name: *mut PyObject, arguments: *const *mut PyObject, count: usize, names: *mut PyObject
    ) -> *mut PyObject;
    fn PyObject_GetAttr(object: *mut PyObject, name: *mut PyObject) -> *mut PyObject;
    fn PyObject_SetAttr(object: *mut PyObject, name: *mut PyObject, value: *mut PyObject) -> c_int;
    fn PyObject_GetAttrString(object: *mut PyObject, name: *const c_char) -> *mut PyObject;
    fn PyObject_SetAttrString(object: *mut PyObject, name: *const c_char, value: *mut PyObject) -> c_int;
    fn PyObject_GetItem(object: *mut PyObject, key: *mut PyObject) -> *mut PyObject;
    fn PyObject_SetItem(object: *mut PyObject, key: *mut PyObject, value: *mut PyObject) -> c_int;
    fn PyObject_IsTrue(object: *mut PyObject) -> c_int;
    fn PyObject_Str(object: *mut PyObject) -> *mut PyObject;
    fn PyIter_Send(iterator: *mut PyObject, value: *mut PyObject, result: *mut *mut PyObject) -> PySendResult;
    fn PyList_Append(list: *mut PyObject, item: *mut PyObject) -> c_int;
    fn PyDict_SetItemString(dict: *mut PyObject, key: *const c_char, value: *mut PyObject) -> c_int;
    fn PyObject_CallFinalizerFromDealloc(object: *mut PyObject) -> c_int;
    fn PyObject_Repr(object: *mut PyObject) -> *mut PyObject;
    fn PySequence_Tuple(object: *mut PyObject) -> *mut PyObject;
    fn PyFloat_AsDouble(object: *mut PyObject) -> c_double;
    fn PyLong_AsLong(object: *mut PyObject) -> c_long;
    fn PyLong_AsLongLong(object: *mut PyObject) -> c_longlong;
    fn PyDict_Contains(dict: *mut PyObject, key: *mut PyObject) -> c_int;
    fn PyDict_GetItemWithError(dict: *mut PyObject, key: *mut PyObject) -> *mut PyObject;
    fn PyDict_SetDefault(dict: *mut PyObject, key: *mut PyObject, value: *mut PyObject) -> *mut PyObject;
    #[cfg(Py_3_13)]
    fn PyDict_GetItemRef(dict: *mut PyObject, key: *mut PyObject, found: *mut *mut PyObject) -> c_int;
    #[cfg(Py_3_13)]
    fn PyDict_Pop(dict: *mut PyObject, key: *mut PyObject, found: *mut *mut PyObject) -> c_int;
    // The thread may have to wait.
    #[cfg(Py_GIL_DISABLED)]
    fn PyCriticalSection_Begin(section: *mut Section, object: *mut PyObject);
    #[cfg(Py_GIL_DISABLED)]
    fn PyCriticalSection_End(section: *mut Section);
    fn PyDict_SetItem(dict: *mut PyObject, key: *mut PyObject, value: *mut PyObject) -> c_int;
    fn _PyDict_SetItem_KnownHash(dict: *mut PyObject, key: *mut PyObject, value: *mut PyObject, hash: isize) -> c_int;
    fn PyDict_DelItem(dict: *mut PyObject, key: *mut PyObject) -> c_int;
    fn PyImport_ImportModuleLevelObject(
        name: *mut PyObject, globals: *mut PyObject, locals: *mut PyObject, from: *mut PyObject, level: c_int
    ) -> *mut PyObject;
    fn PyImport_GetModule(name: *mut PyObject) -> *mut PyObject;
    fn PyErr_CheckSignals() -> c_int;
    fn PyErr_WarnExplicit(
        category: *mut PyObject, message: *const c_char, file: *const c_char, line: c_int, module: *const c_char,
        registry: *mut PyObject
    ) -> c_int;
    fn PyErr_WriteUnraisable(object: *mut PyObject);
    fn PyErr_NormalizeException(kind: *mut *mut PyObject, value: *mut *mut PyObject, traceback: *mut *mut PyObject);
    // An exception is made, or one is dropped, and with it all that its frames held.
    fn PyErr_SetObject(kind: *mut PyObject, value: *mut PyObject);
    fn PyErr_SetNone(kind: *mut PyObject);
    fn PyErr_Clear();
    fn PyException_SetTraceback(error: *mut PyObject, traceback: *mut PyObject) -> c_int;
    fn PyException_SetCause(error: *mut PyObject, cause: *mut PyObject);
    // Weak references have callbacks, and objects finalizers.
    fn PyObject_ClearWeakRefs(object: *mut PyObject);
    fn Py_DecRef(object: *mut PyObject);
    // Until 3.11 memory for what the collector sees could start a collection.
    fn _PyObject_GC_New(kind: *mut PyTypeObject) -> *mut PyObject;
    fn PyType_GenericAlloc(kind: *mut PyTypeObject, count: isize) -> *mut PyObject;
    fn PyTuple_New(length: isize) -> *mut PyObject;
    fn PyList_New(length: isize) -> *mut PyObject;
    fn PyDict_New() -> *mut PyObject;
    fn PyContext_New() -> *mut PyObject;
    fn PyContext_Copy(context: *mut PyObject) -> *mut PyObject;
    fn PyContext_CopyCurrent() -> *mut PyObject;
    fn PyWeakref_NewRef(object: *mut PyObject, callback: *mut PyObject) -> *mut PyObject;
}

/// `PyCriticalSection` (Include/cpython/critical_section.h). The bindings have it for free-threaded builds alone, the interpreter from 3.13 on, with a
/// GIL as calls without effect.
#[cfg(Py_GIL_DISABLED)]
#[repr(C)]
pub struct Section {
    previous: usize,
    mutex: *mut u8,
}

/// Drops a reference.
///
/// # Safety
/// The object is alive, and the reference the caller's.
#[inline(always)]
pub unsafe fn Py_DECREF(object: *mut PyObject) {
    // SAFETY: the caller's promise. Where there is a GIL nobody else counts meanwhile, so only a last reference needs the call that may run Python.
    unsafe {
        #[cfg(not(Py_GIL_DISABLED))]
        if Py_REFCNT(object) != 1 {
            return pyo3_ffi::Py_DECREF(object);
        }
        Py_DecRef(object);
    }
}

/// The same, for a pointer that may be null.
///
/// # Safety
/// Null, or as for [`Py_DECREF`].
#[inline(always)]
pub unsafe fn Py_XDECREF(object: *mut PyObject) {
    if !object.is_null() {
        // SAFETY: the caller's promise.
        unsafe { Py_DECREF(object) };
    }
}

/// Memory for an object that the collector will see.
///
/// # Safety
/// As in the C API.
#[inline(always)]
pub unsafe fn PyObject_GC_New<T>(kind: *mut PyTypeObject) -> *mut T {
    // SAFETY: the caller's promise.
    unsafe { _PyObject_GC_New(kind).cast() }
}
