//! The end of a shared channel, as it is held and as it travels.
//!
//! One `End` is one reference. In the root it is a count on the channel itself; in a child it is a number, for which the root keeps the
//! count. A reference that travels is *moved*: what left one side's book is in the other's when the frame is read, so
//! that a count is taken back exactly once, whether the end is closed, dropped with the value it was part of, or its holder dies.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use weft_core::chan::{Chan, Overflow};

use crate::operation::RemoteCause;

/// What a child calls a channel. It is good for one child only, and as long as that child holds an end of the channel.
pub type ChannelId = u64;

/// Which end it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// A counted sender.
    Sender,
    /// A counted receiver.
    Receiver,
    /// Both directions, uncounted: it keeps the channel known, and nothing open.
    Both,
}

/// What a holder of an end must know at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct About {
    /// How many values the buffer may hold; `None`: any number.
    pub capacity: Option<usize>,
    /// What a full channel does with one more.
    pub overflow: Overflow,
    /// What messages call it.
    pub name: String,
}

/// Where the channel of an end is. In the root a place is one channel, and the numbers mean nothing.
pub(crate) trait Place: Any + Send + Sync {
    /// Counts one more end. `false`: the channel has ended, and nothing was counted.
    fn open(&self, channel: ChannelId, side: Side) -> bool;
    /// One end less.
    fn close(&self, channel: ChannelId, side: Side, cause: Option<RemoteCause>);
    /// In the root the channel, an `Arc<Chan<V>>`.
    fn chan(&self) -> Option<&dyn Any>;
}

/// An end of a shared channel. Dropped, it is closed; cloned, it counts twice.
pub struct End {
    side: Side,
    about: Arc<About>,
    channel: ChannelId,
    place: Arc<dyn Place>,
    /// Whether `close` is owed to the place.
    owed: bool,
}

impl End {
    pub(crate) fn new(side: Side, about: Arc<About>, channel: ChannelId, place: Arc<dyn Place>, owed: bool) -> Self {
        Self { side, about, channel, place, owed }
    }

    /// Which end it is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Capacity, overflow policy and name.
    pub fn about(&self) -> &Arc<About> {
        &self.about
    }

    /// In a child: what operations on the channel are to name.
    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    /// In the root: the channel. `None` in a child, or when `V` is not what it carries.
    pub fn chan<V: 'static>(&self) -> Option<&Arc<Chan<V>>> {
        self.place.chan()?.downcast_ref()
    }

    /// One more end of the same channel, of either side.
    pub fn open(&self, side: Side) -> Self {
        let owed = self.place.open(self.channel, side);
        Self { side, about: self.about.clone(), channel: self.channel, place: self.place.clone(), owed }
    }

    /// Closes this end and says why. The first cause that is given for a channel is the one its users see.
    pub fn close(mut self, cause: Option<RemoteCause>) {
        if std::mem::take(&mut self.owed) {
            self.place.close(self.channel, self.side, cause);
        }
    }

    /// In the root: gives up the end but keeps its count, which is the caller's to take back with `remove_sender` or
    /// `remove_receiver`. The flag says whether there is one: there is none on a channel that had ended before.
    pub fn into_chan<V: 'static>(mut self) -> Result<(Arc<Chan<V>>, bool), Self> {
        match self.chan::<V>().cloned() {
            Some(chan) => Ok((chan, std::mem::take(&mut self.owed) && self.side != Side::Both)),
            None => Err(self),
        }
    }

    /// Gives up the end without closing it; whether that is owed.
    pub(crate) fn forget(mut self) -> bool {
        std::mem::take(&mut self.owed)
    }
}

impl Clone for End {
    fn clone(&self) -> Self {
        self.open(self.side)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if self.owed {
            close_in_turn(Closing { place: self.place.clone(), channel: self.channel, side: self.side });
        }
    }
}

/// An end that was dropped.
struct Closing {
    place: Arc<dyn Place>,
    channel: ChannelId,
    side: Side,
}

thread_local! {
    /// What was dropped while this thread closes an end; `None`: it closes none.
    static CLOSING: RefCell<Option<VecDeque<Closing>>> = const { RefCell::new(None) };
}

/// Closes the end, or leaves it to the call further up that is closing one. A channel that goes may hold ends in its buffer, of channels
/// that hold ends: each would be closed within the one before, and a long chain of them needs more stack than a thread has.
fn close_in_turn(end: Closing) {
    let mut end = Some(end);
    // It fails when the thread is at its very end; then each is closed within the one before.
    let _ = CLOSING.try_with(|closing| match &mut *closing.borrow_mut() {
        Some(waiting) => waiting.extend(end.take()),
        none => *none = Some(VecDeque::new()),
    });
    let Some(first) = end else {
        return;
    };
    let _turn = Turn;
    first.close();
    while let Ok(Some(next)) = CLOSING.try_with(|closing| closing.borrow_mut().as_mut()?.pop_front()) {
        next.close();
    }
}

impl Closing {
    fn close(self) {
        self.place.close(self.channel, self.side, None);
    }
}

/// The call that closes what the others leave to it.
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        let rest = CLOSING.try_with(RefCell::take);
        // There is none, unless the host has panicked.
        rest.into_iter().flatten().flatten().for_each(Closing::close);
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "End({:?} of {:?})", self.side, self.about.name)
    }
}
