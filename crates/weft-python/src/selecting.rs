//! `selecting`: weft-core's standing select as a Python iterator. Each round is an operation of kind `NextEvent`.
//!
//! Over channels that another process keeps a round is one select, asked of the root (`selecting/far.rs`).

mod far;

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use weft_core::chan::{End, Wakes};
use weft_core::selecting::{Key, Next, Selecting};

use self::far::Far;
use crate::channel::Via;
use crate::crossing::work::Seen;
use crate::errors;
use crate::ffi::{self, Owned, Py, PyObject, Raised, c};
use crate::op::{self, Asleep, Kind, OpObject};
use crate::selected;
use crate::state::{Ref, State};
use crate::value::Value;
use crate::wake;

/// `weft.Selecting`.
#[repr(C)]
pub struct SelectingObject {
    head: PyObject,
    inner: Mutex<Inner>,
}

struct Inner {
    core: Selecting<Value>,
    /// What takes the core's place when one of the channels is kept by another process.
    far: Option<Far>,
    /// By the place in the core: the case, the channel or receiver it was registered with, and the registration's key.
    cases: Vec<Option<(Owned, Owned, Key)>>,
    /// From case to key, as a number: somebody else may be at the place by the time a key that was read here is used.
    keys: Owned,
    /// The operation that waits, if one does.
    waiting: *mut OpObject,
    /// The event an operation was decided with, until it is taken up.
    event: Option<Event>,
    /// The channel a value came from that nobody took up.
    returned: Option<Owned>,
    /// How many channels had been shared when it was looked whether one registered here is, and the answer. Nothing is shared before the first.
    shares: (u64, bool),
}

// SAFETY: Python objects, used while attached.
unsafe impl Send for Inner {}

enum Event {
    Value(u32, Value),
    /// The case, its channel, and how that ended.
    Left(Owned, Owned, End),
    /// It cannot go on, for this exception.
    Failed(Owned),
    Over,
}

