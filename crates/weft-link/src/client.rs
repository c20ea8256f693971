//! A child's side: requests go out, and a thread reads the answers.

use std::any::Any;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use rustc_hash::FxHashMap;
use weft_core::Statistics;
use weft_core::chan::End as Ended;

use crate::ahead::{Ahead, is_small};
use crate::blocks::Blocks;
use crate::end::{About, ChannelId, End, Place, Side};
use crate::frame::{self, Broken, Ends, Frame, NoValues, Question, Reply, Request, Said};
use crate::inbox::Inbox;
use crate::memory::Wire;
use crate::operation::{Answer, Completion, Gone, Hearer, Operation, RemoteCause, SubmitError};
use crate::os::{Board, Socket, Watch};
use crate::outbox::Outbox;
use crate::reading::{self, Lead, Leader, Reading};

/// The link of this process to the root. Clones are the same link.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    outbox: Arc<Outbox>,
    reading: Reading<Heard>,
    blocks: Arc<Blocks>,
    book: Mutex<Book>,
    last_request: AtomicU64,
    last_channel: AtomicU64,
}

/// What the reading of one turn leaves to the next.
struct Heard {
    /// Who waits for the start.
    start: Option<SyncSender<Wire>>,
    board: Option<Arc<Board>>,
}

#[derive(Default)]
struct Book {
    gone: bool,
    operations: FxHashMap<u64, Pending>,
    calls: FxHashMap<u64, SyncSender<Said>>,
    aheads: FxHashMap<ChannelId, Weak<Ahead>>,
    hearers: FxHashMap<ChannelId, Hearer>,
    /// Who waits for the end of the link: told by being dropped.
    leaving: Vec<SyncSender<()>>,
}

/// An operation that has not been heard of.
struct Pending {
    token: usize,
    completion: Arc<dyn Completion>,
    /// Who waits to hear whether it was withdrawn.
    withdrawing: Vec<SyncSender<bool>>,
}

impl Client {
    /// Takes up the link, with a thread that reads it, and waits for what the root has to say first: the `start` of
    /// [`Hub::add_peer`](crate::Hub::add_peer).
    ///
    /// # Errors
    /// The root is gone, or the system has no thread for it.
    pub fn connect(socket: Socket) -> io::Result<(Self, Wire)> {
        let outbox = Outbox::new(socket);
        let (start, started) = sync_channel(1);
        let inner = Arc::new(Inner {
            reading: Reading::new(outbox.socket(), Heard { start: Some(start), board: None })?,
            blocks: Blocks::new(outbox.clone()),
            outbox,
            book: Mutex::default(),
            // Numbers of channels that are made here are odd.
            last_channel: AtomicU64::new(1),
            last_request: AtomicU64::new(0),
        });
        let reader = inner.clone();
        thread::Builder::new().name("weft-link".into()).spawn(move || reader.serve())?;
        let start = started.recv().map_err(|_| io::Error::new(io::ErrorKind::UnexpectedEof, Gone))?;
        Ok((Self { inner }, start))
    }

    /// Begins an operation. `completion` is told the outcome, with `token`, possibly before this returns. The number is for
    /// [`withdraw`](Self::withdraw).
    ///
    /// It never waits for the root: what the socket does not take is written later.
    ///
    /// # Errors
    /// Nothing was begun, and `completion` is not called. The values are gone.
    pub fn submit(
        &self,
        operation: Operation,
        token: usize,
        completion: &Arc<dyn Completion>,
    ) -> Result<u64, SubmitError> {
        let id = self.inner.number();
        let frame = self.inner.frame(Request::Operation { id, operation })?;
        {
            let mut book = self.inner.book();
            if book.gone {
                return Err(SubmitError::Gone);
            }
            let pending = Pending { token, completion: completion.clone(), withdrawing: Vec::new() };
            book.operations.insert(id, pending);
        }
        self.inner.outbox.push([frame]);
        Ok(id)
    }

    /// Takes an operation back, waiting until the root has answered. `true`: nothing happened, nothing will, and its completion
    /// is never called. `false`: it was decided, or the root is gone, and its completion was called or is being called.
    ///
    /// Not to be called by a completion: the thread that would hear the answer is busy with it.
    pub fn withdraw(&self, id: u64) -> bool {
        let (tell, answer) = sync_channel(1);
        {
            let mut book = self.inner.book();
            let Some(pending) = book.operations.get_mut(&id) else {
                return false;
            };
            pending.withdrawing.push(tell);
        }
        self.inner.send(Request::Withdraw { id });
        answer.recv().unwrap_or(false)
    }

