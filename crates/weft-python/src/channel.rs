//! `Channel`, and what it shares with its ends: the calls that make operations or act at once.

use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use weft_core::chan::{Chan, End, Outcome, Overflow};
use weft_core::error::Cause;
use weft_link::{Parcel, RemoteCause};

use crate::crossing::remote::{self, Remote};
use crate::crossing::share::{self, Shared, SharedReason};
use crate::crossing::undelivered;
use crate::crossing::work::{AtWork, Seen, Work};
use crate::ends::{self, EndObject, Side};
use crate::errors;
use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::op::{self, Kind, OpObject};
use crate::origin::Origin;
use crate::state::{Ref, State};
use crate::value::Value;
use crate::wake;

/// How often this process was forked: a channel of an earlier count belongs to a parent.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// See `FORKS`.
#[inline]
pub fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// `weft.Channel`.
#[repr(C)]
pub struct ChannelObject {
    head: PyObject,
    weakrefs: *mut PyObject,
    pub chan: Arc<Chan<Value>>,
    state: Arc<State>,
    /// How many calls are making it shared, and `SHARED` once it is, for good: see `crossing::share`.
    pub sharing: AtomicU32,
    pub shared: OnceLock<Arc<Shared>>,
    /// On operations that have this channel alone.
    pub work: Work,
    forks: u32,
    name: Option<Owned>,
    on_undelivered: Option<Owned>,
    /// What is called when the last receiver has left.
    on_left: Mutex<Option<Owned>>,
    made: Origin,
    closed: Mutex<Origin>,
}

/// The reason given with `close`, `poison` or an end's `close`: an exception, and the traceback it had then.
pub struct Reason {
    pub error: Owned,
    pub traceback: Option<Owned>,
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reason")
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Python exception")
    }
}

impl std::error::Error for Reason {}

