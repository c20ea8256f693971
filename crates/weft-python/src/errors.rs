//! What the errors say: what happened, to which channel, whose doing it was, and what to do next.

use std::ffi::CStr;

use weft_core::chan::End;
use weft_core::error::Cause;

use crate::channel::{ChannelObject, Via, cause_of};
use crate::ends::Side;
use crate::ffi::{self, Owned, PyObject, Raised, c};
use crate::state::{Ref, State};

/// Raises a channel error with its attributes.
fn raise(channel: &ChannelObject, kind: Ref, message: &str, value: Option<Owned>, cause: Option<&Owned>) -> Raised {
    let build = || {
        let message = ffi::string(message)?;
        // SAFETY: an exception type called with a message.
        let error = unsafe { ffi::call(channel.state().get(kind), &[message.as_ptr()])? };
        ffi::set_attribute(&error, c"channel", channel.as_ptr())?;
        if let Some(value) = &value {
            ffi::set_attribute(&error, c"value", value.as_ptr())?;
        }
        if let Some(cause) = cause {
            // SAFETY: two exceptions; SetCause takes over a reference.
            unsafe { c::PyException_SetCause(error.as_ptr(), cause.clone().into_ptr()) };
        }
        Ok(error)
    };
    match build() {
        // SAFETY: an exception.
        Ok(error) => unsafe { ffi::raise_object(error.as_ptr()) },
        Err(raised) => raised,
    }
}

/// Who ended the channel.
fn blame(channel: &ChannelObject, how: &str) -> String {
    match channel.closed_at() {
        Some(place) => format!("{how} at {place}"),
        None if channel.has_lost_its_senders() => format!("{how} when its last sender left"),
        None => format!("{how} by another process"),
    }
}

fn error_of(channel: &ChannelObject, cause: Option<Cause>) -> Option<Owned> {
    cause_of(channel.state(), &cause?).map(|(error, _)| error)
}

/// For a send on a channel that has ended.
#[cold]
pub fn ended_send(channel: &ChannelObject, end: End, value: Owned) -> Raised {
    let cause = error_of(channel, channel.ending().1);
    let cause = cause.as_ref();
    let about = channel.description();
    match end {
        End::Closed => {
            let blame = blame(channel, "closed");
            let message = format!("cannot send: {about} was {blame}; the value is in this error's .value");
            raise(channel, Ref::Closed, &message, Some(value), cause)
        }
        End::NoReceivers => {
            let message =
                format!("cannot send: the last receiver of {about} has left; the value is in this error's .value");
            raise(channel, Ref::NoReceivers, &message, Some(value), cause)
        }
        End::Poisoned => {
            let blame = blame(channel, "poisoned");
            let message = format!("cannot send: {about} was {blame}; the value is in this error's .value");
            raise(channel, Ref::Poisoned, &message, Some(value), cause)
        }
    }
}

/// For a receive from a channel that has ended: the reason itself where one was given with `close`.
#[cold]
pub fn ended_recv(channel: &ChannelObject, end: End) -> Raised {
    let cause = channel.ending().1;
    let reason = cause.as_ref().and_then(|cause| cause_of(channel.state(), cause));
    let about = channel.description();
    if end == End::Poisoned {
        let message = format!("cannot receive: {about} was {}", blame(channel, "poisoned"));
        return raise(channel, Ref::Poisoned, &message, None, reason.as_ref().map(|(error, _)| error));
    }
    match reason {
        Some((error, traceback)) => {
            // SAFETY: an exception and its traceback; without this each raise would add to the one before.
            unsafe {
                let traceback = traceback.as_ref().map_or(c::Py_None(), Owned::as_ptr);
                if c::PyException_SetTraceback(error.as_ptr(), traceback) < 0 {
                    return Raised;
                }
            }
            ffi::restore_error(error)
        }
        None => {
            let how = match channel.ending().0 {
                Some(End::NoReceivers) => "closed when its last receiver left".to_owned(),
                _ => blame(channel, "closed"),
            };
            let message = format!("cannot receive: {about} was {how} and everything sent has been received");
            raise(channel, Ref::Closed, &message, None, None)
        }
    }
}

/// Whether a receive from a channel that ended this way ends an iteration quietly.
pub fn ends_quietly(channel: &ChannelObject, end: End) -> bool {
    end != End::Poisoned && channel.ending().1.is_none()
}

/// For a call through an end that its owner has closed.
#[cold]
pub fn end_closed(via: Via<'_>, value: Option<Owned>) -> Raised {
    let Some(end) = via.end else {
        return ffi::runtime_error("a channel is not an end");
    };
    let side = match end.side() {
        Side::Sender => "sender",
        Side::Receiver => "receiver",
    };
    let message = format!(
        "this {side} of {} was closed at {}; clone() an end before closing it if another one is needed",
        via.channel.description(),
        end.closed_at()
    );
    raise(via.channel, Ref::Closed, &message, value, None)
}

