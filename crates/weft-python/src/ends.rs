//! `Sender` and `Receiver`: counted ends. Both are one struct; the type says which side it is.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use weft_core::chan::End;

use crate::channel::{self, ChannelObject};
use crate::crossing::share;
use crate::errors;
use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::op;
use crate::origin::Origin;
use crate::state::{Ref, State};
use crate::wake;

/// Which side of the channel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Sender,
    Receiver,
}

/// `weft.Sender` and `weft.Receiver`.
#[repr(C)]
pub struct EndObject {
    head: PyObject,
    /// A strong reference to the channel.
    pub channel: *mut PyObject,
    side: Side,
    closed: AtomicBool,
    counted: bool,
    closed_at: Mutex<Origin>,
}

impl EndObject {
    /// # Safety
    /// A live `Sender` or `Receiver`.
    #[inline]
    pub unsafe fn of<'a>(object: *mut PyObject) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*object.cast() }
    }

    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub fn side(&self) -> Side {
        self.side
    }

    pub fn closed_at(&self) -> String {
        // Written once: its reference is good without the lock.
        let place = *self.closed_at.lock().unwrap_or_else(|e| e.into_inner());
        place.short()
    }

    fn channel(&self) -> &ChannelObject {
        // SAFETY: we hold a reference.
        unsafe { ChannelObject::of(self.channel) }
    }

    /// Gives the end up, once.
    fn close(&self, error: *mut PyObject, place: bool) -> Py<()> {
        let reason = self.channel().reason(error)?;
        if self.closed.swap(true, Ordering::AcqRel) || self.channel().is_inherited() {
            return Ok(());
        }
        if place {
            let here = Origin::here();
            *self.closed_at.lock().unwrap_or_else(|e| e.into_inner()) = here;
        }
        let channel = self.channel();
        if let Some(remote) = channel.remote() {
            remote.close(share::link_side(self.side()), channel.remote_reason(reason.as_ref())?);
            return Ok(());
        }
        if !self.counted {
            return Ok(());
        }
        let (reason, at_work) = loop {
            let seen = channel.seen();
            let reason = channel.fit(reason.clone())?;
            if let Some(at_work) = channel.go_to_work(seen) {
                break (reason, at_work);
            }
        };
        match self.side() {
            Side::Sender => {
                let wakes = channel.chan.remove_sender(reason);
                drop(at_work);
                wake::all(wakes);
            }
            Side::Receiver => {
                let (values, wakes) = channel.chan.remove_receiver(reason);
                drop(at_work);
                wake::all(wakes);
                channel.undelivered(values);
                channel.receiver_left();
            }
        }
        Ok(())
    }
}

/// A new end of `channel`.
pub fn make(channel: &ChannelObject, side: Side) -> Py<Owned> {
    channel.check_fork()?;
    if let Some(remote) = channel.remote() {
        let (ended, _) = remote.ended();
        if ended.is_some_and(|end| side == Side::Sender || end != End::Closed) {
            return Err(errors::no_more_ends(channel, side));
        }
        remote.keep(remote.end(share::link_side(side)));
        return adopt(channel, side, false);
    }
    let open = match side {
        Side::Sender => channel.chan.add_sender(),
        Side::Receiver => channel.chan.add_receiver(),
    };
    if !open {
        return Err(errors::no_more_ends(channel, side));
    }
    adopt(channel, side, true)
}

/// An end that is counted already; or one that counts for nothing, as its channel had ended before it was on its way.
pub fn adopt(channel: &ChannelObject, side: Side, counted: bool) -> Py<Owned> {
    let kind = match side {
        Side::Sender => Ref::Sender,
        Side::Receiver => Ref::Receiver,
    };
    // SAFETY: our type; every field is written before anybody sees the object.
    unsafe {
        let object = ffi::allocate(channel.state().class(kind))?;
        let this: *mut EndObject = object.as_ptr().cast();
        (&raw mut (*this).channel).write(Owned::from_borrowed(channel.as_ptr()).into_ptr());
        (&raw mut (*this).side).write(side);
        (&raw mut (*this).closed).write(AtomicBool::new(false));
        (&raw mut (*this).counted).write(counted);
        (&raw mut (*this).closed_at).write(Mutex::new(Origin::UNKNOWN));
        Ok(object)
    }
}

unsafe extern "C" fn clone(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes a live end, here and below.
        let end = unsafe { EndObject::of(slf) };
        if end.is_closed() {
            // SAFETY: as above.
            return Err(errors::end_closed(unsafe { channel::Via::of(slf) }, None));
        }
        make(end.channel(), end.side())
    })
}

unsafe extern "C" fn close(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `clone`.
        unsafe {
            let [error] = ffi::parameters("close", ["error"], 1, arguments, number, keywords)?;
            EndObject::of(slf).close(error, true)?;
        }
        Ok(ffi::none())
    })
}