impl ChannelObject {
    /// # Safety
    /// A live `Channel`.
    #[inline]
    pub unsafe fn of<'a>(object: *mut PyObject) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*object.cast() }
    }

    #[inline]
    pub fn as_ptr(&self) -> *mut PyObject {
        ptr::from_ref(self).cast_mut().cast()
    }

    #[inline]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// An error when the channel was made before this process was forked.
    #[inline]
    pub fn check_fork(&self) -> Py<()> {
        if self.is_inherited() {
            return Err(errors::forked(self));
        }
        Ok(())
    }

    #[inline]
    pub fn is_inherited(&self) -> bool {
        self.forks != forks()
    }

    /// The name as given, or the place of creation.
    pub fn name(&self) -> String {
        match (&self.name, self.shared.get()) {
            (Some(name), _) => ffi::text(name.as_ptr()),
            (None, Some(shared)) => shared.name.clone(),
            (None, None) => self.made.short(),
        }
    }

    /// Where it was made, in whatever place.
    pub fn made_at(&self) -> String {
        self.shared.get().map_or_else(|| self.made.short(), |shared| shared.made.clone())
    }

    /// Whether other places have ends of it, or are about to.
    #[inline]
    pub fn is_sharing(&self) -> bool {
        // Acquire pairs with the Release in `share`: what was turned over before is seen.
        self.sharing.load(Ordering::Acquire) != 0
    }

    /// Before it is asked what the channel is, for what is done with it then. See `crossing::work`.
    #[inline]
    pub fn seen(&self) -> Seen {
        self.state.place.seen()
    }

    /// Goes to work on it, unless it may be something else since then.
    #[inline]
    pub fn go_to_work(&self, seen: Seen) -> Option<AtWork<'_>> {
        self.work.begin(&self.state.place, seen)
    }

    /// Where another process keeps it.
    #[inline]
    pub fn remote(&self) -> Option<&Arc<Remote>> {
        if self.is_sharing() { self.shared.get()?.remote.as_ref() } else { None }
    }

    /// How it ended, if it has, and the cause that was given.
    pub fn ending(&self) -> (Option<End>, Option<Cause>) {
        match self.remote() {
            Some(remote) => remote.ended(),
            None => self.chan.end(),
        }
    }

    pub fn capacity(&self) -> Option<usize> {
        match self.remote() {
            Some(remote) => remote.about().capacity,
            None => self.chan.capacity(),
        }
    }

    /// A value for this channel.
    pub fn value(&self, object: Owned) -> Py<Value> {
        if self.is_sharing() { share::value(&self.state, object) } else { Ok(Value::object(object)) }
    }

    /// Makes values that wait to be sent fit for this channel. One that cannot go, and those behind it, are taken out: they are not sent.
    pub fn turn(&self, values: &mut VecDeque<Value>) {
        if !self.is_sharing() {
            return;
        }
        let _aside = ffi::Aside::new();
        for index in 0..values.len() {
            if values[index].is_payload() {
                continue;
            }
            let object = std::mem::replace(&mut values[index], Value::object(ffi::none())).into_object(&self.state);
            match object.and_then(|object| share::value(&self.state, object)) {
                Ok(value) => values[index] = value,
                Err(ffi::Raised) => {
                    drop(ffi::take_error());
                    drop(values.drain(index..).collect::<Vec<_>>());
                    return;
                }
            }
        }
    }

    /// Puts a value that reached a receiver which is gone back. What comes back can be delivered to nobody.
    ///
    /// In a forked child that is nobody's business: receiver and value are copies of the parent's, and so is the channel, but not the words of its
    /// leases.
    pub fn give_back(&self, mut value: Value) -> Option<Value> {
        if self.is_inherited() {
            return None;
        }
        loop {
            let seen = self.seen();
            let mut one = VecDeque::from([value]);
            self.turn(&mut one);
            value = one.pop_front()?;
            if let Some(remote) = self.remote() {
                // When the root is gone, so is the channel.
                let _ = remote.client().give_back(remote.id(), vec![value.into_wire()]);
                return None;
            }
            let Some(at_work) = self.go_to_work(seen) else {
                continue;
            };
            let (answer, wakes) = self.chan.give_back(value);
            drop(at_work);
            match wake::all_but_gone(wakes) {
                Some(again) => value = again,
                None => return answer.err(),
            }
        }
    }

    /// The reason given for an end, fit for those who have ends of this channel.
    pub fn reason(&self, error: *mut PyObject) -> Py<Option<Cause>> {
        self.fit(reason(error)?)
    }

    /// The same of one that was fit before something else was called: the channel may have become shared in that time.
    pub fn fit(&self, given: Option<Cause>) -> Py<Option<Cause>> {
        match given.as_ref().and_then(local_reason) {
            Some(reason) if self.is_sharing() => share::reason(&self.state, reason).map(Some),
            _ => Ok(given),
        }
    }

    /// `channel 'jobs' (capacity 8, made at app.py:12)`.
    pub fn description(&self) -> String {
        let capacity = match self.is_inherited() {
            true => None,
            false => Some(self.capacity()),
        };
        let capacity = match capacity {
            Some(Some(capacity)) => format!("capacity {capacity}, "),
            Some(None) => "unbounded, ".to_owned(),
            None => String::new(),
        };
        format!("channel '{}' ({capacity}made at {})", self.name(), self.made_at())
    }

    /// Where it was closed or poisoned, if by a call.
    pub fn closed_at(&self) -> Option<String> {
        // Once it is known it stays what it is, so its reference is good without the lock.
        let place = *self.closed.lock().unwrap_or_else(|e| e.into_inner());
        let here = place.place().map(|_| place.short());
        here.or_else(|| self.shared.get()?.closed.lock().unwrap_or_else(|e| e.into_inner()).clone())
    }

    /// Whether there were senders, and are none any more.
    pub fn has_lost_its_senders(&self) -> bool {
        let senders = match self.remote() {
            Some(remote) => {
                remote::detached(|| remote.client().statistics(remote.id())).map_or(None, |all| all.senders)
            }
            None => self.chan.statistics().senders,
        };
        senders == Some(0)
    }

    fn note_closed(&self) {
        let mut here = Origin::here();
        let mut place = self.closed.lock().unwrap_or_else(|e| e.into_inner());
        if place.is_unknown() {
            std::mem::swap(&mut *place, &mut here);
        }
        drop(place);
        if let Some(shared) = self.shared.get() {
            let place = self.closed_at();
            let mut known = shared.closed.lock().unwrap_or_else(|e| e.into_inner());
            *known = known.take().or(place);
        }
        here.forget();
    }

    /// Whether somebody is to be told of values that nobody will receive.
    pub fn hears(&self) -> bool {
        self.on_undelivered.is_some()
    }

    /// Counts and reports values that nobody will receive.
    pub fn undelivered(&self, values: impl IntoIterator<Item = Value>) {
        if self.on_undelivered.is_none() && self.is_sharing() {
            return undelivered::tell(&self.chan, values);
        }
        for value in values {
            if let Some(callback) = &self.on_undelivered {
                let _aside = ffi::Aside::new();
                // SAFETY: live objects.
                let called = value
                    .into_object(&self.state)
                    .and_then(|value| unsafe { ffi::call(callback.as_ptr(), &[value.as_ptr()]) });
                if called.is_err() {
                    ffi::unraisable(callback.as_ptr());
                }
            }
        }
    }

    /// A receiver has left: if it was the last, whoever asked for it is told, once.
    pub fn receiver_left(&self) {
        if self.chan.end().0 != Some(End::NoReceivers) {
            return;
        }
        let callback = self.on_left.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(callback) = callback {
            let _aside = ffi::Aside::new();
            // SAFETY: a live object.
            if unsafe { ffi::call(callback.as_ptr(), &[]) }.is_err() {
                ffi::unraisable(callback.as_ptr());
            }
        }
    }

    /// Closes. `true`: it was open.
    pub fn close(&self, error: *mut PyObject) -> Py<()> {
        self.check_fork()?;
        let given = self.reason(error)?;
        loop {
            let seen = self.seen();
            if let Some(remote) = self.remote() {
                return self.end_in_root(remote, given, false);
            }
            // Before anybody can see the channel closed.
            if self.chan.end().0.is_none() {
                self.note_closed();
            }
            let reason = self.fit(given.clone())?;
            let Some(at_work) = self.go_to_work(seen) else {
                continue;
            };
            let closed = self.chan.close(reason);
            drop(at_work);
            wake::all(closed.1);
            return Ok(());
        }
    }

    fn end_in_root(&self, remote: &Arc<Remote>, reason: Option<Cause>, poison: bool) -> Py<()> {
        let reason = self.remote_reason(reason.as_ref())?;
        self.note_closed();
        // When the root is gone, so is the channel.
        let _ = remote::detached(|| match poison {
            true => remote.client().poison(remote.id(), reason),
            false => remote.client().close(remote.id(), reason),
        });
        Ok(())
    }

    /// A reason as it crosses to the root.
    pub fn remote_reason(&self, reason: Option<&Cause>) -> Py<Option<RemoteCause>> {
        let error = reason.and_then(|reason| cause_of(&self.state, reason));
        error.map(|(error, _)| remote::cause(&self.state, &error)).transpose()
    }

    /// Poisons.
    pub fn poison(&self, error: *mut PyObject) -> Py<()> {
        self.check_fork()?;
        let given = self.reason(error)?;
        loop {
            let seen = self.seen();
            if let Some(remote) = self.remote() {
                return self.end_in_root(remote, given, true);
            }
            self.note_closed();
            let reason = self.fit(given.clone())?;
            let Some(at_work) = self.go_to_work(seen) else {
                continue;
            };
            let (values, wakes) = self.chan.poison(reason);
            drop(at_work);
            wake::all(wakes);
            self.undelivered(values.into_iter().flatten());
            return Ok(());
        }
    }
}

