//! The root's side: the channels, and for each peer what it holds and waits for.
//!
//! A thread per peer reads its requests and performs them. One turn is what one read has brought: the answers that are known at the end of
//! it go out in one write, and then those are woken who were met. Operations that have to wait become parties (party.rs), and
//! whoever meets one sends the answer.
//!
//! True of each peer's book whenever it is unlocked:
//!   1. What the peer holds is counted here, and on the channels: one reference for each end that it has not closed or sent on.
//!   2. A party is listed from before it is parked until it was withdrawn, or its answer is on the way.
//!   3. After its death it holds nothing and has no party, and nothing is entered any more.

use std::any::Any;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use rustc_hash::FxHashMap;
use weft_core::barrier::Barrier;
use weft_core::chan::{Chan, End as Ended, Outcome, Overflow, SharedWord, Wakes};
use weft_core::error::Cause;

use crate::ahead::{self, Lease, Words};
use crate::blocks::Blocks;
use crate::end::{About, ChannelId, End, Place, Side};
use crate::frame::{self, Broken, Ends, Frame, Question, Reply, Request, Said};
use crate::inbox::Inbox;
use crate::memory::{Parcel, Wire};
use crate::operation::{Action, Decided, Operation, RemoteCause};
use crate::os::{Socket, Watch};
use crate::outbox::Outbox;
use crate::party::{Party, Stand, Work};
use crate::reading::{self, Lead, Leader, Reading};

/// What the embedding program does for the hub. Each is called without a lock, by whichever thread came upon it, and must not wait.
pub trait Host<V>: Send + Sync + 'static {
    /// The cause of a channel's end, given in this process, as bytes for another. One that came as a [`RemoteCause`] is
    /// passed on as it is.
    fn cause_bytes(&self, cause: &Cause) -> Vec<u8>;
    /// Values of a shared channel that were dropped by its overflow policy, by poison, or because the last receiver left, when that was
    /// another process's doing. If the channel was made in another process, [`Hub::undelivered`] hands them on.
    fn undelivered(&self, chan: &Arc<Chan<V>>, values: Vec<V>);
    /// The cause with which the ends of a peer are closed that did not leave in order.
    fn cause_of_death(&self, peer: PeerId, departure: &Departure) -> Option<Cause>;
    /// The peer is gone. What it waited for is withdrawn, and what it held is closed.
    fn gone(&self, peer: PeerId, departure: Departure);
}

/// Which peer, counted from 1 in the order in which they were added.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct PeerId(pub u64);

/// How a peer went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Departure {
    /// It said so: its ends were closed without a cause.
    Left,
    /// Its end of the socket was closed, as the system does when a process ends, or [`Hub::disconnect`] was called.
    Died,
    /// The link had to be given up, and this is why: the system's error, or what the peer sent that makes no sense.
    Failed(String),
}

/// The root's side of all links. Clones are the same hub; with the last one all links end.
pub struct Hub<V: Parcel> {
    inner: Arc<Inner<V>>,
}

struct Inner<V: Parcel> {
    host: Arc<dyn Host<V>>,
    peers: Mutex<FxHashMap<PeerId, Arc<Peer<V>>>>,
    makers: Arc<Makers<V>>,
    last: AtomicU64,
    /// The peer that was read last.
    latest: Arc<AtomicU64>,
}