impl SelectingObject {
    /// # Safety
    /// A live `Selecting`.
    pub unsafe fn of<'a>(object: *mut PyObject) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*object.cast() }
    }

    fn as_ptr(&self) -> *mut PyObject {
        ptr::from_ref(self).cast_mut().cast()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Of one that nobody else has.
    fn inner_mut(&mut self) -> &mut Inner {
        self.inner.get_mut().unwrap_or_else(|e| e.into_inner())
    }

    /// Looks once. `true`: decided. Otherwise the registration waits: if the operation `sleeps`, with its waker, which counts as a reference, the
    /// caller's to give and to take back; else with one that wakes nobody. `None`: a channel may have become shared since `seen`.
    fn look(&self, op: &OpObject, sleeps: bool, seen: Seen) -> Option<bool> {
        loop {
            let mut gone = Vec::new();
            let mut wakes = Wakes::new();
            let bell = if sleeps { op.bell() } else { Some(Waker::noop().clone()) };
            let (decided, keys) = {
                let mut inner = self.inner();
                let at_work = op.go_to_work(seen)?;
                let event = loop {
                    if let Some(event) = inner.event.take() {
                        break Some(event);
                    }
                    match inner.core.next(|| bell.clone().unwrap_or_else(|| wake::waker(op)), &mut wakes) {
                        Next::Parked => break None,
                        Next::Empty => break Some(Event::Over),
                        Next::Value(key, value) => break Some(Event::Value(key, value)),
                        Next::Left(key, end, chan) => {
                            let Some((case, source, key)) = inner.cases[key as usize].take() else {
                                continue;
                            };
                            let quiet = end != End::Poisoned && chan.end().1.is_none();
                            gone.push((case.clone(), source.clone(), key));
                            if !quiet {
                                break Some(Event::Left(case, source, end));
                            }
                        }
                    }
                };
                // Kept before anything else runs, so that a `discard` meanwhile finds it.
                inner.event = event;
                drop(at_work);
                (inner.event.is_some(), inner.keys.clone())
            };
            wake::all(wakes);
            for (case, _source, key) in gone {
                forget(&keys, &case, key);
            }
            if !decided {
                return Some(false);
            }
            // Else the event was discarded while Python code ran.
            if self.inner().event.is_some() {
                return Some(true);
            }
        }
    }

    /// Whether a channel that is registered here is shared. `shared`: how many were so far, by which a new look is known to be needed.
    pub fn is_sharing(&self, shared: u64) -> bool {
        if shared == 0 {
            return false;
        }
        let mut inner = self.inner();
        if inner.far.is_some() {
            return true;
        }
        if inner.shares.0 != shared {
            // SAFETY: channels and receivers, which the registrations hold.
            let shares = |source: &Owned| unsafe { Via::of(source.as_ptr()) }.channel.is_sharing();
            inner.shares = (shared, inner.cases.iter().flatten().any(|(_, source, _)| shares(source)));
        }
        inner.shares.1
    }

    /// Whether this operation is the one that waits.
    pub fn is_waited_for_by(&self, op: &OpObject) -> bool {
        ptr::eq(self.inner().waiting, op)
    }

    /// Puts another waker in the place of the one that is armed; the other comes back.
    pub fn rearm(&self, waker: Waker) -> Option<Waker> {
        self.inner().core.rearm(waker)
    }

    fn occupy(&self, op: &OpObject) -> Py<()> {
        let mut inner = self.inner();
        let mine: *mut OpObject = op.as_ptr().cast();
        if !inner.waiting.is_null() && inner.waiting != mine {
            return Err(ffi::runtime_error(
                "this selecting() is waited for by somebody else: one consumer at a time; give each its own",
            ));
        }
        inner.waiting = mine;
        Ok(())
    }

    /// The operation is not performed any more.
    pub fn vacate(&self, op: &OpObject) {
        let mut inner = self.inner();
        if ptr::eq(inner.waiting, op) {
            inner.waiting = ptr::null_mut();
        }
    }

    /// Whether there is an event to take up.
    fn has_event(&self) -> bool {
        self.inner().event.is_some()
    }

    /// An error when a registered channel was made before this process was forked. (All were: one that was made later cannot be added.)
    fn check_fork(&self) -> Py<()> {
        let first = self.inner().cases.iter().flatten().next().map(|(_, source, _)| source.clone());
        match first {
            // SAFETY: a channel or receiver, which `first` holds.
            Some(source) => unsafe { Via::of(source.as_ptr()) }.check(),
            None => Ok(()),
        }
    }

    /// Tries without waiting.
    pub fn try_next(&self, op: &OpObject) -> Py<bool> {
        self.check_fork()?;
        self.occupy(op)?;
        let mut seen = op.seen();
        if self.gather(op)? {
            return Ok(self.has_event());
        }
        loop {
            // While it looks, the registration waits for an instant, and may be met in it: then this thread looks again. Not with the operation's
            // waker: whoever met it would call that any time later, and read whom to wake while that is being written.
            match self.look(op, false, seen) {
                Some(true) => return Ok(true),
                Some(false) if self.inner().core.withdraw() => return Ok(false),
                _ => seen = op.seen(),
            }
        }
    }

    /// Waits. `true`: decided after all.
    pub fn park(&self, op: &OpObject) -> Py<bool> {
        loop {
            let seen = op.seen();
            if self.gather(op)? {
                return self.park_far(op);
            }
            self.stand(op);
            let decided = self.look(op, true, seen);
            if decided != Some(false) {
                self.release(op, false);
            }
            if let Some(decided) = decided {
                return Ok(decided);
            }
        }
    }

    /// The operation begins to wait.
    fn stand(&self, op: &OpObject) {
        // The waker's reference; in a loop a second one, with the home.
        match op.asleep() {
            Asleep::Loop(home) => home.stand(op),
            _ => op.add_reference(),
        }
    }

    /// Gives back what was counted when the operation began to wait; `claimed`: the waker took its reference with it.
    fn release(&self, op: &OpObject, claimed: bool) {
        op.silence();
        match op.asleep() {
            Asleep::Loop(home) => home.sit(op, claimed),
            // Counted in `park`.
            Asleep::Thread(_) | Asleep::Elsewhere(..) if !claimed => op.drop_reference(),
            _ => {}
        }
    }

    /// After a wake-up: `true` when there is an event, else the operation waits again.
    pub fn resume(&self, op: &OpObject) -> bool {
        if self.has_event() {
            return true;
        }
        self.release(op, true);
        self.settle_round();
        match self.park(op) {
            Ok(decided) => decided,
            Err(Raised) => {
                let error = ffi::take_error();
                self.inner().event = error.map(Event::Failed);
                self.has_event()
            }
        }
    }

    /// The operation waits no more. `false`: it was decided.
    pub fn withdraw(&self, op: &OpObject) -> bool {
        loop {
            if self.inner().event.is_some() {
                return false;
            }
            if let Some(claimed) = self.withdraw_round() {
                self.release(op, claimed);
                if self.has_event() {
                    return false;
                }
                self.vacate(op);
                return true;
            }
            if self.inner().core.withdraw() {
                self.release(op, false);
                self.vacate(op);
                return true;
            }
            // Met, but perhaps only to look again.
            if self.resume(op) {
                return false;
            }
        }
    }

    pub fn is_met(&self) -> bool {
        let inner = self.inner();
        let round = inner.far.as_ref().and_then(Far::round);
        inner.event.is_some() || round.map_or_else(|| inner.core.is_met(), |round| round.is_met())
    }

    /// For a decided operation that nobody takes up: the value, if it got one. What else happened is kept for the next round.
    pub fn abandon(&self) -> Option<Value> {
        let waiting = {
            let mut inner = self.inner();
            std::mem::replace(&mut inner.waiting, ptr::null_mut())
        };
        if !waiting.is_null() {
            // SAFETY: the operation is alive while it is abandoned.
            self.release(unsafe { &*waiting }, true);
        }
        self.settle_round();
        let mut inner = self.inner();
        let event = match inner.event.take() {
            Some(event) => Some(event),
            None => match inner.core.take_met() {
                Some(Next::Value(key, value)) => Some(Event::Value(key, value)),
                Some(Next::Left(key, end, _)) => {
                    inner.cases[key as usize].take().map(|(case, source, _)| Event::Left(case, source, end))
                }
                _ => None,
            },
        };
        match event {
            Some(Event::Value(key, value)) => {
                let source = inner.cases[key as usize].as_ref().map(|(_, source, _)| source.clone());
                let before = std::mem::replace(&mut inner.returned, source);
                // Outside the lock.
                drop(inner);
                drop(before);
                Some(value)
            }
            other => {
                inner.event = other;
                None
            }
        }
    }

    /// Puts back a value that `abandon` returned.
    pub fn give_back(&self, value: Value) {
        let returned = self.inner().returned.take();
        if let Some(source) = returned {
            // SAFETY: a channel or receiver.
            let channel = unsafe { Via::of(source.as_ptr()) }.channel;
            let lost = channel.give_back(value);
            channel.undelivered(lost);
        }
    }

    /// The result of a decided round.
    pub fn result(&self, op: &OpObject) -> Py<Owned> {
        let (event, case) = {
            let mut inner = self.inner();
            inner.waiting = ptr::null_mut();
            let event = inner.event.take();
            let case = match &event {
                Some(Event::Value(key, _)) => inner.cases[*key as usize].as_ref().map(|(case, ..)| case.clone()),
                _ => None,
            };
            (event, case)
        };
        let state = op.state();
        match event {
            Some(Event::Value(_, value)) => {
                let value = value.into_object(state)?;
                selected::make(state, case.unwrap_or_else(ffi::none).as_ptr(), value)
            }
            Some(Event::Left(case, source, end)) => {
                // SAFETY: a channel or receiver.
                let channel = unsafe { Via::of(source.as_ptr()) }.channel;
                let raised = errors::ended_recv(channel, end);
                let kinds = [Ref::Closed, Ref::Poisoned].map(|kind| state.get(kind));
                errors::add_case(&kinds, case.as_ptr());
                Err(raised)
            }
            // SAFETY: an exception.
            Some(Event::Failed(error)) => Err(unsafe { ffi::raise_object(error.as_ptr()) }),
            Some(Event::Over) | None => {
                // SAFETY: an exception type.
                unsafe { c::PyErr_SetNone(c::PyExc_StopAsyncIteration) };
                Err(Raised)
            }
        }
    }

    fn add(&self, case: *mut PyObject, source: *mut PyObject) -> Py<()> {
        let state = self.state();
        if !state.is(source, Ref::Channel) && !state.is(source, Ref::Receiver) {
            return Err(ffi::type_error(&format!(
                "case {}: selecting() takes channels and receivers, not {}",
                ffi::text(case),
                ffi::type_name(source)
            )));
        }
        // SAFETY: a channel or receiver, as just checked; live objects.
        unsafe {
            let via = Via::of(source);
            via.check()?;
            if via.end_is_closed() {
                return Err(errors::end_closed(via, None));
            }
            let keys = self.inner().keys.clone();
            if ffi::check(c::PyDict_Contains(keys.as_ptr(), case))? == 1 {
                return Err(there_is(case));
            }
            let is_far = via.channel.remote().is_some();
            let (key, wakes) = {
                let mut inner = self.inner();
                if is_far || inner.far.is_some() {
                    drop(inner);
                    return self.add_far(&keys, case, source);
                }
                let (place, wakes) = inner.core.add(Arc::clone(&via.channel.chan));
                let Some(key) = inner.core.key(place) else {
                    unreachable!("it was just registered");
                };
                if inner.cases.len() <= place as usize {
                    inner.cases.resize_with(place as usize + 1, || None);
                }
                inner.cases[place as usize] = Some((Owned::from_borrowed(case), Owned::from_borrowed(source), key));
                inner.shares = (0, false);
                (key, wakes)
            };
            // Known by its name before the consumer is woken, who may find that it leaves again.
            let named = name(&keys, case, key);
            wake::all(wakes);
            if let Err(raised) = named {
                let _aside = ffi::Aside::new();
                self.discard_key(key);
                drop(_aside);
                return Err(raised);
            }
        }
        Ok(())
    }

    fn state(&self) -> &State {
        // SAFETY: a live object of ours.
        unsafe { State::of(self.as_ptr()) }
    }

    fn discard(&self, case: *mut PyObject) -> Py<()> {
        let keys = self.inner().keys.clone();
        // SAFETY: a dictionary and a live object.
        if let Some(number) = unsafe { ffi::dict_pop(&keys, case)? } {
            self.discard_key(key_of(&number));
        }
        Ok(())
    }

    /// Takes a registration out, unless it has left; a value that it was handed goes back.
    fn discard_key(&self, key: Key) {
        if self.discard_far(key) {
            return;
        }
        let (discarded, entry, event, wakes) = {
            let mut inner = self.inner();
            let Some(discarded) = inner.core.discard_key(key) else {
                return;
            };
            let wakes = match inner.core.is_empty() {
                true => inner.core.nudge(),
                false => Wakes::new(),
            };
            let entry = inner.cases.get_mut(key.place() as usize).and_then(Option::take);
            let event = match &inner.event {
                Some(Event::Value(of, _)) if *of == key.place() => inner.event.take(),
                _ => None,
            };
            (discarded, entry, event, wakes)
        };
        wake::all(wakes);
        let value = match (discarded, event) {
            (_, Some(Event::Value(_, value))) => Some(value),
            ((value, _), _) => value,
        };
        if let (Some(value), Some((_, source, _))) = (value, entry) {
            // SAFETY: a channel or receiver.
            let channel = unsafe { Via::of(source.as_ptr()) }.channel;
            let lost = channel.give_back(value);
            channel.undelivered(lost);
        }
    }
}

