//! `select`: checks its cases and makes the operation.

use weft_core::select::Policy;

use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::op::{self, Kind, OpObject, Select};
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
            let mut select = state.take_select();
            match gather(state, &mut select, arguments, number, keywords) {
                Ok(()) => op::select(state, select),
                Err(raised) => {
                    select.give_back();
                    state.keep_select(select);
                    Err(raised)
                }
            }
        }
    })
}

/// # Safety
/// The arguments are what the interpreter passed.
unsafe fn gather(
    state: &State,
    select: &mut Select,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> Py<()> {
    // SAFETY: the caller's promise: `number` values, then one per keyword.
    unsafe {
        let mut count = number;
        for index in 0..number {
            let object = *arguments.add(index as usize);
            if object != c::Py_None() {
                add(state, select, ffi::integer(index as usize)?, object)?;
            }
        }
        if !keywords.is_null() {
            for index in 0..c::PyTuple_GET_SIZE(keywords) {
                let name = c::PyTuple_GET_ITEM(keywords, index);
                let value = *arguments.add((number + index) as usize);
                if ffi::is_text(name, c"default") {
                    select.set_default(Owned::from_borrowed(value));
                } else if ffi::is_text(name, c"policy") {
                    select.set_policy(match ffi::text(value).as_str() {
                        "random" => Policy::Random,
                        "priority" => Policy::Priority,
                        other => {
                            return Err(ffi::value_error(&format!(
                                "unknown policy '{other}': it is \"random\" or \"priority\""
                            )));
                        }
                    });
                } else {
                    count += 1;
                    if value != c::Py_None() {
                        add(state, select, Owned::from_borrowed(name), value)?;
                    }
                }
            }
        }
        if count == 0 && !select.has_default() {
            return Err(ffi::value_error("select() needs at least one case; to wait for ever, say weft.never()"));
        }
        Ok(())
    }
}

/// # Safety
/// A live object.
#[inline]
unsafe fn add(state: &State, select: &mut Select, case: Owned, object: *mut PyObject) -> Py<()> {
    // SAFETY: an operation, once checked.
    unsafe {
        check(state, &case, object)?;
        select.add(OpObject::of(object), case)
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