impl<V: Parcel> Hub<V> {
    /// A hub without peers. It starts no thread until there is one.
    pub fn new(host: Arc<dyn Host<V>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                host,
                peers: Mutex::default(),
                makers: Arc::default(),
                last: AtomicU64::new(0),
                latest: Arc::default(),
            }),
        }
    }

    /// Serves a peer at the other end of the socket, with a thread that ends when the peer is gone. `start` is what the peer's
    /// [`Client::connect`](crate::Client::connect) returns: what it is to do, and the first ends it holds.
    ///
    /// # Errors
    /// The system has no thread for it. Then `start` is dropped.
    pub fn add_peer(&self, socket: Socket, start: Wire) -> io::Result<PeerId> {
        // Relaxed: it only has to be another one each time.
        let id = PeerId(self.inner.last.fetch_add(1, Ordering::Relaxed) + 1);
        let outbox = Outbox::new(socket);
        let reading = Reading::new(outbox.socket(), Heard::default())?;
        let (blocks, host) = (Blocks::new(outbox.clone()), self.inner.host.clone());
        let (latest, makers) = (self.inner.latest.clone(), self.inner.makers.clone());
        let peer = Arc::new(Peer { id, outbox, reading, latest, blocks, host, makers, book: Mutex::default() });
        lock(&self.inner.peers).insert(id, peer.clone());
        let (reader, inner) = (peer.clone(), Arc::downgrade(&self.inner));
        let spawned = thread::Builder::new().name(format!("weft-link-{}", id.0)).spawn(move || {
            reader.serve();
            if let Some(inner) = inner.upgrade() {
                drop(lock(&inner.peers).remove(&id));
            }
        });
        if let Err(error) = spawned {
            drop(lock(&self.inner.peers).remove(&id));
            return Err(error);
        }
        peer.outbox.push(peer.frame(Reply::Start(start)));
        Ok(id)
    }

    /// To read in place of a link's own thread, for a thread that is about to sleep until something that a peer does wakes it: the link to the
    /// peer that was read last, from which an answer is most likely. `give_up` is called, by
    /// any thread, when another one asks for the same: it must wake this one, and wait for nothing. `None`: there is no peer, somebody reads, and was
    /// asked, or the system has no way to.
    pub fn lead(&self, give_up: Arc<dyn Fn() + Send + Sync>) -> Option<Lead> {
        // Relaxed: a guess.
        let latest = PeerId(self.inner.latest.load(Ordering::Relaxed));
        let peer = lock(&self.inner.peers).get(&latest).cloned();
        Lead::begin(Arc::new(Led(peer?)), give_up)
    }

    /// Gives up the link to a peer, which is as if the peer had died. `false`: there is no such peer any more.
    pub fn disconnect(&self, peer: PeerId) -> bool {
        let peer = lock(&self.inner.peers).get(&peer).cloned();
        peer.inspect(|peer| peer.outbox.kill()).is_some()
    }

    /// To be called in a forked child, where the links are its parent's: their sockets are let go of, so that the peers see when the parent ends.
    pub fn after_fork(&self) {
        // Held by a thread that is not here any more: then they stay open.
        if let Ok(peers) = self.inner.peers.try_lock() {
            peers.values().for_each(|peer| peer.outbox.let_go());
        }
    }

    /// Hands values that were dropped to the process that made the channel, if that is another one that has asked for them and still has an end
    /// of it. Else they are dropped here.
    pub fn undelivered(&self, chan: &Arc<Chan<V>>, values: impl IntoIterator<Item = V>) {
        let maker = lock(&self.inner.makers.0).get(&address(chan)).cloned();
        if let Some((peer, channel)) = maker
            && let Some(peer) = peer.upgrade()
        {
            for value in values {
                let frame = peer.frame(Reply::Undelivered { channel, value: value.into_wire() });
                peer.send(Vec::from_iter(frame));
            }
        }
    }

    /// An end of a channel of this process, [`Side::Both`], from which counted ones are made with [`End::open`].
    pub fn end(&self, chan: &Arc<Chan<V>>, about: Arc<About>) -> End {
        rooted(chan.clone(), self.inner.host.clone(), about, Side::Both, false)
    }
}

impl<V: Parcel> Clone for Hub<V> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<V: Parcel> Drop for Inner<V> {
    fn drop(&mut self) {
        for peer in lock(&self.peers).values() {
            peer.outbox.kill();
        }
    }
}

impl<V: Parcel> fmt::Debug for Hub<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({} peers)", lock(&self.inner.peers).len())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No foreign code runs under these locks, so a panic leaves what they guard as it should be.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who made a channel and wants what is dropped of it, by the channel's address, which that peer's book keeps.
struct Makers<V: Parcel>(Mutex<FxHashMap<usize, Maker<V>>>);

