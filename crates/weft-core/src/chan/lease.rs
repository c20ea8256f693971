//! Leases: room that somebody may fill, and values that somebody may take, without the channel's lock.
//!
//! They are for a party to whom every look at a channel is a journey: another process. Its *holder* is given a number of turns, in a [`Word`] that
//! both sides reach, and takes one by counting it down. Whoever needs what was leased calls it back by one atomic exchange, and the answer is
//! exact: what had been taken by then was taken, the rest never will be. So nobody waits for the holder, and what it may do ahead of
//! time does not show: a channel is never full because of room that nobody uses, nor empty because of values that nobody has taken.
//!
//! * A lease of **room** is a number of free slots. What the holder sends with it *arrives* later ([`Chan::arrive`]), and its slot is held
//!   until then. It is called back when somebody else finds the channel full, and when it ends.
//! * A lease of **values** is the head of the buffer: the holder has copies ([`Chan::lend`]), the channel keeps the originals, and puts those
//!   that were not taken back in their places when anybody else wants to receive, or the holder is gone. So their order is that of the channel.
//!   There is one at a time. Room that the holder makes by taking one is told of ([`Chan::settle`]) if somebody waits for it.
//!
//! Of the invariants in chan.rs two are wider then: a slot whose value the holder has taken, and not told of, is free though a sender is
//! parked, but then the word says that it wants to be told; and a closed channel keeps its receivers parked as long as something is
//! to arrive. A channel with another overflow policy than waiting has no leases.
//!
//! Source: Gray and Cheriton, Leases (SOSP 1989), without their clock: the word can be called back at any time, and a holder that dies says so.

use std::collections::VecDeque;
use std::ops::Deref;

use super::{Chan, End, Outcome, Overflow, State, Wakes, empty, fill};
use crate::primitives::{AtomicU64, Ordering, PlainArc};

/// The number of turns that a holder has left. It may lie in memory shared between processes.
///
/// From the top: the number of the lease (32 bits), whether a turn is to be told of (1), how many turns are left (31). The holder only counts
/// down, and only in the lease it knows; all else is done by the channel, under its lock. Relaxed throughout: the word tells how many, and
/// what they stand for travels by other ways, with an order of their own.
#[repr(transparent)]
#[derive(Debug)]
pub struct Word(AtomicU64);

/// A word, with whatever keeps its memory alive.
pub type SharedWord = PlainArc<dyn Deref<Target = Word> + Send + Sync>;

const TOLD: u64 = 1 << 31;
const LEFT: u64 = TOLD - 1;

impl Default for Word {
    fn default() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl Word {
    /// Takes a turn of this lease; `true`: the channel is to be told. `None`: none is left, or it was called back.
    pub fn take(&self, lease: u32) -> Option<bool> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if (word >> 32) as u32 != lease || word & LEFT == 0 {
                return None;
            }
            let next = (word & !TOLD) - 1;
            match self.0.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(word & TOLD != 0),
                Err(now) => word = now,
            }
        }
    }

    /// A new lease, in place of one that is over. Its number.
    fn open(&self, turns: usize, told: bool) -> u32 {
        let lease = ((self.0.load(Ordering::Relaxed) >> 32) as u32).wrapping_add(1);
        self.0.store(u64::from(lease) << 32 | if told { TOLD } else { 0 } | turns as u64, Ordering::Relaxed);
        lease
    }

    fn extend(&self, turns: usize) {
        self.0.fetch_add(turns as u64, Ordering::Relaxed);
    }

    /// Ends the lease. How many turns were left.
    fn close(&self) -> usize {
        // Nobody else changes the upper half.
        let lease = ((self.0.load(Ordering::Relaxed) >> 32) as u32).wrapping_add(1);
        (self.0.swap(u64::from(lease) << 32, Ordering::Relaxed) & LEFT) as usize
    }

    fn left(&self) -> usize {
        (self.0.load(Ordering::Relaxed) & LEFT) as usize
    }

    /// The next turn is to be told of. How many are left.
    fn tell(&self) -> usize {
        (self.0.fetch_or(TOLD, Ordering::Relaxed) & LEFT) as usize
    }
}

