//! Values of a shared channel that nobody will receive, on their way to the `on_undelivered` of the place that the channel was made in.
//!
//! Whoever drops them, another place or a thread of a link, leaves them in that place's box (`place`), whose listening thread makes the call. A
//! channel that another process made is in the root, which sends them there.
//!
//! Who is to be told is found by the channel's address. An object that hears is entered before its channel is shared, and goes before it
//! lets go of the channel; and what waits to be told holds the channel, too: so no other channel has that address meanwhile.

use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use weft_core::chan::Chan;
use weft_link::{Hearer, Parcel};

use super::place::{self, Place};
use super::remote;
use crate::channel::ChannelObject;
use crate::ffi::{Owned, Py, c};
use crate::value::Value;

type Places = Mutex<HashMap<usize, Arc<Place>>>;

/// The places of all objects that hear, in this process; null: there are none yet.
static PLACES: AtomicPtr<Places> = AtomicPtr::new(ptr::null_mut());

fn places(made: bool) -> Option<MutexGuard<'static, HashMap<usize, Arc<Place>>>> {
    // Acquire pairs with the Release of the exchange below.
    let mut places = PLACES.load(Ordering::Acquire);
    if places.is_null() {
        if !made {
            return None;
        }
        let new = Box::into_raw(Box::<Places>::default());
        match PLACES.compare_exchange(ptr::null_mut(), new, Ordering::Release, Ordering::Acquire) {
            Ok(_) => places = new,
            Err(others) => {
                // SAFETY: just made, and known to nobody.
                drop(unsafe { Box::from_raw(new) });
                places = others;
            }
        }
    }
    // SAFETY: it is never freed.
    Some(unsafe { &*places }.lock().unwrap_or_else(|e| e.into_inner()))
}

/// This is a forked child. The lock may be held by a thread that is not here, and the places are the parent's.
pub fn after_fork() {
    PLACES.store(ptr::null_mut(), Ordering::Release);
}

pub fn address(chan: &Arc<Chan<Value>>) -> usize {
    Arc::as_ptr(chan).addr()
}

/// The channel is about to be shared: if the object hears, it is found from now on.
pub fn listen(channel: &ChannelObject) -> Py<()> {
    if !channel.hears() {
        return Ok(());
    }
    let state = channel.state();
    place::need_listener(state)?;
    // SAFETY: a live object that can be referred to weakly.
    let weak = unsafe { Owned::from_new(c::PyWeakref_NewRef(channel.as_ptr(), ptr::null_mut())) }?;
    let address = address(&channel.chan);
    drop(state.place.set_hearer(address, Some(weak)));
    if let Some(mut places) = places(true) {
        places.insert(address, Arc::clone(&state.place));
    }
    Ok(())
}

/// The object is about to let go of the channel.
pub fn listen_no_more(channel: &ChannelObject) {
    // A channel that was never shared is in no map.
    if !channel.hears() || channel.is_inherited() {
        return;
    }
    let address = address(&channel.chan);
    let place = places(false).and_then(|mut places| places.remove(&address));
    drop(place.and_then(|place| place.set_hearer(address, None)));
}

/// Who is told by the link, of an object that hears and whose channel goes to the root.
pub fn hearer(channel: &ChannelObject) -> Option<Hearer> {
    let (place, chan) = (Arc::clone(&channel.state().place), Arc::clone(&channel.chan));
    channel.hears().then(|| Arc::new(move |wire| place.hand_over(&chan, [Value::from_wire(wire)])) as Hearer)
}

/// Tells the place that the channel was made in, if an object there hears. The values are fit for every place.
pub fn tell(chan: &Arc<Chan<Value>>, values: impl IntoIterator<Item = Value>) {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return;
    }
    let place = places(false).and_then(|places| places.get(&address(chan)).cloned());
    match (place, remote::known_hub()) {
        (Some(place), _) => place.hand_over(chan, values),
        (None, Some(hub)) => hub.undelivered(chan, values),
        (None, None) => values.for_each(drop),
    }
}