/// A case is known by its registration's key.
fn name(keys: &Owned, case: *mut PyObject, key: Key) -> Py<()> {
    // SAFETY: live objects.
    unsafe {
        let number = Owned::from_new(c::PyLong_FromUnsignedLongLong(key.to_bits()))?;
        match c::PyDict_SetDefault(keys.as_ptr(), case, number.as_ptr()) {
            known if known.is_null() => Err(Raised),
            known if known == number.as_ptr() => Ok(()),
            // Another thread has added one of this name meanwhile.
            _ => Err(there_is(case)),
        }
    }
}

fn there_is(case: *mut PyObject) -> Raised {
    ffi::value_error(&format!("there is a case {} already", ffi::text(case)))
}

/// The key that this number of ours stands for.
fn key_of(number: &Owned) -> Key {
    // SAFETY: an `int` that was made of one: it cannot fail.
    Key::from_bits(unsafe { c::PyLong_AsUnsignedLongLong(number.as_ptr()) })
}

/// A case has left. Its hash and its comparison may be the program's code, and fail.
fn forget(keys: &Owned, case: &Owned, key: Key) {
    let forgotten = (|| {
        // SAFETY: a dictionary and a live object.
        unsafe {
            match ffi::dict_get(keys, case.as_ptr())? {
                Some(number) if key_of(&number) == key => ffi::dict_pop(keys, case.as_ptr()).map(drop),
                // `discard` has just taken it out, or that and the name was given to another.
                _ => Ok(()),
            }
        }
    })();
    if let Err(Raised) = forgotten {
        ffi::unraisable(case.as_ptr());
    }
}

