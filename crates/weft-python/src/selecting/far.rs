//! A standing select over channels that another process keeps.
//!
//! There is no standing registration in the root: each round is a select of its own there, over all channels, which waits like any other. Its
//! policy is priority, and who was served last stands last; so nobody is served twice while another ready one waits, as in weft-core's. That a
//! round costs something for each channel is little beside asking.
//!
//! Channels of this process that stand beside those of the root become such, as in a select (`op/remote.rs`).
//!
//! True whenever the lock of `Inner` is free:
//!   1. There is a round while somebody waits, and no other time. With its waker one reference to the operation goes: whoever takes the waker out
//!      of the round has both.
//!   2. What is in `left` has been discarded while a round was under way, which may still bring a value of it. Its place is given to nobody else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::Waker;

use weft_core::chan::{End, Outcome};
use weft_core::select::Policy;
use weft_core::selecting::{Key, Next};
use weft_link::{Action, Answer, Case, Client, Completion, Decided, Operation, Parcel, SubmitError};

use super::{Event, Inner, SelectingObject, forget, name};
use crate::channel::Via;
use crate::crossing::remote::{self, detached};
use crate::crossing::share;
use crate::ffi::{self, Owned, Py, PyObject};
use crate::op::OpObject;
use crate::value::Value;

pub(super) struct Far {
    client: &'static Client,
    /// The places of all that are registered, in the order in which they were served.
    order: Vec<u32>,
    round: Option<Arc<Round>>,
    left: Vec<(u32, Owned)>,
    /// The next registration's; counted down, so that none of the core's has it.
    serial: u32,
}

impl Far {
    fn new(client: &'static Client) -> Self {
        Self { client, order: Vec::new(), round: None, left: Vec::new(), serial: u32::MAX }
    }

    pub(super) fn round(&self) -> Option<&Round> {
        self.round.as_deref()
    }

    /// For a collector.
    pub(super) fn visit(&self) -> impl Iterator<Item = *mut PyObject> {
        self.left.iter().map(|(_, source)| source.as_ptr())
    }

    /// Who waits is to ask anew: the registrations have changed. The waker, to be called after the unlock.
    fn disturb(&self) -> Option<Waker> {
        self.round().and_then(|round| round.state().waker.take())
    }
}

impl Inner {
    /// How many channels are registered.
    pub(super) fn len(&self) -> usize {
        self.core.len() + self.far.as_ref().map_or(0, |far| far.order.len())
    }
}

/// What the root was asked.
pub(super) struct Round {
    id: AtomicU64,
    /// The places of its cases.
    places: Vec<u32>,
    state: Mutex<RoundState>,
    arrived: Condvar,
}

struct RoundState {
    answer: Option<Answer>,
    waker: Option<Waker>,
}

impl Round {
    fn state(&self) -> MutexGuard<'_, RoundState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether there is something to do for who waits: it was answered, or disturbed.
    pub(super) fn is_met(&self) -> bool {
        self.state().waker.is_none()
    }

    /// The answer, which is here or on its way.
    fn answer(&self) -> Answer {
        detached(|| {
            let mut state = self.state();
            loop {
                match state.answer.take() {
                    Some(answer) => return answer,
                    None => state = self.arrived.wait(state).unwrap_or_else(|e| e.into_inner()),
                }
            }
        })
    }

    /// Takes the request back. The answer, when that is too late.
    fn recall(&self, client: &Client) -> Option<Answer> {
        if self.state().answer.is_none() {
            // Relaxed: written by who waits, and asked for by nobody else.
            let id = self.id.load(Ordering::Relaxed);
            if detached(|| client.withdraw(id)) {
                return None;
            }
        }
        Some(self.answer())
    }
}

