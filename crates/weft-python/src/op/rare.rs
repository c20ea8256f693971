//! What only some operations have, apart from the operation, so that a million parked ones take little room: one word of an operation says what
//! stands behind it.
//!
//! Most operations that park wait for one channel, in a task of ours: then the word is the loop's home, and once the task has been told the task
//! itself. All else (a timer, a select, another scheduler's task, a `map`) is in a [`Rare`], which takes over what the word was.
//!
//! Where threads run at the same time (without a GIL) whoever meets a parked operation reads the word while its owner may be about to be told who
//! waits. So there a loop's home is in a `Rare` from the beginning, and the word does not change from before the operation is parked until it
//! is destroyed (`op`, 1).

use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use weft_core::waitq::Node;
use weft_link::Wire;

use super::{OpObject, Select};
use crate::crossing::remote::Wait;
use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::home::HomeObject;
use crate::state::State;
use crate::task::TaskObject;
use crate::thread::Parker;
use crate::value::Value;

/// Who is to be woken.
pub enum Sleeper {
    Nobody,
    /// The loop whose home this is (a strong reference).
    Loop(Owned),
    Thread(Arc<Parker>),
    /// A party of a scheduler that the extension does not know: what to call, and what tells whether nobody will come any more.
    Elsewhere(Owned, Option<Owned>),
}

/// The same, where it stands.
pub enum Asleep<'a> {
    Nobody,
    Loop(&'a HomeObject),
    /// Of an `Arc`, as its `into_raw` gives it.
    Thread(*const Parker),
    Elsewhere(&'a Owned, Option<&'a Owned>),
}

/// What only some kinds have.
pub(super) enum Extra {
    None,
    Select(Box<Select>),
    RecvMany(usize),
    SendMany(VecDeque<Value>),
    /// Seconds: a delay or a time.
    Time(f64),
    Descriptor {
        fd: c_int,
        /// The duplicate that a loop watches, or -1.
        watched: c_int,
    },
    Sync(Box<Node<usize>>),
}

/// Every pointer is a strong reference or null.
pub struct Rare {
    sleeper: UnsafeCell<Sleeper>,
    pub(super) callback: Cell<*mut PyObject>,
    pub(super) context: Cell<*mut PyObject>,
    /// The message of asyncio's cancel.
    pub(super) message: Cell<*mut PyObject>,
    pub(super) map: Cell<*mut PyObject>,
    /// Of a timer: when it is due, on the monotonic clock.
    pub(super) due: Cell<f64>,
    /// Of a timer on a loop: its key there.
    pub(super) timer: Cell<Option<(u64, u64)>>,
    /// The leaf that was decided.
    pub(super) winner: Cell<u32>,
    /// How many nodes are counted as references to this root.
    pub(super) linked: Cell<u32>,
    /// What it waits for in the root.
    pub(super) wait: Cell<Option<Arc<Wait>>>,
    /// What it is to send, as it crosses, when it was made before it was asked for.
    pub(super) prepared: Cell<Option<Box<Wire>>>,
    extra: UnsafeCell<Extra>,
}

impl Rare {
    pub fn new() -> Self {
        Self {
            sleeper: UnsafeCell::new(Sleeper::Nobody),
            callback: Cell::new(ptr::null_mut()),
            context: Cell::new(ptr::null_mut()),
            message: Cell::new(ptr::null_mut()),
            map: Cell::new(ptr::null_mut()),
            due: Cell::new(0.0),
            timer: Cell::new(None),
            winner: Cell::new(0),
            linked: Cell::new(0),
            wait: Cell::new(None),
            prepared: Cell::new(None),
            extra: UnsafeCell::new(Extra::None),
        }
    }

    pub(super) fn extra(&self) -> &Extra {
        // SAFETY: only the performing party, or whoever makes the operation, touches `extra`.
        unsafe { &*self.extra.get() }
    }