/// For `sender()` or `receiver()` on a channel that can have none any more.
#[cold]
pub fn no_more_ends(channel: &ChannelObject, side: Side) -> Raised {
    let (end, cause) = channel.ending();
    let cause = error_of(channel, cause);
    let cause = cause.as_ref();
    let side = match side {
        Side::Sender => "sender",
        Side::Receiver => "receiver",
    };
    let (kind, how) = match end {
        Some(End::Poisoned) => (Ref::Poisoned, blame(channel, "poisoned")),
        Some(End::NoReceivers) => (Ref::NoReceivers, "left by its last receiver".to_owned()),
        _ => (Ref::Closed, blame(channel, "closed")),
    };
    let message = format!("cannot make a {side}: {} was {how}", channel.description());
    raise(channel, kind, &message, None, cause)
}

/// For a call that must not wait and would have to; `value` on the sending side.
#[cold]
pub fn would_block(channel: &ChannelObject, value: Option<Owned>) -> Raised {
    let about = channel.description();
    let message = match (&value, channel.capacity()) {
        (Some(_), Some(0)) => format!("cannot send now: nobody waits to receive from {about}"),
        (Some(_), _) => format!("cannot send now: {about} is full"),
        (None, Some(0)) => format!("cannot receive now: nobody waits to send to {about}"),
        (None, _) => format!("cannot receive now: {about} is empty"),
    };
    raise(channel, Ref::WouldBlock, &message, value, None)
}

/// For a channel whose process, the root, is gone.
#[cold]
pub fn gone(channel: &ChannelObject) -> Raised {
    match error_of(channel, channel.ending().1) {
        // SAFETY: an exception.
        Some(error) => unsafe { ffi::raise_object(error.as_ptr()) },
        None => ffi::runtime_error(&format!("the process that keeps {} is gone", channel.description())),
    }
}

/// For a channel that was made before this process was forked.
#[cold]
pub fn forked(channel: &ChannelObject) -> Raised {
    let message = format!(
        "{} belongs to the parent process: a channel does not reach over a fork; make a new one in the child",
        channel.description()
    );
    raise(channel, Ref::ForkedChannelError, &message, None, None)
}

/// Of exceptions that end an iteration, an `await` or a generator without a word (PEP 479): the name of the one that is meant.
pub fn ends_who_meets_it(is: impl Fn(*mut PyObject) -> bool) -> Option<&'static str> {
    // SAFETY: exception types, which live for ever.
    let kinds =
        unsafe { [(c::PyExc_StopIteration, "StopIteration"), (c::PyExc_StopAsyncIteration, "StopAsyncIteration")] };
    kinds.into_iter().find(|(kind, _)| is(*kind)).map(|(_, name)| name)
}

/// For an error that a function given to `map` has raised: the same, or a `RuntimeError` in the place of one that ends who meets it.
#[cold]
pub fn raised_in_map() -> Raised {
    // SAFETY: an error is set; `is` looks at it only.
    let Some(name) = ends_who_meets_it(|kind| unsafe { c::PyErr_ExceptionMatches(kind) != 0 }) else {
        return Raised;
    };
    let cause = ffi::take_error();
    let raised = ffi::runtime_error(&format!("a function given to map() raised {name}"));
    if let (Some(error), Some(cause)) = (ffi::take_error(), cause) {
        // SAFETY: two exceptions; each call takes over a reference.
        unsafe {
            c::PyException_SetContext(error.as_ptr(), cause.clone().into_ptr());
            c::PyException_SetCause(error.as_ptr(), cause.into_ptr());
        }
        return ffi::restore_error(error);
    }
    raised
}

/// For a barrier that was made before this process was forked.
#[cold]
pub fn forked_barrier(state: &State, made: &str) -> Raised {
    let message = format!(
        "the barrier made at {made} belongs to the parent process: it does not reach over a fork; make a new one in the child"
    );
    // SAFETY: an exception type.
    unsafe { ffi::raise(state.get(Ref::ForkedChannelError), &message) }
}

/// Sets `.case` on the weft error that is raised, if it is one.
#[cold]
pub fn add_case(kinds: &[*mut PyObject], case: *mut PyObject) {
    // SAFETY: exception types and a live object; the error is taken, changed and put back.
    unsafe {
        if kinds.iter().any(|kind| c::PyErr_ExceptionMatches(*kind) != 0)
            && let Some(error) = ffi::take_error()
        {
            if ffi::set_attribute(&error, CASE, case).is_err() {
                c::PyErr_Clear();
            }
            ffi::restore_error(error);
        }
    }
}

const CASE: &CStr = c"case";
