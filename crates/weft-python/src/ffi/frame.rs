//! The line being executed, without the frame object that `PyEval_GetFrame` makes of it: 192 bytes, which a suspended coroutine would keep.
//!
//! Since 3.12 the C API tells code and offset of an interpreter's frame (`PyUnstable_InterpreterFrame_GetCode`, `..._GetLasti`); which frame a
//! thread executes stands in `PyThreadState`, a struct of the public headers (Include/cpython/pystate.h), described here for the versions that were
//! read. It is compared with what `PyEval_GetFrame` says when the module is loaded, and not used if they differ. Every other version takes that.

use std::ffi::c_int;

use super::c::{self, PyObject};

/// Code object (a new reference) and offset of what the thread executes; null: no Python code.
#[inline]
pub fn here() -> (*mut PyObject, c_int) {
    #[cfg(all(Py_3_12, not(Py_3_16), not(Py_GIL_DISABLED)))]
    if let Some(here) = direct::here() {
        return here;
    }
    by_frame_object()
}

/// Finds out whether there is a shorter way than the frame object.
pub fn probe() {
    #[cfg(all(Py_3_12, not(Py_3_16), not(Py_GIL_DISABLED)))]
    direct::probe();
}

fn by_frame_object() -> (*mut PyObject, c_int) {
    // SAFETY: the frame is borrowed and alive while we look at it.
    unsafe {
        let frame = c::PyEval_GetFrame();
        if frame.is_null() {
            return (std::ptr::null_mut(), 0);
        }
        (c::PyFrame_GetCode(frame).cast(), c::PyFrame_GetLasti(frame))
    }
}

#[cfg(all(Py_3_12, not(Py_3_16), not(Py_GIL_DISABLED)))]
mod direct {
    use std::ffi::{c_int, c_void};
    use std::mem::offset_of;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::c::{self, PyObject};

    /// `struct _PyInterpreterFrame`.
    type Frame = c_void;

    unsafe extern "C" {
        fn PyUnstable_InterpreterFrame_GetCode(frame: *mut Frame) -> *mut PyObject;
        fn PyUnstable_InterpreterFrame_GetLasti(frame: *mut Frame) -> c_int;
    }

    /// The beginning of `struct _ts`.
    #[repr(C)]
    struct ThreadState {
        previous: *mut c_void,
        next: *mut c_void,
        interpreter: *mut c_void,
        #[cfg(Py_3_13)]
        eval_breaker: usize,
        status: u32,
        #[cfg(Py_3_14)]
        holds_gil: c_int,
        #[cfg(Py_3_15)]
        gil_requested: c_int,
        #[cfg(Py_3_13)]
        whence: c_int,
        #[cfg(Py_3_13)]
        state: c_int,
        recursion_remaining: c_int,
        recursion_limit: c_int,
        #[cfg(not(Py_3_14))]
        c_recursion_remaining: c_int,
        recursion_headroom: c_int,
        tracing: c_int,
        what_event: c_int,
        #[cfg(Py_3_13)]
        frame: *mut Frame,
        /// Of a struct that begins with the frame.
        #[cfg(not(Py_3_13))]
        frame: *mut *mut Frame,
    }

    #[cfg(all(Py_3_13, target_pointer_width = "64"))]
    const _: () = assert!(offset_of!(ThreadState, frame) == 72);
    #[cfg(all(not(Py_3_13), target_pointer_width = "64"))]
    const _: () = assert!(offset_of!(ThreadState, frame) == 56);

    /// Of the process: every interpreter of it is the same build. Relaxed: both ways tell the same.
    static TRUSTED: AtomicBool = AtomicBool::new(false);

    #[inline]
    pub fn here() -> Option<(*mut PyObject, c_int)> {
        // SAFETY: probed.
        if TRUSTED.load(Ordering::Relaxed) { unsafe { read() } } else { None }
    }

    /// # Safety
    /// Attached, and `ThreadState` is how the interpreter was compiled.
    #[inline]
    unsafe fn read() -> Option<(*mut PyObject, c_int)> {
        // SAFETY: the caller's promise; the frame being executed is alive.
        unsafe {
            let frame = (*c::PyThreadState_Get().cast::<ThreadState>()).frame;
            #[cfg(not(Py_3_13))]
            let frame = if frame.is_null() { return None } else { *frame };
            if frame.is_null() {
                return None;
            }
            let code = PyUnstable_InterpreterFrame_GetCode(frame);
            if c::PyCode_Check(code) == 0 {
                // The interpreter's own frame, below those of Python code.
                c::Py_XDECREF(code);
                return None;
            }
            Some((code, PyUnstable_InterpreterFrame_GetLasti(frame)))
        }
    }

    pub fn probe() {
        // A frame object tells its frame: the first field after its head and the link to the next one (Include/internal/pycore_frame.h).
        #[repr(C)]
        struct FrameObject {
            head: PyObject,
            back: *mut c_void,
            frame: *mut Frame,
        }
        // SAFETY: attached; the module is being imported by Python code. Pointers are compared before any is followed but the first level of
        // `struct _ts`, which every version has.
        unsafe {
            let object = c::PyEval_GetFrame();
            let frame = (*c::PyThreadState_Get().cast::<ThreadState>()).frame;
            if object.is_null() || frame.is_null() {
                return;
            }
            #[cfg(not(Py_3_13))]
            let frame = *frame;
            TRUSTED.store((*object.cast::<FrameObject>()).frame == frame, Ordering::Relaxed);
        }
    }
}
