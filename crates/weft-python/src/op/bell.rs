//! An operation that other places may meet: it parks with a bell (`crossing::place`), and what it sends is a payload.

use std::ptr;
use std::task::Waker;

use super::{Asleep, Extra, Kind, OpObject};
use crate::crossing::place::{self, Ring};
use crate::crossing::share;
use crate::crossing::work::{AtWork, Seen};
use crate::ffi::{self, Owned, Py, Raised};
use crate::value::Value;
use crate::wake;

impl OpObject {
    /// Whether another place may meet it.
    #[inline]
    pub fn is_sharing(&self) -> bool {
        if self.is_on_channel() {
            return self.channel().is_sharing();
        }
        match self.extra() {
            _ if self.kind == Kind::NextEvent => self.selecting().is_sharing(self.state().place.shared()),
            Extra::Select(select) => select.leaves().iter().any(|leaf| {
                // SAFETY: the select holds its leaves.
                let leaf = unsafe { &**leaf };
                (leaf.is_on_channel() && leaf.channel().is_sharing()) || leaf.is_far()
            }),
            Extra::Sync(_) => self.is_far(),
            _ => false,
        }
    }

    /// Before it is looked whether it is sharing, for what is done then. See `crossing::work`.
    #[inline]
    pub fn seen(&self) -> Seen {
        #[cfg(Py_GIL_DISABLED)]
        return self.state().place.seen();
        #[cfg(not(Py_GIL_DISABLED))]
        Seen::default()
    }

