//! What is to be written to one peer.
//!
//! Whoever has a frame puts it into the queue and, when nobody is writing, writes: the system call is made by the thread that has
//! something to say, and no other thread has to run before the peer hears of it. A frame that comes while somebody writes is
//! written by that one, together with all others that have come meanwhile. What the socket does not take is left to a thread that waits until
//! it does, and which is started when that first happens. So nobody ever waits for the peer to read.
//!
//! A stream of values that nobody waits for (ahead.rs) is that thread's as well: written one by one, each would cost its sender a system call,
//! while a thread beside it finds some at a time. What comes alone is written at once.
//!
//! What is to be said of blocks (blocks.rs) has no hurry: it goes with the next frame, and alone only when much memory waits for it.
//!
//! True whenever `queue` is unlocked: if something in it is due, somebody is writing (or the link is over).

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::blocks::Notice;
use crate::frame::{self, Frame, MOST_BLOCKS};
use crate::os::{Forks, Socket, is_too_many_in_flight};

/// How many frames go out in one write.
const MOST_FRAMES: usize = 64;
/// How many times a thread writes what others have queued before it goes about its own business again.
const ROUNDS: usize = 8;
/// How many bytes of blocks may wait for a notice that is written with something else.
const UNTOLD_BYTES: usize = 16 << 20;
/// And how many notices.
const UNTOLD: usize = 32;
/// How soon a value must follow another to be of a stream: some times what a system call takes.
const STREAM: Duration = Duration::from_micros(20);

pub(crate) struct Outbox {
    /// When it was made. A forked child has the same socket, and whatever it says there would be its parent's word.
    made: Forks,
    socket: Socket,
    queue: Mutex<Queue>,
    handed_over: Condvar,
    /// What was taken from the queue. Locked only by whoever is writing.
    batch: Mutex<Batch>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    notices: Vec<Notice>,
    /// How large the blocks are that the notices speak of.
    untold: usize,
    /// Somebody is writing, or the thread has been told to.
    writing: bool,
    /// The thread is to write. It goes back to false when the thread has seen it.
    handed_over: bool,
    has_thread: bool,
    dead: bool,
    /// When the last value came that nobody waits for.
    streamed: Option<Instant>,
}

#[derive(Default)]
struct Batch {
    frames: VecDeque<Frame>,
    /// How much of the first one is written.
    written: usize,
}

impl Outbox {
    pub(crate) fn new(socket: Socket) -> Arc<Self> {
        Arc::new(Self {
            made: Forks::now(),
            socket,
            queue: Mutex::default(),
            handed_over: Condvar::new(),
            batch: Mutex::default(),
        })
    }

    /// Whether this is a forked child, and the link its parent's. Then no lock may be taken either: its holder may not be here.
    fn is_inherited(&self) -> bool {
        !self.made.is_same_process(Forks::now())
    }

    /// What is read from, by one thread.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// See [`Socket::let_go`]. It fails when there are no descriptors left: then the peer sees the end later.
    pub(crate) fn let_go(&self) {
        if self.is_inherited() {
            let _ = self.socket.let_go();
        }
    }

    /// Sends the frames, in order. On a link that is over they are dropped.
    pub(crate) fn push(self: &Arc<Self>, frames: impl IntoIterator<Item = Frame>) {
        if self.is_inherited() {
            return frames.into_iter().for_each(std::mem::forget);
        }
        let mut queue = self.lock();
        if queue.dead {
            drop(queue);
            // The frames may own what must not be dropped under a lock.
            return frames.into_iter().for_each(drop);
        }
        queue.frames.extend(frames);
        // Somebody waits for an answer: what comes next is not of a stream, however soon.
        queue.streamed = None;
        if queue.writing || queue.frames.is_empty() {
            return;
        }
        queue.writing = true;
        drop(queue);
        self.write(ROUNDS);
    }

    /// Sends a value that nobody waits for.
    pub(crate) fn stream(self: &Arc<Self>, frame: Frame) {
        if self.is_inherited() {
            return std::mem::forget(frame);
        }
        let now = Instant::now();
        let mut queue = self.lock();
        if queue.dead {
            drop(queue);
            return drop(frame);
        }
        queue.frames.push_back(frame);
        let last = queue.streamed.replace(now);
        if queue.writing {
            return;
        }
        queue.writing = true;
        drop(queue);
        match last {
            Some(last) if now - last < STREAM => self.hand_over(),
            _ => self.write(ROUNDS),
        }
    }

