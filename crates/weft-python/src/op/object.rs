//! Operations as Python objects: how they are made, what the collector sees of them, and how they end.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};

use weft_core::waiter::Waiter;
use weft_core::waitq::Node;

use super::{DECIDED, DONE, Extra, FRESH, Kind, OpObject, PARKED, Select, Sleeper, TAKEN};
use crate::channel::{ChannelObject, Via};
use crate::ends::EndObject;
use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::origin::Origin;
use crate::state::State;

/// A new operation that is not on a channel; `owner` is null or what it was made from.
pub fn make(state: &State, kind: Kind, owner: *mut PyObject, value: Option<Owned>) -> Py<Owned> {
    // SAFETY: `owner` is null or alive.
    unsafe { create(state, kind, owner, ptr::null(), ptr::null(), value) }
}

/// A new operation on a channel.
#[inline]
pub fn on_channel(via: Via<'_>, kind: Kind, value: Option<Owned>) -> Py<Owned> {
    let end = via.end.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the owner is alive, and keeps channel and end alive.
    unsafe { create(via.channel.state(), kind, via.owner, via.channel, end, value) }
}

/// # Safety
/// `owner` is null or alive, and keeps `channel` and `end` alive.
#[inline]
pub(super) unsafe fn create(
    state: &State,
    kind: Kind,
    owner: *mut PyObject,
    channel: *const ChannelObject,
    end: *const EndObject,
    value: Option<Owned>,
) -> Py<Owned> {
    // SAFETY: our type; every field is written before anybody sees the object.
    unsafe {
        let object = state.allocate_op()?;
        let this: *mut OpObject = object.cast();
        c::Py_XINCREF(owner);
        (&raw mut (*this).waiter).write(Waiter::new());
        (&raw mut (*this).node).write(Node::new(value));
        (&raw mut (*this).owner).write(owner);
        (&raw mut (*this).channel).write(channel);
        (&raw mut (*this).end).write(end);
        (&raw mut (*this).kind).write(kind);
        (&raw mut (*this).phase).write(AtomicU8::new(FRESH));
        (&raw mut (*this).bare).write(Cell::new(!channel.is_null()));
        (&raw mut (*this).ready).write(Cell::new(false));
        (&raw mut (*this).dead_end).write(Cell::new(false));
        (&raw mut (*this).blocking).write(Cell::new(false));
        (&raw mut (*this).cancelled).write(Cell::new(false));
        (&raw mut (*this).late).write(Cell::new(false));
        (&raw mut (*this).missed).write(Cell::new(false));
        (&raw mut (*this).linked).write(Cell::new(0));
        (&raw mut (*this).winner).write(Cell::new(0));
        (&raw mut (*this).due).write(Cell::new(0.0));
        (&raw mut (*this).timer).write(Cell::new(None));
        (&raw mut (*this).map).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).callback).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).context).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).message).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).parent).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).case).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).sleeper).write(UnsafeCell::new(Sleeper::Nobody));
        (&raw mut (*this).extra).write(UnsafeCell::new(Extra::None));
        (&raw mut (*this).made).write(UnsafeCell::new(Origin::here()));
        // Only now: a collection must not meet a half-made operation.
        c::PyObject_GC_Track(object.cast());
        Owned::from_new(object)
    }
}

/// An operation that is ready with `value`.
pub fn ready(state: &State, value: Owned) -> Py<Owned> {
    make(state, Kind::Always, ptr::null_mut(), Some(value))
}

/// An operation on a clock.
pub fn timer(state: &State, kind: Kind, owner: *mut PyObject, seconds: f64) -> Py<Owned> {
    let op = make(state, kind, owner, None)?;
    // SAFETY: just made.
    unsafe { OpObject::of(op.as_ptr()).set_extra(Extra::Time(seconds)) };
    Ok(op)
}

/// An operation on a descriptor; `owner` is what the program gave.
pub fn descriptor(state: &State, kind: Kind, owner: *mut PyObject, fd: c_int) -> Py<Owned> {
    let op = make(state, kind, owner, None)?;
    // SAFETY: just made.
    unsafe { OpObject::of(op.as_ptr()).set_extra(Extra::Descriptor { fd, watched: -1 }) };
    Ok(op)
}

/// Taking part in a barrier.
pub fn sync(state: &State, owner: *mut PyObject) -> Py<Owned> {
    let op = make(state, Kind::Sync, owner, None)?;
    // SAFETY: just made.
    unsafe { OpObject::of(op.as_ptr()).set_extra(Extra::Sync(Box::new(Node::new(None)))) };
    Ok(op)
}