/// The `error` argument of `close` and `poison`.
pub fn reason(error: *mut PyObject) -> Py<Option<Cause>> {
    // SAFETY: `error` is null or alive.
    unsafe {
        if error.is_null() || error == c::Py_None() {
            return Ok(None);
        }
        let instance = if c::PyExceptionClass_Check(error) != 0 {
            let instance = ffi::call(error, &[])?;
            if c::PyExceptionInstance_Check(instance.as_ptr()) == 0 {
                return Err(ffi::type_error("the error class did not make an exception"));
            }
            instance
        } else if c::PyExceptionInstance_Check(error) != 0 {
            Owned::from_borrowed(error)
        } else {
            return Err(ffi::type_error(&format!("error must be an exception or None, not {}", ffi::type_name(error))));
        };
        if let Some(name) =
            errors::ends_who_meets_it(|kind| c::PyErr_GivenExceptionMatches(instance.as_ptr(), kind) != 0)
        {
            return Err(ffi::type_error(&format!(
                "{name} cannot be the error of a channel: it would end, without a word, the iteration or the coroutine of who meets it; wrap it in another exception"
            )));
        }
        let traceback = Owned::from_nullable(c::PyException_GetTraceback(instance.as_ptr()));
        let reason: Cause = Arc::new(Reason { error: instance, traceback });
        Ok(Some(reason))
    }
}

