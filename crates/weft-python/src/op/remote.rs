//! An operation on channels that another process keeps: it is sent to the root, and waits there.
//!
//! What of a select is not on such a channel (a timer, a descriptor, an end that is waited for) stays here, and takes nothing from anybody. When it
//! comes first, the request is taken back; when that is too late, the root's answer counts, and what came here is as if it had not been
//! looked at. So exactly one case commits, and the root alone decides about values.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_core::chan::{End, Outcome};
use weft_core::select::Policy;
use weft_core::selecting::LOOK;
use weft_link::{Action, Answer, Case, Completion, Decided, Operation, Parcel, SubmitError, Wire};

use super::{DECIDED, DONE, Extra, Kind, OpObject, PARKED};
use crate::crossing::encode;
use crate::crossing::remote::{self, ANSWERED, Remote, Wait, detached};
use crate::crossing::share;
use crate::ffi::{self, Owned, Py};
use crate::value::Value;

impl OpObject {
    /// The channel of the root that this leaf is on.
    #[inline]
    pub(super) fn remote(&self) -> Option<&Arc<Remote>> {
        if self.is_on_channel() { self.channel().remote() } else { None }
    }

    /// Whether it is decided in the root, and nothing of it here.
    #[inline]
    pub(super) fn is_far(&self) -> bool {
        self.remote().is_some() || (self.kind == Kind::Sync && self.barrier().far().is_some())
    }

    /// Whether any leaf is. In the root none is.
    #[inline]
    pub(super) fn is_remote(&self) -> bool {
        remote::link().is_some()
            && self.with_leaves(|leaves| {
                // SAFETY: held by the select, or this operation itself.
                leaves.iter().any(|leaf| unsafe { &**leaf }.is_far())
            })
    }

    /// Channels and barriers of this process that stand in a select beside channels of the root become such: a select is decided in one place.
    pub(super) fn gather(&self) -> Py<()> {
        self.with_leaves(|leaves| {
            for leaf in leaves {
                // SAFETY: as above.
                let leaf = unsafe { &**leaf };
                match leaf.kind {
                    Kind::Sync => {
                        remote::link().into_iter().for_each(|client| leaf.barrier().move_to_root(self.state(), client))
                    }
                    Kind::Closing => {}
                    _ if leaf.is_on_channel() && leaf.remote().is_none() => drop(share::share(leaf.channel())?),
                    _ => {}
                }
            }
            Ok(())
        })
    }

    /// Whether it was woken only to wait in the root, as a channel that it waited on is the root's by now.
    #[inline]
    pub(super) fn was_moved(&self) -> bool {
        self.kind != Kind::NextEvent && self.is_parked() && self.waiter().met() == Some(LOOK)
    }

    /// It waits no more where it did.
    pub(super) fn leave_moved(&self) {
        self.unlink();
        self.disarm_outside();
        // SAFETY: claimed by nobody who has anything for it: the waiter is ours.
        drop(unsafe { self.waiter().clear() });
        // A reference has gone with the waker.
        self.drop_references(self.linked().saturating_sub(1));
        self.silence();
    }

    /// It waits anew, in the root. `true`: decided after all.
    pub(super) fn park_where_it_moved(&self) -> Py<bool> {
        self.leave_moved();
        let parked = self.with_leaves(|leaves| {
            // SAFETY: held by the select, or this operation itself.
            leaves.iter().try_for_each(|leaf| unsafe { &**leaf }.turn_back())
        });
        let parked = parked.and_then(|()| self.park());
        let phase = match parked {
            Ok(true) => DECIDED,
            Ok(false) => PARKED,
            Err(_) => DONE,
        };
        self.phase.tell(phase);
        if parked.is_err() {
            self.leave_sleeper();
        }
        parked
    }

    /// Makes objects of what is to be sent, as it was before it was fit for other interpreters: so it goes to the root like any other.
    fn turn_back(&self) -> Py<()> {
        if !self.is_on_channel() || !self.is_sending() {
            return Ok(());
        }
        let state = self.channel().state();
        let object = |value: Value| value.into_object(state).map(Value::object);
        if let Some(Extra::SendMany(_)) = self.rare().map(super::Rare::extra) {
            // SAFETY: only the performing party touches `extra`.
            if let Extra::SendMany(rest) = unsafe { self.make_rare().extra_mut() } {
                *rest = std::mem::take(rest).into_iter().map(object).collect::<Py<_>>()?;
            }
        }
        // SAFETY: not parked: the slot is ours.
        unsafe {
            if let (Some(value), _) = self.node.take() {
                drop(self.node.put(Some(object(value)?)));
            }
        }
        Ok(())
    }

