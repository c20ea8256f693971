//! Operations as Python objects: how they are made, what the collector sees of them, and how they end.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use weft_core::waiter::Waiter;
use weft_core::waitq::Node;

use super::{DECIDED, DONE, Extra, FRESH, Kind, OpObject, PARKED, Role, Select, TAKEN, Word};
use crate::channel::Via;
use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::origin::Origin;
use crate::state::State;
use crate::value::Value;

/// A new operation that is not on a channel; `owner` is null or what it was made from.
pub fn make(state: &State, kind: Kind, owner: *mut PyObject, value: Option<Owned>) -> Py<Owned> {
    // SAFETY: `owner` is null or alive.
    unsafe { create(state, kind, owner, 0, value) }
}

/// A new operation on a channel.
#[inline]
pub fn on_channel(via: Via<'_>, kind: Kind, value: Option<Owned>) -> Py<Owned> {
    let flags = OpObject::ON_CHANNEL | if via.end.is_some() { OpObject::VIA_END } else { 0 };
    // SAFETY: the owner is alive.
    unsafe { create(via.channel.state(), kind, via.owner, flags, value) }
}

/// # Safety
/// `owner` is null or alive, and what `flags` say.
#[inline]
pub(super) unsafe fn create(
    state: &State,
    kind: Kind,
    owner: *mut PyObject,
    flags: u16,
    value: Option<Owned>,
) -> Py<Owned> {
    // SAFETY: our type; every field is written before anybody sees the object.
    unsafe {
        let object = state.allocate_op()?;
        let this: *mut OpObject = object.cast();
        c::Py_XINCREF(owner);
        (&raw mut (*this).role).write(UnsafeCell::new(Role { waiter: ManuallyDrop::new(Waiter::new()) }));
        (&raw mut (*this).node).write(Node::new(value.map(Value::object)));
        (&raw mut (*this).owner).write(owner);
        (&raw mut (*this).word).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).kind).write(kind);
        (&raw mut (*this).phase).write(AtomicU8::new(FRESH));
        (&raw mut (*this).flags).write(AtomicU16::new(flags));
        (*this).set_made(Origin::here());
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
    // SAFETY: just made.
    unsafe { *made.make_rare_in(state).extra_mut() = Extra::Select(select) };
    Ok(root)
}

pub(super) unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector; fields are only read.
    unsafe {
        let op = OpObject::of(slf);
        let mut stop = 0;
        let mut see = |object: *mut PyObject| {
            if stop == 0 {
                stop = ffi::visit(object, visit, argument);
            }
        };
        see(c::Py_TYPE(slf).cast());
        see(op.owner);
        see(op.case());
        see(op.code.get());
        op.node.peek(|value| value.and_then(Value::as_object).into_iter().for_each(&mut see));
        match op.word_is() {
            Word::Home | Word::Task => see(op.word.get().cast()),
            Word::Nothing | Word::Thread => {}
            Word::Rare => op.rare().into_iter().for_each(|rare| rare.visit(&mut see)),
        }
        stop
    }
}

pub(super) unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    // SAFETY: from the collector, which found the operation unreachable.
    unsafe {
        let op = OpObject::of(slf);
        let _keep = op.itself();
        // A leaf may stand in a queue for a select that is garbage as well: that must leave all queues first.
        let mut root = op;
        while let Some(parent) = root.parent().as_ref() {
            root = parent;
        }
        if matches!(root.phase.load(Ordering::Relaxed), PARKED | DECIDED) {
            let _keep = root.itself();
            root.end();
        }
        op.drop_values(op.lasting_state());
    }
    0
}

impl OpObject {
    /// The state, kept alive by the owner, which goes last, or else by our type.
    #[inline]
    fn lasting_state(&self) -> &State {
        match self.is_on_channel() {
            true => self.channel().state(),
            // SAFETY: a live object of ours.
            false => unsafe { State::of(self.as_ptr()) },
        }
    }

    /// Drops what may lead back to this operation.
    pub(super) fn drop_values(&self, state: &State) {
        // SAFETY: nobody performs an operation that is being destroyed; the slot is ours.
        if let (Some(value), _) = unsafe { self.node.take() } {
            ffi::drop_contents(value.into_contents());
        }
        if self.word_is() != Word::Nothing {
            self.drop_word_in(state);
        }
    }
}

pub(super) unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; each field is dropped once.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        let op = OpObject::of(slf);
        let owner = op.owner;
        let state = op.lasting_state();
        match op.phase.load(Ordering::Relaxed) {
            DONE | TAKEN if op.kind != Kind::NextEvent => {}
            phase => finish(op, phase),
        }
        op.drop_values(state);
        // After its cases: those of a leaf that is a select belong to that.
        if let Some(case) = op.take_case() {
            drop(case);
        }
        op.made().forget();
        State::free_op(slf, state);
        c::Py_XDECREF(owner);
    }
}

/// An operation that goes without having been performed to its end.
#[cold]
fn finish(op: &OpObject, phase: u8) {
    match phase {
        FRESH => op.warn_unperformed(),
        PARKED | DECIDED => {
            // Parked, but in no queue: a timer whose loop is gone, or nothing but `never`.
            let _aside = ffi::Aside::new();
            op.end();
        }
        _ if op.kind == Kind::NextEvent => {
            op.selecting().vacate(op);
            op.silence();
        }
        _ => {}
    }
}
