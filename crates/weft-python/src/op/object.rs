//! Operations as Python objects: how they are made, what the collector sees of them, and how they end.
//!
//! Where there is a GIL the object of an operation that has ended is kept for the next one, whole: alive, with its type, and in the collector's
//! list. It is not kept if a collection has come upon it, which mostly found it to be garbage; and one that a collection has come upon since is
//! taken out of the list and put in again before it is used: or it might stand among what that collection is about to clear. A collection that clears
//! an object has always traversed it, and that sets a flag (SEEN).

use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;

use weft_core::waiter::Waiter;
use weft_core::waitq::Node;

use super::{DECIDED, DONE, Extra, FRESH, Kind, OpObject, PARKED, Role, SPARE, Select, TAKEN, Word};
use crate::attached::{Bits, Byte};
use crate::channel::Via;
use crate::ffi::{self, Owned, Py, PyObject, Raised, c};
use crate::origin::Origin;
use crate::state::{Ref, State};
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
    // First: it may make an object.
    let mut made = Origin::here();
    // SAFETY: our type; every field is written before anybody sees the object. No collection begins meanwhile.
    unsafe {
        let mut object = state.take_op();
        let fresh = object.is_null();
        if fresh {
            object = c::PyObject_GC_New::<PyObject>(state.class(Ref::Op));
            if object.is_null() {
                made.forget();
                return Err(Raised);
            }
        } else if OpObject::of(object).is(OpObject::SEEN) {
            c::PyObject_GC_UnTrack(object.cast());
            c::PyObject_GC_Track(object.cast());
        }
        let this: *mut OpObject = object.cast();
        c::Py_XINCREF(owner);
        (&raw mut (*this).role).write(UnsafeCell::new(Role { waiter: ManuallyDrop::new(Waiter::new()) }));
        (&raw mut (*this).node).write(Node::new(value.map(Value::object)));
        (&raw mut (*this).owner).write(owner);
        (&raw mut (*this).word).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).kind).write(kind);
        (&raw mut (*this).phase).write(Byte::new(FRESH));
        (&raw mut (*this).flags).write(Bits::new(flags));
        (*this).set_made(made);
        if fresh {
            c::PyObject_GC_Track(object.cast());
        }
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
    // SAFETY: from the collector; but for the flag, fields are only read.
    unsafe {
        let op = OpObject::of(slf);
        #[cfg(not(Py_GIL_DISABLED))]
        op.set(OpObject::SEEN, true);
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
            Word::Home | Word::Task | Word::Called => see(op.word.get().cast()),
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
        if matches!(root.phase.get(), PARKED | DECIDED) {
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
    // SAFETY: the last reference is gone; each field is dropped once. What the collector sees has a reference before anything is dropped, as that
    // may run Python; and afterwards nothing is done to it, as it may be in use by then.
    unsafe {
        let op = OpObject::of(slf);
        let (owner, state) = (op.owner, op.lasting_state());
        let bare = op.is_bare();
        if !bare {
            drop_fields(op, state);
        }
        let seen = op.is(OpObject::SEEN);
        let code = op.code.replace(ptr::null_mut());
        let this: *mut OpObject = slf.cast();
        (*this).owner = ptr::null_mut();
        (*this).kind = Kind::Never;
        (*this).phase.set(SPARE);
        (*this).flags.set(0);
        if !seen && state.keep_op(slf) {
            if !bare {
                c::PyObject_GC_Track(slf.cast());
            }
        } else {
            if bare {
                c::PyObject_GC_UnTrack(slf.cast());
            }
            let kind = c::Py_TYPE(slf);
            c::PyObject_GC_Del(slf.cast());
            c::Py_DECREF(kind.cast());
        }
        c::Py_XDECREF(code);
        c::Py_XDECREF(owner);
    }
}

impl OpObject {
    /// Of one that is being destroyed: whether it was performed to its end, holds nothing but what it was made from, and can stay in the collector's
    /// list.
    #[inline]
    fn is_bare(&self) -> bool {
        cfg!(not(Py_GIL_DISABLED))
            && self.phase.get() == DONE
            && self.flags.get() & (Self::WORD | Self::SEEN) == 0
            && self.kind != Kind::NextEvent
            // SAFETY: nobody performs an operation that is being destroyed.
            && unsafe { self.node.peek(|value| value.is_none()) }
    }
}

/// What else an operation holds, with it out of the collector's list.
///
/// # Safety
/// From `tp_dealloc`.
#[inline(never)]
unsafe fn drop_fields(op: &OpObject, state: &State) {
    // SAFETY: the last reference is gone; each field is dropped once.
    unsafe {
        c::PyObject_GC_UnTrack(op.as_ptr().cast());
        match op.phase.get() {
            DONE | TAKEN | SPARE if op.kind != Kind::NextEvent => {}
            phase => finish(op, phase),
        }
        op.drop_values(state);
        // After its cases: those of a leaf that is a select belong to that.
        drop(op.take_case());
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