    /// # Safety
    /// Nobody else looks at it meanwhile.
    #[allow(clippy::mut_from_ref)] // as of a cell
    pub(super) unsafe fn extra_mut(&self) -> &mut Extra {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.extra.get() }
    }

    fn sleeper(&self) -> &Sleeper {
        // SAFETY: set before the waiter is armed, and changed only when it is not.
        unsafe { &*self.sleeper.get() }
    }

    #[inline]
    fn put_sleeper(&self, sleeper: Sleeper) {
        // SAFETY: as above.
        drop(unsafe { std::mem::replace(&mut *self.sleeper.get(), sleeper) });
    }

    /// As new again, but for what only some kinds have.
    #[inline]
    fn reset(&self) {
        for cell in [&self.callback, &self.context, &self.message, &self.map] {
            if !cell.get().is_null() {
                ffi::put(cell, None);
            }
        }
        if !matches!(self.sleeper(), Sleeper::Nobody) {
            self.put_sleeper(Sleeper::Nobody);
        }
        self.timer.set(None);
        self.winner.set(0);
        self.linked.set(0);
        drop(self.wait.take());
        drop(self.prepared.take());
    }

    /// All that a collector is to see.
    pub(super) fn visit(&self, see: &mut impl FnMut(*mut PyObject)) {
        for cell in [&self.callback, &self.context, &self.message, &self.map] {
            see(cell.get());
        }
        match self.sleeper() {
            Sleeper::Loop(home) => see(home.as_ptr()),
            Sleeper::Elsewhere(wake, gone) => {
                see(wake.as_ptr());
                gone.iter().for_each(|gone| see(gone.as_ptr()));
            }
            _ => {}
        }
        match self.extra() {
            Extra::Select(select) => select.visit(see),
            Extra::SendMany(rest) => rest.iter().filter_map(Value::as_object).for_each(see),
            _ => {}
        }
    }
}

/// What the word of an operation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(super) enum Word {
    Nothing = 0,
    /// A strong reference to the home of the loop that is to be woken.
    Home = 1,
    /// The same to the task of ours that waits, whose home that is.
    Task = 2,
    /// An `Arc<Parker>`.
    Thread = 3,
    /// A `Box<Rare>`.
    Rare = 4,
    /// As `Task`, once that was called: it is about to take up what the operation came to.
    Called = 5,
}

impl OpObject {
    /// The word's content, for its owner. The operation has nothing behind it any more.
    #[inline]
    fn take_word(&self) -> (Word, *mut c_void) {
        let before = (self.word_is(), self.word.replace(ptr::null_mut()));
        self.set_word_is(Word::Nothing);
        before
    }

    #[inline]
    fn put_word(&self, is: Word, word: *mut c_void) {
        debug_assert!(self.word_is() == Word::Nothing);
        self.word.set(word);
        self.set_word_is(is);
    }

    /// The rare things, if there are any.
    #[inline]
    pub(super) fn rare(&self) -> Option<&Rare> {
        // SAFETY: as the word says; it is dropped by `drop_word` only.
        (self.word_is() == Word::Rare).then(|| unsafe { &*self.word.get().cast::<Rare>() })
    }

    /// Room for them.
    #[inline]
    pub(super) fn make_rare(&self) -> &Rare {
        match self.rare() {
            Some(rare) => rare,
            None => self.make_rare_in(self.state()),
        }
    }

    pub(super) fn make_rare_in(&self, state: &State) -> &Rare {
        if self.word_is() != Word::Rare {
            let rare = state.take_rare();
            let (is, word) = self.take_word();
            // SAFETY: what the word says, with its reference.
            unsafe {
                match is {
                    Word::Home => rare.put_sleeper(Sleeper::Loop(Owned::from_nullable(word.cast()).expect("a home"))),
                    Word::Called => {
                        let home = Owned::from_borrowed(TaskObject::of(word.cast()).home().as_ptr());
                        rare.put_sleeper(Sleeper::Loop(home));
                        c::Py_DECREF(word.cast());
                    }
                    Word::Task => {
                        let home = Owned::from_borrowed(TaskObject::of(word.cast()).home().as_ptr());
                        rare.put_sleeper(Sleeper::Loop(home));
                        rare.callback.set(word.cast());
                    }
                    Word::Thread => rare.put_sleeper(Sleeper::Thread(Arc::from_raw(word.cast::<Parker>()))),
                    Word::Nothing | Word::Rare => {}
                }
            }
            self.put_word(Word::Rare, Box::into_raw(rare).cast());
        }
        // SAFETY: just made.
        unsafe { &*self.word.get().cast::<Rare>() }
    }

    /// Drops all that is behind the word.
    #[inline]
    pub(super) fn drop_word(&self) {
        if self.word_is() != Word::Nothing {
            self.drop_word_in(self.state());
        }
    }

    pub(super) fn drop_word_in(&self, state: &State) {
        // SAFETY: what the word says, with its reference.
        unsafe {
            match self.take_word() {
                (Word::Nothing, _) => {}
                (Word::Home | Word::Task | Word::Called, word) => drop(Owned::from_nullable(word.cast())),
                (Word::Thread, word) => drop(Arc::from_raw(word.cast::<Parker>())),
                (Word::Rare, word) => {
                    let rare = Box::from_raw(word.cast::<Rare>());
                    rare.reset();
                    if !matches!(rare.extra(), Extra::None)
                        && let Extra::Select(mut select) = std::mem::replace(rare.extra_mut(), Extra::None)
                    {
                        select.clear();
                        state.keep_select(select);
                    }
                    state.keep_rare(rare);
                }
            }
        }
    }

