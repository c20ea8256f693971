//! Channels that several places share, and ends of them on their way.
//!
//! A channel becomes shared, once and for good, when an end of it leaves its interpreter for the first time. What it holds then is turned into payloads:
//! what is buffered, what parked senders offer, the reason it was closed with; and what is parked gets bells (`place`). From then on whoever
//! performs an operation on it turns the value into a payload first, so that no object of one interpreter is ever in a queue that another
//! looks into.
//!
//! Turning a value into a payload may run the program's code. So the channel is said to be *sharing* first, which makes every new
//! operation do as on a shared channel; then its content is turned over in rounds, outside its lock, until nothing is left to do. No other place
//! knows the channel before it is done. Several calls may do that side by side, and one of them fail: it is sharing as long as one is at work, and
//! for good when one was done.
//!
//! An operation looks whether its channel is sharing, and then puts a value in or parks: with a GIL as one step, for nothing is called between.
//! Where threads run at the same time one may have looked before the channel was said to be sharing, and come to the second half when all has been
//! turned over: see `work`.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use std::task::Waker;

use weft_core::chan::Chan;
use weft_core::error::Cause;
use weft_core::selecting::LOOK;
use weft_core::waiter::Claim;
use weft_link::{About, End, Parcel, RemoteCause};

use super::decode;
use super::encode;
use super::payload::Payload;
use super::remote::{self, Remote};
use super::undelivered;
use crate::channel::{self, ChannelObject, Reason};
use crate::ends::{self, EndObject, Side};
use crate::errors;
use crate::ffi::{self, Owned, Py, PyObject};
use crate::op::OpObject;
use crate::state::{Ref, State};
use crate::value::Value;
use crate::wake;

/// What every place knows of a channel.
pub struct Shared {
    pub chan: Arc<Chan<Value>>,
    pub name: String,
    pub made: String,
    /// Where it was closed or poisoned, once it was.
    pub closed: Mutex<Option<String>>,
    /// Where another process keeps it: then `chan` is not used.
    pub remote: Option<Arc<Remote>>,
}

/// An end on its way, or a channel itself. An end counts as long as it is on its way, and when it gets lost it is closed.
pub struct EndPart {
    shared: Arc<Shared>,
    side: Option<Side>,
    counted: bool,
    /// The same as the link has it, in a process that is not the root.
    link: Option<End>,
    /// See `channel::forks`.
    forks: u32,
}

/// The reason of a channel's end, for every place.
pub struct SharedReason {
    payload: Mutex<Payload>,
    /// The same for another process.
    told: Option<RemoteCause>,
}

pub fn link_side(side: Side) -> weft_link::Side {
    match side {
        Side::Sender => weft_link::Side::Sender,
        Side::Receiver => weft_link::Side::Receiver,
    }
}

impl EndPart {
    pub fn of_channel(channel: &ChannelObject) -> Py<Self> {
        channel.check_fork()?;
        Ok(Self::of(share(channel)?, None))
    }

    pub fn of_end(end: &EndObject) -> Py<Self> {
        // SAFETY: an end keeps its channel.
        let channel = unsafe { ChannelObject::of(end.channel) };
        channel.check_fork()?;
        if end.is_closed() {
            return Err(errors::end_closed(channel::Via { channel, owner: end.channel, end: Some(end) }, None));
        }
        let shared = share(channel)?;
        Ok(Self::of(shared, Some(end.side())))
    }

    /// One more end of the same side, or the channel once more.
    pub fn another(&self) -> Self {
        Self::of(Arc::clone(&self.shared), self.side)
    }

    fn of(shared: Arc<Shared>, side: Option<Side>) -> Self {
        if let Some(remote) = &shared.remote {
            let link = Some(remote.end(side.map_or(weft_link::Side::Both, link_side)));
            return Self { shared, side, counted: false, link, forks: channel::forks() };
        }
        let counted = match side {
            Some(Side::Sender) => shared.chan.add_sender(),
            Some(Side::Receiver) => shared.chan.add_receiver(),
            None => false,
        };
        Self { shared, side, counted, link: None, forks: channel::forks() }
    }