/// The exception inside a cause, as it was given in this interpreter.
pub fn local_reason(cause: &Cause) -> Option<&Reason> {
    (&**cause as &(dyn std::error::Error + 'static)).downcast_ref()
}

/// The exception inside a cause, and the traceback it had. One from another place that cannot be rebuilt is the error that says so.
pub fn cause_of(state: &State, cause: &Cause) -> Option<(Owned, Option<Owned>)> {
    if let Some(reason) = local_reason(cause) {
        return Some((reason.error.clone(), reason.traceback.clone()));
    }
    let cause: &(dyn std::error::Error + 'static) = &**cause;
    let _aside = ffi::Aside::new();
    let error = if let Some(shared) = cause.downcast_ref::<SharedReason>() {
        shared.error(state)
    } else if let Some(RemoteCause(bytes)) = cause.downcast_ref() {
        remote::error_of(state, &RemoteCause(bytes.clone()))
    } else if let Some(death) = cause.downcast_ref::<remote::Death>() {
        remote::death(death.0)
    } else {
        return None;
    };
    let error = error.ok().or_else(ffi::take_error)?;
    // SAFETY: a live exception.
    let traceback = unsafe { Owned::from_nullable(c::PyException_GetTraceback(error.as_ptr())) };
    Some((error, traceback))
}

/// `weft._weft._after_fork()`, which the interpreter calls in a forked child.
pub unsafe extern "C" fn after_fork(module: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    FORKS.fetch_add(1, Ordering::Relaxed);
    undelivered::after_fork();
    remote::after_fork();
    // SAFETY: the interpreter passes our module.
    unsafe { crate::state_of_module(module) }.place.after_fork();
    ffi::none().into_ptr()
}

struct Settings {
    capacity: Option<usize>,
    overflow: Overflow,
    on_undelivered: Option<Owned>,
    name: Option<Owned>,
}

/// A channel that other places know, as an object of this interpreter.
pub fn shared(state: &State, shared: &Arc<Shared>) -> Py<Owned> {
    let settings = Settings { capacity: None, overflow: Overflow::Block, on_undelivered: None, name: None };
    // SAFETY: our type.
    let object = make_over(state.class(Ref::Channel), settings, Arc::clone(&shared.chan), Origin::UNKNOWN)?;
    // SAFETY: just made.
    let channel = unsafe { ChannelObject::of(object.as_ptr()) };
    let _ = channel.shared.set(Arc::clone(shared));
    channel.sharing.store(share::SHARED, Ordering::Release);
    state.place.count_shared();
    Ok(object)
}

fn make(kind: *mut c::PyTypeObject, settings: Settings) -> Py<Owned> {
    let chan = Arc::new(Chan::new(settings.capacity, settings.overflow));
    make_over(kind, settings, chan, Origin::here())
}

fn make_over(kind: *mut c::PyTypeObject, settings: Settings, chan: Arc<Chan<Value>>, mut made: Origin) -> Py<Owned> {
    // SAFETY: `Channel` type; every field is written before anybody sees the object. The module's state is in an `Arc`.
    unsafe {
        let state = State::of_type(kind);
        if state.is_gone() {
            made.forget();
            return Err(ffi::runtime_error("the module weft._weft is gone"));
        }
        Arc::increment_strong_count(state);
        let state = Arc::from_raw(ptr::from_ref(state));
        let object = ffi::allocate(kind).inspect_err(|_| made.forget())?;
        let this: *mut ChannelObject = object.as_ptr().cast();
        (&raw mut (*this).weakrefs).write(ptr::null_mut());
        (&raw mut (*this).chan).write(chan);
        (&raw mut (*this).sharing).write(AtomicU32::new(0));
        (&raw mut (*this).shared).write(OnceLock::new());
        (&raw mut (*this).work).write(Work::default());
        (&raw mut (*this).state).write(state);
        (&raw mut (*this).forks).write(FORKS.load(Ordering::Relaxed));
        (&raw mut (*this).name).write(settings.name);
        (&raw mut (*this).on_undelivered).write(settings.on_undelivered);
        (&raw mut (*this).on_left).write(Mutex::new(None));
        (&raw mut (*this).made).write(made);
        (&raw mut (*this).closed).write(Mutex::new(Origin::UNKNOWN));
        Ok(object)
    }
}

/// `on_undelivered` and `name`, checked.
fn common(on_undelivered: *mut PyObject, name: *mut PyObject) -> Py<(Option<Owned>, Option<Owned>)> {
    // SAFETY: null or live objects.
    unsafe {
        let given = |object: *mut PyObject| !object.is_null() && object != c::Py_None();
        if given(on_undelivered) && c::PyCallable_Check(on_undelivered) == 0 {
            return Err(ffi::type_error(&format!(
                "on_undelivered must be callable or None, not {}",
                ffi::type_name(on_undelivered)
            )));
        }
        if given(name) && c::PyUnicode_Check(name) == 0 {
            return Err(ffi::type_error(&format!("name must be a str or None, not {}", ffi::type_name(name))));
        }
        let owned = |object| given(object).then(|| Owned::from_borrowed(object));
        Ok((owned(on_undelivered), owned(name)))
    }
}

/// A count that a program gives, `what` naming it: an `int` that is no `bool`, at least `least`.
pub fn count(object: *mut PyObject, what: &str, least: usize) -> Py<usize> {
    // SAFETY: `object` is alive.
    unsafe {
        if c::PyLong_Check(object) == 0 || c::PyBool_Check(object) != 0 {
            return Err(ffi::type_error(&format!(
                "{what} must be an int, not {} ({})",
                ffi::type_name(object),
                ffi::text(object)
            )));
        }
        let value = c::PyLong_AsLongLong(object);
        if value == -1 && !c::PyErr_Occurred().is_null() {
            c::PyErr_Clear();
            return Err(ffi::value_error(&format!("{what} is out of range: {}", ffi::text(object))));
        }
        match usize::try_from(value) {
            Ok(value) if value >= least => Ok(value),
            _ => Err(ffi::value_error(&format!("{what} must be at least {least}, not {value}"))),
        }
    }
}

unsafe extern "C" fn new(
    kind: *mut c::PyTypeObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: what the interpreter passed to tp_new.
        let [capacity, overflow, on_undelivered, name] = unsafe {
            ffi::parameters_of_new(
                "Channel",
                ["capacity", "overflow", "on_undelivered", "name"],
                1,
                arguments,
                keywords,
            )?
        };
        let capacity = if capacity.is_null() {
            0
        } else {
            // SAFETY: a live object.
            if unsafe { capacity == c::Py_None() } {
                return Err(ffi::type_error(
                    "capacity must be an int, not None; for a channel without a bound say Channel.unbounded()",
                ));
            }
            count(capacity, "capacity", 0)?
        };
        let overflow = if overflow.is_null() {
            Overflow::Block
        } else {
            match ffi::text(overflow).as_str() {
                "block" => Overflow::Block,
                "drop_oldest" => Overflow::DropOldest,
                "drop_newest" => Overflow::DropNewest,
                "error" => Overflow::Error,
                other => {
                    return Err(ffi::value_error(&format!(
                        "unknown overflow policy '{other}': it is \"block\", \"drop_oldest\", \"drop_newest\" or \"error\""
                    )));
                }
            }
        };
        if overflow == Overflow::DropOldest && capacity == 0 {
            return Err(ffi::value_error(
                "overflow=\"drop_oldest\" needs a capacity of at least 1: a rendezvous holds no older value to drop",
            ));
        }
        let (on_undelivered, name) = common(on_undelivered, name)?;
        make(kind, Settings { capacity: Some(capacity), overflow, on_undelivered, name })
    })
}

unsafe extern "C" fn unbounded(
    kind: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: what the interpreter passed.
        let [on_undelivered, name] =
            unsafe { ffi::parameters("unbounded", ["on_undelivered", "name"], 0, arguments, number, keywords)? };
        let (on_undelivered, name) = common(on_undelivered, name)?;
        make(kind.cast(), Settings { capacity: None, overflow: Overflow::Block, on_undelivered, name })
    })
}