    /// Tells the peer of a block of this size, at the next occasion.
    pub(crate) fn notify(self: &Arc<Self>, notice: Notice, size: usize) {
        if self.is_inherited() {
            return;
        }
        let mut queue = self.lock();
        if queue.dead {
            return;
        }
        queue.notices.push(notice);
        queue.untold = queue.untold.saturating_add(size);
        if queue.writing || !queue.is_due() {
            return;
        }
        queue.writing = true;
        drop(queue);
        self.write(ROUNDS);
    }

    /// Ends the link: nothing more is written, and the reader finds the end.
    pub(crate) fn kill(&self) {
        if self.is_inherited() {
            return;
        }
        let mut queue = self.lock();
        queue.dead = true;
        let frames = std::mem::take(&mut queue.frames);
        drop(queue);
        self.socket.shut_down();
        self.handed_over.notify_all();
        drop(frames);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No foreign code runs under it, so a panic leaves it as it should be.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until there is nothing left, or leaves the rest to the thread. The caller has set `writing`.
    fn write(self: &Arc<Self>, rounds: usize) {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..rounds {
            if !self.refill(&mut batch) {
                return;
            }
            match batch.write(&self.socket) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.kill(),
            }
        }
        drop(batch);
        self.hand_over();
    }

    /// Whether there is something to write; if not, the caller is no longer writing.
    fn refill(&self, batch: &mut Batch) -> bool {
        if !batch.frames.is_empty() {
            return true;
        }
        let mut queue = self.lock();
        if !queue.is_due() {
            queue.writing = false;
            return false;
        }
        std::mem::swap(&mut queue.frames, &mut batch.frames);
        if !queue.notices.is_empty() {
            queue.untold = 0;
            batch.frames.push_front(frame::notices(&queue.notices));
            queue.notices.clear();
        }
        true
    }

    /// Leaves the writing to the thread.
    fn hand_over(self: &Arc<Self>) {
        let mut queue = self.lock();
        queue.handed_over = true;
        if std::mem::replace(&mut queue.has_thread, true) {
            drop(queue);
            return self.handed_over.notify_one();
        }
        drop(queue);
        let this = self.clone();
        if thread::Builder::new().name("weft-link-writer".into()).spawn(move || this.serve()).is_err() {
            // Nobody can write the rest, and a link that loses a message is worse than none.
            self.kill();
        }
    }

    /// The writer thread.
    fn serve(self: Arc<Self>) {
        loop {
            let mut queue = self.lock();
            while !queue.handed_over {
                if queue.dead {
                    return;
                }
                queue = self.handed_over.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            queue.handed_over = false;
            drop(queue);
            if self.socket.wait_writable().is_err() {
                self.kill();
            }
            self.write(usize::MAX);
        }
    }
}

impl Queue {
    /// Whether there is something that should not wait.
    fn is_due(&self) -> bool {
        !self.frames.is_empty() || self.untold > UNTOLD_BYTES || self.notices.len() > UNTOLD
    }
}

impl Batch {
    /// One write, of as much as it takes.
    fn write(&mut self, socket: &Socket) -> io::Result<()> {
        let mut slices: [_; MOST_FRAMES] = std::array::from_fn(|_| IoSlice::new(&[]));
        let mut descriptors = Vec::new();
        let mut count = 0;
        for (frame, slice) in self.frames.iter().zip(&mut slices) {
            if descriptors.len() + frame.blocks.len() > MOST_BLOCKS {
                break;
            }
            descriptors.extend(frame.blocks.iter().map(|(passed, _)| passed.descriptor()));
            *slice = IoSlice::new(&frame.bytes[if count == 0 { self.written } else { 0 }..]);
            count += 1;
        }
        match socket.send(&slices[..count], &descriptors) {
            Ok(written) => {
                // The descriptors have all gone with the first byte, those of the frames whose bytes are still to come too.
                drop(descriptors);
                for frame in self.frames.iter_mut().take(count) {
                    frame.blocks.clear();
                }
                self.advance(written);
                Ok(())
            }
            Err(error) if is_too_many_in_flight(&error) && !descriptors.is_empty() => {
                drop(descriptors);
                self.frames.iter_mut().take(count).try_for_each(|frame| match frame.blocks.is_empty() {
                    true => Ok(()),
                    false => frame.spill(),
                })
            }
            Err(error) => Err(error),
        }
    }

    fn advance(&mut self, written: usize) {
        self.written += written;
        while let Some(frame) = self.frames.front() {
            if self.written < frame.bytes.len() {
                return;
            }
            self.written -= frame.bytes.len();
            self.frames.pop_front();
        }
    }
}