/// A select of the operations that were added to it; a select among them brings its own leaves.
pub fn select(state: &State, mut select: Box<Select>) -> Py<Owned> {
    let root = match make(state, Kind::Select, ptr::null_mut(), None) {
        Ok(root) => root,
        Err(raised) => {
            select.give_back();
            return Err(raised);
        }
    };
    // SAFETY: just made.
    let made = unsafe { OpObject::of(root.as_ptr()) };
    select.complete(made);
    made.set_extra(Extra::Select(select));
    made.bare.set(true);
    Ok(root)
}

pub(super) unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector; fields are only read.
    unsafe {
        let op = OpObject::of(slf);
        let mut objects = vec![
            c::Py_TYPE(slf).cast(),
            op.owner,
            op.map.get(),
            op.callback.get(),
            op.context.get(),
            op.message.get(),
            op.case.get(),
        ];
        op.node.peek(|value| objects.extend(value.map(Owned::as_ptr)));
        match op.sleeper() {
            Sleeper::Loop(home) => objects.push(home.as_ptr()),
            Sleeper::Elsewhere(wake, gone) => {
                objects.push(wake.as_ptr());
                objects.extend(gone.as_ref().map(Owned::as_ptr));
            }
            _ => {}
        }
        match op.extra() {
            Extra::Select(select) => {
                objects.extend(select.cases.iter().map(|leaf| leaf.cast()));
                objects.extend(select.default.as_ref().map(Owned::as_ptr));
            }
            Extra::SendMany(rest) => objects.extend(rest.iter().map(Owned::as_ptr)),
            _ => {}
        }
        for object in objects {
            let stop = ffi::visit(object, visit, argument);
            if stop != 0 {
                return stop;
            }
        }
        (*op.made.get()).traverse(visit, argument)
    }
}

pub(super) unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    // SAFETY: from the collector, which found the operation unreachable.
    unsafe {
        let op = OpObject::of(slf);
        let _keep = op.itself();
        // A leaf may stand in a queue for a select that is garbage as well: that must leave all queues first.
        let mut root = op;
        while let Some(parent) = root.parent.get().as_ref() {
            root = parent;
        }
        if matches!(root.phase.load(Ordering::Relaxed), PARKED | DECIDED) {
            let _keep = root.itself();
            root.end();
        }
        op.drop_values();
    }
    0
}

impl OpObject {
    /// Drops what may lead back to this operation.
    pub(super) fn drop_values(&self) {
        for cell in [&self.map, &self.callback, &self.context, &self.message] {
            if !cell.get().is_null() {
                drop(ffi::taken(cell));
            }
        }
        // SAFETY: nobody performs an operation that is being destroyed; the slot is ours.
        if let (Some(value), _) = unsafe { self.node.take() } {
            ffi::drop_contents([value]);
        }
        if let Extra::None = self.extra() {
            return;
        }
        if let Extra::Select(mut select) = std::mem::replace(
            // SAFETY: as above.
            unsafe { &mut *self.extra.get() },
            Extra::None,
        ) {
            select.clear();
        }
    }
}

pub(super) unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; each field is dropped once.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        let op = OpObject::of(slf);
        let owner = op.owner;
        // It is kept alive by the owner, which goes last, or else by our type.
        let state = match op.channel.as_ref() {
            Some(channel) => channel.state(),
            None => State::of(slf),
        };
        if op.bare.get() && matches!(op.phase.load(Ordering::Relaxed), DONE | TAKEN) {
            if !op.case.get().is_null() {
                ffi::put(&op.case, None);
            }
            if let (Some(value), _) = op.node.take() {
                ffi::drop_contents([value]);
            }
            if let Extra::Select(_) = op.extra()
                && let Extra::Select(mut select) = op.extra.get().replace(Extra::None)
            {
                select.clear();
                state.keep_select(select);
            }
            (*op.made.get()).forget();
        } else {
            dismantle(op);
        }
        State::free_op(slf, state);
        c::Py_XDECREF(owner);
    }
}

/// Drops every field but the owner.
///
/// # Safety
/// From `dealloc`, once.
pub(super) unsafe fn dismantle(op: &OpObject) {
    // SAFETY: the last reference is gone; each field is dropped once.
    unsafe {
        let slf = op.as_ptr();
        match op.phase.load(Ordering::Relaxed) {
            FRESH => op.warn_unperformed(),
            PARKED | DECIDED => {
                // Parked, but in no queue: a timer whose loop is gone, or nothing but `never`.
                let _aside = ffi::Aside::new();
                op.end();
            }
            _ if op.kind == Kind::NextEvent => op.selecting().vacate(op),
            _ => {}
        }
        op.drop_values();
        ffi::put(&op.case, None);
        (*op.made.get()).forget();
        let this: *mut OpObject = slf.cast();
        ptr::drop_in_place(&raw mut (*this).waiter);
        ptr::drop_in_place(&raw mut (*this).node);
        ptr::drop_in_place(&raw mut (*this).sleeper);
        ptr::drop_in_place(&raw mut (*this).extra);
    }
}