    /// Goes to work on all that the operation has, unless something may have become shared since then.
    #[inline]
    pub fn go_to_work(&self, seen: Seen) -> Option<AtWork<'_>> {
        #[cfg(not(Py_GIL_DISABLED))]
        {
            let _ = seen;
            Some(AtWork::with_a_gil())
        }
        #[cfg(Py_GIL_DISABLED)]
        {
            if self.is_on_channel() {
                return self.channel().go_to_work(seen);
            }
            let place = &self.state().place;
            place.work.begin(place, seen)
        }
    }

    /// An error when it would have to be parked where other places know it, in an interpreter that is about to end.
    pub fn check_place(&self) -> Py<()> {
        match self.state().place.is_left() {
            true => Err(self.place_left()),
            false => Ok(()),
        }
    }

    /// The error for an operation that was ended with its place.
    pub fn place_left(&self) -> Raised {
        ffi::runtime_error(&format!("{} cannot wait any more: its interpreter is about to end", self.description()))
    }

    /// What to arm its waiter with; `shares`: another place may meet it.
    #[inline]
    pub(super) fn waker(&self, shares: bool) -> Waker {
        if shares { self.new_bell() } else { wake::waker(self) }
    }

    /// A bell, if it needs one; it is on its place's list then, until [`silence`](Self::silence).
    #[inline]
    pub fn bell(&self) -> Option<Waker> {
        self.is_sharing().then(|| self.new_bell())
    }

    #[cold]
    fn new_bell(&self) -> Waker {
        self.state().place.look();
        let ring = self.ring();
        self.bell_with(ring)
    }

    fn bell_with(&self, ring: Ring) -> Waker {
        let place = &self.state().place;
        place.enter(self);
        self.set(Self::BELL, true);
        place::bell(self, place, ring)
    }

    fn ring(&self) -> Ring {
        let state = self.state();
        match self.asleep() {
            Asleep::Nobody => return Ring::Nobody,
            Asleep::Thread(parker) => {
                // SAFETY: of an `Arc`, which the sleeper holds.
                unsafe {
                    std::sync::Arc::increment_strong_count(parker);
                    return Ring::Thread(std::sync::Arc::from_raw(parker));
                }
            }
            Asleep::Loop(home) => {
                if let Some(bell) = home.doorbell(state) {
                    return Ring::Loop(bell);
                }
            }
            Asleep::Elsewhere(..) => {}
        }
        let _aside = ffi::Aside::new();
        if let Err(Raised) = place::need_listener(state) {
            ffi::unraisable(ptr::null_mut());
        }
        Ring::Listener
    }

    /// The channel of a parked operation is about to be shared.
    pub fn take_bell(&self) {
        // It may run Python, and the operation end meanwhile; after it nothing does.
        let ring = self.ring();
        if !self.is_parked() || (self.kind == Kind::NextEvent && !self.selecting().is_waited_for_by(self)) {
            return;
        }
        let bell = self.bell_with(ring);
        let before = match self.kind {
            Kind::NextEvent => self.selecting().rearm(bell),
            _ => match self.waiter().rearm(bell) {
                Ok(before) => before,
                Err(bell) => {
                    self.silence();
                    Some(bell)
                }
            },
        };
        drop(before);
    }

    /// Its place is left: it ends, and a thread that sleeps on it wakes to see that.
    pub fn end_of_place(&self) {
        let ring = match self.asleep() {
            Asleep::Thread(_) => Some(self.ring()),
            _ => None,
        };
        self.end();
        if let Some(Ring::Thread(parker)) = ring {
            parker.unpark();
        }
    }

    /// It parks no more.
    #[inline]
    pub fn silence(&self) {
        if self.is(Self::BELL) {
            self.set(Self::BELL, false);
            let place = &self.state().place;
            place.leave(self);
            place.look();
        }
    }

    /// Makes what is to be sent on a shared channel fit for it. The operation is not parked.
    #[inline]
    pub(super) fn turn_value(&self) -> Py<()> {
        if !self.is_on_channel()
            || !self.is_sending()
            || !self.channel().is_sharing()
            || self.channel().remote().is_some()
        {
            return Ok(());
        }
        self.turn()
    }

    /// The same for all leaves: what one of them sends may have made the channel of another one shared.
    pub(super) fn turn_leaves(&self, leaves: &[*mut OpObject]) -> Py<()> {
        let place = &self.state().place;
        loop {
            let shared = place.shared();
            if shared == 0 {
                return Ok(());
            }
            for leaf in leaves {
                // SAFETY: held by the select, or this operation itself.
                unsafe { (**leaf).turn_value()? };
            }
            if place.shared() == shared {
                return Ok(());
            }
        }
    }

    #[inline(never)]
    fn turn(&self) -> Py<()> {
        let state = self.channel().state();
        let turned = |value: Value| match value.is_payload() {
            true => Ok(value),
            false => match value.into_contents() {
                Some(object) => share::value(state, object),
                None => Err(Raised),
            },
        };
        if let Some(Extra::SendMany(_)) = self.rare().map(super::Rare::extra) {
            // SAFETY: only the performing party touches `extra`.
            if let Extra::SendMany(rest) = unsafe { self.make_rare().extra_mut() } {
                let all: Py<_> = std::mem::take(rest).into_iter().map(turned).collect();
                *rest = all?;
            }
        }
        // SAFETY: not parked: the slot is ours.
        unsafe {
            if let (Some(value), _) = self.node.take() {
                drop(self.node.put(Some(turned(value)?)));
            }
        }
        Ok(())
    }

    /// Wakes whoever waits for this operation, whose bell was rung, taking over a reference to it; a value that nobody will take up goes back into
    /// its channel. A thread is awake already: that is its bell.
    ///
    /// # Safety
    /// As for [`wake`](Self::wake).
    pub unsafe fn wake_or_give_back(op: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe {
            if matches!((*op).asleep(), Asleep::Thread(_)) {
                return drop(Owned::from_nullable(op.cast()));
            }
            let held = Owned::from_borrowed(op.cast());
            if let Some(value) = Self::wake(op) {
                let op = Self::of(held.as_ptr());
                if op.kind == Kind::NextEvent {
                    op.selecting().give_back(value);
                    return;
                }
                let leaf = op.leaf(op.winner());
                let lost = leaf.via().channel.give_back(value);
                leaf.via().channel.undelivered(lost);
            }
        }
    }
}