type Maker<V> = (Weak<Peer<V>>, ChannelId);

impl<V: Parcel> Default for Makers<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V: Parcel> Makers<V> {
    fn enter(&self, chan: &Arc<Chan<V>>, maker: Maker<V>) {
        lock(&self.0).insert(address(chan), maker);
    }

    /// The peer has no end of the channel any more.
    fn strike(&self, chan: &Arc<Chan<V>>, peer: &Peer<V>) {
        if let Entry::Occupied(entry) = lock(&self.0).entry(address(chan))
            && std::ptr::eq(entry.get().0.as_ptr(), peer)
        {
            entry.remove();
        }
    }
}

/// A channel of this process as the place of an end.
struct Rooted<V: Parcel> {
    chan: Arc<Chan<V>>,
    host: Arc<dyn Host<V>>,
}

fn rooted<V: Parcel>(chan: Arc<Chan<V>>, host: Arc<dyn Host<V>>, about: Arc<About>, side: Side, counted: bool) -> End {
    End::new(side, about, 0, Arc::new(Rooted { chan, host }), counted)
}

impl<V: Parcel> Place for Rooted<V> {
    fn open(&self, _: ChannelId, side: Side) -> bool {
        open(&self.chan, side)
    }

    fn close(&self, _: ChannelId, side: Side, cause: Option<RemoteCause>) {
        close(&self.chan, side, cause.map(|cause| Arc::new(cause) as Cause), &*self.host);
    }

    fn chan(&self) -> Option<&dyn Any> {
        Some(&self.chan)
    }
}

/// Counts one more end, if there is something to count.
fn open<V>(chan: &Chan<V>, side: Side) -> bool {
    match side {
        Side::Sender => chan.add_sender(),
        Side::Receiver => chan.add_receiver(),
        Side::Both => false,
    }
}

/// Uncounts an end.
fn close<V: 'static>(chan: &Arc<Chan<V>>, side: Side, cause: Option<Cause>, host: &dyn Host<V>) {
    match side {
        Side::Sender => chan.remove_sender(cause).wake(),
        Side::Receiver => {
            let (values, wakes) = chan.remove_receiver(cause);
            wakes.wake();
            undelivered(host, chan, values.into());
        }
        Side::Both => {}
    }
}

pub(crate) fn undelivered<V: 'static>(host: &dyn Host<V>, chan: &Arc<Chan<V>>, values: Vec<V>) {
    if !values.is_empty() {
        host.undelivered(chan, values);
    }
}

/// One peer, as the hub knows it.
pub(crate) struct Peer<V: Parcel> {
    id: PeerId,
    outbox: Arc<Outbox>,
    reading: Reading<Heard>,
    latest: Arc<AtomicU64>,
    blocks: Arc<Blocks>,
    pub(crate) host: Arc<dyn Host<V>>,
    makers: Arc<Makers<V>>,
    book: Mutex<Book<V>>,
}

struct Book<V: Parcel> {
    dead: bool,
    parties: FxHashMap<u64, Arc<Party<V>>>,
    held: FxHashMap<ChannelId, Held<V>>,
    /// Those that it made, by numbers of the same kind.
    barriers: FxHashMap<ChannelId, Arc<Barrier>>,
    /// By the address of the channel, which `held` keeps.
    numbers: FxHashMap<usize, ChannelId>,
    last: ChannelId,
    /// The words of its leases; `None`: it has none yet. Inside `None`: there is no memory for them.
    words: Option<Option<Words>>,
}

/// A channel that the peer has ends of.
struct Held<V> {
    chan: Arc<Chan<V>>,
    about: Arc<About>,
    senders: usize,
    receivers: usize,
    /// Uncounted ones: those of both sides, and those that were opened when there was nothing left to count.
    others: usize,
    /// The words of its leases of this channel.
    room: Option<(u32, SharedWord)>,
    lent: Option<(u32, SharedWord)>,
}

