//! An operation of a child, as it stands in the queues of the root.
//!
//! A party is what a parked thread or task is elsewhere: a waiter, and a node for each case. It sleeps nowhere, so being woken means
//! to send the answer, which is done by whoever met it, after the unlock.
//!
//! # Why this is sound
//!
//! Queues point to the waiter and the nodes, which are in an `Arc` and do not move. While the offer is open the waiter's waker is a share of that
//! `Arc`; who claims the offer takes the waker over, and `wake` takes the losing nodes out of their queues before it drops it. Who
//! withdraws the offer has a share of its own, and takes all nodes out. Should a waker be dropped unused (somebody panicked before
//! waking), `drop` does it.
//!
//! A send takes its value out of the node's slot unchecked. There is one: frame.rs refuses a send of no value.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use weft_core::barrier::{Barrier, SyncCase};
use weft_core::chan::{Chan, Outcome, Wakes};
use weft_core::select::{self, Case, Gate, Policy, RecvCase, SendCase};
use weft_core::waiter::Waiter;
use weft_core::waitq::Node;

use crate::end::ChannelId;
use crate::frame::{Broken, Frame, Reply};
use crate::hub::{Peer, Turn, undelivered};
use crate::memory::{Attachment, LARGE, Parcel, Wire};
use crate::operation::{Action, Decided};

/// How much of many received values goes into one answer: then the next request gets the rest.
const BATCH: usize = 1 << 20;
/// What a block counts for in that: so 64 of them are a batch, as many as one frame carries.
const BLOCK: usize = BATCH / crate::frame::MOST_BLOCKS;
/// How many values are taken from a channel at a time, until it is known how large they are.
const AT_A_TIME: usize = 16;

/// What a case does, with what it needs for that.
pub(crate) enum Work<V> {
    Send(V),
    SendMany(VecDeque<V>),
    Recv(usize),
}

impl<V: Parcel> Work<V> {
    pub(crate) fn of(action: Action) -> Self {
        match action {
            Action::Send(wire) => Self::Send(V::from_wire(wire)),
            Action::SendMany(wires) => Self::SendMany(wires.into_iter().map(V::from_wire).collect()),
            Action::Recv => Self::Recv(1),
            Action::RecvMany(max) => Self::Recv(max.max(1)),
            Action::Sync => unreachable!("a barrier is no channel"),
        }
    }
}

/// A case and its place in the queue.
pub(crate) enum Stand<V> {
    Channel { channel: ChannelId, chan: Arc<Chan<V>>, node: Node<V>, kind: Kind<V> },
    Barrier { barrier: Arc<Barrier>, node: Node<usize> },
}

impl<V> Stand<V> {
    pub(crate) fn on_channel(channel: ChannelId, chan: Arc<Chan<V>>, work: Work<V>) -> Self {
        let (first, kind) = match work {
            Work::Send(value) => (Some(value), Kind::Send(Mutex::default())),
            Work::SendMany(mut values) => (values.pop_front(), Kind::Send(Mutex::new(values))),
            Work::Recv(max) => (None, Kind::Recv(max)),
        };
        Self::Channel { channel, chan, node: Node::new(first), kind }
    }

    pub(crate) fn at_barrier(barrier: Arc<Barrier>) -> Self {
        Self::Barrier { barrier, node: Node::new(None) }
    }

    /// # Safety
    /// The node is in no queue, and the waiter goes away after it.
    unsafe fn bind(&self, waiter: *const Waiter, case: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Channel { node, .. } => node.bind(waiter, case),
                Self::Barrier { node, .. } => node.bind(waiter, case),
            }
        }
    }

    fn as_case(&self) -> StandCase<'_, V> {
        match self {
            Self::Channel { chan, node, kind: Kind::Send(_), .. } => StandCase::Send(SendCase { chan, node }),
            Self::Channel { chan, node, kind: Kind::Recv(_), .. } => StandCase::Recv(RecvCase { chan, node }),
            Self::Barrier { barrier, node } => StandCase::Sync(SyncCase { barrier, node }),
        }
    }
}

