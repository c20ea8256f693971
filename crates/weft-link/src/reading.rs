//! Who reads a link.
//!
//! A thread of the link's does. But when a thread that waits for something the link may bring waits for the socket itself, no second
//! thread has to be woken in between: then it *leads*. It reads whatever comes, for all who wait, as long as it sleeps in any case; and the link's
//! own thread is not woken meanwhile. One leads at a time; who comes later is more likely to be waited for, so it asks the other one to give up.
//! Where the system has no such thing (all but Linux) nobody leads.
//!
//! It is no matter for correctness who reads, nor that both do at times: a read and all that it brings is one turn, under the inbox's lock. A turn
//! writes and completes operations; neither waits for anything, nor leads.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::inbox::Inbox;
use crate::os::{Socket, Watch};

/// What is read, and what goes from one turn to the next.
pub(crate) struct Reading<S> {
    watch: Watch,
    leader: Leader,
    inbox: Mutex<(Inbox, S)>,
}

impl<S> Reading<S> {
    pub(crate) fn new(socket: &Socket, state: S) -> io::Result<Self> {
        let watch = Watch::new(socket)?;
        Ok(Self { watch, leader: Leader::default(), inbox: Mutex::new((Inbox::new(), state)) })
    }

    /// Waits until there is something to read, and nobody leads.
    pub(crate) fn wait(&self, socket: &Socket) -> io::Result<()> {
        self.watch.wait(socket)
    }

    /// One read, and a turn with what it brought. `None`: there was nothing. The end is an error, `UnexpectedEof`.
    pub(crate) fn read<R>(&self, socket: &Socket, turn: impl FnOnce(&mut Inbox, &mut S) -> R) -> io::Result<Option<R>> {
        let mut guard = self.lock();
        let (inbox, state) = &mut *guard;
        match inbox.fill(socket) {
            Ok(true) => Ok(Some(turn(inbox, state))),
            Ok(false) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, (Inbox, S)> {
        // A panic ends the link.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who leads: what to call for it to give up.
pub(crate) type Leader = Mutex<Option<Arc<dyn Fn() + Send + Sync>>>;

/// A link that can be led.
pub(crate) trait Led: Send + Sync {
    fn socket(&self) -> &Socket;
    fn led(&self) -> (&Watch, &Leader);
    /// A turn, if there is something to read. `false`: the link is over, of which its own thread makes what has to be made.
    fn turn(&self) -> bool;
    /// Ends the link.
    fn kill(&self);
}

impl<S> Reading<S> {
    pub(crate) fn led(&self) -> (&Watch, &Leader) {
        (&self.watch, &self.leader)
    }
}

/// The right to read a link in place of its own thread, until it is dropped.
pub struct Lead(Arc<dyn Led>);

impl Lead {
    /// `give_up` is called, by any thread, when another one asks for the link: it must wake this one, and wait for nothing. `None`: somebody leads, and
    /// was asked, or nobody can.
    pub(crate) fn begin(link: Arc<dyn Led>, give_up: Arc<dyn Fn() + Send + Sync>) -> Option<Self> {
        let (watch, leader) = link.led();
        let mut leader = lock(leader);
        if let Some(other) = leader.clone() {
            drop(leader);
            other();
            return None;
        }
        watch.pause(link.socket()).ok()?;
        *leader = Some(give_up);
        drop(leader);
        Some(Self(link))
    }

    /// The descriptor to wait for, until it can be read from.
    pub fn descriptor(&self) -> i32 {
        self.0.socket().number()
    }

    /// Reads what is there, and completes what it decides. `false`: the link is over, and there is nothing to lead.
    pub fn serve(&self) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.0.turn())).unwrap_or_else(|_| {
            // As a panic of the link's own thread: the peer is given up, and nobody is left waiting for it.
            self.0.kill();
            false
        })
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let (watch, leader) = self.0.led();
        let mut leader = lock(leader);
        // It fails only when the link is over, which its thread has seen then.
        let _ = watch.resume(self.0.socket());
        drop(leader.take());
    }
}

fn lock(leader: &Leader) -> MutexGuard<'_, Option<Arc<dyn Fn() + Send + Sync>>> {
    // No foreign code runs under it, so a panic leaves it as it should be.
    leader.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lead({})", self.descriptor())
    }
}
