//! `select`: checks its cases and makes the operation.

use smallvec::SmallVec;
use weft_core::select::Policy;

use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::op::{self, FEW, Kind, OpObject};
use crate::state::{Ref, State};

/// `select(*cases, default=..., policy="random", **named)`
pub unsafe extern "C" fn select(
    module: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes our module and its arrays.
        unsafe {
            let state = crate::state_of_module(module);
            let mut default = None;
            let mut policy = Policy::Random;
            let mut cases = Cases::new();
            let mut count = number;
            for index in 0..number {
                let object = *arguments.add(index as usize);
                if object != c::Py_None() {
                    cases.add(state, ffi::integer(index as usize)?, object)?;
                }
            }
            if !keywords.is_null() {
                for index in 0..c::PyTuple_GET_SIZE(keywords) {
                    let name = c::PyTuple_GET_ITEM(keywords, index);
                    let value = *arguments.add((number + index) as usize);
                    if ffi::is_text(name, c"default") {
                        default = Some(Owned::from_borrowed(value));
                    } else if ffi::is_text(name, c"policy") {
                        policy = match ffi::text(value).as_str() {
                            "random" => Policy::Random,
                            "priority" => Policy::Priority,
                            other => {
                                return Err(ffi::value_error(&format!(
                                    "unknown policy '{other}': it is \"random\" or \"priority\""
                                )));
                            }
                        }
                    } else {
                        count += 1;
                        if value != c::Py_None() {
                            cases.add(state, Owned::from_borrowed(name), value)?;
                        }
                    }
                }
            }
            if count == 0 && default.is_none() {
                return Err(ffi::value_error("select() needs at least one case; to wait for ever, say weft.never()"));
            }
            op::select(state, cases.take(), default, policy)
        }
    })
}

/// Cases being collected. Dropped before the select is made, it gives the operations back.
struct Cases(SmallVec<[*mut OpObject; FEW]>);

impl Cases {
    fn new() -> Self {
        Self(SmallVec::new())
    }

    /// # Safety
    /// A live object.
    unsafe fn add(&mut self, state: &State, case: Owned, object: *mut PyObject) -> Py<()> {
        // SAFETY: an operation, once checked; the reference goes to the list.
        unsafe {
            check(state, &case, object)?;
            OpObject::of(object).become_case(case);
            self.0.push(Owned::from_borrowed(object).into_ptr().cast());
        }
        Ok(())
    }

    fn take(&mut self) -> SmallVec<[*mut OpObject; FEW]> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Cases {
    fn drop(&mut self) {
        for op in self.0.drain(..) {
            // SAFETY: a reference of ours.
            unsafe {
                (*op).become_free();
                c::Py_DECREF(op.cast());
            }
        }
    }
}

/// Whether `object` can be a case.
///
/// # Safety
/// A live object.
unsafe fn check(state: &State, case: &Owned, object: *mut PyObject) -> Py<()> {
    let shown = || ffi::text(case.as_ptr());
    if !state.is(object, Ref::Op) {
        let hint = if state.is(object, Ref::Channel) || state.is(object, Ref::Receiver) {
            ": say which way, as in channel.recv()"
        } else {
            ""
        };
        return Err(ffi::type_error(&format!(
            "case {} of select() must be an operation or None, not {}{hint}",
            shown(),
            ffi::type_name(object)
        )));
    }
    // SAFETY: an operation.
    let op = unsafe { OpObject::of(object) };
    if op.is_taken() {
        return Err(ffi::value_error(&format!(
            "case {} of select(): {} belongs to a select already; make a new operation for each",
            shown(),
            op.description()
        )));
    }
    if !op.is_fresh() {
        return Err(ffi::runtime_error(&format!(
            "case {} of select(): {} was already performed; make a new operation",
            shown(),
            op.description()
        )));
    }
    if op.has_default() {
        return Err(ffi::value_error(&format!(
            "case {} of select() is a select with a default, which is always ready: give the default to the outer one",
            shown()
        )));
    }
    if op.kind() == Kind::NextEvent {
        return Err(ffi::type_error(&format!(
            "case {} of select(): a round of selecting() cannot stand in a select",
            shown()
        )));
    }
    Ok(())
}