    /// Without asking the root, if it was promised room, or lent a value. `false`: it is to be asked. A select is always decided there.
    pub(super) fn try_ahead(&self, remote: &Remote) -> Py<bool> {
        let ahead = remote.ahead();
        if !self.parent().is_null() || remote::link().is_none() {
            return Ok(false);
        }
        match self.kind {
            Kind::Recv | Kind::RecvNext if ahead.may_recv() => {
                let Some(wire) = remote.client().recv_ahead(ahead) else {
                    return Ok(false);
                };
                // SAFETY: not parked: the slot is ours, and empty.
                unsafe { self.node.decide(Some(Value::from_wire(wire)), Outcome::Done) };
                Ok(true)
            }
            Kind::Send if ahead.may_send() => {
                let Action::Send(wire) = self.action()? else {
                    return Ok(false);
                };
                if let Err(wire) = remote.client().send_ahead(ahead, wire) {
                    if wire.attachments.is_empty() {
                        self.make_rare().prepared.set(Some(Box::new(wire)));
                    }
                    return Ok(false);
                }
                // SAFETY: not parked: the slot is ours.
                unsafe {
                    drop(self.node.take());
                    self.node.decide(None, Outcome::Done);
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn action(&self) -> Py<Action> {
        if self.kind == Kind::Sync {
            return Ok(Action::Sync);
        }
        if let Some(wire) = self.rare().and_then(|rare| rare.prepared.take()) {
            return Ok(Action::Send(*wire));
        }
        let state = self.channel().state();
        let wire = |value: &Value| -> Py<Wire> {
            // What is to be sent stays here until it was taken: it may come back.
            let object = match value.as_object() {
                // SAFETY: what the slot holds.
                Some(object) => unsafe { Owned::from_borrowed(object) },
                None => return Err(ffi::runtime_error("a value that was sent before cannot be sent again")),
            };
            encode::encode(state, object).map(|payload| Value::payload(payload).into_wire())
        };
        // SAFETY: not parked: the slot is ours.
        let first = unsafe { self.node.peek(|value| value.map(wire)) }.transpose()?;
        Ok(match (self.kind, self.extra(), first) {
            (Kind::Send, _, Some(first)) => Action::Send(first),
            (Kind::SendMany, Extra::SendMany(rest), Some(first)) => {
                let mut all = vec![first];
                for value in rest {
                    all.push(wire(value)?);
                }
                Action::SendMany(all)
            }
            (Kind::RecvMany, Extra::RecvMany(max), _) => Action::RecvMany(*max),
            _ => Action::Recv,
        })
    }

    /// Sends it to the root. It waits there only if told to.
    fn submit(&self, park: bool) -> Py<Arc<Wait>> {
        let mut cases = Vec::new();
        let mut places = Vec::new();
        self.with_leaves(|leaves| {
            for (index, leaf) in leaves.iter().enumerate() {
                // SAFETY: as above.
                let leaf = unsafe { &**leaf };
                let number = match leaf.kind {
                    Kind::Sync => leaf.barrier().far(),
                    _ => leaf.remote().filter(|_| !leaf.is(Self::DEAD_END)).map(|remote| remote.id()),
                };
                if let Some(channel) = number {
                    cases.push(Case { channel, action: leaf.action()? });
                    places.push(index as u32);
                }
            }
            Ok(())
        })?;
        let policy = match self.extra() {
            Extra::Select(select) => select.policy,
            _ => Policy::Priority,
        };
        let Some(client) = remote::link().filter(|_| !cases.is_empty()) else {
            return Err(ffi::runtime_error("nothing of this operation is for another process"));
        };
        let wait = Arc::new(Wait::new(self, places, park));
        let completion: Arc<dyn Completion> = wait.clone();
        // Before it is sent: the answer may be here before this thread has the interpreter again.
        self.make_rare().wait.replace(Some(Arc::clone(&wait)));
        self.set(Self::REMOTE, park);
        match detached(|| client.submit(Operation { policy, park, cases }, 0, &completion)) {
            Ok(id) => {
                wait.id.store(id, Ordering::Relaxed);
                Ok(wait)
            }
            Err(error @ SubmitError::TooLarge { .. }) => {
                Err(ffi::value_error(&format!("{}: {error}", self.description())))
            }
            Err(SubmitError::Gone) => Err(gone()),
        }
    }

    /// Looks once at the root. `true`: decided.
    pub(super) fn try_remote(&self) -> Py<bool> {
        self.gather()?;
        let wait = self.submit(false)?;
        match wait.answer() {
            Answer::WouldBlock => Ok(false),
            answer => {
                self.apply(answer);
                Ok(true)
            }
        }
    }

    /// Waits in the root as well. The waiter is armed.
    pub(super) fn park_remote(&self) -> Py<()> {
        // The reference that goes with the waker when the root's answer claims it.
        self.add_reference();
        self.submit(true).map(drop).inspect_err(|_| {
            self.set(Self::REMOTE, false);
            self.drop_reference();
        })
    }

    fn wait_of_root(&self) -> Option<Arc<Wait>> {
        // SAFETY: only the performing party touches it.
        self.rare().and_then(|rare| unsafe { (*rare.wait.as_ptr()).clone() })
    }

    /// Takes the request back. `false`: the root has decided it, and the answer is here or on its way.
    pub(super) fn recall(&self) -> bool {
        let (Some(wait), Some(client)) = (self.wait_of_root(), remote::link()) else {
            return true;
        };
        let withdrawn = detached(|| client.withdraw(wait.id.load(Ordering::Relaxed)));
        if withdrawn {
            self.set(Self::REMOTE, false);
            self.make_rare().wait.replace(None);
            self.drop_reference();
        }
        withdrawn
    }

    /// Decided, here or in the root. Whether it was the root: then the winner is set, and its slot filled.
    pub(super) fn settle_remote(&self) -> bool {
        if !self.is(Self::REMOTE) {
            return false;
        }
        let met = self.waiter().met();
        if met.is_some_and(|case| case != ANSWERED) && self.recall() {
            return false;
        }
        let Some(wait) = self.wait_of_root() else {
            return false;
        };
        let answer = wait.answer();
        if self.waiter().met() != Some(ANSWERED) {
            // What came here has taken the waker; the reference is still there.
            self.drop_reference();
        }
        self.set(Self::REMOTE, false);
        self.apply(answer);
        true
    }

    /// Puts the root's answer where the result is looked for.
    fn apply(&self, answer: Answer) {
        let Some(wait) = self.wait_of_root() else {
            return;
        };
        let decided = match answer {
            Answer::Decided(decided) => decided,
            Answer::WouldBlock | Answer::Gone => {
                Decided { case: 0, outcome: Outcome::Ended(End::Poisoned), sent: 0, received: Vec::new(), cause: None }
            }
        };
        let winner = wait.leaves.get(decided.case).copied().unwrap_or(0);
        self.set_winner(winner);
        let leaf = self.leaf(winner);
        if let Extra::Sync(node) = leaf.extra() {
            // SAFETY: decided: the slot is ours.
            unsafe { node.decide(Some(decided.sent).filter(|_| decided.outcome == Outcome::Done), decided.outcome) };
            return;
        }
        let mut received = decided.received.into_iter().map(Value::from_wire);
        // SAFETY: decided: the slot is ours.
        unsafe {
            let (kept, _) = leaf.node.take();
            match decided.outcome {
                Outcome::Done if leaf.is_sending() => {
                    drop(kept);
                    leaf.node.decide(None, Outcome::Done);
                }
                Outcome::Done => leaf.node.decide(received.next(), Outcome::Done),
                outcome => leaf.node.decide(kept, outcome),
            }
        }
        wait.sent.store(decided.sent as u64, Ordering::Relaxed);
        wait.more.lock().unwrap_or_else(|e| e.into_inner()).extend(received);
    }

    /// Puts the values that the root's answer has beyond the first one back into the channel.
    pub(super) fn return_more(&self) {
        for value in self.take_more().into_iter().rev() {
            self.channel().give_back(value);
        }
    }

    fn take_more(&self) -> Vec<Value> {
        if self.kind != Kind::RecvMany || self.remote().is_none() {
            return Vec::new();
        }
        // SAFETY: a leaf's select lives as long as its performance.
        let root = unsafe { self.parent().as_ref() }.unwrap_or(self);
        let wait = root.wait_of_root();
        wait.map_or_else(Vec::new, |wait| std::mem::take(&mut *wait.more.lock().unwrap_or_else(|e| e.into_inner())))
    }

    /// The result of a leaf that the root has decided, if it is not what it would be here.
    pub(super) fn remote_result(&self, outcome: Outcome) -> Option<Py<Owned>> {
        self.remote()?;
        // SAFETY: a leaf's select lives as long as its performance.
        let root = unsafe { self.parent().as_ref() }.unwrap_or(self);
        let wait = root.wait_of_root()?;
        if outcome != Outcome::Done {
            return None;
        }
        match self.kind {
            Kind::RecvMany => {
                // SAFETY: decided: the slot is ours.
                let (first, _) = unsafe { self.node.take() };
                first.map(|first| self.rebuilt(first, self.take_more()))
            }
            Kind::SendMany => Some(ffi::integer(wait.sent.load(Ordering::Relaxed) as usize)),
            _ => None,
        }
    }
}

pub(super) fn gone() -> ffi::Raised {
    match remote::death(0) {
        // SAFETY: an exception.
        Ok(error) => unsafe { ffi::raise_object(error.as_ptr()) },
        Err(raised) => raised,
    }
}