/// A channel or one of its ends, as the calls they share see it.
#[derive(Clone, Copy)]
pub struct Via<'a> {
    pub channel: &'a ChannelObject,
    pub owner: *mut PyObject,
    /// The end the call is made through, if it is one.
    pub end: Option<&'a EndObject>,
}

impl<'a> Via<'a> {
    /// # Safety
    /// A live Channel, Sender or Receiver.
    #[inline]
    pub unsafe fn of(object: *mut PyObject) -> Self {
        // SAFETY: the caller's promise; an end keeps its channel alive.
        unsafe {
            // Ends are the types that nobody can call.
            if (*c::Py_TYPE(object)).tp_new.is_some() {
                Self { channel: ChannelObject::of(object), owner: object, end: None }
            } else {
                let end = EndObject::of(object);
                Self { channel: ChannelObject::of(end.channel), owner: object, end: Some(end) }
            }
        }
    }

    /// An error when the end was closed by its owner.
    #[inline]
    pub fn check(&self) -> Py<()> {
        self.channel.check_fork()
    }

    #[inline]
    pub fn end_is_closed(&self) -> bool {
        self.end.is_some_and(EndObject::is_closed)
    }

    #[inline]
    fn op(&self, kind: Kind, value: Option<Owned>) -> Py<Owned> {
        op::on_channel(*self, kind, value)
    }
}

/// `send(value)`
pub unsafe extern "C" fn send(slf: *mut PyObject, value: *mut PyObject) -> *mut PyObject {
    // SAFETY: the interpreter passes live objects of the right type, here and in all methods below.
    ffi::edge_object(|| unsafe { Via::of(slf).op(Kind::Send, Some(Owned::from_borrowed(value))) })
}

/// `recv()`
pub unsafe extern "C" fn recv(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `send`.
    ffi::edge_object(|| unsafe { Via::of(slf).op(Kind::Recv, None) })
}

/// `__anext__()`
pub unsafe extern "C" fn anext(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `send`.
    ffi::edge_object(|| unsafe { Via::of(slf).op(Kind::RecvNext, None) })
}

/// `_closing()`
unsafe extern "C" fn closing(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `send`.
    ffi::edge_object(|| unsafe {
        let op = Via::of(slf).op(Kind::Closing, None)?;
        OpObject::of(op.as_ptr()).made_by_user();
        Ok(op)
    })
}

/// `_when_left(call)`
unsafe extern "C" fn when_left(slf: *mut PyObject, call: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `send`.
        let (channel, call) = unsafe { (ChannelObject::of(slf), Owned::from_borrowed(call)) };
        // SAFETY: None lives for ever.
        let call = Some(call).filter(|call| call.as_ptr() != unsafe { c::Py_None() });
        let before = std::mem::replace(&mut *channel.on_left.lock().unwrap_or_else(|e| e.into_inner()), call);
        drop(before);
        Ok(ffi::none())
    })
}

/// `__next__()`, which blocks
pub unsafe extern "C" fn next(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `send`.
    ffi::edge_object(|| unsafe {
        let op = Via::of(slf).op(Kind::RecvNext, None)?;
        crate::thread::wait_in_iteration(OpObject::of(op.as_ptr()))
    })
}

/// `__iter__()` and `__aiter__()`
pub unsafe extern "C" fn itself(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `send`.
    unsafe { Owned::from_borrowed(slf).into_ptr() }
}

/// An operation on a channel of the root that is not to wait there.
fn at_once(via: Via<'_>, kind: Kind, value: Option<Owned>) -> Py<Owned> {
    let op = via.op(kind, value.clone())?;
    // SAFETY: just made.
    let op = unsafe { OpObject::of(op.as_ptr()) };
    if let Some(result) = op.perform_now()? {
        return Ok(result);
    }
    match op.perform_in_root()? {
        Some(result) => Ok(result),
        None => {
            op.give_up();
            Err(errors::would_block(via.channel, value))
        }
    }
}

