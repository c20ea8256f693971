//! `select`: checks its cases and makes the operation.

use weft_core::select::Policy;

use crate::ffi::{self, Owned, PyObject, c};
use crate::op::{self, Kind, OpObject};
use crate::state::Ref;

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
            let mut given = Vec::new();
            for index in 0..number {
                given.push((ffi::integer(index as usize)?, *arguments.add(index as usize)));
            }
            let mut default = None;
            let mut policy = Policy::Random;
            if !keywords.is_null() {
                for index in 0..c::PyTuple_GET_SIZE(keywords) {
                    let name = c::PyTuple_GET_ITEM(keywords, index);
                    let value = *arguments.add((number + index) as usize);
                    match ffi::text(name).as_str() {
                        "default" => default = Some(Owned::from_borrowed(value)),
                        "policy" => {
                            policy = match ffi::text(value).as_str() {
                                "random" => Policy::Random,
                                "priority" => Policy::Priority,
                                other => {
                                    return Err(ffi::value_error(&format!(
                                        "unknown policy '{other}': it is \"random\" or \"priority\""
                                    )));
                                }
                            }
                        }
                        _ => given.push((Owned::from_borrowed(name), value)),
                    }
                }
            }
            if given.is_empty() && default.is_none() {
                return Err(ffi::value_error(
                    "select() needs at least one case; to wait for ever, say weft.never()",
                ));
            }
            let mut cases: Vec<(Owned, Owned)> = Vec::with_capacity(given.len());
            for (case, object) in given {
                if object == c::Py_None() {
                    // Switched off.
                    continue;
                }
                let shown = ffi::text(case.as_ptr());
                if !state.is(object, Ref::Op) {
                    let hint = if state.is(object, Ref::Channel) || state.is(object, Ref::Receiver) {
                        ": say which way, as in channel.recv()"
                    } else {
                        ""
                    };
                    return Err(ffi::type_error(&format!(
                        "case {shown} of select() must be an operation or None, not {}{hint}",
                        ffi::type_name(object)
                    )));
                }
                let op = OpObject::of(object);
                if op.is_taken() || cases.iter().any(|(_, other)| other.as_ptr() == object) {
                    return Err(ffi::value_error(&format!(
                        "case {shown} of select(): {} belongs to a select already; make a new operation for each",
                        op.description()
                    )));
                }
                if !op.is_fresh() {
                    return Err(ffi::runtime_error(&format!(
                        "case {shown} of select(): {} was already performed; make a new operation",
                        op.description()
                    )));
                }
                if op.has_default() {
                    return Err(ffi::value_error(&format!(
                        "case {shown} of select() is a select with a default, which is always ready: give the default to the outer one"
                    )));
                }
                if op.kind() == Kind::NextEvent {
                    return Err(ffi::type_error(&format!(
                        "case {shown} of select(): a round of selecting() cannot stand in a select"
                    )));
                }
                cases.push((case, Owned::from_borrowed(object)));
            }
            op::select(state, cases, default, policy)
        }
    })
}