/// For how many requests nothing is lent after what was lent had to be called in: it has several receivers.
const REST: u32 = 64;

pub(super) struct Leases<T> {
    rooms: Vec<Room>,
    lent: Option<Lent<T>>,
    rest: u32,
}

/// Slots that were promised to a holder.
struct Room {
    holder: u64,
    word: SharedWord,
    /// The number of the lease; `None`: called back.
    lease: Option<u32>,
    /// Promised, and neither called back nor arrived. A holder that writes nonsense into its word cannot make it less than what is to arrive.
    due: usize,
}

/// Values that a holder has copies of, in their order.
struct Lent<T> {
    holder: u64,
    word: SharedWord,
    values: VecDeque<T>,
}

impl<T> Lent<T> {
    /// How many of them were not taken, of `left` that the word says.
    fn untaken(&self, left: usize) -> usize {
        left.min(self.values.len())
    }
}

impl<T> Default for Leases<T> {
    fn default() -> Self {
        Self { rooms: Vec::new(), lent: None, rest: 0 }
    }
}

impl<T> Chan<T> {
    /// Promises free slots to the holder, so that it has `most` at the most: half of those that are free, rounded up, the others being for
    /// everybody else. The number of its lease, and whether it is a new one; `None`: it has none.
    pub fn reserve(&self, holder: u64, word: &SharedWord, most: usize) -> Option<(u32, bool)> {
        self.with(|state| {
            let free = state.free();
            if free == 0 && state.leases.is_none() {
                return None;
            }
            let leases = state.leases.get_or_insert_default();
            let at = leases.rooms.iter().position(|room| room.holder == holder);
            let old = at.and_then(|at| leases.rooms[at].lease);
            if free == 0 && old.is_none() {
                return None;
            }
            let at = at.unwrap_or_else(|| {
                leases.rooms.push(Room { holder, word: word.clone(), lease: None, due: 0 });
                leases.rooms.len() - 1
            });
            state.fill_up(at, most);
            let leases = state.leases.get_or_insert_default();
            leases.rooms[at].lease.map(|lease| (lease, Some(lease) != old))
        })
    }

    /// What the holder has sent with a lease of room. `Ok`: the value, when nothing is delivered any more (it counts as dropped). `Err`: the
    /// holder had no room.
    pub fn arrive(&self, holder: u64, value: T, most: usize) -> Result<(Option<T>, Wakes), T> {
        let mut wakes = Wakes::new();
        self.with(|state| {
            let leases = state.leases.as_mut();
            let rooms = leases.map(|leases| leases.rooms.as_mut_slice()).unwrap_or_default();
            let Some(at) = rooms.iter().position(|room| room.holder == holder && room.due > 0) else {
                return Err(value);
            };
            let room = &mut rooms[at];
            room.due -= 1;
            let is_low = room.lease.is_some() && room.word.left() < most / 2;
            state.held -= 1;
            state.sent += 1;
            if matches!(state.end, Some(End::Poisoned | End::NoReceivers)) {
                state.dropped += 1;
                return Ok(Some(value));
            }
            // SAFETY: the queue of this channel holds nodes of T.
            match unsafe { state.recvq.claim_first::<T>() } {
                Some((node, claim)) => {
                    fill(node, Some(value), Outcome::Done);
                    state.received += 1;
                    wakes.push(claim.finish());
                    state.admit(&mut wakes);
                }
                None => state.buffer.push_back(value),
            }
            state.end_receivers(&mut wakes);
            if is_low {
                state.fill_up(at, most);
            }
            Ok(None)
        })
        .map(|dropped| (dropped, wakes))
    }