impl<V: Parcel> Default for Book<V> {
    fn default() -> Self {
        Self {
            dead: false,
            parties: FxHashMap::default(),
            held: FxHashMap::default(),
            barriers: FxHashMap::default(),
            numbers: FxHashMap::default(),
            // The root's numbers are even, the child's own odd.
            last: 0,
            words: None,
        }
    }
}

/// A reference that was taken out of a book.
struct Taken<V> {
    chan: Arc<Chan<V>>,
    about: Arc<About>,
    /// Whether it counted.
    counted: bool,
    /// The peer has no end of the channel any more.
    was_last: bool,
    /// And it has had leases of it: what words they had.
    leases: Option<Vec<u32>>,
}

impl<V: Parcel> Book<V> {
    /// Takes a reference out. `None`: the peer holds no such end.
    fn take(&mut self, channel: ChannelId, side: Side) -> Option<Taken<V>> {
        let Entry::Occupied(mut entry) = self.held.entry(channel) else {
            return None;
        };
        let held = entry.get_mut();
        let (references, counted) = match side {
            Side::Sender if held.senders > 0 => (&mut held.senders, true),
            Side::Receiver if held.receivers > 0 => (&mut held.receivers, true),
            _ => (&mut held.others, false),
        };
        *references = references.checked_sub(1)?;
        let (chan, about) = (held.chan.clone(), held.about.clone());
        let mut leases = None;
        let was_last = held.senders + held.receivers + held.others == 0;
        if was_last {
            self.numbers.remove(&address(&chan));
            let held = entry.remove();
            let words = Vec::from_iter([held.room, held.lent].into_iter().flatten().map(|(index, _)| index));
            leases = Some(words).filter(|words| !words.is_empty());
        }
        Some(Taken { chan, about, counted, was_last, leases })
    }

    /// Whether nothing new of the peer's can have this number.
    fn is_taken(&self, number: ChannelId) -> bool {
        number.is_multiple_of(2) || self.held.contains_key(&number) || self.barriers.contains_key(&number)
    }

    fn put(&mut self, channel: ChannelId, side: Side, counted: bool) {
        let held = self.held.get_mut(&channel).expect("just found or entered");
        *match side {
            Side::Sender if counted => &mut held.senders,
            Side::Receiver if counted => &mut held.receivers,
            _ => &mut held.others,
        } += 1;
    }

    fn enter(&mut self, channel: ChannelId, chan: Arc<Chan<V>>, about: Arc<About>) {
        self.numbers.insert(address(&chan), channel);
        self.held.insert(channel, Held { chan, about, senders: 0, receivers: 0, others: 0, room: None, lent: None });
    }
}

fn address<V>(chan: &Arc<Chan<V>>) -> usize {
    Arc::as_ptr(chan).addr()
}

/// What one read has brought about, and is still to be told.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) frames: Vec<Frame>,
    pub(crate) wakes: Vec<Wakes>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Something panicked in the middle of it: those who were met are woken all the same.
        self.wakes.drain(..).for_each(Wakes::wake);
    }
}

impl<V: Parcel> Peer<V> {
    /// The reader thread.
    fn serve(self: &Arc<Self>) {
        // However it ends, by a panic of the host's too: nobody is left waiting for this peer.
        let mut burial = Burial { peer: self, departure: Departure::Failed("a thread of the link panicked".into()) };
        burial.departure = self.read();
    }

    fn read(self: &Arc<Self>) -> Departure {
        loop {
            if let Err(error) = self.reading.wait(self.outbox.socket()) {
                return Departure::Failed(error.to_string());
            }
            if let Some(departure) = self.turn() {
                return departure;
            }
        }
    }

