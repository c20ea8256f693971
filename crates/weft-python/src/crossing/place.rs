//! An interpreter as the others see it: where they leave what concerns it.
//!
//! An operation on a channel that several places share may be decided by a thread that is not attached to the operation's interpreter, and
//! must not touch a single object of it. So its waiter is armed with a [`Bell`] instead of its address. Whoever meets it fills its slot with a payload,
//! as weft-core does anyway, and the bell leaves the operation in its place's box and rings: a thread's parker, a loop's descriptor, or for
//! all other schedulers the place's own listening thread. What is in the box is done by a thread of the place itself.
//!
//! True at all times:
//!   1. What is in `woken` stands for one reference to the operation, that of the node which was claimed.
//!   2. `parked` has every operation of this place that is parked with a bell. When the place is left they are all ended, so that no queue
//!      keeps a pointer into an interpreter that is gone.
//!   3. `hearers` has a weak reference, by the channel's address, to each object of this place whose `on_undelivered` is told of what others drop;
//!      the listening thread does that.
//!   4. Once `left`, nothing is put into the box any more. What would be given back to a place that was left is not: its memory outlives it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Wake, Waker};

use weft_core::chan::Chan;

use super::undelivered;
use super::work::{Seen, Work};
use crate::channel::ChannelObject;
use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::home::Doorbell;
use crate::op::OpObject;
use crate::state::State;
use crate::thread::Parker;
use crate::value::Value;

/// What other places know of an interpreter.
pub struct Place {
    inner: Mutex<Inner>,
    /// What the listening thread sleeps on.
    heard: Condvar,
    /// There may be something in the box. Written under the lock, read without.
    full: AtomicBool,
    /// How many channels of this place have been shared.
    shared: AtomicU64,
    /// On operations that have several channels.
    pub work: Work,
    /// See `move_alone`.
    #[cfg(Py_GIL_DISABLED)]
    moving: Mutex<()>,
}

#[derive(Default)]
struct Inner {
    woken: Vec<*mut OpObject>,
    returned: Vec<Returned>,
    parked: HashSet<*mut OpObject>,
    /// Each with its channel, so that no other one has that address meanwhile.
    undelivered: VecDeque<(Arc<Chan<Value>>, Value)>,
    hearers: HashMap<usize, *mut PyObject>,
    listens: bool,
    left: bool,
}

/// What an interpreter gets back.
pub enum Returned {
    View(Box<c::Py_buffer>),
    Object(*mut PyObject),
}

// SAFETY: pointers that only threads of the place itself follow.
unsafe impl Send for Inner {}

/// How a place is told that there is something in its box.
pub enum Ring {
    Thread(Arc<Parker>),
    Loop(Arc<Doorbell>),
    Listener,
    /// Whoever performs it looks by itself.
    Nobody,
}

/// The waker of an operation that may be met by another place.
struct Bell {
    op: *mut OpObject,
    place: Arc<Place>,
    ring: Ring,
}

// SAFETY: the operation is only passed on, to its own place.
unsafe impl Send for Bell {}
// SAFETY: as above.
unsafe impl Sync for Bell {}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        {
            let mut inner = self.place.inner();
            if inner.left {
                return;
            }
            inner.woken.push(self.op);
            self.place.full.store(true, Ordering::Release);
        }
        self.place.ring(&self.ring);
    }
}

/// The waker of an operation whose sleeper is to be told in this way.
pub fn bell(op: &OpObject, place: &Arc<Place>, ring: Ring) -> Waker {
    Waker::from(Arc::new(Bell { op: op.as_ptr().cast(), place: Arc::clone(place), ring }))
}

impl Place {
    pub fn new() -> Self {
        Self {
            inner: Mutex::default(),
            heard: Condvar::new(),
            full: AtomicBool::new(false),
            shared: AtomicU64::new(0),
            work: Work::default(),
            #[cfg(Py_GIL_DISABLED)]
            moving: Mutex::default(),
        }
    }

