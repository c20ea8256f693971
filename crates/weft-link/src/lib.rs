//! Channels shared between OS processes: one process, the *root*, decides, the others ask it.
//!
//! A shared channel is one [`Chan`](weft_core::chan::Chan) in the root. A child has no channel but a number for it: an operation is
//! a request, which stands in the root's queues like everybody else's and is answered when it was decided. So a select, a close
//! or a cancel is decided in one place, under weft-core's locks, whichever processes take part, and two children meet
//! in the root.
//!
//! ```text
//!   child                                root                                  child
//!   Client ---- Operation, Call ---->  Hub: a Party per operation  <---------- Client
//!          <--- Decided, Answer -----  in the queues of a Chan     ---------->
//! ```
//!
//! * [`Hub`] is the root's side, [`Client`] a child's. Between them is a [`Socket`], half of a connected pair.
//! * A value crosses as a [`Wire`]; what the values of a channel are is for the embedding program to say ([`Parcel`]).
//! * An [`End`] is a channel's end that can travel: the root counts it, and takes the count back when the child closes it or dies.
//! * 64 KiB and more travel as memory, not as bytes: one copy, made by the sender ([`Memory`]), into a block that is used again
//!   when the receiver has let go of it.
//!
//! # What does not happen
//!
//! Nobody waits for a peer to read: what does not fit into the socket is queued, and a thread of the link's writes it when there is
//! room (outbox.rs). That queue needs no limit of its own. What a child sends is at most one request for each operation it has begun and not
//! heard of, and it is the child's program that holds these, and what it was promised room for (ahead.rs); what the root sends is at most one
//! answer for each of those requests. A value is in the queue only when it was decided for this peer, or lent with one that was, so a peer that
//! stops asking is sent nothing.
//!
//! Nothing polls, and nothing has a timeout: a peer is gone when its socket says so. What a process received and did not live to
//! use is gone with it; what it had parked is withdrawn, and what it held is closed.
//!
//! Linux and macOS. Elsewhere [`Socket::pair`] is an error, and there is no other way to begin.

mod ahead;
mod blocks;
mod client;
mod end;
mod frame;
mod hub;
mod inbox;
mod memory;
mod operation;
mod os;
mod outbox;
mod party;
mod reading;

pub use ahead::Ahead;
pub use client::Client;
pub use end::{About, ChannelId, End, Side};
pub use hub::{Departure, Host, Hub, PeerId};
pub use memory::{Attachment, Bytes, LARGE, Memory, Parcel, Wire};
pub use operation::{Action, Answer, Case, Completion, Decided, Gone, Hearer, Operation, RemoteCause, SubmitError};
pub use os::Socket;
pub use reading::Lead;