    /// One read, if there is something. How the peer went, if it has.
    fn turn(self: &Arc<Self>) -> Option<Departure> {
        // Relaxed: a guess at who will be heard of next.
        self.latest.store(self.id.0, Ordering::Relaxed);
        let mut wakes = Vec::new();
        let read = self.reading.read(self.outbox.socket(), |inbox, heard| {
            if heard.departure.is_none() {
                let end = self.take_turn(inbox, &mut heard.turn);
                // In the order of the turns, and so before the next one.
                self.outbox.push(heard.turn.frames.drain(..));
                heard.departure = match end {
                    Ok(false) => None,
                    Ok(true) => Some(Departure::Left),
                    Err(Broken(why)) => Some(Departure::Failed(format!("the peer sent {why}"))),
                };
                wakes.append(&mut heard.turn.wakes);
            }
            heard.departure.clone()
        });
        wakes.into_iter().for_each(Wakes::wake);
        match read {
            Ok(None) => None,
            Ok(Some(departure)) => departure,
            // Whoever else has read may know more.
            Err(error) => Some(self.reading.lock().1.departure.clone().unwrap_or(match error.kind() {
                // Killed with something unread, it is a reset.
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Departure::Died,
                _ => Departure::Failed(error.to_string()),
            })),
        }
    }

    /// Performs what has been read; `true`: the peer leaves.
    fn take_turn(self: &Arc<Self>, inbox: &mut Inbox, turn: &mut Turn) -> Result<bool, Broken> {
        while let Some(body) = inbox.next()? {
            match Request::read(body, &**self)? {
                Request::Leave => return Ok(true),
                request => self.perform(request, turn)?,
            }
        }
        Ok(false)
    }

    fn perform(self: &Arc<Self>, request: Request, turn: &mut Turn) -> Result<(), Broken> {
        match request {
            Request::Operation { id, operation } => self.begin(id, operation, turn)?,
            Request::Withdraw { id } => {
                let party = lock(&self.book).parties.get(&id).cloned();
                // Else it was decided, and the answer is on its way or was given.
                if party.is_some_and(|party| party.withdraw()) {
                    drop(self.delist(id));
                    turn.frames.extend(self.frame(Reply::Withdrawn { id }));
                }
            }
            Request::Create { channel, about } => {
                let chan = Arc::new(Chan::new(about.capacity, about.overflow));
                let mut book = lock(&self.book);
                if book.is_taken(channel) {
                    return Err(Broken("a new channel whose number is taken"));
                }
                book.enter(channel, chan, Arc::new(about));
                book.put(channel, Side::Both, false);
            }
            Request::Fill { channel, values } => {
                let chan = self.chan(channel).ok_or(Broken("values for an unknown channel"))?;
                let refused = chan.preload(values.into_iter().map(V::from_wire).collect());
                refused.map_err(|_| Broken("values for a channel that is in use"))?;
            }
            Request::GiveBack { channel, values } => {
                // Else the child has closed its last end meanwhile, as in `begin`.
                if let Some(chan) = self.chan(channel) {
                    if chan.statistics().received < values.len() as u64 {
                        return Err(Broken("more values back than were received"));
                    }
                    let mut lost = Vec::new();
                    for value in values.into_iter().rev() {
                        let (answer, wakes) = chan.give_back(V::from_wire(value));
                        turn.wakes.push(wakes);
                        lost.extend(answer.err());
                    }
                    undelivered(&*self.host, &chan, lost);
                }
            }
            Request::Open { channel, side } => {
                let chan = self.chan(channel).ok_or(Broken("an end of an unknown channel"))?;
                let counted = open(&chan, side);
                lock(&self.book).put(channel, side, counted);
            }
            Request::Close { channel, side, cause } => {
                let Taken { chan, counted, .. } = self.take(channel, side).ok_or(Broken("an end that was not open"))?;
                if counted {
                    // Not in this turn's wakes: the values that were dropped are told first to those who wait for them.
                    close(&chan, side, cause.map(|cause| Arc::new(cause) as Cause), &*self.host);
                }
            }
            Request::Put { channel, value } => {
                // It was sent through an end that the child still had.
                let chan = self.chan(channel).ok_or(Broken("a value for an unknown channel"))?;
                let arrived = chan.arrive(self.id.0, V::from_wire(value), ahead::ROOM);
                let (dropped, wakes) = arrived.map_err(|_| Broken("a value that has no room"))?;
                turn.wakes.push(wakes);
                undelivered(&*self.host, &chan, Vec::from_iter(dropped));
            }
            Request::Taken { channel } => {
                // Else the child has closed its last end meanwhile.
                turn.wakes.extend(self.chan(channel).map(|chan| chan.settle()));
            }
            Request::Barrier { barrier, parties } => {
                let mut book = lock(&self.book);
                if book.is_taken(barrier) {
                    return Err(Broken("a new barrier whose number is taken"));
                }
                book.barriers.insert(barrier, Arc::new(Barrier::new(parties)));
            }
            Request::Scrap { barrier } => {
                let scrapped = lock(&self.book).barriers.remove(&barrier);
                // Without the lock. Who waits there has a share of it.
                drop(scrapped.ok_or(Broken("a barrier that is not there"))?);
            }
            Request::Hear { channel } => {
                if channel % 2 == 0 {
                    return Err(Broken("a wish to hear of another's channel"));
                }
                if let Some(chan) = self.chan(channel) {
                    self.makers.enter(&chan, (Arc::downgrade(self), channel));
                }
            }
            Request::Call { id, channel, question } => {
                let said = self.answer(channel, question, turn);
                turn.frames.extend(self.frame(Reply::Said { id, said }));
            }
            Request::Notices(notices) => notices.into_iter().try_for_each(|notice| self.blocks.hear(notice))?,
            Request::Leave => {}
        }
        Ok(())
    }