    /// Makes a channel in the root. The end is [`Side::Both`]; counted ones are made from it with [`End::open`].
    pub fn create(&self, about: About) -> End {
        // Relaxed: it only has to be another one each time.
        let channel = self.inner.last_channel.fetch_add(2, Ordering::Relaxed);
        self.inner.send(Request::Create { channel, about: about.clone() });
        End::new(Side::Both, Arc::new(about), channel, self.inner.clone(), true)
    }

    /// Makes a barrier of so many parties in the root, for operations of this process: see [`Action::Sync`](crate::Action::Sync).
    /// [`len`](Self::len) says how many wait there.
    pub fn barrier(&self, parties: usize) -> ChannelId {
        // Relaxed: as above.
        let barrier = self.inner.last_channel.fetch_add(2, Ordering::Relaxed);
        self.inner.tell(Request::Barrier { barrier, parties });
        barrier
    }

    /// The barrier is not needed any more. Nobody waits there.
    pub fn scrap(&self, barrier: ChannelId) {
        self.inner.tell(Request::Scrap { barrier });
    }

    /// Has what is dropped of a channel that was created here (by poison, an overflow policy, or because its last receiver left, whosever doing that is)
    /// handed to `hearer`, until [`unhear`](Self::unhear).
    pub fn hear(&self, channel: ChannelId, hearer: Hearer) {
        self.inner.book().hearers.insert(channel, hearer);
        self.inner.tell(Request::Hear { channel });
    }

    /// Nobody is there any more who would hear.
    pub fn unhear(&self, channel: ChannelId) {
        let hearer = self.inner.book().hearers.remove(&channel);
        // Without the lock.
        drop(hearer);
    }

    /// Puts values into the buffer of a channel that was just created here, without asking for room: what was in the local channel
    /// that it takes the place of. Nobody else may know the channel yet.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    pub fn fill(&self, channel: ChannelId, values: Vec<Wire>) -> Result<(), SubmitError> {
        self.tell(Request::Fill { channel, values })
    }

    fn tell(&self, request: Request) -> Result<(), SubmitError> {
        let frame = self.inner.frame(request)?;
        if self.inner.book().gone {
            return Err(SubmitError::Gone);
        }
        self.inner.outbox.push([frame]);
        Ok(())
    }

    /// To be called in a forked child, where the link is its parent's.
    pub fn after_fork(&self) {
        self.inner.outbox.let_go();
    }

    /// Puts values that an operation received, and that nobody took up, back to the front of their channel, in the order in which they came.
    /// It never waits for the root.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    pub fn give_back(&self, channel: ChannelId, values: Vec<Wire>) -> Result<(), SubmitError> {
        // Those that were lent from behind them come after them again.
        let ahead = self.inner.book().aheads.get(&channel).and_then(Weak::upgrade);
        if let Some(ahead) = ahead {
            ahead.forgo();
        }
        self.tell(Request::GiveBack { channel, values })
    }

    /// What may be done on a channel without asking, as long as this is held; all who ask have the same.
    pub fn ahead(&self, channel: ChannelId) -> Arc<Ahead> {
        let mut book = self.inner.book();
        if let Some(ahead) = book.aheads.get(&channel).and_then(Weak::upgrade) {
            return ahead;
        }
        // Those that nobody holds any more go when there are many.
        if book.aheads.len() == book.aheads.capacity() {
            book.aheads.retain(|_, ahead| ahead.strong_count() > 0);
        }
        let ahead = Arc::new(Ahead::new(channel));
        book.aheads.insert(channel, Arc::downgrade(&ahead));
        ahead
    }

    /// Sends a value into room that was promised: then it is as good as in the buffer, and what is asked of the root later finds it there.
    /// `Err`: there is no room, or the value is none that goes so; it is to be submitted.
    pub fn send_ahead(&self, ahead: &Ahead, value: Wire) -> Result<(), Wire> {
        if !is_small(&value) || !ahead.spend() {
            return Err(value);
        }
        self.inner.outbox.stream(Request::Put { channel: ahead.channel(), value }.write(&NoValues));
        Ok(())
    }

    /// Receives a value that was lent; `None`: the root is to be asked.
    pub fn recv_ahead(&self, ahead: &Ahead) -> Option<Wire> {
        let (value, told) = ahead.take()?;
        if told {
            self.inner.tell(Request::Taken { channel: ahead.channel() });
        }
        Some(value)
    }

    /// Closes a channel: what is in it is still delivered. `false`: it had ended before.
    ///
    /// This and the calls below wait until the root has answered, which it does at once; a completion must not make them.
    ///
    /// # Errors
    /// The root is gone; here and below.
    pub fn close(&self, channel: ChannelId, cause: Option<RemoteCause>) -> Result<bool, Gone> {
        match self.inner.call(channel, Question::Close(cause))? {
            Said::First(first) => Ok(first),
            _ => Err(Gone),
        }
    }

    /// Poisons a channel: nothing more is delivered, and what was in it goes to the root's
    /// [`Host::undelivered`](crate::Host::undelivered). `false`: it was poisoned before.
    pub fn poison(&self, channel: ChannelId, cause: Option<RemoteCause>) -> Result<bool, Gone> {
        match self.inner.call(channel, Question::Poison(cause))? {
            Said::First(first) => Ok(first),
            _ => Err(Gone),
        }
    }

    /// Counts and totals, all of one moment.
    pub fn statistics(&self, channel: ChannelId) -> Result<Statistics, Gone> {
        match self.inner.call(channel, Question::Statistics)? {
            Said::Statistics(statistics) => Ok(statistics),
            _ => Err(Gone),
        }
    }

    /// How many values are buffered.
    pub fn len(&self, channel: ChannelId) -> Result<usize, Gone> {
        match self.inner.call(channel, Question::Length)? {
            Said::Length(length) => Ok(length),
            _ => Err(Gone),
        }
    }

    /// How a channel ended, if it has, and why.
    pub fn ended(&self, channel: ChannelId) -> Result<(Option<Ended>, Option<RemoteCause>), Gone> {
        match self.inner.call(channel, Question::End)? {
            Said::End(end, cause) => Ok((end, cause)),
            _ => Err(Gone),
        }
    }

    /// Leaves in order: all that was sent before is done, the ends this process still holds are closed without a cause, and operations that
    /// wait are withdrawn and told `Gone`. It waits until the root has done so.
    pub fn leave(&self) {
        let (tell, left) = sync_channel(1);
        {
            let mut book = self.inner.book();
            if book.gone {
                return;
            }
            book.leaving.push(tell);
        }
        self.inner.send(Request::Leave);
        // The end of the link drops the other half.
        let _ = left.recv();
    }

    /// To read in place of the link's own thread, for a thread that is about to sleep until something of this link wakes it.
    /// `give_up` is called, by any thread,
    /// when another one asks for the same: it must wake this one, and wait for nothing. `None`: somebody reads, and was asked, or the system has no
    /// way to.
    pub fn lead(&self, give_up: Arc<dyn Fn() + Send + Sync>) -> Option<Lead> {
        Lead::begin(Arc::new(Led(self.inner.clone())), give_up)
    }

    /// Whether the root is gone.
    pub fn is_gone(&self) -> bool {
        self.inner.book().gone
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({} operations)", self.inner.book().operations.len())
    }
}