/// A stand as weft-core sees it.
enum StandCase<'a, V> {
    Send(SendCase<'a, V>),
    Recv(RecvCase<'a, V>),
    Sync(SyncCase<'a>),
}

impl<V> StandCase<'_, V> {
    fn inner(&self) -> &dyn Case {
        match self {
            Self::Send(case) => case,
            Self::Recv(case) => case,
            Self::Sync(case) => case,
        }
    }
}

// SAFETY: each method passes on to a case that keeps the contract.
unsafe impl<V> Case for StandCase<'_, V> {
    fn lock(&self) -> Option<&Gate> {
        self.inner().lock()
    }
    unsafe fn ready(&self) -> bool {
        // SAFETY: passed on.
        unsafe { self.inner().ready() }
    }
    unsafe fn commit(&self, wakes: &mut Wakes) -> bool {
        // SAFETY: passed on.
        unsafe { self.inner().commit(wakes) }
    }
    unsafe fn park(&self) {
        // SAFETY: passed on.
        unsafe { self.inner().park() }
    }
    unsafe fn unlink(&self) {
        // SAFETY: passed on.
        unsafe { self.inner().unlink() }
    }
}

pub(crate) enum Kind<V> {
    /// With what is to be sent after the first, which is in the node. Locked by nobody but who concludes.
    Send(Mutex<VecDeque<V>>),
    /// At most so many.
    Recv(usize),
}

pub(crate) struct Party<V: Parcel> {
    waiter: Waiter,
    stands: Box<[Stand<V>]>,
    peer: Arc<Peer<V>>,
    id: u64,
}

impl<V: Parcel> Party<V> {
    pub(crate) fn new(peer: Arc<Peer<V>>, id: u64, stands: Vec<Stand<V>>) -> Arc<Self> {
        Arc::new(Self { waiter: Waiter::new(), stands: stands.into(), peer, id })
    }

    /// Performs the operation, or parks it.
    pub(crate) fn begin(self: Arc<Self>, policy: Policy, park: bool, turn: &mut Turn) -> Result<(), Broken> {
        if park {
            if !self.peer.enlist(self.id, self.clone()) {
                return Err(Broken("an operation whose number is taken"));
            }
            for (stand, case) in self.stands.iter().zip(0..) {
                // SAFETY: new, so in no queue; the waiter is in the same allocation as the node.
                unsafe { stand.bind(&raw const self.waiter, case) };
            }
            // SAFETY: the waiter is new.
            unsafe { self.waiter.arm(Waker::from(self.clone())) };
        }
        let mut wakes = Wakes::new();
        let chosen = self.with_cases(|cases| {
            // SAFETY: the nodes are in no queue, and their slots are ours. When parked they are bound to the armed waiter, whose
            // waker keeps all of it where it is (see above).
            unsafe { select::attempt(cases, policy, park, &mut wakes) }
        });
        turn.wakes.push(wakes);
        match chosen {
            Some(case) => {
                if park {
                    // SAFETY: decided while being made: no node is in a queue, and nobody else knew of it.
                    drop(unsafe { self.waiter.disarm() });
                    drop(self.peer.delist(self.id));
                }
                self.conclude(case, &mut turn.frames, &mut turn.wakes);
            }
            None if !park => turn.frames.extend(self.peer.frame(Reply::WouldBlock { id: self.id })),
            None => {}
        }
        Ok(())
    }

    /// Takes the offer back. `false`: it was met, and the answer is on its way.
    pub(crate) fn withdraw(&self) -> bool {
        if !self.waiter.withdraw() {
            return false;
        }
        self.unlink(None);
        // SAFETY: withdrawn, so the waiter is the owner's, and that is who withdrew it.
        drop(unsafe { self.waiter.clear() });
        true
    }

    /// Takes all nodes but one out of their queues.
    fn unlink(&self, chosen: Option<usize>) {
        self.with_cases(|cases| {
            let (before, after) = match chosen {
                Some(chosen) => (&cases[..chosen], &cases[chosen + 1..]),
                None => (cases, &[][..]),
            };
            // SAFETY: the offer is closed, and each node can only be in the queues of its own channel.
            unsafe {
                select::unlink(before);
                select::unlink(after);
            }
        });
    }

    /// Calls `f` with the cases as select.rs of weft-core wants them.
    fn with_cases<R>(&self, f: impl FnOnce(&[&dyn Case]) -> R) -> R {
        if let [stand] = &*self.stands {
            return f(&[stand.as_case().inner()]);
        }
        let cases: Vec<_> = self.stands.iter().map(Stand::as_case).collect();
        let cases: Vec<&dyn Case> = cases.iter().map(|case| case as &dyn Case).collect();
        f(&cases)
    }

