//! The line of Python that made or closed something, kept as code object and offset: the line number is computed when somebody asks.

use std::ffi::{c_int, c_void};
use std::ptr;

use crate::ffi::{self, PyObject, c};

/// A place in the program's source.
#[derive(Clone, Copy)]
pub struct Origin {
    code: *mut PyObject,
    offset: c_int,
}

// SAFETY: a reference to a code object, dropped while attached, as `Owned`.
unsafe impl Send for Origin {}

impl Origin {
    pub const UNKNOWN: Self = Self { code: ptr::null_mut(), offset: 0 };

    /// The line being executed. The reference it holds is given back by [`forget`](Self::forget).
    #[inline]
    pub fn here() -> Self {
        let (code, offset) = ffi::frame::here();
        Self { code, offset }
    }

    /// One that was taken apart. It shares the reference.
    pub fn of(code: *mut PyObject, offset: c_int) -> Self {
        Self { code, offset }
    }

    /// Code object (null: unknown) and offset.
    #[inline]
    pub fn parts(&self) -> (*mut PyObject, c_int) {
        (self.code, self.offset)
    }

    pub fn is_unknown(&self) -> bool {
        self.code.is_null()
    }

    /// Code object (null: unknown) and offset, with the reference.
    #[inline]
    pub fn into_parts(self) -> (*mut PyObject, c_int) {
        (self.code, self.offset)
    }

    /// The first line up the stack that is in another folder than the function being executed, which is one of weft's own.
    pub fn of_user() -> Self {
        let mut at = Self::here();
        let folder =
            |origin: &Self| origin.place().map(|(file, _)| file.rsplit_once(['/', '\\']).map(|(f, _)| f.to_owned()));
        let ours = folder(&at);
        // SAFETY: frames are alive while we hold them; GetBack gives a reference.
        unsafe {
            let mut frame = c::PyEval_GetFrame();
            c::Py_XINCREF(frame.cast());
            while !frame.is_null() && folder(&at) == ours {
                let back = c::PyFrame_GetBack(frame);
                c::Py_DECREF(frame.cast());
                frame = back;
                if !frame.is_null() {
                    at.forget();
                    at = Self { code: c::PyFrame_GetCode(frame).cast(), offset: c::PyFrame_GetLasti(frame) };
                }
            }
            c::Py_XDECREF(frame.cast());
        }
        at
    }

    /// Drops the reference. The origin must not be used again.
    #[inline]
    pub fn forget(&mut self) {
        // SAFETY: the reference is ours, or null.
        unsafe { c::Py_XDECREF(std::mem::replace(&mut self.code, ptr::null_mut())) }
    }

    /// File and line.
    pub fn place(&self) -> Option<(String, c_int)> {
        if self.code.is_null() {
            return None;
        }
        // SAFETY: a live code object.
        unsafe {
            let file = ffi::Owned::from_new(c::PyObject_GetAttrString(self.code, c"co_filename".as_ptr()));
            let file = match file {
                Ok(file) => ffi::text(file.as_ptr()),
                Err(ffi::Raised) => {
                    c::PyErr_Clear();
                    return None;
                }
            };
            Some((file, c::PyCode_Addr2Line(self.code.cast(), self.offset)))
        }
    }

    /// `file.py:12`, without the folders.
    pub fn short(&self) -> String {
        match self.place() {
            Some((file, line)) => {
                let name = file.rsplit(['/', '\\']).next().unwrap_or(&file);
                format!("{name}:{line}")
            }
            None => "unknown".to_owned(),
        }
    }

    /// # Safety
    /// From `tp_traverse`.
    pub unsafe fn traverse(&self, visit: c::visitproc, argument: *mut c_void) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { ffi::visit(self.code, visit, argument) }
    }
}