/// `send_nowait(value)`
pub unsafe extern "C" fn send_nowait(slf: *mut PyObject, value: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `send`.
        let (via, value) = unsafe { (Via::of(slf), Owned::from_borrowed(value)) };
        via.check()?;
        if via.end_is_closed() {
            return Err(errors::end_closed(via, Some(value)));
        }
        let given = value;
        loop {
            let seen = via.channel.seen();
            if via.channel.remote().is_some() {
                return at_once(via, Kind::Send, Some(given));
            }
            let value = via.channel.value(given.clone())?;
            let Some(at_work) = via.channel.go_to_work(seen) else {
                continue;
            };
            let (answer, wakes) = via.channel.chan.try_send(value);
            drop(at_work);
            match answer {
                Ok(displaced) => {
                    if let Some(back) = wake::all_but_gone(wakes) {
                        drop(back);
                        via.channel.chan.uncount();
                        continue;
                    }
                    via.channel.undelivered(displaced);
                    return Ok(ffi::none());
                }
                Err((_, Outcome::Ended(end))) => return Err(errors::ended_send(via.channel, end, given)),
                Err(_) => return Err(errors::would_block(via.channel, Some(given))),
            }
        }
    })
}

/// `recv_nowait()`
pub unsafe extern "C" fn recv_nowait(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `send`.
        let via = unsafe { Via::of(slf) };
        via.check()?;
        if via.end_is_closed() {
            return Err(errors::end_closed(via, None));
        }
        if via.channel.remote().is_some() {
            return at_once(via, Kind::Recv, None);
        }
        if via.channel.is_sharing() {
            via.channel.state().place.look();
        }
        let (answer, wakes) = via.channel.chan.try_recv();
        wake::all(wakes);
        match answer {
            Ok(value) => value.into_object(via.channel.state()),
            Err(Outcome::Ended(end)) => Err(errors::ended_recv(via.channel, end)),
            Err(_) => Err(errors::would_block(via.channel, None)),
        }
    })
}

/// `send_many(values)`
pub unsafe extern "C" fn send_many(slf: *mut PyObject, values: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `send`; the items of a list or tuple that `sequence` keeps alive.
        unsafe {
            let sequence = Owned::from_new(c::PySequence_Tuple(values))?;
            let mut rest: VecDeque<Value> = (0..c::PyTuple_GET_SIZE(sequence.as_ptr()))
                .map(|index| Value::object(Owned::from_borrowed(c::PyTuple_GET_ITEM(sequence.as_ptr(), index))))
                .collect();
            let Some(first) = rest.pop_front().and_then(Value::into_contents) else {
                return Err(ffi::value_error("send_many() was given an empty sequence: it needs at least one value"));
            };
            let op = Via::of(slf).op(Kind::SendMany, Some(first))?;
            OpObject::of(op.as_ptr()).set_rest(rest);
            Ok(op)
        }
    })
}

/// `recv_many(max)`
pub unsafe extern "C" fn recv_many(slf: *mut PyObject, max: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let max = count(max, "max", 1)?;
        // SAFETY: see `send`.
        unsafe {
            let op = Via::of(slf).op(Kind::RecvMany, None)?;
            OpObject::of(op.as_ptr()).set_max(max);
            Ok(op)
        }
    })
}

unsafe extern "C" fn close(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `send`.
        unsafe {
            let [error] = ffi::parameters("close", ["error"], 1, arguments, number, keywords)?;
            ChannelObject::of(slf).close(error)?;
        }
        Ok(ffi::none())
    })
}

unsafe extern "C" fn poison(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `send`.
        unsafe {
            let [error] = ffi::parameters("poison", ["error"], 1, arguments, number, keywords)?;
            ChannelObject::of(slf).poison(error)?;
        }
        Ok(ffi::none())
    })
}

unsafe extern "C" fn sender(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `send`.
    ffi::edge_object(|| unsafe { ends::make(ChannelObject::of(slf), Side::Sender) })
}

unsafe extern "C" fn receiver(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `send`.
    ffi::edge_object(|| unsafe { ends::make(ChannelObject::of(slf), Side::Receiver) })
}

unsafe extern "C" fn split(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `send`.
        let channel = unsafe { ChannelObject::of(slf) };
        let sender = ends::make(channel, Side::Sender)?;
        let receiver = ends::make(channel, Side::Receiver)?;
        ffi::tuple(vec![sender, receiver])
    })
}

unsafe extern "C" fn exit(slf: *mut PyObject, _: *const *mut PyObject, _: isize, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `send`.
        unsafe { ChannelObject::of(slf).close(ptr::null_mut())? };
        Ok(ffi::boolean(false))
    })
}

unsafe extern "C" fn aexit(slf: *mut PyObject, _: *const *mut PyObject, _: isize, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `send`.
        unsafe {
            ChannelObject::of(slf).close(ptr::null_mut())?;
            op::ready(State::of(slf), ffi::boolean(false))
        }
    })
}

/// `__aenter__()`: an operation that is ready with the object itself.
pub unsafe extern "C" fn aenter(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `send`.
    ffi::edge_object(|| unsafe { op::ready(State::of(slf), Owned::from_borrowed(slf)) })
}

/// `__enter__()`
pub unsafe extern "C" fn enter(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `send`.
    unsafe { Owned::from_borrowed(slf).into_ptr() }
}

/// Makes the type of what `statistics()` returns. Its fields are in `weft._results`.
pub fn make_statistics(module: *mut PyObject) -> Py<Owned> {
    let base = ffi::import(c"weft._results", Some(c"Statistics"))?;
    let slots = vec![ffi::slot(c::Py_tp_doc, crate::docs::doc("Statistics", "").cast_mut().cast())];
    // SAFETY: no field is added, and no slot but the docstring. The base is a class, which nobody makes immutable.
    unsafe { ffi::make_subtype(module, c"weft.Statistics", &base, 0, slots) }
}