    fn begin(self: &Arc<Self>, id: u64, operation: Operation, turn: &mut Turn) -> Result<(), Broken> {
        let mut stands = Vec::with_capacity(operation.cases.len());
        for (index, case) in operation.cases.into_iter().enumerate() {
            if let Action::Sync = case.action {
                let barrier = lock(&self.book).barriers.get(&case.channel).cloned();
                stands.push(Stand::at_barrier(barrier.ok_or(Broken("a barrier that is not there"))?));
                continue;
            }
            let Some(chan) = self.chan(case.channel) else {
                // The child has closed its last end meanwhile, in another thread.
                let outcome = Outcome::Ended(Ended::Closed);
                let decided = Decided { case: index, outcome, sent: 0, received: Vec::new(), cause: None };
                turn.frames.extend(self.frame(Reply::Decided { id, decided }));
                return Ok(());
            };
            stands.push(Stand::on_channel(case.channel, chan, Work::of(case.action)));
        }
        Party::new(self.clone(), id, stands).begin(operation.policy, operation.park, turn)
    }

    fn answer(&self, channel: ChannelId, question: Question, turn: &mut Turn) -> Said {
        let chan = self.chan(channel);
        match (question, chan) {
            (Question::Close(cause), Some(chan)) => {
                let (first, wakes) = chan.close(cause.map(|cause| Arc::new(cause) as Cause));
                turn.wakes.push(wakes);
                Said::First(first)
            }
            (Question::Poison(cause), Some(chan)) => {
                let (values, wakes) = chan.poison(cause.map(|cause| Arc::new(cause) as Cause));
                turn.wakes.push(wakes);
                let first = values.is_some();
                undelivered(&*self.host, &chan, values.unwrap_or_default().into());
                Said::First(first)
            }
            (Question::Statistics, Some(chan)) => Said::Statistics(chan.statistics()),
            (Question::Length, Some(chan)) => Said::Length(chan.len()),
            (Question::End, Some(chan)) => {
                let (end, cause) = chan.end();
                Said::End(end, cause.map(|cause| self.remote(&cause)))
            }
            // The child has closed its last end meanwhile, as above.
            (Question::Close(_) | Question::Poison(_), None) => Said::First(false),
            (Question::Statistics, None) => Said::Statistics(weft_core::Statistics::default()),
            (Question::Length, None) => {
                let barrier = lock(&self.book).barriers.get(&channel).cloned();
                Said::Length(barrier.map_or(0, |barrier| barrier.waiting()))
            }
            (Question::End, None) => Said::End(Some(Ended::Closed), None),
        }
    }