    /// One that has come over the link.
    pub fn of_link(end: End) -> Self {
        let side = match end.side() {
            weft_link::Side::Sender => Some(Side::Sender),
            weft_link::Side::Receiver => Some(Side::Receiver),
            weft_link::Side::Both => None,
        };
        let shared = |chan, about: &weft_link::About, remote| {
            let (name, made) = (about.name.clone(), "another process".to_owned());
            Arc::new(Shared { chan, name, made, closed: Mutex::new(None), remote })
        };
        let (about, forks) = (Arc::clone(end.about()), channel::forks());
        if let Some(client) = remote::link() {
            let keeper = Remote::new(client, end.open(weft_link::Side::Both));
            let nothing = Arc::new(Chan::new(Some(0), about.overflow));
            let shared = shared(nothing, &about, Some(Arc::new(keeper)));
            return Self { shared, side, counted: false, link: Some(end), forks };
        }
        match end.into_chan() {
            Ok((chan, counted)) => Self { shared: shared(chan, &about, None), side, counted, link: None, forks },
            // Not of this root: nothing leads there.
            Err(_) => {
                let nothing = Arc::new(Chan::new(Some(0), about.overflow));
                nothing.close(None).1.wake();
                Self { shared: shared(nothing, &about, None), side, counted: false, link: None, forks }
            }
        }
    }

    /// The same for the link.
    pub fn into_link(mut self) -> Option<End> {
        if let Some(link) = self.link.take() {
            return Some(link);
        }
        if remote::link().is_some() {
            return None;
        }
        let about = About {
            capacity: self.shared.chan.capacity(),
            overflow: self.shared.chan.overflow(),
            name: self.shared.name.clone(),
        };
        let both = remote::hub().end(&self.shared.chan, Arc::new(about));
        // Counted before the one that this is, which is dropped, is uncounted.
        Some(both.open(self.side.map_or(weft_link::Side::Both, link_side)))
    }

    /// The end as an object of this interpreter.
    pub fn into_object(mut self, state: &State) -> Py<Owned> {
        let channel = channel::shared(state, &self.shared)?;
        match self.side {
            None => Ok(channel),
            Some(side) => {
                // SAFETY: just made or found.
                let end = ends::adopt(unsafe { ChannelObject::of(channel.as_ptr()) }, side, self.counted)?;
                self.counted = false;
                if let (Some(remote), Some(link)) = (&self.shared.remote, self.link.take()) {
                    remote.keep(link);
                }
                Ok(end)
            }
        }
    }
}

impl Drop for EndPart {
    fn drop(&mut self) {
        if self.forks != channel::forks() {
            // A forked child: it is the parent's, and whoever held a lock of the channel may not be here.
            return std::mem::forget(self.link.take());
        }
        if !std::mem::take(&mut self.counted) {
            return;
        }
        match self.side {
            Some(Side::Sender) => self.shared.chan.remove_sender(None).wake(),
            Some(Side::Receiver) => {
                let (values, wakes) = self.shared.chan.remove_receiver(None);
                wakes.wake();
                undelivered::tell(&self.shared.chan, values);
            }
            None => {}
        }
    }
}

/// The reason for an end, as every place can read it.
pub fn reason(state: &State, reason: &Reason) -> Py<Cause> {
    let payload = encode::encode(state, reason.error.clone())?;
    // Else its bytes are all there is.
    let told = (!payload.attachments.is_empty()).then(|| remote::cause(state, &reason.error)).transpose()?;
    Ok(Arc::new(SharedReason { payload: Mutex::new(*payload), told }))
}

impl SharedReason {
    /// As it crosses to another process.
    pub fn bytes(&self) -> Vec<u8> {
        match &self.told {
            Some(told) => told.as_bytes().to_vec(),
            None => self.payload.lock().unwrap_or_else(|e| e.into_inner()).bytes.to_vec(),
        }
    }

    /// The exception as an object of this interpreter: another one at each call.
    pub fn error(&self, state: &State) -> Py<Owned> {
        let mut payload = {
            let known = self.payload.lock().unwrap_or_else(|e| e.into_inner());
            known.copy()
        };
        decode::decode(state, &mut payload)
    }
}

impl std::fmt::Debug for SharedReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedReason")
    }
}

impl std::fmt::Display for SharedReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a Python exception of another place")
    }
}

impl std::error::Error for SharedReason {}

/// So many values, with all that travels beside them, go to the root in one message when it takes over a channel.
const FILLED_AT_ONCE: usize = 64;

/// So many calls may be making a channel shared, one in another or side by side; more are a circle.
const NESTED: u32 = 16;

/// In `ChannelObject::sharing`, above the number of these calls: it is shared.
pub const SHARED: u32 = 1 << 31;