    pub(super) fn extra(&self) -> &Extra {
        match self.rare() {
            Some(rare) => rare.extra(),
            None => &Extra::None,
        }
    }

    pub(super) fn set_extra(&self, extra: Extra) {
        // SAFETY: only the performing party, or whoever makes the operation, touches `extra`.
        unsafe { *self.make_rare().extra_mut() = extra };
    }

    /// Who is to be woken.
    #[inline]
    pub fn asleep(&self) -> Asleep<'_> {
        let word = self.word.get();
        // SAFETY: as the word says. It is set before the waiter is armed, and with it whom it names changes only when that is not.
        unsafe {
            match self.word_is() {
                Word::Nothing => Asleep::Nobody,
                Word::Home => Asleep::Loop(HomeObject::of(word.cast())),
                Word::Task | Word::Called => Asleep::Loop(TaskObject::of(word.cast()).home()),
                Word::Thread => Asleep::Thread(word.cast()),
                Word::Rare => match (*word.cast::<Rare>()).sleeper() {
                    Sleeper::Nobody => Asleep::Nobody,
                    Sleeper::Loop(home) => Asleep::Loop(HomeObject::of(home.as_ptr())),
                    Sleeper::Thread(parker) => Asleep::Thread(Arc::as_ptr(parker)),
                    Sleeper::Elsewhere(wake, gone) => Asleep::Elsewhere(wake, gone.as_ref()),
                },
            }
        }
    }

    /// The operation is not parked.
    #[inline]
    pub fn set_sleeper(&self, sleeper: Sleeper) {
        if let Some(rare) = self.rare() {
            return rare.put_sleeper(sleeper);
        }
        self.drop_word();
        match sleeper {
            Sleeper::Nobody => {}
            #[cfg(not(Py_GIL_DISABLED))]
            Sleeper::Loop(home) => self.put_word(Word::Home, home.into_ptr().cast()),
            Sleeper::Thread(parker) => self.put_word(Word::Thread, Arc::into_raw(parker).cast_mut().cast()),
            sleeper => self.make_rare().put_sleeper(sleeper),
        }
    }

    /// Whether a task of ours waits for it.
    #[inline]
    pub fn is_of_process(&self) -> bool {
        match self.word_is() {
            Word::Task => true,
            Word::Rare => {
                self.rare().is_some_and(|rare| !rare.callback.get().is_null() && rare.context.get().is_null())
            }
            _ => false,
        }
    }

    /// What the home is to call, or null.
    #[inline]
    pub(super) fn callback(&self) -> *mut PyObject {
        match self.word_is() {
            Word::Task => self.word.get().cast(),
            Word::Rare => self.rare().map_or(ptr::null_mut(), |rare| rare.callback.get()),
            _ => ptr::null_mut(),
        }
    }

    /// Called by the home: the task's callback and context, once. A task of ours is its own callback, and has no context here.
    #[inline]
    pub fn take_callback(&self) -> Option<(Owned, Option<Owned>)> {
        if self.word_is() == Word::Task {
            self.set_word_is(Word::Called);
            // SAFETY: a task, which the word holds.
            return Some((unsafe { Owned::from_borrowed(self.word.get().cast()) }, None));
        }
        let rare = self.rare()?;
        // SAFETY: alive. What is taken out is dropped by the caller.
        let (callback, context) =
            unsafe { ffi::alone_with(self.as_ptr(), || (ffi::taken(&rare.callback), ffi::taken(&rare.context))) };
        Some((callback?, context))
    }

    /// Has the home call this, in that context. `false`: it is to call something already.
    pub(super) fn set_callback(&self, callback: Owned, context: Owned) -> bool {
        if self.word_is() == Word::Task {
            return false;
        }
        let rare = self.make_rare();
        // SAFETY: alive. Nothing is dropped in there: both were null, as the home takes both.
        unsafe {
            ffi::alone_with(self.as_ptr(), || {
                let free = rare.callback.get().is_null();
                if free {
                    rare.callback.set(callback.into_ptr());
                    ffi::put(&rare.context, Some(context));
                }
                free
            })
        }
    }

    /// What the home is to call, for who asks from elsewhere.
    fn shown_callback(&self) -> Option<Owned> {
        let shown = |callback: *mut PyObject| {
            // SAFETY: null or alive.
            (!callback.is_null()).then(|| unsafe { Owned::from_borrowed(callback) })
        };
        match self.word_is() {
            Word::Task => shown(self.word.get().cast()),
            Word::Rare => {
                let rare = self.rare()?;
                // SAFETY: alive.
                unsafe { ffi::alone_with(self.as_ptr(), || shown(rare.callback.get())) }
            }
            _ => None,
        }
    }

    /// Who waits for it, for a snapshot: see `lowlevel::party`.
    pub fn party(&self) -> Py<Owned> {
        if !self.is_parked() || self.is_met() {
            return Ok(ffi::none());
        }
        match self.asleep() {
            // SAFETY: the sleeper holds it.
            Asleep::Thread(parker) => ffi::integer(unsafe { &*parker }.owner() as usize),
            Asleep::Loop(_) => Ok(self.shown_callback().unwrap_or_else(|| ffi::boolean(true))),
            Asleep::Elsewhere(wake, _) => Ok(wake.clone()),
            Asleep::Nobody => Ok(ffi::boolean(true)),
        }
    }

    /// Has the home, which is the sleeper already, call a task of its own.
    #[inline]
    pub(super) fn set_task(&self, task: &Owned) {
        if matches!(self.word_is(), Word::Home | Word::Called) {
            let before = self.word.replace(task.clone().into_ptr().cast());
            self.set_word_is(Word::Task);
            // SAFETY: the reference was the word's; not the last one, as the task that waits, or its home, is alive.
            unsafe { c::Py_DECREF(before.cast()) };
        } else {
            ffi::put(&self.make_rare().callback, Some(task.clone()));
        }
    }

    /// The same, if the word is that home and nothing has happened yet. `false`: nothing was done.
    #[inline]
    pub(super) fn takes_task(&self, home: &HomeObject, task: &Owned) -> bool {
        let flags = self.flags.get();
        if flags & (Self::WORD | Self::MISSED) != Word::Home as u16 || self.word.get() != home.as_ptr().cast() {
            return false;
        }
        self.word.set(task.clone().into_ptr().cast());
        self.flags.set(flags & !(Self::WORD | Self::BLOCKING) | Word::Task as u16);
        // SAFETY: the reference was the word's; not the last one, as the task, or its group, has the home too.
        unsafe { c::Py_DECREF(home.as_ptr()) };
        true
    }

    /// The wait is over: forgets the task of ours that waited, or was about to. `false`: it was none.
    #[cfg(not(Py_GIL_DISABLED))]
    #[inline]
    pub(super) fn leave_task(&self) -> bool {
        let is = matches!(self.word_is(), Word::Home | Word::Task | Word::Called);
        if is {
            let (_, word) = self.take_word();
            // SAFETY: the reference was the word's.
            unsafe { c::Py_DECREF(word.cast()) };
        }
        is
    }

    /// The sleeper is the loop with this home. The operation is not parked.
    #[inline]
    pub(super) fn set_home(&self, home: Owned) {
        #[cfg(not(Py_GIL_DISABLED))]
        if self.word_is() == Word::Nothing {
            return self.put_word(Word::Home, home.into_ptr().cast());
        }
        self.set_sleeper(Sleeper::Loop(home));
    }

    pub(super) fn winner(&self) -> u32 {
        self.rare().map_or(0, |rare| rare.winner.get())
    }

    #[inline]
    pub(super) fn set_winner(&self, winner: u32) {
        match self.rare() {
            Some(rare) => rare.winner.set(winner),
            None => debug_assert!(winner == 0, "what has no leaves but itself"),
        }
    }

    /// How many nodes are counted as references to this root.
    pub(super) fn linked(&self) -> u32 {
        if self.is_on_channel() {
            u32::from(self.is(Self::LINKED))
        } else {
            self.rare().map_or(0, |rare| rare.linked.get())
        }
    }

    pub(super) fn set_linked(&self, count: u32) {
        if self.is_on_channel() {
            self.set(Self::LINKED, count != 0);
        } else if let Some(rare) = self.rare() {
            rare.linked.set(count);
        } else {
            debug_assert!(count == 0, "what has no queue to stand in");
        }
    }

    /// The message of asyncio's cancel.
    pub(super) fn take_message(&self) -> Option<Owned> {
        // SAFETY: alive.
        self.rare().and_then(|rare| unsafe { ffi::alone_with(self.as_ptr(), || ffi::taken(&rare.message)) })
    }

    pub(super) fn put_message(&self, message: Option<Owned>) {
        let rare = self.make_rare();
        let message = message.map_or(ptr::null_mut(), Owned::into_ptr);
        // SAFETY: alive; the reference that comes out was the cell's.
        drop(unsafe { Owned::from_nullable(ffi::alone_with(self.as_ptr(), || rare.message.replace(message))) });
    }

    pub fn due(&self) -> f64 {
        self.rare().map_or(0.0, |rare| rare.due.get())
    }

    /// A tuple of functions, or null.
    #[inline]
    pub(super) fn map(&self) -> *mut PyObject {
        self.rare().map_or(ptr::null_mut(), |rare| rare.map.get())
    }
}