    /// Takes a reference out of the book; with the last one of a channel its leases are over.
    fn take(&self, channel: ChannelId, side: Side) -> Option<Taken<V>> {
        let mut taken = lock(&self.book).take(channel, side)?;
        if taken.was_last {
            self.makers.strike(&taken.chan, self);
        }
        if let Some(leases) = taken.leases.take() {
            // All that was sent with them has been read before this.
            taken.chan.release(self.id.0).wake();
            let mut book = lock(&self.book);
            let words = book.words.as_mut().and_then(Option::as_mut);
            words.into_iter().for_each(|words| leases.iter().for_each(|index| words.give(*index)));
        }
        Some(taken)
    }

    /// The peer has sent a value: it may send more without asking, as long as there is room.
    pub(crate) fn promise(&self, channel: ChannelId, frames: &mut Vec<Frame>) {
        let lease = self.lease(
            channel,
            frames,
            |held| &mut held.room,
            |chan, word| {
                let (number, is_new) = chan.reserve(self.id.0, word, ahead::ROOM)?;
                is_new.then_some((number, ()))
            },
        );
        if let Some((lease, ())) = lease {
            frames.extend(self.frame(Reply::Room { channel, lease }));
        }
    }

    /// The peer has received a value: the next ones go along.
    pub(crate) fn lend(&self, channel: ChannelId, frames: &mut Vec<Frame>) {
        let lease = self.lease(
            channel,
            frames,
            |held| &mut held.lent,
            |chan, word| chan.lend(self.id.0, word, ahead::LENT, |value: &V| value.copied(ahead::SMALL)),
        );
        if let Some((lease, values)) = lease {
            let values = values.into_iter().map(V::into_wire).collect();
            frames.extend(self.frame(Reply::Lent { channel, lease, values }));
        }
    }

    /// Makes a lease of the channel, in a word that is its own from the first on.
    ///
    /// The book is locked meanwhile, so that the lease is over, and the word free again, only after the peer's last end of the channel; who holds a
    /// channel's lock never asks for that of a book.
    fn lease<R>(
        &self,
        channel: ChannelId,
        frames: &mut Vec<Frame>,
        place: impl Fn(&mut Held<V>) -> &mut Option<(u32, SharedWord)>,
        make: impl FnOnce(&Chan<V>, &SharedWord) -> Option<(u32, R)>,
    ) -> Option<(Lease, R)> {
        let mut book = lock(&self.book);
        let Book { held, words, .. } = &mut *book;
        let held = held.get_mut(&channel)?;
        if held.about.overflow != Overflow::Block || held.about.capacity == Some(0) {
            return None;
        }
        let words = words.get_or_insert_with(|| {
            let (words, passed) = Words::made()?;
            frames.extend(self.frame(Reply::Board(frame::Board::Passed(passed))));
            Some(words)
        });
        let (word, shared) = match place(held) {
            Some(known) => known.clone(),
            new => new.insert(words.as_mut()?.take()?).clone(),
        };
        let (number, made) = make(&held.chan, &shared)?;
        Some((Lease { word, number }, made))
    }

    fn chan(&self, channel: ChannelId) -> Option<Arc<Chan<V>>> {
        lock(&self.book).held.get(&channel).map(|held| held.chan.clone())
    }