/// What every place is to know of a channel, which is shared from now on.
pub fn share(channel: &ChannelObject) -> Py<Arc<Shared>> {
    if let Some(shared) = channel.shared.get() {
        return Ok(Arc::clone(shared));
    }
    undelivered::listen(channel)?;
    // Release: it is said before anything is turned over. It pairs with the Acquire in `is_sharing`.
    if channel.sharing.fetch_add(1, Ordering::AcqRel) & !SHARED >= NESTED {
        channel.sharing.fetch_sub(1, Ordering::AcqRel);
        return Err(ffi::runtime_error(&format!(
            "{} cannot go to another place: it holds an end of itself, maybe in another channel",
            channel.description()
        )));
    }
    seen_by_all(channel);
    let turned = turn_over(channel);
    // From here on to its being shared no Python code runs, so that nobody comes between.
    let shared = turned.and_then(|reason| match (channel.shared.get(), remote::link()) {
        // Another thread was faster.
        (Some(shared), _) => Ok(Arc::clone(shared)),
        (None, Some(client)) => move_to_root(channel, client, reason),
        (None, None) => Ok(set_shared(channel, None)),
    });
    if channel.shared.get().is_some() {
        channel.sharing.fetch_or(SHARED, Ordering::AcqRel);
    }
    channel.sharing.fetch_sub(1, Ordering::AcqRel);
    shared
}

/// What has just been said of the channel is what every operation goes by that is not done yet.
fn seen_by_all(channel: &ChannelObject) {
    let place = &channel.state().place;
    // Only now: who sees the number finds the channel as it is.
    place.seen_by_all();
    channel.work.wait();
}

fn set_shared(channel: &ChannelObject, remote: Option<Arc<Remote>>) -> Arc<Shared> {
    let shared = channel.shared.get_or_init(|| {
        Arc::new(Shared {
            chan: Arc::clone(&channel.chan),
            name: channel.name(),
            made: channel.made_at(),
            closed: Mutex::new(channel.closed_at()),
            remote,
        })
    });
    Arc::clone(shared)
}

/// `_share(channel)`: what is sent on it is made fit for other places from now on, before one of them knows it.
pub unsafe extern "C" fn share_channel(module: *mut PyObject, channel: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes our module and a live object, which is a channel as just checked.
        unsafe {
            if !crate::state_of_module(module).is(channel, Ref::Channel) {
                return Err(ffi::type_error(&format!("_share() takes a channel, not {}", ffi::type_name(channel))));
            }
            share(ChannelObject::of(channel))?;
        }
        Ok(ffi::none())
    })
}

/// Has the root keep a channel of this process, with what is in it. `reason`: of its end, if it has ended.
fn move_to_root(
    channel: &ChannelObject,
    client: &'static weft_link::Client,
    reason: Option<RemoteCause>,
) -> Py<Arc<Shared>> {
    // One at a time. Whoever waits for it can be stopped meanwhile by the interpreter, which does not wait for them then.
    #[cfg(Py_GIL_DISABLED)]
    let _alone = remote::detached(|| channel.state().place.move_alone());
    #[cfg(Py_GIL_DISABLED)]
    if let Some(shared) = channel.shared.get() {
        return Ok(Arc::clone(shared));
    }
    let all = channel.chan.statistics();
    if client.is_gone() {
        return Err(ffi::runtime_error(&format!(
            "{} cannot go to another process: the one that keeps the shared channels is gone",
            channel.description()
        )));
    }
    let about = About { capacity: all.capacity, overflow: channel.chan.overflow(), name: channel.name() };
    let both = client.create(about);
    let id = both.channel();
    let mut remote = Remote::new(client, both);
    if let Some(hearer) = undelivered::hearer(channel) {
        remote.hear(hearer);
    }
    let mut values = channel.chan.drain().into_iter().map(Parcel::into_wire).peekable();
    loop {
        let (mut some, mut parts) = (Vec::new(), 0);
        while let Some(value) =
            values.next_if(|value| parts == 0 || parts + 1 + value.attachments.len() <= FILLED_AT_ONCE)
        {
            parts += 1 + value.attachments.len();
            some.push(value);
        }
        // When the root has gone in this instant, so has the channel, like every other that it kept.
        if some.is_empty() || client.fill(id, some).is_err() {
            break;
        }
    }
    for (side, count) in [(weft_link::Side::Sender, all.senders), (weft_link::Side::Receiver, all.receivers)] {
        for _ in 0..count.unwrap_or(0) {
            remote.keep(remote.end(side));
        }
    }
    let shared = set_shared(channel, Some(Arc::new(remote)));
    #[cfg(Py_GIL_DISABLED)]
    gather_the_late(channel, client, id);
    // Who waits here is woken to wait there: by itself, for what it waits for may be more than this channel. Bells have no more to do than ring.
    let mut wakers = Vec::new();
    // SAFETY: what is parked is alive.
    channel.chan.waiters(|waiter| wakers.extend(unsafe { waiter.as_ref() }.claim(LOOK).and_then(Claim::finish)));
    wakers.into_iter().for_each(Waker::wake);
    if let (Some(end), _) = channel.chan.end() {
        let _ = remote::detached(|| match end {
            weft_core::chan::End::Poisoned => client.poison(id, reason).map(drop),
            weft_core::chan::End::Closed => client.close(id, reason).map(drop),
            weft_core::chan::End::NoReceivers => {
                if let Some(remote) = &shared.remote {
                    remote.end(weft_link::Side::Receiver).close(reason);
                }
                Ok(())
            }
        });
    }
    Ok(shared)
}

