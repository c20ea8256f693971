//! Channels of several OS processes. The process that spawned the others is the root, and keeps them all (weft-link's `Hub`); in every other
//! one a channel is a number, and what is done with it is asked of the root (weft-link's `Client`).
//!
//! Both are made once per process and hold no Python object. A thread of the link's never touches one: it leaves an answer in a [`Wait`] and rings the
//! operation's bell, as another interpreter would.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

use weft_core::chan::{Chan, End as Ended};
use weft_core::error::Cause;
use weft_link::{
    About, Ahead, Answer, ChannelId, Client, Completion, Departure, End, Gone, Hearer, Host, Hub, Lead, Parcel, PeerId,
    RemoteCause, Socket, Wire,
};
use weft_wire::Writer;

use super::decode;
use super::encode;
use super::payload::{Attachment, GivenBlock, Payload};
use super::share::{EndPart, SharedReason};
use super::undelivered;
use crate::channel;
use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::op::OpObject;
use crate::state::State;
use crate::value::Value;

/// Each with how often this process had been forked when it was made. A forked child has neither: their sockets and threads are its parent's.
static HUB: OnceLock<(u32, Hub<Value>)> = OnceLock::new();
static LINK: OnceLock<(u32, Client)> = OnceLock::new();

/// The link to the root, in a process that is not it.
#[inline]
pub fn link() -> Option<&'static Client> {
    LINK.get().filter(|(forks, _)| *forks == channel::forks()).map(|(_, client)| client)
}

/// The hub, in the root.
pub fn hub() -> &'static Hub<Value> {
    &HUB.get_or_init(|| (channel::forks(), Hub::new(Arc::new(Root)))).1
}

/// The hub, if this is the root of somebody.
pub fn known_hub() -> Option<&'static Hub<Value>> {
    HUB.get().filter(|(forks, _)| *forks == channel::forks()).map(|(_, hub)| hub)
}

/// Whether this process has links to others.
pub fn has_links() -> bool {
    LINK.get().is_some() || HUB.get().is_some()
}

/// To read a link in place of its own thread, until `give_up` is called. In the root `None` as long as there are no others.
pub fn lead(give_up: Arc<dyn Fn() + Send + Sync>) -> Option<Lead> {
    match link() {
        Some(client) => client.lead(give_up),
        None => known_hub()?.lead(give_up),
    }
}

/// In a forked child.
pub fn after_fork() {
    if let Some((_, hub)) = HUB.get() {
        hub.after_fork();
    }
    if let Some((_, client)) = LINK.get() {
        client.after_fork();
    }
}

/// An error in a child that was forked from a process with links: a second set of them there cannot be.
fn check_fork() -> Py<()> {
    let forks = [HUB.get().map(|hub| hub.0), LINK.get().map(|link| link.0)];
    if forks.into_iter().flatten().any(|forks| forks != channel::forks()) {
        return Err(ffi::runtime_error(
            "this process was forked from one that is linked to others, and cannot start or join any: start it with \"spawn\"",
        ));
    }
    Ok(())
}

/// The ends of peers that died are closed with this; which process that was, and how it ended, is asked when somebody is told.
#[derive(Debug)]
pub struct Death(pub u64);

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the death of peer {}", self.0)
    }
}

impl std::error::Error for Death {}

/// Why links were given up that did not end with their peers, the last ones first. Rare, and asked for when the peer's death is told.
static GIVEN_UP: Mutex<VecDeque<(u64, String)>> = Mutex::new(VecDeque::new());
const GIVEN_UP_KEPT: usize = 100;

fn given_up() -> MutexGuard<'static, VecDeque<(u64, String)>> {
    GIVEN_UP.lock().unwrap_or_else(|e| e.into_inner())
}

/// What the hub asks of weft.
struct Root;

