//! What a child does ahead of the root's answer: sends into room that it was promised, and receives values that were sent along with another.
//!
//! Asked of the root, a send or a receive is a journey there and back. By a lease (weft-core's chan/lease.rs) it is none: the child counts
//! down a word of the *board*, memory that it shares with the root, and the value goes its way, or is there already. The root counts back what
//! it needs for somebody else by the same word, without a journey either; so it is the root alone that decides, still.
//!
//! ```text
//!   child                                          root
//!   Operation: send   ------------------------->   the value is in the buffer, and there is more room:
//!         <------------ Room, Decided ----------   a word of the board says how much
//!   Put, Put, Put     ------------------------->   the values arrive; more is promised by the word alone
//!
//!   Operation: receive  ----------------------->   there is a value, and there are more behind it:
//!         <------------ Lent, Decided ----------   copies of them; a word of the board says how many may be taken
//!   (receives those: no message at all)
//!   Taken             ------------------------->   when the word asks for it: somebody waits for the room
//! ```
//!
//! Small values alone go so, without ends and blocks. What is in one frame less is not worth a lease in a rendezvous, in a select, or where
//! several processes receive from one channel: there nothing is lent, or not for long.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weft_core::chan::{SharedWord, Word};

use crate::end::ChannelId;
use crate::memory::Wire;
use crate::os::{Board, Passed};

/// How much room is promised at a time.
pub(crate) const ROOM: usize = 256;
/// How many values are lent at a time.
pub(crate) const LENT: usize = 256;
/// How large a value may be that is sent or lent so.
pub(crate) const SMALL: usize = 4 << 10;

/// A lease: which word, and which number it must bear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lease {
    pub(crate) word: u32,
    pub(crate) number: u32,
}

/// A word of a board, which stays as long as it.
struct Line(Arc<Board>, u32);

impl Deref for Line {
    type Target = Word;
    fn deref(&self) -> &Word {
        self.0.word(self.1)
    }
}

/// The root's board for one child.
pub(crate) struct Words {
    board: Arc<Board>,
    free: Vec<u32>,
    next: u32,
}

impl Words {
    /// A new board, and what the child needs to have it, too.
    pub(crate) fn made() -> Option<(Self, Passed)> {
        let (board, passed) = Board::made().ok()?;
        Some((Self { board: Arc::new(board), free: Vec::new(), next: 0 }, passed))
    }

    /// A word that is not used; `None`: all are.
    pub(crate) fn take(&mut self) -> Option<(u32, SharedWord)> {
        let index = self.free.pop().or_else(|| {
            let index = (self.next < Board::WORDS).then_some(self.next);
            self.next += u32::from(index.is_some());
            index
        })?;
        Some((index, Arc::new(Line(self.board.clone(), index))))
    }

    /// The word is used no longer: its lease is over.
    pub(crate) fn give(&mut self, index: u32) {
        self.free.push(index);
    }
}

/// What a child may do ahead on one channel.
pub struct Ahead {
    channel: ChannelId,
    /// Hints, so that a channel without leases costs no lock.
    may_send: AtomicBool,
    may_recv: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    room: Option<(SharedWord, u32)>,
    lent: Option<(SharedWord, u32)>,
    values: VecDeque<Wire>,
}

impl Ahead {
    pub(crate) fn new(channel: ChannelId) -> Self {
        Self { channel, may_send: AtomicBool::new(false), may_recv: AtomicBool::new(false), state: Mutex::default() }
    }

    pub(crate) fn channel(&self) -> ChannelId {
        self.channel
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under it, so a panic leaves it as it should be.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a send may find room here.
    #[inline]
    pub fn may_send(&self) -> bool {
        // Relaxed: whoever finds it true looks under the lock.
        self.may_send.load(Ordering::Relaxed)
    }

    /// Whether a receive may find a value here.
    #[inline]
    pub fn may_recv(&self) -> bool {
        self.may_recv.load(Ordering::Relaxed)
    }

    /// Room was promised.
    pub(crate) fn promise(&self, board: &Arc<Board>, lease: Lease) {
        self.state().room = Some((Arc::new(Line(board.clone(), lease.word)), lease.number));
        self.may_send.store(true, Ordering::Relaxed);
    }

    /// Values were lent; those of another lease are not ours any more.
    pub(crate) fn lend(&self, board: &Arc<Board>, lease: Lease, values: Vec<Wire>) {
        let line: SharedWord = Arc::new(Line(board.clone(), lease.word));
        let old = {
            let mut state = self.state();
            state.lent = Some((line, lease.number));
            std::mem::replace(&mut state.values, values.into())
        };
        self.may_recv.store(true, Ordering::Relaxed);
        drop(old);
    }

    /// What was lent is not taken: it is received anew.
    pub(crate) fn forgo(&self) {
        let old = {
            let mut state = self.state();
            state.lent = None;
            std::mem::take(&mut state.values)
        };
        self.may_recv.store(false, Ordering::Relaxed);
        drop(old);
    }

    /// The root is gone: nothing is promised or lent.
    pub(crate) fn end(&self) {
        let old = std::mem::take(&mut *self.state());
        self.may_send.store(false, Ordering::Relaxed);
        self.may_recv.store(false, Ordering::Relaxed);
        drop(old);
    }

    /// Takes room for one value, which is then to be sent.
    pub(crate) fn spend(&self) -> bool {
        let state = self.state();
        // Called back, or used up and perhaps filled up again: the word of an open lease is worth a look each time.
        state.room.as_ref().is_some_and(|(word, lease)| word.take(*lease).is_some())
    }

    /// The next value, and whether the root is to be told that it was taken.
    pub(crate) fn take(&self) -> Option<(Wire, bool)> {
        let mut state = self.state();
        let told = state.lent.as_ref().and_then(|(word, lease)| word.take(*lease));
        // There are as many as there are turns, unless the root counts wrongly.
        match (told, state.values.pop_front()) {
            (Some(told), Some(value)) => Some((value, told)),
            (_, none) => {
                // Called in, or all taken.
                state.lent = None;
                let old = std::mem::take(&mut state.values);
                self.may_recv.store(false, Ordering::Relaxed);
                drop(state);
                drop((none, old));
                None
            }
        }
    }
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ahead({} values of channel {})", self.state().values.len(), self.channel)
    }
}

/// Whether a value goes without a journey: small, and with nothing attached.
pub(crate) fn is_small(wire: &Wire) -> bool {
    wire.attachments.is_empty() && wire.bytes.len() <= SMALL
}