/// Where threads run at the same time another one may have used the channel here after it was emptied, as it could not know better yet. What it
/// has put in comes before all that is sent from now on. Afterwards nobody begins to wait here any more.
#[cfg(Py_GIL_DISABLED)]
#[cold]
fn gather_the_late(channel: &ChannelObject, client: &'static weft_link::Client, id: weft_link::ChannelId) {
    seen_by_all(channel);
    let late: Vec<_> = channel.chan.drain().into_iter().map(Parcel::into_wire).collect();
    if !late.is_empty() {
        // When the root is gone, so is the channel.
        let _ = client.give_back(id, late);
    }
}

/// Makes all that the channel holds fit for other places. The reason of its end, as the root is told it if that is another process.
///
/// No Python code has run between its last look and its return.
fn turn_over(channel: &ChannelObject) -> Py<Option<RemoteCause>> {
    let state = channel.state();
    // What is parked, with a reference each; new operations park with bells already.
    let mut parked = Vec::new();
    channel.chan.waiters(|waiter| {
        // SAFETY: what is parked is alive.
        parked.extend(wake::behind(unsafe { waiter.as_ref() }));
    });
    for op in &parked {
        // SAFETY: an operation, held.
        unsafe { OpObject::of(op.as_ptr()) }.take_bell();
    }
    drop(parked);
    let mut told: Option<(Cause, Option<RemoteCause>)> = None;
    loop {
        if let (_, Some(cause)) = channel.chan.end()
            && told.as_ref().is_none_or(|(known, _)| !Arc::ptr_eq(known, &cause))
        {
            let remote = match remote::link() {
                Some(_) => channel.remote_reason(Some(&cause))?,
                None => None,
            };
            let cause = match channel::local_reason(&cause) {
                Some(known) => {
                    let fit = reason(state, known)?;
                    drop(channel.chan.replace_cause(Arc::clone(&fit)));
                    fit
                }
                None => cause,
            };
            told = Some((cause, remote));
        }
        let mut objects = Vec::new();
        channel.chan.change(|value| {
            if let Some(object) = value.as_object() {
                // SAFETY: what the channel holds is alive.
                objects.push(unsafe { Owned::from_borrowed(object) });
            }
        });
        if objects.is_empty() {
            let (_, cause) = channel.chan.end();
            match (&cause, &told) {
                (None, _) => return Ok(None),
                (Some(cause), Some((known, _))) if Arc::ptr_eq(cause, known) => {
                    return Ok(told.and_then(|(_, remote)| remote));
                }
                // It ended meanwhile.
                _ => continue,
            }
        }
        let mut payloads: HashMap<*mut PyObject, Value> = HashMap::new();
        let mut spare = Vec::new();
        for object in &objects {
            let payload = Value::payload(encode::encode(state, object.clone())?);
            // The same object twice: the second one is found in the next round.
            spare.extend(payloads.insert(object.as_ptr(), payload));
        }
        channel.chan.change(|value| {
            if let Some(object) = value.as_object()
                && let Some(payload) = payloads.remove(&object)
            {
                spare.push(std::mem::replace(value, payload));
            }
        });
    }
}

/// A value for a channel that is shared.
pub fn value(state: &State, object: Owned) -> Py<Value> {
    match Value::in_a_word(object.as_ptr()) {
        Some(value) => {
            state.place.look();
            Ok(value)
        }
        None => encode::encode(state, object).map(Value::payload),
    }
}