impl Host<Value> for Root {
    fn cause_bytes(&self, cause: &Cause) -> Vec<u8> {
        let cause: &(dyn std::error::Error + 'static) = &**cause;
        if let Some(reason) = cause.downcast_ref::<SharedReason>() {
            return reason.bytes();
        }
        // Only its number: who knows the process by it learns the rest, anybody else that some process is gone.
        let mut writer = Writer::new();
        writer.tuple(1);
        writer.integer(cause.downcast_ref::<Death>().map_or(0, |death| death.0 as i64));
        writer.into_bytes()
    }

    fn undelivered(&self, chan: &Arc<Chan<Value>>, values: Vec<Value>) {
        undelivered::tell(chan, values);
    }

    fn cause_of_death(&self, peer: PeerId, _: &Departure) -> Option<Cause> {
        Some(Arc::new(Death(peer.0)))
    }

    fn gone(&self, peer: PeerId, departure: Departure) {
        if let Departure::Failed(why) = departure {
            let mut given_up = given_up();
            given_up.truncate(GIVEN_UP_KEPT - 1);
            given_up.push_front((peer.0, why));
        }
    }
}

/// A channel of the root, in another process.
pub struct Remote {
    client: &'static Client,
    /// As long as this lives, the root knows the channel.
    both: End,
    /// The counted ends that objects of this process stand for: which of them is which makes no difference.
    ends: Mutex<Vec<End>>,
    ahead: Arc<Ahead>,
    /// Whether what is dropped is told to an object of this process, which made the channel.
    hears: bool,
}

impl Drop for Remote {
    fn drop(&mut self) {
        if self.hears {
            self.client.unhear(self.id());
        }
    }
}

impl Remote {
    pub fn new(client: &'static Client, both: End) -> Self {
        let ahead = client.ahead(both.channel());
        Self { client, both, ends: Mutex::default(), ahead, hears: false }
    }

    /// Has what is dropped of the channel handed over.
    pub fn hear(&mut self, hearer: Hearer) {
        self.hears = true;
        self.client.hear(self.id(), hearer);
    }

    pub fn client(&self) -> &'static Client {
        self.client
    }

    pub fn id(&self) -> ChannelId {
        self.both.channel()
    }

    pub fn about(&self) -> &Arc<About> {
        self.both.about()
    }

    /// What may be done without asking the root.
    #[inline]
    pub fn ahead(&self) -> &Ahead {
        &self.ahead
    }

    /// An end to send away.
    pub fn end(&self, side: weft_link::Side) -> End {
        self.both.open(side)
    }

    /// An object of this process stands for this end from now on.
    pub fn keep(&self, end: End) {
        self.ends.lock().unwrap_or_else(|e| e.into_inner()).push(end);
    }

    /// One of these objects was closed.
    pub fn close(&self, side: weft_link::Side, cause: Option<RemoteCause>) {
        let end = {
            let mut ends = self.ends.lock().unwrap_or_else(|e| e.into_inner());
            ends.iter().position(|end| end.side() == side).map(|at| ends.swap_remove(at))
        };
        if let Some(end) = end {
            end.close(cause);
        }
    }

    /// How the channel ended, if it has. When the root is gone, so is the channel.
    pub fn ended(&self) -> (Option<Ended>, Option<Cause>) {
        match detached(|| self.client.ended(self.id())) {
            Ok((end, cause)) => (end, cause.map(|cause| Arc::new(cause) as Cause)),
            Err(Gone) => (Some(Ended::Poisoned), Some(Arc::new(Death(0)))),
        }
    }
}

/// What an operation waits for that was sent to the root.
pub struct Wait {
    /// Alive until its answer is here, or it was withdrawn.
    op: *const OpObject,
    /// What the root was asked with; for `withdraw`.
    pub id: AtomicU64,
    answer: Mutex<Arrival>,
    arrived: Condvar,
    /// The leaves that were sent, by their place in the request.
    pub leaves: Vec<u32>,
    /// Values received beyond the first.
    pub more: Mutex<Vec<Value>>,
    /// How many values were sent.
    pub sent: AtomicU64,
    /// It waits in a queue of the root; else for one look only, and nobody is to be woken.
    parks: bool,
}

// SAFETY: of the operation only the waiter is used, by `complete`, and that is made for all threads.
unsafe impl Send for Wait {}
// SAFETY: as above.
unsafe impl Sync for Wait {}

#[derive(Default)]
struct Arrival {
    answer: Option<Answer>,
    /// A thread sleeps until it is here. Without one nobody is told, which is a call of the system's.
    is_awaited: bool,
}

/// The case that a waiter is claimed for when the root has answered.
pub const ANSWERED: u32 = 0x3fff_fffe;