    pub(crate) fn remote(&self, cause: &Cause) -> RemoteCause {
        match cause.downcast_ref::<RemoteCause>() {
            Some(cause) => cause.clone(),
            None => RemoteCause(self.host.cause_bytes(cause)),
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        lock(&self.book).dead
    }

    /// Lists a party that is about to be parked. `false`: its number is taken.
    pub(crate) fn enlist(&self, id: u64, party: Arc<Party<V>>) -> bool {
        match lock(&self.book).parties.entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(party);
                true
            }
        }
    }

    /// Strikes a party off the list; it is dropped by the caller, with no lock held.
    pub(crate) fn delist(&self, id: u64) -> Option<Arc<Party<V>>> {
        lock(&self.book).parties.remove(&id)
    }

    /// A reply as a frame; `None` when the peer would refuse it, which ends the link.
    pub(crate) fn frame(&self, reply: Reply) -> Option<Frame> {
        let frame = reply.write(self);
        if frame.too_large().is_some() {
            self.outbox.kill();
            return None;
        }
        Some(frame)
    }

    pub(crate) fn send(&self, frames: Vec<Frame>) {
        self.outbox.push(frames);
    }

    /// Withdraws what the peer waits for, and closes what it holds.
    fn bury(&self, departure: Departure) {
        self.outbox.kill();
        self.blocks.end();
        let (parties, held) = {
            let mut book = lock(&self.book);
            book.dead = true;
            book.numbers.clear();
            (std::mem::take(&mut book.parties), std::mem::take(&mut book.held))
        };
        // All of them first, so that no party of a dead peer meets what its ends leave behind.
        for party in parties.values() {
            // What was decided at this moment gives back what it received.
            party.withdraw();
        }
        drop(parties);
        for held in held.values() {
            self.makers.strike(&held.chan, self);
            held.chan.release(self.id.0).wake();
        }
        for held in held.into_values() {
            let cause = || match &departure {
                Departure::Left => None,
                departure => self.host.cause_of_death(self.id, departure),
            };
            (0..held.senders).for_each(|_| close(&held.chan, Side::Sender, cause(), &*self.host));
            (0..held.receivers).for_each(|_| close(&held.chan, Side::Receiver, cause(), &*self.host));
        }
        self.host.gone(self.id, departure);
    }
}

/// What the reading of one turn leaves to the next.
#[derive(Default)]
struct Heard {
    turn: Turn,
    /// What the peer has said of its going, or done that nobody should.
    departure: Option<Departure>,
}

/// An `Arc`, because what is read may make parties, which hold the peer.
struct Led<V: Parcel>(Arc<Peer<V>>);

impl<V: Parcel> reading::Led for Led<V> {
    fn socket(&self) -> &Socket {
        self.0.outbox.socket()
    }
    fn led(&self) -> (&Watch, &Leader) {
        self.0.reading.led()
    }
    fn turn(&self) -> bool {
        let is_over = self.0.turn().is_some();
        if is_over {
            self.kill();
        }
        !is_over
    }
    fn kill(&self) {
        self.0.outbox.kill();
    }
}

struct Burial<'a, V: Parcel> {
    peer: &'a Peer<V>,
    departure: Departure,
}

impl<V: Parcel> Drop for Burial<'_, V> {
    fn drop(&mut self) {
        self.peer.bury(self.departure.clone());
    }
}

impl<V: Parcel> Ends for Peer<V> {
    fn export(&self, end: End) -> (ChannelId, Side, Arc<About>) {
        let chan = end.chan::<V>().expect("an end of this hub's channels").clone();
        let (side, about) = (end.side(), end.about().clone());
        let mut book = lock(&self.book);
        if book.dead {
            // Nobody will read it; the end closes.
            drop(book);
            return (0, side, about);
        }
        let channel = match book.numbers.get(&address(&chan)) {
            Some(channel) => *channel,
            None => {
                book.last += 2;
                let channel = book.last;
                book.enter(channel, chan, about.clone());
                channel
            }
        };
        // `forget` drops nothing but a share of a channel that the book has one of, too.
        book.put(channel, side, end.forget());
        (channel, side, about)
    }

    fn import(&self, channel: ChannelId, side: Side, _: About) -> Option<End> {
        let Taken { chan, about, counted, .. } = self.take(channel, side)?;
        Some(rooted(chan, self.host.clone(), about, side, counted))
    }

    fn blocks(&self) -> Option<&Arc<Blocks>> {
        Some(&self.blocks)
    }
}
