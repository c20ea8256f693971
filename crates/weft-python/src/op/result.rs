//! What a decided operation comes to: its value or its error, mapped, and in a `Selected` where it was a case.

use weft_core::chan::Outcome;

use super::{DONE, Extra, Kind, OpObject};
use crate::errors;
use crate::ffi::{self, Owned, Py, PyObject, Raised, c};
use crate::selected;
use crate::state::Ref;
use crate::timers::TickObject;
use crate::value::Value;
use crate::wake;

impl OpObject {
    /// The result of a decided operation.
    #[inline]
    pub(super) fn result(&self) -> Py<Owned> {
        self.phase.set(DONE);
        let value = match self.is_on_channel() {
            true => self.channel_value(),
            false => self.result_elsewhere(),
        }?;
        match self.map().is_null() {
            true => Ok(value),
            false => self.mapped(value),
        }
    }

    #[inline(never)]
    pub(super) fn result_elsewhere(&self) -> Py<Owned> {
        match self.kind {
            Kind::NextEvent => self.selecting().result(self),
            Kind::Select => {
                let leaf = self.leaf(self.winner());
                leaf.value().and_then(|value| leaf.up(value)).inspect_err(|_| {
                    // A select's error names its case.
                    let state = self.state();
                    let kinds =
                        [Ref::Closed, Ref::Poisoned, Ref::NoReceivers, Ref::WouldBlock].map(|kind| state.get(kind));
                    errors::add_case(&kinds, leaf.top_case());
                })
            }
            _ => self.value(),
        }
    }

    pub(super) fn mapped(&self, mut value: Owned) -> Py<Owned> {
        let map = self.map();
        // SAFETY: null, or a tuple of callables that we hold.
        unsafe {
            if !map.is_null() {
                for index in 0..c::PyTuple_GET_SIZE(map) {
                    value = ffi::call(c::PyTuple_GET_ITEM(map, index), &[value.as_ptr()])
                        .map_err(|ffi::Raised| errors::raised_in_map())?;
                }
            }
        }
        Ok(value)
    }

    /// A leaf's value as its select gives it: mapped, and in a `Selected`, and so on outwards.
    pub(super) fn up(&self, value: Owned) -> Py<Owned> {
        let mut value = self.mapped(value)?;
        let mut at = self;
        loop {
            let case = at.case();
            value = selected::make(self.state(), case, value)?;
            // SAFETY: a select lives longer than the performance of its leaves.
            at = unsafe { &*at.parent() };
            if at.parent().is_null() {
                return Ok(value);
            }
            value = at.mapped(value)?;
        }
    }

    pub(super) fn top_case(&self) -> *mut PyObject {
        let mut at = self;
        // SAFETY: as in `up`.
        while let Some(parent) = unsafe { at.parent().as_ref() } {
            if parent.parent().is_null() {
                break;
            }
            at = parent;
        }
        at.case()
    }

    /// The same, of a channel operation.
    #[inline]
    pub(super) fn channel_value(&self) -> Py<Owned> {
        if !self.is(Self::DEAD_END) {
            // SAFETY: decided: the slot is ours.
            let (value, outcome) = unsafe { self.node.take() };
            return match (self.kind, outcome, value) {
                (Kind::Recv | Kind::RecvNext, Outcome::Done, Some(value)) => value.into_object(self.channel().state()),
                (Kind::Send, Outcome::Done, None) => Ok(ffi::none()),
                (_, outcome, value) => self.unusual(outcome, value),
            };
        }
        // SAFETY: as above.
        let value = match (self.kind, unsafe { self.node.take().0 }) {
            (Kind::SendMany, Some(first)) => Some(self.unsent(first)?),
            (_, Some(value)) => Some(value.into_object(self.state())?),
            (_, None) => None,
        };
        Err(errors::end_closed(self.via(), value))
    }

    /// What a decided leaf gives.
    pub(super) fn value(&self) -> Py<Owned> {
        if self.is_on_channel() {
            return self.channel_value();
        }
        match (self.kind, self.extra()) {
            (Kind::Always, _) => {
                // SAFETY: decided: the slot is ours.
                let value = unsafe { self.node.take().0 };
                Ok(value.and_then(Value::into_contents).unwrap_or_else(ffi::none))
            }
            (Kind::After | Kind::At, _) => ffi::float(self.due()),
            // SAFETY: a tick's owner is its `Tick`.
            (Kind::Tick, _) => unsafe { TickObject::of(self.owner) }.take(self),
            // SAFETY: the owner is what the program gave, and held.
            (Kind::Readable | Kind::Writable, _) => Ok(unsafe { Owned::from_borrowed(self.owner) }),
            // SAFETY: decided: the slot is ours.
            (Kind::Sync, Extra::Sync(node)) => match unsafe { node.take() } {
                (Some(arrival), _) => ffi::integer(arrival),
                // With the root.
                (None, _) => Err(super::remote::gone()),
            },
            _ => Ok(ffi::none()),
        }
    }