    /// Answers, for a case that was decided, unless there is nobody to answer: then what was received goes back.
    fn conclude(&self, case: usize, frames: &mut Vec<Frame>, wakes: &mut Vec<Wakes>) {
        let (channel, chan, node, kind) = match &self.stands[case] {
            Stand::Channel { channel, chan, node, kind } => (channel, chan, node, kind),
            Stand::Barrier { node, .. } => {
                // SAFETY: decided, as below.
                let (slot, outcome) = unsafe { node.take() };
                let sent = slot.unwrap_or(0);
                let decided = Decided { case, outcome, sent, received: Vec::new(), cause: None };
                frames.extend(self.peer.frame(Reply::Decided { id: self.id, decided }));
                return;
            }
        };
        // SAFETY: decided, by `attempt` or as `met` said: the slot is ours.
        let (slot, outcome) = unsafe { node.take() };
        let mut decided = Decided { case, outcome, sent: 0, received: Vec::new(), cause: None };
        if let Outcome::Ended(_) = outcome {
            decided.cause = chan.end().1.map(|cause| self.peer.remote(&cause));
        } else if outcome == Outcome::Done {
            match kind {
                Kind::Send(rest) => decided.sent = self.send_rest(chan, slot, rest, wakes),
                Kind::Recv(max) => {
                    let Some(first) = slot else {
                        return;
                    };
                    if self.peer.is_dead() {
                        return self.give_back(chan, first, wakes);
                    }
                    decided.received = self.recv_rest(chan, first, *max, wakes);
                }
            }
            // What one may do again and again; a select is decided here in any case.
            match kind {
                Kind::Send(_) if self.stands.len() == 1 => self.peer.promise(*channel, frames),
                Kind::Recv(1) if self.stands.len() == 1 => self.peer.lend(*channel, frames),
                _ => {}
            }
        }
        frames.extend(self.peer.frame(Reply::Decided { id: self.id, decided }));
    }

    /// After the first, as many as there is room for. How many were sent.
    fn send_rest(
        &self,
        chan: &Arc<Chan<V>>,
        displaced: Option<V>,
        rest: &Mutex<VecDeque<V>>,
        wakes: &mut Vec<Wakes>,
    ) -> usize {
        let mut rest = std::mem::take(&mut *rest.lock().unwrap_or_else(PoisonError::into_inner));
        let mut displaced = Vec::from_iter(displaced);
        let mut sent = 1;
        if !rest.is_empty() {
            let (count, _, woken) = chan.try_send_many(&mut rest, &mut displaced);
            wakes.push(woken);
            sent += count;
        }
        undelivered(&*self.peer.host, chan, displaced);
        sent
    }

    /// After the first, as many as are there.
    fn recv_rest(&self, chan: &Chan<V>, first: V, max: usize, wakes: &mut Vec<Wakes>) -> Vec<Wire> {
        let mut wires = vec![first.into_wire()];
        let mut size = weight(&wires[0]);
        let mut values = Vec::new();
        while wires.len() < max && size < BATCH {
            let (outcome, woken) = chan.try_recv_many(AT_A_TIME.min(max - wires.len()), &mut values);
            wakes.push(woken);
            for value in values.drain(..) {
                let wire = value.into_wire();
                size += weight(&wire);
                wires.push(wire);
            }
            if outcome != Outcome::Done {
                break;
            }
        }
        wires
    }

    fn give_back(&self, chan: &Arc<Chan<V>>, value: V, wakes: &mut Vec<Wakes>) {
        let (given, woken) = chan.give_back(value);
        wakes.push(woken);
        undelivered(&*self.peer.host, chan, Vec::from_iter(given.err()));
    }
}

/// What a value adds to a frame.
fn weight(wire: &Wire) -> usize {
    let weight = |len| if len >= LARGE { BLOCK } else { len };
    let attached = wire.attachments.iter().map(|attachment| match attachment {
        Attachment::Memory(memory) => weight(memory.len()),
        Attachment::End(_) => 64,
    });
    weight(wire.bytes.len()) + attached.sum::<usize>()
}

impl<V: Parcel> Wake for Party<V> {
    fn wake(self: Arc<Self>) {
        // A waker is called by whoever claimed the offer, after it has finished.
        let Some(case) = self.waiter.met() else {
            return;
        };
        let case = case as usize;
        self.unlink(Some(case));
        drop(self.peer.delist(self.id));
        let (mut frames, mut wakes) = (Vec::new(), Vec::new());
        self.conclude(case, &mut frames, &mut wakes);
        self.peer.send(frames);
        wakes.into_iter().for_each(Wakes::wake);
    }
}

impl<V: Parcel> Drop for Party<V> {
    fn drop(&mut self) {
        // Nobody has a share, so the offer is not open. What was settled is in no queue, and this finds nothing.
        self.unlink(None);
    }
}