impl Wait {
    pub fn new(op: &OpObject, leaves: Vec<u32>, parks: bool) -> Self {
        Self {
            op,
            id: AtomicU64::new(0),
            answer: Mutex::default(),
            arrived: Condvar::new(),
            leaves,
            more: Mutex::default(),
            sent: AtomicU64::new(0),
            parks,
        }
    }

    /// The answer, which is here or on its way.
    pub fn answer(&self) -> Answer {
        let lock = || self.answer.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(answer) = lock().answer.take() {
            return answer;
        }
        detached(|| {
            let mut arrival = lock();
            arrival.is_awaited = true;
            loop {
                match arrival.answer.take() {
                    Some(answer) => return answer,
                    None => arrival = self.arrived.wait(arrival).unwrap_or_else(|e| e.into_inner()),
                }
            }
        })
    }
}

impl Completion for Wait {
    fn complete(&self, _: usize, answer: Answer) {
        let waker = if self.parks {
            // SAFETY: the operation waits for the answer before it goes; after the claim is finished it is not looked at again.
            unsafe { (*self.op).waiter() }.claim(ANSWERED).and_then(weft_core::waiter::Claim::finish)
        } else {
            None
        };
        let is_awaited = {
            let mut arrival = self.answer.lock().unwrap_or_else(|e| e.into_inner());
            arrival.answer = Some(answer);
            arrival.is_awaited
        };
        if is_awaited {
            self.arrived.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Does something that may wait, without the interpreter.
pub fn detached<R>(wait: impl FnOnce() -> R) -> R {
    // SAFETY: the thread state comes back before Python is used again. Nothing in there unwinds.
    unsafe {
        let thread = c::PyEval_SaveThread();
        let result = wait();
        c::PyEval_RestoreThread(thread);
        result
    }
}

impl Parcel for Value {
    fn into_wire(self) -> Wire {
        let Payload { bytes, attachments } = match self.into_payload() {
            Ok(payload) => *payload,
            Err(_) => unreachable!("no object of an interpreter is ever in a shared channel"),
        };
        let mut wire = Wire { bytes, attachments: Vec::new() };
        for attachment in attachments {
            let attachment = match attachment {
                Attachment::Memory(memory) => weft_link::Attachment::Memory(memory),
                Attachment::End(end) => match end.into_link() {
                    Some(end) => weft_link::Attachment::End(end),
                    None => continue,
                },
                Attachment::Given(given) => {
                    // As a pickle without a word and with one block: see `decode`.
                    let mut writer = Writer::new();
                    writer.pickle(&[], 1);
                    writer.attachment();
                    wire.bytes = writer.into_bytes().into();
                    weft_link::Attachment::Memory(Arc::new(GivenBlock(given)))
                }
            };
            wire.attachments.push(attachment);
        }
        wire
    }

    fn from_wire(wire: Wire) -> Self {
        if wire.attachments.is_empty()
            && let Some(value) = Self::of_few_bytes(&wire.bytes)
        {
            return value;
        }
        let attachments = wire.attachments.into_iter().map(|attachment| match attachment {
            weft_link::Attachment::Memory(memory) => Attachment::Memory(memory),
            weft_link::Attachment::End(end) => Attachment::End(EndPart::of_link(end)),
        });
        Self::payload(Box::new(Payload { bytes: wire.bytes, attachments: attachments.collect() }))
    }

    fn copied(&self, most: usize) -> Option<Self> {
        self.copied(most)
    }
}

/// An exception as a cause that crosses. With what travels beside its bytes it cannot: then in words.
pub fn cause(state: &State, error: &Owned) -> Py<RemoteCause> {
    let mut payload = encode::encode(state, error.clone())?;
    if !payload.attachments.is_empty() {
        let in_words = ffi::import(c"weft._crossing", Some(c"in_words"))?;
        // SAFETY: live objects.
        payload = encode::encode(state, unsafe { ffi::call(in_words.as_ptr(), &[error.as_ptr()])? })?;
    }
    Ok(RemoteCause(payload.bytes.to_vec()))
}

/// The exception of a cause that crossed.
pub fn error_of(state: &State, cause: &RemoteCause) -> Py<Owned> {
    let mut payload = Payload { bytes: cause.as_bytes().to_vec().into(), attachments: Vec::new() };
    let found = match decode::decode(state, &mut payload) {
        Ok(found) => found,
        Err(raised) => {
            // It cannot be made again here, which must not be taken for the reason.
            let why = ffi::take_error().ok_or(raised)?;
            let unreadable = ffi::import(c"weft._crossing", Some(c"unreadable"))?;
            // SAFETY: live objects.
            return unsafe { ffi::call(unreadable.as_ptr(), &[why.as_ptr()]) };
        }
    };
    // SAFETY: a live object; an item of a tuple, as just checked.
    unsafe {
        if c::PyExceptionInstance_Check(found.as_ptr()) != 0 {
            return Ok(found);
        }
        // Of a death: see `cause_bytes`.
        match c::PyTuple_Check(found.as_ptr()) != 0 && c::PyTuple_GET_SIZE(found.as_ptr()) == 1 {
            true => death(ffi::long(c::PyTuple_GET_ITEM(found.as_ptr(), 0))? as u64),
            false => death(0),
        }
    }
}

/// The error that tells of a peer's death; 0: of one that this process does not know.
pub fn death(peer: u64) -> Py<Owned> {
    let make = ffi::import(c"weft._os_process", Some(c"death_of"))?;
    let peer = ffi::integer(peer as usize)?;
    // SAFETY: live objects.
    unsafe { ffi::call(make.as_ptr(), &[peer.as_ptr()]) }
}

fn os_error(error: &std::io::Error) -> ffi::Raised {
    // SAFETY: an exception type.
    unsafe { ffi::raise(c::PyExc_OSError, &error.to_string()) }
}

#[cfg(unix)]
fn socket(descriptor: *mut PyObject) -> Py<Socket> {
    use std::os::fd::{FromRawFd, OwnedFd};
    let number = ffi::long(descriptor)?;
    // SAFETY: the caller hands a descriptor over.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number as i32) };
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    return Socket::new(descriptor).map_err(|error| os_error(&error));
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    {
        drop(descriptor);
        Socket::pair().map(|(socket, _)| socket).map_err(|error| os_error(&error))
    }
}

#[cfg(not(unix))]
fn socket(_: *mut PyObject) -> Py<Socket> {
    Socket::pair().map(|(socket, _)| socket).map_err(|error| os_error(&error))
}

/// `_add_peer(descriptor, setting)`: serves another process at the other end of the socket, whose `_connect` returns `setting`. A number for it.
pub unsafe extern "C" fn add_peer(
    module: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes our module and its array.
        unsafe {
            let state = crate::state_of_module(module);
            let [descriptor, setting] =
                ffi::parameters("_add_peer", ["descriptor", "setting"], 2, arguments, number, keywords)?;
            let socket = socket(descriptor)?;
            check_fork()?;
            let start = encode::encode(state, Owned::from_borrowed(setting))?;
            let start = Value::payload(start).into_wire();
            let peer = detached(|| hub().add_peer(socket, start)).map_err(|error| os_error(&error))?;
            ffi::integer(peer.0 as usize)
        }
    })
}

/// `_disconnect(peer)`
pub unsafe extern "C" fn disconnect(_: *mut PyObject, peer: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let peer = PeerId(ffi::long(peer)? as u64);
        detached(|| hub().disconnect(peer));
        Ok(ffi::none())
    })
}

/// `_given_up(peer)`: why the link to it was given up; None: it was not, it ended with the peer.
pub unsafe extern "C" fn why_given_up(_: *mut PyObject, peer: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let peer = ffi::long(peer)? as u64;
        let why = given_up().iter().find(|(number, _)| *number == peer).map(|(_, why)| why.clone());
        why.map_or_else(|| Ok(ffi::none()), |why| ffi::string(&why))
    })
}

/// `_connect(descriptor)`: becomes a process of the root at the other end of the socket.
pub unsafe extern "C" fn connect(module: *mut PyObject, descriptor: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes our module.
        let state = unsafe { crate::state_of_module(module) };
        check_fork()?;
        let socket = socket(descriptor)?;
        let (client, start) = detached(|| Client::connect(socket)).map_err(|error| os_error(&error))?;
        if LINK.set((channel::forks(), client)).is_err() {
            return Err(ffi::runtime_error("this process is linked to a root already"));
        }
        Value::from_wire(start).into_object(state)
    })
}

/// `_disconnect_root()`: leaves in order, when all is done.
pub unsafe extern "C" fn leave_root(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        if let Some(client) = link() {
            detached(|| client.leave());
        }
        Ok(ffi::none())
    })
}