    #[inline(never)]
    pub(super) fn unusual(&self, outcome: Outcome, value: Option<Value>) -> Py<Owned> {
        let channel = self.via().channel;
        if channel.remote().is_some() {
            // SAFETY: decided: the slot is ours, and empty since the value was taken out.
            unsafe {
                drop(self.node.put(value));
                if let Some(result) = self.remote_result(outcome) {
                    return result;
                }
                return self.unusual_here(outcome, self.node.take().0);
            }
        }
        self.unusual_here(outcome, value)
    }

    fn unusual_here(&self, outcome: Outcome, value: Option<Value>) -> Py<Owned> {
        let channel = self.via().channel;
        match (self.kind, outcome, value) {
            (Kind::Send, Outcome::Done, displaced) => {
                channel.undelivered(displaced);
                Ok(ffi::none())
            }
            (Kind::RecvMany, Outcome::Done, Some(first)) => {
                let Extra::RecvMany(max) = *self.extra() else {
                    return Ok(ffi::none());
                };
                let mut values = Vec::new();
                let (_, wakes) = channel.chan.try_recv_many(max - 1, &mut values);
                wake::all(wakes);
                self.rebuilt(first, values)
            }
            (Kind::SendMany, Outcome::Done, displaced) => {
                channel.undelivered(displaced);
                // SAFETY: only the performing party touches `extra`.
                let Extra::SendMany(rest) = (unsafe { self.make_rare().extra_mut() }) else {
                    return Ok(ffi::none());
                };
                let mut displaced = Vec::new();
                let (more, wakes) = loop {
                    let seen = channel.seen();
                    // The channel may have become shared while this was parked.
                    channel.turn(rest);
                    if let Some(at_work) = channel.go_to_work(seen) {
                        let (more, _, wakes) = channel.chan.try_send_many(rest, &mut displaced);
                        drop(at_work);
                        break (more, wakes);
                    }
                };
                let returned = wake::all_and_returned(wakes);
                for value in returned.into_iter().rev() {
                    let lost = channel.give_back(value);
                    channel.undelivered(lost);
                }
                channel.undelivered(displaced);
                ffi::integer(1 + more)
            }
            (Kind::Closing, Outcome::Ended(_), _) => Ok(ffi::boolean(true)),
            (Kind::SendMany, Outcome::Full, Some(first)) => {
                Err(errors::would_block(channel, Some(self.unsent(first)?)))
            }
            (_, Outcome::Full, Some(value)) => {
                Err(errors::would_block(channel, Some(value.into_object(channel.state())?)))
            }
            (Kind::Send, Outcome::Ended(end), Some(value)) => {
                Err(errors::ended_send(channel, end, value.into_object(channel.state())?))
            }
            (Kind::SendMany, Outcome::Ended(end), Some(first)) => {
                Err(errors::ended_send(channel, end, self.unsent(first)?))
            }
            (Kind::RecvNext, Outcome::Ended(end), _) if errors::ends_quietly(channel, end) => {
                // SAFETY: an exception type.
                unsafe { c::PyErr_SetNone(c::PyExc_StopAsyncIteration) };
                Err(Raised)
            }
            (_, Outcome::Ended(end), _) => Err(errors::ended_recv(channel, end)),
            (kind, outcome, value) => unreachable!("{kind:?} ended as {outcome:?}, with a value: {}", value.is_some()),
        }
    }

    /// The list for a `recv_many`. Of values from another place one may be impossible to make here: it goes back into the channel with
    /// those behind it, and fails who receives it next, unless it is the first.
    pub(super) fn rebuilt(&self, first: Value, values: Vec<Value>) -> Py<Owned> {
        let channel = self.channel();
        let state = channel.state();
        let mut values = values.into_iter();
        let (mut objects, mut back, mut raised) = (Vec::new(), Vec::new(), None);
        match first.into_object(state) {
            Ok(object) => objects.push(object),
            Err(error) => raised = Some(error),
        }
        while raised.is_none()
            && let Some(value) = values.next()
        {
            match value.try_into_object(state) {
                Ok(object) => objects.push(object),
                Err((Raised, value)) => {
                    drop(ffi::take_error());
                    back.push(value);
                    break;
                }
            }
        }
        back.extend(values);
        if !back.is_empty() {
            let _aside = ffi::Aside::new();
            for value in back.into_iter().rev() {
                channel.undelivered(channel.give_back(value));
            }
        }
        raised.map_or_else(|| ffi::list(objects), Err)
    }

    /// Of a `send_many` that failed: all its values, as a list.
    pub(super) fn unsent(&self, first: Value) -> Py<Owned> {
        let state = self.channel().state();
        let mut values = vec![first.into_object(state)?];
        // SAFETY: only the performing party touches `extra`.
        if let Extra::SendMany(rest) = unsafe { self.make_rare().extra_mut() } {
            for value in rest.drain(..) {
                values.push(value.into_object(state)?);
            }
        }
        ffi::list(values)
    }

    /// The answer of a select with a default when nothing was ready.
    pub(super) fn defaulted(&self) -> Option<Py<Owned>> {
        let Extra::Select(select) = self.extra() else {
            return None;
        };
        let value = select.default.clone()?;
        let state = self.state();
        self.phase.set(DONE);
        Some(selected::make(state, state.get(Ref::Default), value).and_then(|value| self.mapped(value)))
    }
}