    /// Lends the holder values from the head of the buffer, at most so many, and as long as `copy` makes copies of them: the number of the lease, and
    /// the copies. `None`: there is nothing to lend, or other receivers are about.
    ///
    /// `copy` is called with the lock held, and copies and originals may be dropped so: neither may do more than allocate and free.
    pub fn lend(
        &self,
        holder: u64,
        word: &SharedWord,
        most: usize,
        mut copy: impl FnMut(&T) -> Option<T>,
    ) -> Option<(u32, Vec<T>)> {
        self.with(|state| {
            if state.buffer.is_empty() || state.overflow != Overflow::Block || state.lent() != 0 {
                return None;
            }
            let leases = state.leases.get_or_insert_default();
            if leases.rest > 0 {
                leases.rest -= 1;
                return None;
            }
            let copies: Vec<T> = state.buffer.iter().take(most).map_while(&mut copy).collect();
            if copies.is_empty() {
                return None;
            }
            let values: VecDeque<T> = state.buffer.drain(..copies.len()).collect();
            state.held += values.len();
            let lease = word.open(values.len(), !state.sendq.is_empty());
            leases.lent = Some(Lent { holder, word: word.clone(), values });
            Some((lease, copies))
        })
    }

    /// The holder has taken of what it was lent, and was to tell of it.
    pub fn settle(&self) -> Wakes {
        let mut wakes = Wakes::new();
        self.with(|state| {
            let lent = state.leases.as_ref().and_then(|leases| leases.lent.as_ref());
            // Who still waits afterwards is to be told of the next one: marked first, and then counted, so that none is between.
            let left = lent.map_or(0, |lent| if state.sendq.is_empty() { lent.word.left() } else { lent.word.tell() });
            state.count_taken(left);
            state.admit(&mut wakes);
        });
        wakes
    }

    /// The holder has gone, and all it sent has arrived: what it had is as if it had never had it.
    pub fn release(&self, holder: u64) -> Wakes {
        let mut wakes = Wakes::new();
        self.with(|state| {
            let Some(leases) = state.leases.as_mut() else {
                return;
            };
            if let Some(at) = leases.rooms.iter().position(|room| room.holder == holder) {
                let room = leases.rooms.swap_remove(at);
                room.word.close();
                state.held -= room.due;
            }
            if leases.lent.as_ref().is_some_and(|lent| lent.holder == holder) {
                state.call_in(&mut wakes);
            }
            state.admit(&mut wakes);
            state.end_receivers(&mut wakes);
        });
        wakes
    }
}

impl<T> State<T> {
    /// How many slots may be promised.
    fn free(&self) -> usize {
        match (self.end, self.overflow) {
            (None, Overflow::Block) if self.sendq.is_empty() => {
                self.capacity.saturating_sub(self.buffer.len() + self.held)
            }
            _ => 0,
        }
    }

    /// More room for a holder, up to so much; of what is free, half.
    fn fill_up(&mut self, at: usize, most: usize) {
        let free = self.free();
        let Some(leases) = self.leases.as_mut() else {
            return;
        };
        let room = &mut leases.rooms[at];
        let left = if room.lease.is_some() { room.word.left().min(room.due) } else { 0 };
        let more = most.saturating_sub(left).min(free.div_ceil(2));
        if more == 0 {
            return;
        }
        match room.lease {
            Some(_) => room.word.extend(more),
            None => room.lease = Some(room.word.open(more, false)),
        }
        room.due += more;
        self.held += more;
    }

    /// Whether something that was sent is still to arrive. Of a channel that has ended.
    pub(super) fn expects(&self) -> bool {
        self.held != 0 && self.leases.iter().flat_map(|leases| &leases.rooms).any(|room| room.due != 0)
    }

    /// Calls back the room that nobody has used.
    pub(super) fn call_back_room(&mut self) {
        for room in self.leases.iter_mut().flat_map(|leases| &mut leases.rooms) {
            if room.lease.take().is_some() {
                let left = room.word.close().min(room.due);
                room.due -= left;
                self.held -= left;
            }
        }
    }

