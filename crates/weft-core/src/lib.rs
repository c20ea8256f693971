//! Communicating sequential processes: channels, select and timers for threads and futures.
//!
//! One channel works between threads, between tasks of any executor, and between both. Every operation is a value: it is performed by
//! blocking the thread with [`wait`](op::Op::wait), by `.await`, or as one case of a [`select`](select()), in which sends and receives
//! of any types, timers and barriers stand side by side and exactly one happens. Waiting allocates nothing; cancelling, timing
//! out or dropping a future never loses a value.
//!
//! # Channels
//!
//! ```
//! use weft_core::channel;
//!
//! let (tx, rx) = channel(0); // a rendezvous; `channel(8)` has room for eight values, `unbounded()` for any number
//! let sender = std::thread::spawn(move || {
//!     for word in ["warp", "weft"] {
//!         tx.send(word).wait().unwrap(); // returns when somebody took it
//!     }
//! }); // the last sender goes: the channel closes
//! assert_eq!((&rx).into_iter().collect::<Vec<_>>(), ["warp", "weft"]);
//! assert!(rx.recv().wait().is_err());
//! # sender.join().unwrap();
//! ```
//!
//! # Futures
//!
//! ```
//! use weft_core::channel;
//!
//! let (tx, rx) = channel(1);
//! std::thread::spawn(move || tx.send(7).wait().unwrap()); // a thread feeds a task
//! let answer = pollster::block_on(async { rx.recv().await.unwrap() });
//! assert_eq!(answer, 7);
//! ```
//!
//! # Select
//!
//! ```
//! use std::time::Duration;
//! use weft_core::{after, channel, select};
//!
//! let ((news, inbox), (outbox, post)) = (channel::<&str>(0), channel::<u32>(0));
//! let (mut word, mut number, mut late) = (inbox.recv(), outbox.send(7), after(Duration::from_secs(60)));
//! let neighbour = std::thread::spawn(move || post.recv().wait());
//!
//! match select(&mut [&mut word, &mut number, &mut late]).wait() {
//!     0 => println!("{}", word.wait().unwrap()),
//!     1 => println!("sent: {:?}", number.wait().is_ok()),
//!     _ => println!("a minute without news"),
//! }
//! assert_eq!(neighbour.join().unwrap(), Ok(7));
//! # drop(news);
//! ```
//!
//! [`select_pinned`] is the same for futures, [`Standing`] serves very many receivers.
//!
//! # What you can rely on
//!
//! * A sender's values arrive in order, who waits is served first come, first served, and a newcomer never overtakes.
//! * A value is always in one place: received, in the channel, or back with its sender. A receive that had happened when its future was dropped
//!   gives the value back to the front of the channel.
//! * No value is dropped, no waker called and nothing else of yours run while a lock is held.
//! * Nothing polls. A thread that waits is parked; the only thread ever started serves timers on which *futures* wait.
//!
//! # The raw layer
//!
//! [`chan`], [`waiter`], [`waitq`], [`select`](mod@select), [`selecting`] and [`barrier`] are what the above is made of: for those who bring their own way
//! to wait, such as the Python extension.
#![warn(missing_docs)]

pub mod barrier;
pub mod chan;
mod choice;
mod endpoint;
pub mod error;
pub mod op;
mod park;
mod primitives;
mod recv;
pub mod select;
pub mod selecting;
mod send;
mod standing;
mod timer;
pub mod waiter;
pub mod waitq;

pub use barrier::Barrier;
pub use chan::{End, Overflow, Statistics};
pub use choice::{Select, SelectPinned, select, select_pinned, select_pinned_local};
pub use endpoint::{Channel, IntoIter, Iter, Receiver, Sender, channel, unbounded};
pub use error::{Cause, RecvError, SendError, SyncError};
pub use op::Event;
pub use selecting::Key;
pub use standing::{NextServed, Served, Standing};
pub use timer::{Tick, after, at, tick};

/// The operations by name, all of them kinds of [`Op`](op::Op).
pub mod operation {
    pub use crate::barrier::Sync;
    pub use crate::recv::{Recv, RecvMany};
    pub use crate::send::{Batch, Send, SendMany};
    pub use crate::timer::{TickRecv, Timer};
}