/// `selecting(*channels, **named)`
pub unsafe extern "C" fn selecting(
    module: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes our module and its arrays; our type, every field is written.
        unsafe {
            let state = crate::state_of_module(module);
            let keys = Owned::from_new(c::PyDict_New())?;
            let object = ffi::allocate(state.class(Ref::Selecting))?;
            (&raw mut (*object.as_ptr().cast::<SelectingObject>()).inner).write(Mutex::new(Inner {
                core: Selecting::new(),
                far: None,
                cases: Vec::new(),
                keys,
                waiting: ptr::null_mut(),
                event: None,
                returned: None,
                shares: (0, false),
            }));
            let this = SelectingObject::of(object.as_ptr());
            for index in 0..number {
                let case = ffi::integer(index as usize)?;
                this.add(case.as_ptr(), *arguments.add(index as usize))?;
            }
            if !keywords.is_null() {
                for index in 0..c::PyTuple_GET_SIZE(keywords) {
                    let case = c::PyTuple_GET_ITEM(keywords, index);
                    this.add(case, *arguments.add((number + index) as usize))?;
                }
            }
            Ok(object)
        }
    })
}

unsafe extern "C" fn add(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes a live selecting, here and below.
        unsafe {
            let [case, channel] = ffi::parameters("add", ["case", "channel"], 2, arguments, number, keywords)?;
            if case.is_null() || channel.is_null() {
                return Err(ffi::type_error("add() needs a case and a channel"));
            }
            SelectingObject::of(slf).add(case, channel)?;
        }
        Ok(ffi::none())
    })
}