impl Inner {
    fn book(&self) -> MutexGuard<'_, Book> {
        // No foreign code runs under it, so a panic leaves it as it should be.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        // Relaxed: it only has to be another one each time.
        self.last_request.fetch_add(1, Ordering::Relaxed)
    }

    /// A request as a frame that the root accepts.
    fn frame(self: &Arc<Self>, request: Request) -> Result<Frame, SubmitError> {
        let frame = request.write(self);
        if let Some(size) = frame.too_large() {
            self.blocks.take_back(&frame.lent);
            // As it would be if the value were dropped.
            for (channel, side) in frame.ends {
                self.close(channel, side, None);
            }
            return Err(SubmitError::TooLarge { size });
        }
        Ok(frame)
    }

    fn send(self: &Arc<Self>, request: Request) {
        self.outbox.push([request.write(self)]);
    }

    fn call(self: &Arc<Self>, channel: ChannelId, question: Question) -> Result<Said, Gone> {
        let id = self.number();
        let (tell, said) = sync_channel(1);
        {
            let mut book = self.book();
            if book.gone {
                return Err(Gone);
            }
            book.calls.insert(id, tell);
        }
        self.send(Request::Call { id, channel, question });
        said.recv().map_err(|_| Gone)
    }

    /// The reader thread.
    fn serve(self: Arc<Self>) {
        // However it ends: nobody is left waiting for the root.
        let burial = Burial(&self);
        while self.reading.wait(self.outbox.socket()).is_ok() && self.turn() {}
        drop(burial);
    }

    fn take_turn(self: &Arc<Self>, inbox: &mut Inbox, Heard { start, board }: &mut Heard) -> Result<(), Broken> {
        while let Some(body) = inbox.next()? {
            match Reply::read(body, self)? {
                Reply::Start(wire) => {
                    let start = start.take().ok_or(Broken("a second start"))?;
                    // Whoever connected waits for it, or has been unwound.
                    let _ = start.send(wire);
                }
                Reply::Decided { id, decided } => self.complete(id, Answer::Decided(decided)),
                Reply::WouldBlock { id } => self.complete(id, Answer::WouldBlock),
                Reply::Withdrawn { id } => {
                    let pending = match self.book().operations.entry(id) {
                        Entry::Occupied(entry) if !entry.get().withdrawing.is_empty() => entry.remove(),
                        // Nobody would be told what became of it.
                        _ => return Err(Broken("a withdrawal that nobody has asked for")),
                    };
                    for tell in pending.withdrawing {
                        let _ = tell.send(true);
                    }
                }
                Reply::Said { id, said } => {
                    let tell = self.book().calls.remove(&id);
                    let _ = tell.map(|tell| tell.send(said));
                }
                Reply::Board(frame::Board::Arrived(descriptor)) => {
                    // Without it there are no leases, which the root finds out when it calls them back.
                    *board = descriptor.and_then(|descriptor| Board::new(descriptor).ok()).map(Arc::new);
                }
                Reply::Board(frame::Board::Passed(_)) => {}
                Reply::Room { channel, lease } => {
                    if let (Some(board), Some(ahead)) = (&*board, self.known_ahead(channel)) {
                        ahead.promise(board, lease);
                    }
                }
                Reply::Lent { channel, lease, values } => {
                    if let (Some(board), Some(ahead)) = (&*board, self.known_ahead(channel)) {
                        ahead.lend(board, lease, values);
                    }
                }
                Reply::Undelivered { channel, value } => {
                    let hearer = self.book().hearers.get(&channel).cloned();
                    // Else the one who would hear is gone.
                    if let Some(hearer) = hearer {
                        hearer(value);
                    }
                }
                Reply::Notices(notices) => notices.into_iter().try_for_each(|notice| self.blocks.hear(notice))?,
            }
        }
        Ok(())
    }

    /// `false`: the link is over, and its thread will find it so.
    fn turn(self: &Arc<Self>) -> bool {
        match self.reading.read(self.outbox.socket(), |inbox, heard| self.take_turn(inbox, heard)) {
            Ok(None | Some(Ok(()))) => true,
            Ok(Some(Err(Broken(_)))) | Err(_) => {
                self.outbox.kill();
                false
            }
        }
    }

    fn known_ahead(&self, channel: ChannelId) -> Option<Arc<Ahead>> {
        self.book().aheads.get(&channel).and_then(Weak::upgrade)
    }

    fn complete(&self, id: u64, answer: Answer) {
        let pending = self.book().operations.remove(&id);
        if let Some(pending) = pending {
            pending.complete(answer);
        }
    }
}