    /// While it lives, no other thread moves a channel to the root. Asked for without the interpreter, as who has it may call that.
    #[cfg(Py_GIL_DISABLED)]
    pub fn move_alone(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// How many channels of this place were shared so far. Asked and counted by threads of the place itself.
    #[inline]
    pub fn shared(&self) -> u64 {
        // Acquire pairs with the Release below: who sees a number finds the channels that were counted in it to be sharing. SeqCst: see `work`.
        self.shared.load(if cfg!(Py_GIL_DISABLED) { Ordering::SeqCst } else { Ordering::Acquire })
    }

    pub fn count_shared(&self) {
        self.shared.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns when all that has several channels goes by what was said before.
    pub fn seen_by_all(&self) {
        self.count_shared();
        self.work.wait();
    }

    /// For `Work::begin`.
    #[inline]
    pub fn seen(&self) -> Seen {
        Seen {
            #[cfg(Py_GIL_DISABLED)]
            number: self.shared(),
        }
    }

    pub fn is_left(&self) -> bool {
        self.inner().left
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn ring(&self, ring: &Ring) {
        match ring {
            Ring::Thread(parker) => parker.unpark(),
            Ring::Loop(bell) if !bell.is_deaf() => bell.ring(),
            Ring::Loop(_) | Ring::Listener => self.heard.notify_all(),
            Ring::Nobody => {}
        }
    }

    /// Something that this interpreter has lent comes back. It is put away when the place looks into its box next.
    pub fn take_back(&self, returned: Returned) {
        let mut inner = self.inner();
        if inner.left {
            // Its interpreter is gone, or about to go: the memory stays.
            match returned {
                Returned::View(view) => std::mem::forget(view),
                Returned::Object(_) => {}
            }
            return;
        }
        inner.returned.push(returned);
        self.full.store(true, Ordering::Release);
    }

    /// Values that another place dropped, of a channel whose object here is told of that.
    pub fn hand_over(&self, chan: &Arc<Chan<Value>>, values: impl IntoIterator<Item = Value>) {
        let values: Vec<_> = values.into_iter().map(|value| (Arc::clone(chan), value)).collect();
        let mut inner = self.inner();
        if inner.left {
            // What they drop may be somebody's of another place.
            drop(inner);
            return drop(values);
        }
        inner.undelivered.extend(values);
        self.heard.notify_all();
    }

    /// There is such an object. What was there before comes back.
    pub fn set_hearer(&self, address: usize, weak: Option<Owned>) -> Option<Owned> {
        let mut inner = self.inner();
        let before = match weak {
            Some(weak) => inner.hearers.insert(address, weak.into_ptr()),
            None => inner.hearers.remove(&address),
        };
        // SAFETY: the reference that was put there.
        before.and_then(|before| unsafe { Owned::from_nullable(before) })
    }

    /// Tells them.
    fn tell(&self) {
        let next = || {
            let mut inner = self.inner();
            let (chan, value) = inner.undelivered.pop_front()?;
            // SAFETY: a weak reference that is the map's.
            let weak =
                inner.hearers.get(&undelivered::address(&chan)).map(|weak| unsafe { Owned::from_borrowed(*weak) });
            Some((weak, chan, value))
        };
        while let Some((weak, _chan, value)) = next() {
            let _aside = ffi::Aside::new();
            // SAFETY: a weak reference, which is called without arguments; what it leads to is a channel.
            unsafe {
                match weak.map(|weak| ffi::call(weak.as_ptr(), &[])) {
                    Some(Ok(object)) if object.as_ptr() != c::Py_None() => {
                        ChannelObject::of(object.as_ptr()).undelivered([value]);
                    }
                    // It is gone.
                    _ => drop(value),
                }
            }
        }
    }

    /// An operation parks with a bell.
    pub fn enter(&self, op: &OpObject) {
        self.inner().parked.insert(op.as_ptr().cast());
    }

    /// What is parked with a bell.
    pub fn parked(&self) -> Vec<Owned> {
        let inner = self.inner();
        // SAFETY: a parked operation is alive: its nodes count as references.
        inner.parked.iter().map(|op| unsafe { Owned::from_borrowed(op.cast()) }).collect()
    }

    /// It parks no more.
    pub fn leave(&self, op: &OpObject) {
        self.inner().parked.remove(&op.as_ptr().cast());
    }

    /// Does what is in the box. Called by threads that are attached to the interpreter.
    #[inline]
    pub fn look(&self) {
        // Acquire pairs with the Release of whoever has put something in. One that is missed here is seen by who is rung.
        if self.full.load(Ordering::Acquire) {
            self.empty();
        }
    }

    #[cold]
    fn empty(&self) {
        let (woken, returned) = {
            let mut inner = self.inner();
            self.full.store(false, Ordering::Release);
            (std::mem::take(&mut inner.woken), std::mem::take(&mut inner.returned))
        };
        let _aside = ffi::Aside::new();
        for op in woken {
            // SAFETY: (1).
            unsafe { OpObject::wake_or_give_back(op) };
        }
        for returned in returned {
            // SAFETY: what this interpreter has lent; the references are ours.
            unsafe {
                match returned {
                    Returned::View(mut view) => c::PyBuffer_Release(&mut *view),
                    Returned::Object(object) => drop(Owned::from_nullable(object)),
                }
            }
        }
    }

    /// Waits, without the interpreter, until there is something in the box. `false`: the place was left.
    fn listen(&self) -> bool {
        let mut inner = self.inner();
        while inner.woken.is_empty() && inner.returned.is_empty() && inner.undelivered.is_empty() && !inner.left {
            inner = self.heard.wait(inner).unwrap_or_else(|e| e.into_inner());
        }
        !inner.left
    }

    /// Whether the listening thread has yet to be started, which is the caller's to do then.
    pub fn begins_to_listen(&self) -> bool {
        !std::mem::replace(&mut self.inner().listens, true)
    }

    /// This is a forked child, in which only the thread that forked is left.
    pub fn after_fork(&self) {
        // Held by a thread that is not here any more: then it is too late. It is held for moments only, by threads of other interpreters.
        let Ok(mut inner) = self.inner.try_lock() else {
            return;
        };
        // The listening thread is the parent's. So are the operations, and whoever performed them: their references stay.
        inner.listens = false;
        inner.woken.clear();
        inner.parked.clear();
        inner.hearers.clear();
        // They may hold ends of the parent's.
        std::mem::forget(std::mem::take(&mut inner.undelivered));
    }

    /// The interpreter is about to end: ends all that is parked, and takes nothing more.
    fn close(&self) {
        loop {
            self.look();
            self.tell();
            let next = {
                let mut inner = self.inner();
                let next = inner.parked.iter().next().copied();
                match next {
                    Some(op) => {
                        inner.parked.remove(&op);
                        // SAFETY: a parked operation is alive: its nodes count as references.
                        Some(unsafe { Owned::from_borrowed(op.cast()) })
                    }
                    None => {
                        inner.left =
                            inner.woken.is_empty() && inner.returned.is_empty() && inner.undelivered.is_empty();
                        if inner.left {
                            None
                        } else {
                            continue;
                        }
                    }
                }
            };
            match next {
                // SAFETY: an operation, held.
                Some(op) => unsafe { OpObject::of(op.as_ptr()) }.end_of_place(),
                None => break,
            }
        }
        self.heard.notify_all();
    }
}

/// `_listen()`: what the listening thread runs, until the place is left.
pub unsafe extern "C" fn listen(module: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes our module.
        let place = Arc::clone(&unsafe { crate::state_of_module(module) }.place);
        loop {
            // SAFETY: the thread state comes back before Python is used again.
            let more = unsafe {
                let thread = c::PyEval_SaveThread();
                let more = place.listen();
                c::PyEval_RestoreThread(thread);
                more
            };
            if !more {
                return Ok(ffi::none());
            }
            place.look();
            place.tell();
        }
    })
}

/// `_leave()`: the interpreter is about to end.
pub unsafe extern "C" fn leave(module: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let _aside = ffi::Aside::new();
        // SAFETY: as above.
        unsafe { crate::state_of_module(module) }.place.close();
        Ok(ffi::none())
    })
}

/// Has a listening thread started, once.
pub fn need_listener(state: &State) -> Py<()> {
    if !state.place.begins_to_listen() {
        return Ok(());
    }
    let start = ffi::import(c"weft._places", Some(c"start_listening"))?;
    // SAFETY: a function without arguments.
    unsafe { ffi::call(start.as_ptr(), &[]) }.map(drop)
}