unsafe extern "C" fn discard(slf: *mut PyObject, case: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `add`.
        unsafe { SelectingObject::of(slf) }.discard(case)?;
        Ok(ffi::none())
    })
}

unsafe extern "C" fn anext(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `add`.
    ffi::edge_object(|| op::make(unsafe { State::of(slf) }, Kind::NextEvent, slf, None))
}

unsafe extern "C" fn next(slf: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `add`.
        unsafe {
            let op = op::make(State::of(slf), Kind::NextEvent, slf, None)?;
            crate::thread::wait_in_iteration(OpObject::of(op.as_ptr()))
        }
    })
}

unsafe extern "C" fn length(slf: *mut PyObject) -> isize {
    // SAFETY: see `add`.
    unsafe { SelectingObject::of(slf) }.inner().len() as isize
}

unsafe extern "C" fn repr(slf: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `add`.
        let cases = unsafe { SelectingObject::of(slf) }.inner().len();
        ffi::string(&format!("<weft.Selecting over {cases} channel{}>", if cases == 1 { "" } else { "s" }))
    })
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector.
    unsafe {
        let mut objects = vec![c::Py_TYPE(slf).cast()];
        if let Ok(inner) = SelectingObject::of(slf).inner.try_lock() {
            objects.push(inner.keys.as_ptr());
            for (case, source, _) in inner.cases.iter().flatten() {
                objects.extend([case.as_ptr(), source.as_ptr()]);
            }
            match &inner.event {
                Some(Event::Value(_, value)) => objects.extend(value.as_object()),
                Some(Event::Left(case, source, _)) => objects.extend([case.as_ptr(), source.as_ptr()]),
                Some(Event::Failed(error)) => objects.push(error.as_ptr()),
                _ => {}
            }
            objects.extend(inner.far.iter().flat_map(Far::visit));
            objects.extend(inner.returned.as_ref().map(Owned::as_ptr));
        }
        for object in objects {
            let stop = ffi::visit(object, visit, argument);
            if stop != 0 {
                return stop;
            }
        }
    }
    0
}

unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    ffi::edge(0, || {
        // SAFETY: from the collector.
        let this = unsafe { SelectingObject::of(slf) };
        let count = this.inner().cases.len() as u32;
        for place in 0..count {
            let key = this.inner().cases[place as usize].as_ref().map(|(.., key)| *key);
            if let Some(key) = key {
                this.discard_key(key);
            }
        }
        Ok(0)
    })
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; each field is dropped once. The core leaves all queues first.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        let this = &mut *slf.cast::<SelectingObject>();
        let handed = std::mem::take(&mut this.inner_mut().core).dissolve();
        if let Some((value, chan)) = handed {
            // SAFETY: channels and receivers, which the registrations hold.
            let of = |source: &Owned| Via::of(source.as_ptr()).channel;
            let known =
                this.inner_mut().cases.iter().flatten().find(|(_, source, _)| Arc::ptr_eq(&of(source).chan, &chan));
            if let Some((_, source, _)) = known {
                let lost = of(source).give_back(value);
                of(source).undelivered(lost);
            }
        }
        // What a round was decided with that nobody could take up any more.
        if let Some(Event::Value(key, value)) = this.inner_mut().event.take()
            && let Some((_, source, _)) = this.inner_mut().cases.get_mut(key as usize).and_then(Option::take)
        {
            // SAFETY: a channel or receiver.
            let channel = Via::of(source.as_ptr()).channel;
            let lost = channel.give_back(value);
            channel.undelivered(lost);
        }
        ptr::drop_in_place(&raw mut (*slf.cast::<SelectingObject>()).inner);
        ffi::free(slf);
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    use ffi::Method::{ClassOne, Fast, OneArgument};
    let methods = ffi::methods(
        "Selecting",
        &[
            (c"add", Fast(add)),
            (c"discard", OneArgument(discard)),
            (c"__class_getitem__", ClassOne(crate::channel::class_getitem)),
        ],
    );
    let slots = vec![
        ffi::slot(c::Py_tp_doc, crate::docs::doc("Selecting", "").cast_mut().cast()),
        ffi::slot(c::Py_tp_repr, repr as *mut c_void),
        ffi::slot(c::Py_tp_iter, crate::channel::itself as *mut c_void),
        ffi::slot(c::Py_tp_iternext, next as *mut c_void),
        ffi::slot(c::Py_am_aiter, crate::channel::itself as *mut c_void),
        ffi::slot(c::Py_am_anext, anext as *mut c_void),
        ffi::slot(c::Py_mp_length, length as *mut c_void),
        ffi::slot(c::Py_nb_bool, crate::channel::truth as *mut c_void),
        ffi::slot(c::Py_tp_traverse, traverse as *mut c_void),
        ffi::slot(c::Py_tp_clear, clear as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_methods, methods.cast()),
    ];
    // SAFETY: the slots are those of a `SelectingObject`.
    unsafe {
        ffi::make_type(
            module,
            c"weft.Selecting",
            size_of::<SelectingObject>(),
            (c::Py_TPFLAGS_HAVE_GC | c::Py_TPFLAGS_DISALLOW_INSTANTIATION) as u64,
            slots,
        )
    }
}