/// `statistics()`
pub unsafe extern "C" fn statistics(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `send`.
        let via = unsafe { Via::of(slf) };
        via.check()?;
        let all = match via.channel.remote() {
            None => via.channel.chan.statistics(),
            Some(remote) => {
                remote::detached(|| remote.client().statistics(remote.id())).map_err(|_| errors::gone(via.channel))?
            }
        };
        let optional = |count: Option<usize>| count.map_or_else(|| Ok(ffi::none()), ffi::integer);
        let values = [
            ffi::string(&via.channel.name())?,
            optional(all.capacity)?,
            ffi::integer(all.buffered)?,
            optional(all.senders)?,
            optional(all.receivers)?,
            ffi::integer(all.parked_senders)?,
            ffi::integer(all.parked_receivers)?,
            ffi::integer(all.sent as usize)?,
            ffi::integer(all.received as usize)?,
            ffi::integer(all.dropped as usize)?,
        ];
        let values = values.each_ref().map(Owned::as_ptr);
        // SAFETY: a class called with live objects.
        unsafe { ffi::call(via.channel.state().get(Ref::Statistics), &values) }
    })
}

/// `name`
pub unsafe extern "C" fn get_name(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see `send`.
    ffi::edge_object(|| ffi::string(&unsafe { Via::of(slf) }.channel.name()))
}

/// `capacity`
pub unsafe extern "C" fn get_capacity(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `send`.
        let via = unsafe { Via::of(slf) };
        via.check()?;
        via.channel.capacity().map_or_else(|| Ok(ffi::none()), ffi::integer)
    })
}

/// `closed`
pub unsafe extern "C" fn get_closed(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `send`.
        let via = unsafe { Via::of(slf) };
        via.check()?;
        Ok(ffi::boolean(via.end_is_closed() || via.channel.ending().0.is_some()))
    })
}

/// `len(channel)`
pub unsafe extern "C" fn length(slf: *mut PyObject) -> isize {
    ffi::edge(-1, || {
        // SAFETY: see `send`.
        let via = unsafe { Via::of(slf) };
        via.check()?;
        match via.channel.remote() {
            None => Ok(via.channel.chan.len() as isize),
            Some(remote) => remote::detached(|| remote.client().len(remote.id()))
                .map(|length| length as isize)
                .map_err(|_| errors::gone(via.channel)),
        }
    })
}

/// A channel is true, however many values it holds.
pub unsafe extern "C" fn truth(_: *mut PyObject) -> c_int {
    1
}

/// `Channel[int]`
pub unsafe extern "C" fn class_getitem(kind: *mut PyObject, item: *mut PyObject) -> *mut PyObject {
    // SAFETY: live objects.
    unsafe { c::Py_GenericAlias(kind, item) }
}

unsafe extern "C" fn repr(slf: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `send`.
        let channel = unsafe { ChannelObject::of(slf) };
        if channel.is_inherited() {
            return ffi::string(&format!("<weft.Channel '{}' inherited over a fork>", channel.name()));
        }
        if channel.remote().is_some() {
            return ffi::string(&format!("<weft.Channel '{}', kept by another process>", channel.name()));
        }
        let all = channel.chan.statistics();
        let capacity = all.capacity.map_or("unbounded".to_owned(), |n| n.to_string());
        let end = match channel.chan.end().0 {
            None => "",
            Some(End::Closed) => " closed",
            Some(End::NoReceivers) => " without receivers",
            Some(End::Poisoned) => " poisoned",
        };
        ffi::string(&format!(
            "<weft.Channel '{}' {}/{capacity} buffered, {} sending, {} receiving{end}>",
            channel.name(),
            all.buffered,
            all.parked_senders,
            all.parked_receivers,
        ))
    })
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector; fields are only read.
    unsafe {
        let this = ChannelObject::of(slf);
        let mut stop = ffi::visit(c::Py_TYPE(slf).cast(), visit, argument);
        let mut see = |object: *mut PyObject| {
            if stop == 0 {
                stop = ffi::visit(object, visit, argument);
            }
        };
        see(this.name.as_ref().map_or(ptr::null_mut(), Owned::as_ptr));
        see(this.on_undelivered.as_ref().map_or(ptr::null_mut(), Owned::as_ptr));
        // Nobody runs Python, or collects, while holding this lock.
        let on_left = this.on_left.lock().unwrap_or_else(|e| e.into_inner());
        see(on_left.as_ref().map_or(ptr::null_mut(), Owned::as_ptr));
        if !this.is_inherited() && !this.is_sharing() {
            let see = std::cell::RefCell::new(&mut see);
            this.chan.visit(
                |value| value.as_object().into_iter().for_each(|object| (see.borrow_mut())(object)),
                |cause| {
                    // The channel's own reference to the cause is one of possibly several: only a sole one may be shown.
                    if Arc::strong_count(cause) == 1
                        && let Some(reason) = local_reason(cause)
                    {
                        (see.borrow_mut())(reason.error.as_ptr());
                        (see.borrow_mut())(reason.traceback.as_ref().map_or(ptr::null_mut(), Owned::as_ptr));
                    }
                },
                |waiter| (see.borrow_mut())(op::of_waiter(waiter)),
            );
        }
        if stop == 0 { this.made.traverse(visit, argument) } else { stop }
    }
}

unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    // SAFETY: from the collector, which found the channel unreachable.
    unsafe {
        let this = ChannelObject::of(slf);
        if !this.is_inherited() && !this.is_sharing() {
            drop(this.chan.drain());
        }
        undelivered::listen_no_more(this);
        let this: *mut ChannelObject = slf.cast();
        drop((*this).on_undelivered.take());
        drop((*this).on_left.get_mut().unwrap_or_else(|e| e.into_inner()).take());
    }
    0
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; each field is dropped once.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        let this: *mut ChannelObject = slf.cast();
        if !(*this).weakrefs.is_null() {
            c::PyObject_ClearWeakRefs(slf);
        }
        if (*this).is_inherited() {
            // Its lock may have been held by a thread that does not exist in this process, and a link is the parent's.
            std::mem::forget(Arc::clone(&(*this).chan));
            std::mem::forget((*this).shared.get().cloned());
        } else if !(*this).is_sharing() {
            let left = (*this).chan.drain();
            if (*this).on_undelivered.is_some() {
                (*this).undelivered(left);
            } else if !left.is_empty() {
                ffi::drop_contents(left.into_iter().filter_map(Value::into_contents));
            }
        }
        undelivered::listen_no_more(&*this);
        ptr::drop_in_place(&raw mut (*this).chan);
        ptr::drop_in_place(&raw mut (*this).shared);
        ptr::drop_in_place(&raw mut (*this).name);
        ptr::drop_in_place(&raw mut (*this).state);
        ptr::drop_in_place(&raw mut (*this).on_undelivered);
        ptr::drop_in_place(&raw mut (*this).on_left);
        (*this).made.forget();
        (*this).closed.get_mut().unwrap_or_else(|e| e.into_inner()).forget();
        ptr::drop_in_place(&raw mut (*this).closed);
        ffi::free(slf);
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    use ffi::Method::{ClassFast, ClassOne, Fast, NoArguments, OneArgument};
    let methods = ffi::methods(
        "Channel",
        &[
            (c"send", OneArgument(send)),
            (c"recv", NoArguments(recv)),
            (c"send_nowait", OneArgument(send_nowait)),
            (c"recv_nowait", NoArguments(recv_nowait)),
            (c"send_many", OneArgument(send_many)),
            (c"recv_many", OneArgument(recv_many)),
            (c"close", Fast(close)),
            (c"poison", Fast(poison)),
            (c"sender", NoArguments(sender)),
            (c"receiver", NoArguments(receiver)),
            (c"split", NoArguments(split)),
            (c"statistics", NoArguments(statistics)),
            (c"unbounded", ClassFast(unbounded)),
            (c"_closing", NoArguments(closing)),
            (c"_when_left", OneArgument(when_left)),
            (c"__enter__", NoArguments(enter)),
            (c"__exit__", Fast(exit)),
            (c"__aenter__", NoArguments(aenter)),
            (c"__aexit__", Fast(aexit)),
            (c"__class_getitem__", ClassOne(class_getitem)),
        ],
    );
    let properties = ffi::properties(
        "Channel",
        &[(c"name", get_name, None), (c"capacity", get_capacity, None), (c"closed", get_closed, None)],
    );
    let members = ffi::table("Channel", "members", || {
        vec![
            c::PyMemberDef {
                name: c"__weaklistoffset__".as_ptr(),
                type_code: c::Py_T_PYSSIZET,
                offset: std::mem::offset_of!(ChannelObject, weakrefs) as isize,
                flags: c::Py_READONLY,
                doc: ptr::null(),
            },
            c::PyMemberDef::default(),
        ]
    });
    let slots = vec![
        ffi::slot(c::Py_tp_new, new as *mut c_void),
        ffi::slot(c::Py_tp_doc, crate::docs::doc("Channel", "").cast_mut().cast()),
        ffi::slot(c::Py_tp_repr, repr as *mut c_void),
        ffi::slot(c::Py_tp_iter, itself as *mut c_void),
        ffi::slot(c::Py_tp_iternext, next as *mut c_void),
        ffi::slot(c::Py_am_aiter, itself as *mut c_void),
        ffi::slot(c::Py_am_anext, anext as *mut c_void),
        ffi::slot(c::Py_mp_length, length as *mut c_void),
        ffi::slot(c::Py_nb_bool, truth as *mut c_void),
        ffi::slot(c::Py_tp_traverse, traverse as *mut c_void),
        ffi::slot(c::Py_tp_clear, clear as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_methods, methods.cast()),
        ffi::slot(c::Py_tp_getset, properties.cast()),
        ffi::slot(c::Py_tp_members, members.cast()),
    ];
    // SAFETY: the slots are those of a `ChannelObject`.
    unsafe { ffi::make_type(module, c"weft.Channel", size_of::<ChannelObject>(), c::Py_TPFLAGS_HAVE_GC as u64, slots) }
}