    /// Looks for room in what is leased. Whether there is some now; if not, what makes room from now on is told.
    ///
    /// It wakes nobody: who sends and has to wait is not asked for wakes. When others wait already, the next value that is taken is told of, and
    /// they are let in then.
    #[cold]
    #[inline(never)]
    pub(super) fn make_room(&mut self) -> bool {
        self.call_back_room();
        if !self.has_room()
            && let Some(lent) = self.leases.as_ref().and_then(|leases| leases.lent.as_ref())
        {
            // Marked first, and then counted, so that none is between.
            let left = lent.word.tell();
            if self.sendq.is_empty() {
                self.count_taken(left);
            }
        }
        self.has_room()
    }

    /// Whether [`make_room`](Self::make_room) would find some; if not, what makes room from now on is told.
    #[cold]
    #[inline(never)]
    pub(super) fn may_make_room(&self) -> bool {
        let Some(leases) = &self.leases else {
            return false;
        };
        let promised = leases.rooms.iter().filter(|room| room.lease.is_some());
        let unused: usize = promised.map(|room| room.word.left().min(room.due)).sum();
        let taken = leases.lent.as_ref().map_or(0, |lent| {
            let left = lent.word.tell();
            // What was taken is the room of those who wait already.
            if self.sendq.is_empty() { lent.values.len() - lent.untaken(left) } else { 0 }
        });
        self.buffer.len() + self.held < self.capacity.saturating_add(unused + taken)
    }

    /// How many values are lent, taken ones included.
    pub(super) fn lent(&self) -> usize {
        let lent = self.leases.as_ref().and_then(|leases| leases.lent.as_ref());
        lent.map_or(0, |lent| lent.values.len())
    }

    /// How many of them nobody has taken.
    pub(super) fn lent_now(&self) -> usize {
        let lent = self.leases.as_ref().and_then(|leases| leases.lent.as_ref());
        lent.map_or(0, |lent| lent.untaken(lent.word.left()))
    }

    /// Calls in what is lent: what nobody has taken is at the head of the buffer again.
    #[cold]
    #[inline(never)]
    pub(super) fn call_in(&mut self, wakes: &mut Wakes) {
        let Some(leases) = self.leases.as_mut() else {
            return;
        };
        let Some(mut lent) = leases.lent.take() else {
            return;
        };
        let untaken = lent.untaken(lent.word.close());
        let taken = lent.values.len() - untaken;
        self.held -= lent.values.len();
        self.received += taken as u64;
        if untaken > 0 {
            leases.rest = REST;
        }
        lent.values.drain(..taken).for_each(drop);
        lent.values.append(&mut self.buffer);
        self.buffer = lent.values;
        self.admit(wakes);
    }

    /// Counts what was taken of what is lent, when the word says that so many are left.
    fn count_taken(&mut self, left: usize) {
        let Some(leases) = self.leases.as_mut() else {
            return;
        };
        let Some(lent) = &mut leases.lent else {
            return;
        };
        let taken = lent.values.len() - lent.untaken(left);
        lent.values.drain(..taken).for_each(drop);
        if lent.values.is_empty() {
            leases.lent = None;
        }
        self.held -= taken;
        self.received += taken as u64;
    }

    /// Lets parked senders in, as long as there is room.
    fn admit(&mut self, wakes: &mut Wakes) {
        if matches!(self.end, Some(End::Poisoned | End::NoReceivers)) {
            return;
        }
        while self.has_room() {
            // SAFETY: the queue of this channel holds nodes of T.
            let Some((node, claim)) = (unsafe { self.sendq.claim_first::<T>() }) else {
                return;
            };
            self.buffer.push_back(empty(node));
            self.sent += 1;
            wakes.push(claim.finish());
        }
    }
}
