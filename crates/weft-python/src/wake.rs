//! How a parked operation is woken.
//!
//! The waker of an operation is its address. Each of its nodes in a queue stands for one reference to it (counted when it parks), and whoever claims a
//! node takes that reference over with the waker: so the operation lives until it was woken, even if its owner is quicker.

use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

use weft_core::chan::Wakes;
use weft_core::waiter::Waiter;

use crate::ffi::{Owned, c};
use crate::op::OpObject;
use crate::value::Value;

static TABLE: RawWakerVTable = RawWakerVTable::new(
    |data| {
        // SAFETY: a waker's operation is alive.
        unsafe { c::Py_INCREF(data.cast_mut().cast()) };
        RawWaker::new(data, &TABLE)
    },
    |data| {
        // SAFETY: waking takes over the reference of the claimed node.
        drop(unsafe { OpObject::wake(data.cast_mut().cast()) });
    },
    |_| (),
    // The reference belongs to the node, not to the waker.
    |_| (),
);

/// The waker to arm an operation's waiter with.
#[inline]
pub fn waker(op: *const OpObject) -> Waker {
    // SAFETY: the table keeps the contract of this file; weft-core never clones a waker.
    unsafe { Waker::from_raw(RawWaker::new(op.cast(), &TABLE)) }
}

/// Wakes all.
#[inline]
pub fn all(wakes: Wakes) {
    if !wakes.is_empty() {
        wakes.wake();
    }
}

/// Wakes all. A receiver that got a value but is gone with its loop gives it back: the value is returned, to be sent again.
#[inline]
pub fn all_but_gone(wakes: Wakes) -> Option<Value> {
    match wakes.into_only() {
        Ok(only) => only.and_then(wake),
        Err(several) => several_but_gone(several),
    }
}

#[cold]
fn several_but_gone(wakes: Wakes) -> Option<Value> {
    let mut back = None;
    for waker in wakes.into_wakers() {
        let value = wake(waker);
        back = back.or(value);
    }
    back
}

/// As [`all_but_gone`], for several values.
pub fn all_and_returned(wakes: Wakes) -> Vec<Value> {
    wakes.into_wakers().filter_map(wake).collect()
}

/// Wakes one: an operation of this interpreter at once, any other by its bell.
#[inline]
fn wake(waker: Waker) -> Option<Value> {
    if ptr::eq(waker.vtable(), &TABLE) {
        let op = waker.data().cast_mut().cast();
        // It has nothing to drop.
        std::mem::forget(waker);
        // SAFETY: as in the table.
        return unsafe { OpObject::wake(op) };
    }
    waker.wake();
    None
}

/// The operation that waits with this waiter, unless it has a bell.
pub fn behind(waiter: &Waiter) -> Option<Owned> {
    // SAFETY: as long as the offer is open its waker stands for a reference, and it is held open here.
    waiter.with_data(&TABLE, |op| unsafe { Owned::from_borrowed(op.cast_mut().cast()) })
}