impl Completion for Round {
    fn complete(&self, _: usize, answer: Answer) {
        let waker = {
            let mut state = self.state();
            state.answer = Some(answer);
            state.waker.take()
        };
        self.arrived.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl SelectingObject {
    /// Whether its rounds are asked of the root: then all that is registered is the root's from now on. Nobody waits.
    pub(super) fn gather(&self, op: &OpObject) -> Py<bool> {
        let Some(client) = remote::link() else {
            return Ok(false);
        };
        if op.state().place.shared() == 0 && self.inner().far.is_none() {
            return Ok(false);
        }
        // SAFETY: channels and receivers, which the registrations hold, or `sources` does; here and below.
        let is_remote = |source: &Owned| unsafe { Via::of(source.as_ptr()) }.channel.remote().is_some();
        loop {
            let mut gone = None;
            let (sources, keys): (Vec<Owned>, Owned) = {
                let mut inner = self.inner();
                let inner = &mut *inner;
                if inner.far.is_none() && !inner.cases.iter().flatten().any(|(_, source, _)| is_remote(source)) {
                    return Ok(false);
                }
                // Whoever has just been woken may have been handed something here.
                match inner.core.take_met() {
                    Some(Next::Value(key, value)) => inner.event = Some(Event::Value(key, value)),
                    Some(Next::Left(key, end, chan)) => {
                        if let Some((case, source, key)) = inner.cases[key as usize].take() {
                            gone = Some((case.clone(), source.clone(), key));
                            if end == End::Poisoned || chan.end().1.is_some() {
                                inner.event = Some(Event::Left(case, source, end));
                            }
                        }
                    }
                    _ => {}
                }
                let far = inner.far.get_or_insert_with(|| Far::new(client));
                for (_, _, key) in inner.cases.iter().flatten() {
                    // Nobody waits, and what was handed over was taken out.
                    if inner.core.discard_key(*key).is_some() {
                        far.order.push(key.place());
                    }
                }
                let sources = inner.cases.iter().flatten().map(|(_, source, _)| source);
                (sources.filter(|source| !is_remote(source)).cloned().collect(), inner.keys.clone())
            };
            if let Some((case, _source, key)) = gone {
                forget(&keys, &case, key);
            }
            if sources.is_empty() {
                return Ok(true);
            }
            for source in sources {
                // SAFETY: as above.
                share::share(unsafe { Via::of(source.as_ptr()) }.channel)?;
            }
        }
    }

    pub(super) fn add_far(&self, keys: &Owned, case: *mut PyObject, source: *mut PyObject) -> Py<()> {
        let Some(client) = remote::link() else {
            return Err(ffi::runtime_error("this process was forked from one that has channels of another process"));
        };
        // So that who asks finds none but the root's in the list.
        // SAFETY: a channel or receiver, as the caller has checked.
        share::share(unsafe { Via::of(source) }.channel)?;
        let (key, wakes, waker) = {
            let mut inner = self.inner();
            let inner = &mut *inner;
            let far = inner.far.get_or_insert_with(|| Far::new(client));
            let is_free = |place: &usize| {
                inner.cases[*place].is_none() && far.left.iter().all(|(left, _)| *left as usize != *place)
            };
            let place = (0..inner.cases.len()).find(is_free).unwrap_or_else(|| {
                inner.cases.push(None);
                inner.cases.len() - 1
            });
            let key = Key::from_bits(u64::from(far.serial) << 32 | place as u64);
            far.serial -= 1;
            far.order.insert(0, place as u32);
            // SAFETY: live objects.
            let entry = unsafe { (Owned::from_borrowed(case), Owned::from_borrowed(source), key) };
            inner.cases[place] = Some(entry);
            // Who waits for the core so far looks again, and finds this.
            (key, inner.core.nudge(), far.disturb())
        };
        let named = name(keys, case, key);
        crate::wake::all(wakes);
        waker.into_iter().for_each(Waker::wake);
        named.inspect_err(|_| {
            let _aside = ffi::Aside::new();
            self.discard_far(key);
        })
    }

    /// As `discard_key`. `false`: it is not one of these.
    pub(super) fn discard_far(&self, key: Key) -> bool {
        let (entry, event, waker) = {
            let mut inner = self.inner();
            let inner = &mut *inner;
            let Some(far) = &mut inner.far else {
                return false;
            };
            let place = key.place();
            let Some(at) = far.order.iter().position(|other| *other == place) else {
                return false;
            };
            let Some(entry) = inner.cases[place as usize].take_if(|(.., known)| *known == key) else {
                return false;
            };
            far.order.remove(at);
            if far.round.is_some() {
                far.left.push((place, entry.1.clone()));
            }
            let event = match &inner.event {
                Some(Event::Value(of, _)) if *of == place => inner.event.take(),
                _ => None,
            };
            (entry, event, far.disturb())
        };
        waker.into_iter().for_each(Waker::wake);
        if let Some(Event::Value(_, value)) = event {
            give_back(&entry.1, value);
        }
        true
    }

    /// Asks the root, and waits there. `true`: there is an event after all. All is the root's (`gather`).
    pub(super) fn park_far(&self, op: &OpObject) -> Py<bool> {
        if self.has_event() {
            return Ok(true);
        }
        self.stand(op);
        let asked = self.ask(true, op.bell());
        match asked {
            Some(_) => Ok(false),
            None => {
                self.release(op, false);
                Ok(true)
            }
        }
    }

    /// One look at the root: whether there is an event.
    pub fn try_in_root(&self, op: &OpObject) -> Py<bool> {
        if !self.gather(op)? {
            return Ok(false);
        }
        loop {
            let Some(round) = self.ask(false, None) else {
                return Ok(true);
            };
            let answer = round.answer();
            let would_block = matches!(answer, Answer::WouldBlock);
            self.end_round(Some(answer));
            if would_block || self.has_event() {
                return Ok(!would_block);
            }
        }
    }

    /// Asks the root. `None`: there is nothing to ask, or nobody; that is an event.
    fn ask(&self, park: bool, waker: Option<Waker>) -> Option<Arc<Round>> {
        let (client, round, cases) = {
            let mut inner = self.inner();
            let inner = &mut *inner;
            let far = inner.far.as_mut()?;
            if far.order.is_empty() {
                inner.event = Some(Event::Over);
                return None;
            }
            let mut cases = Vec::with_capacity(far.order.len());
            for place in &far.order {
                // SAFETY: a channel or receiver, which the registration holds.
                let via =
                    inner.cases[*place as usize].as_ref().map(|(_, source, _)| unsafe { Via::of(source.as_ptr()) });
                let remote = via.and_then(|via| via.channel.remote())?;
                cases.push(Case { channel: remote.id(), action: Action::Recv });
            }
            let round = Arc::new(Round {
                id: AtomicU64::new(0),
                places: far.order.clone(),
                state: Mutex::new(RoundState { answer: None, waker }),
                arrived: Condvar::new(),
            });
            far.round = Some(Arc::clone(&round));
            (far.client, round, cases)
        };
        let completion: Arc<dyn Completion> = round.clone();
        let operation = Operation { policy: Policy::Priority, park, cases };
        match detached(|| client.submit(operation, 0, &completion)) {
            Ok(id) => {
                // Relaxed: see `recall`.
                round.id.store(id, Ordering::Relaxed);
                Some(round)
            }
            Err(SubmitError::Gone | SubmitError::TooLarge { .. }) => {
                self.end_round(Some(Answer::Gone));
                None
            }
        }
    }

    /// Ends the round that was answered or disturbed, if there is one.
    pub(super) fn settle_round(&self) {
        let round = self.inner().far.as_ref().and_then(|far| Some((far.client, far.round.clone()?)));
        if let Some((client, round)) = round {
            let answer = round.recall(client);
            self.end_round(answer);
        }
    }

    /// Nobody waits for the round any more: whether its waker, and the reference with it, had gone. `None`: there is none.
    pub(super) fn withdraw_round(&self) -> Option<bool> {
        let round = self.inner().far.as_ref().and_then(|far| far.round.clone())?;
        let waker = round.state().waker.take();
        self.settle_round();
        Some(waker.is_none())
    }

    /// Makes an event of the answer, if it is one.
    fn end_round(&self, answer: Option<Answer>) {
        let mut quiet = None;
        let mut homeless = None;
        let (left, keys) = {
            let mut inner = self.inner();
            let inner = &mut *inner;
            let Some(far) = &mut inner.far else {
                return;
            };
            let Some(round) = far.round.take() else {
                return;
            };
            let left = std::mem::take(&mut far.left);
            let decided = match answer {
                None | Some(Answer::WouldBlock) => None,
                Some(Answer::Decided(decided)) => Some(decided),
                // The root is gone, and with it the channels.
                Some(Answer::Gone) => {
                    let outcome = Outcome::Ended(End::Poisoned);
                    Some(Decided { case: 0, outcome, sent: 0, received: Vec::new(), cause: None })
                }
            };
            if let Some(decided) = decided {
                let place = round.places.get(decided.case).copied().unwrap_or(0);
                let at = far.order.iter().position(|other| *other == place);
                match (decided.outcome, at) {
                    (Outcome::Done, at) => {
                        let value = decided.received.into_iter().next().map(Value::from_wire);
                        match (value, at) {
                            (Some(value), Some(at)) => {
                                far.order.remove(at);
                                far.order.push(place);
                                inner.event = Some(Event::Value(place, value));
                            }
                            (value, _) => homeless = value.map(|value| (place, value)),
                        }
                    }
                    (Outcome::Ended(end), Some(at)) => {
                        far.order.remove(at);
                        if let Some((case, source, key)) = inner.cases[place as usize].take() {
                            quiet = Some((case.clone(), source.clone(), key));
                            if end == End::Poisoned || decided.cause.is_some() {
                                inner.event = Some(Event::Left(case, source, end));
                            }
                        }
                    }
                    _ => {}
                }
            }
            (left, inner.keys.clone())
        };
        if let Some((case, _source, key)) = quiet {
            forget(&keys, &case, key);
        }
        if let Some((place, value)) = homeless
            && let Some((_, source)) = left.iter().find(|(left, _)| *left == place)
        {
            give_back(source, value);
        }
    }
}

/// Puts a value back into its channel.
fn give_back(source: &Owned, value: Value) {
    // SAFETY: a channel or receiver.
    let channel = unsafe { Via::of(source.as_ptr()) }.channel;
    let lost = channel.give_back(value);
    channel.undelivered(lost);
}