unsafe extern "C" fn exit(slf: *mut PyObject, _: *const *mut PyObject, _: isize, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `clone`.
        unsafe { EndObject::of(slf).close(ptr::null_mut(), true)? };
        Ok(ffi::boolean(false))
    })
}

unsafe extern "C" fn aexit(slf: *mut PyObject, _: *const *mut PyObject, _: isize, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `clone`.
        unsafe {
            EndObject::of(slf).close(ptr::null_mut(), true)?;
            op::ready(State::of(slf), ffi::boolean(false))
        }
    })
}

unsafe extern "C" fn repr(slf: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `clone`.
        let end = unsafe { EndObject::of(slf) };
        let name = match end.side() {
            Side::Sender => "Sender",
            Side::Receiver => "Receiver",
        };
        let closed = if end.is_closed() { " closed" } else { "" };
        ffi::string(&format!("<weft.{name} of '{}'{closed}>", end.channel().name()))
    })
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector.
    unsafe {
        let stop = ffi::visit(c::Py_TYPE(slf).cast(), visit, argument);
        if stop != 0 {
            return stop;
        }
        ffi::visit(EndObject::of(slf).channel, visit, argument)
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; each field is dropped once.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        let this: *mut EndObject = slf.cast();
        {
            let _aside = ffi::Aside::new();
            if (*this).close(ptr::null_mut(), false).is_err() {
                ffi::unraisable(ptr::null_mut());
            }
        }
        (*this).closed_at.get_mut().unwrap_or_else(|e| e.into_inner()).forget();
        ptr::drop_in_place(&raw mut (*this).closed_at);
        c::Py_DECREF((*this).channel);
        ffi::free(slf);
    }
}

/// Makes both types.
pub fn make_types(module: *mut PyObject) -> Py<(Owned, Owned)> {
    Ok((make_type(module, Side::Sender)?, make_type(module, Side::Receiver)?))
}

fn make_type(module: *mut PyObject, side: Side) -> Py<Owned> {
    use ffi::Method::{ClassOne, Fast, NoArguments, OneArgument};
    let (name, class) = match side {
        Side::Sender => (c"weft.Sender", "Sender"),
        Side::Receiver => (c"weft.Receiver", "Receiver"),
    };
    let mut rows = vec![
        (c"clone", NoArguments(clone)),
        (c"close", Fast(close)),
        (c"statistics", NoArguments(channel::statistics)),
        (c"__enter__", NoArguments(channel::enter)),
        (c"__exit__", Fast(exit)),
        (c"__aenter__", NoArguments(channel::aenter)),
        (c"__aexit__", Fast(aexit)),
        (c"__class_getitem__", ClassOne(channel::class_getitem)),
    ];
    match side {
        Side::Sender => rows.extend([
            (c"send", OneArgument(channel::send)),
            (c"send_nowait", OneArgument(channel::send_nowait)),
            (c"send_many", OneArgument(channel::send_many)),
        ]),
        Side::Receiver => rows.extend([
            (c"recv", NoArguments(channel::recv)),
            (c"recv_nowait", NoArguments(channel::recv_nowait)),
            (c"recv_many", OneArgument(channel::recv_many)),
        ]),
    }
    let properties = ffi::properties(
        class,
        &[
            (c"name", channel::get_name, None),
            (c"capacity", channel::get_capacity, None),
            (c"closed", channel::get_closed, None),
        ],
    );
    let mut slots = vec![
        ffi::slot(c::Py_tp_doc, crate::docs::doc(class, "").cast_mut().cast()),
        ffi::slot(c::Py_tp_repr, repr as *mut c_void),
        ffi::slot(c::Py_mp_length, channel::length as *mut c_void),
        ffi::slot(c::Py_nb_bool, channel::truth as *mut c_void),
        ffi::slot(c::Py_tp_traverse, traverse as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_methods, ffi::methods(class, &rows).cast()),
        ffi::slot(c::Py_tp_getset, properties.cast()),
    ];
    if side == Side::Receiver {
        slots.extend([
            ffi::slot(c::Py_tp_iter, channel::itself as *mut c_void),
            ffi::slot(c::Py_tp_iternext, channel::next as *mut c_void),
            ffi::slot(c::Py_am_aiter, channel::itself as *mut c_void),
            ffi::slot(c::Py_am_anext, channel::anext as *mut c_void),
        ]);
    }
    // SAFETY: the slots are those of an `EndObject`.
    unsafe {
        ffi::make_type(
            module,
            name,
            size_of::<EndObject>(),
            (c::Py_TPFLAGS_HAVE_GC | c::Py_TPFLAGS_DISALLOW_INSTANTIATION) as u64,
            slots,
        )
    }
}