impl Pending {
    fn complete(self, answer: Answer) {
        self.completion.complete(self.token, answer);
        for tell in self.withdrawing {
            let _ = tell.send(false);
        }
    }
}

/// An `Arc`, because what is read may hold ends, which hold the link.
struct Led(Arc<Inner>);

impl reading::Led for Led {
    fn socket(&self) -> &Socket {
        self.0.outbox.socket()
    }
    fn led(&self) -> (&Watch, &Leader) {
        self.0.reading.led()
    }
    fn turn(&self) -> bool {
        self.0.turn()
    }
    fn kill(&self) {
        self.0.outbox.kill();
    }
}

struct Burial<'a>(&'a Arc<Inner>);

impl Drop for Burial<'_> {
    fn drop(&mut self) {
        self.0.outbox.kill();
        self.0.blocks.end();
        // Who waits for the start is told by its being dropped, too.
        drop(self.0.reading.lock().1.start.take());
        let book = {
            let mut book = self.0.book();
            std::mem::replace(&mut *book, Book { gone: true, ..Book::default() })
        };
        book.aheads.values().filter_map(Weak::upgrade).for_each(|ahead| ahead.end());
        for pending in book.operations.into_values() {
            pending.complete(Answer::Gone);
        }
        // Dropping the rest tells those who wait.
    }
}

impl Place for Inner {
    fn open(&self, channel: ChannelId, side: Side) -> bool {
        self.tell(Request::Open { channel, side });
        // The root knows whether it counts; a reference it is in any case.
        true
    }

    fn close(&self, channel: ChannelId, side: Side, cause: Option<RemoteCause>) {
        self.tell(Request::Close { channel, side, cause });
    }

    fn chan(&self) -> Option<&dyn Any> {
        None
    }
}

impl Inner {
    fn tell(&self, request: Request) {
        self.outbox.push([request.write(&NoValues)]);
    }
}

impl Ends for Arc<Inner> {
    fn export(&self, end: End) -> (ChannelId, Side, Arc<About>) {
        let parts = (end.channel(), end.side(), end.about().clone());
        end.forget();
        parts
    }

    fn import(&self, channel: ChannelId, side: Side, about: About) -> Option<End> {
        Some(End::new(side, Arc::new(about), channel, self.clone(), true))
    }

    fn blocks(&self) -> Option<&Arc<Blocks>> {
        Some(&self.blocks)
    }
}
