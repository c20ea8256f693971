//! What a child asks, and what it is answered.

use std::error::Error;
use std::fmt;

use weft_core::chan::Outcome;
use weft_core::select::Policy;

use crate::end::ChannelId;
use crate::memory::Wire;

/// An operation of a child: one case, or several of which exactly one is to commit.
#[derive(Debug)]
pub struct Operation {
    /// Which of several ready cases is taken.
    pub policy: Policy,
    /// Whether it waits when no case is ready. Else it is answered [`Answer::WouldBlock`].
    pub park: bool,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One case of an operation.
#[derive(Debug)]
pub struct Case {
    /// The channel. The child holds an end of it until the operation is answered.
    pub channel: ChannelId,
    /// What is to be done there.
    pub action: Action,
}

/// What a case does.
#[derive(Debug)]
pub enum Action {
    /// Sends a value. Whoever submits it keeps what it needs to give the value back: a send that failed brings nothing back.
    Send(Wire),
    /// Sends one value or more, from the first on: at least one, then as many as there is room for.
    SendMany(Vec<Wire>),
    /// Receives a value.
    Recv,
    /// Receives at least one value, then as many as are there, up to this number. Many large ones come in several batches.
    RecvMany(usize),
    /// Takes part in a barrier ([`Client::barrier`](crate::Client::barrier)), whose number stands for the channel's. How many came before is what was
    /// sent.
    Sync,
}

/// What became of an operation.
#[derive(Debug)]
pub enum Answer {
    /// A case committed, or failed.
    Decided(Decided),
    /// No case was ready, and it was not to wait.
    WouldBlock,
    /// The root is gone, and nobody knows what became of it.
    Gone,
}

/// The case that was decided.
#[derive(Debug)]
pub struct Decided {
    /// Its position in [`Operation::cases`].
    pub case: usize,
    /// [`Outcome::Done`], or why it failed.
    pub outcome: Outcome,
    /// How many values were sent, of one or many.
    pub sent: usize,
    /// What was received.
    pub received: Vec<Wire>,
    /// Why the channel ended, when the case failed and somebody had said why.
    pub cause: Option<RemoteCause>,
}

/// Who is told what became of operations.
pub trait Completion: Send + Sync {
    /// Called once for each submitted operation that was not withdrawn, with the token it was submitted with, by the thread that reads
    /// the link. All else that this process is to be told waits meanwhile, so it must be quick, and must ask nothing of the client
    /// that is answered by the root.
    fn complete(&self, token: usize, answer: Answer);
}

/// Who is handed what was dropped of a channel, by the thread that reads the link; as quick as a [`Completion`].
pub type Hearer = std::sync::Arc<dyn Fn(Wire) + Send + Sync>;

/// The cause of a channel's end as it crosses: bytes, of which the link knows nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteCause(pub Vec<u8>);

impl RemoteCause {
    /// The cause as whoever gave it wrote it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RemoteCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a cause given in another process ({} bytes)", self.0.len())
    }
}

impl Error for RemoteCause {}

/// The root process is gone, or the link to it was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the process that keeps the shared channels is gone")
    }
}

impl Error for Gone {}

/// Why an operation was not submitted. Nothing was done, and nobody will be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubmitError {
    /// The root is gone.
    Gone,
    /// Its values are more than one message carries: send them one by one, or as memory.
    TooLarge {
        /// How many bytes it would be.
        size: usize,
    },
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => Gone.fmt(f),
            Self::TooLarge { size } => write!(
                f,
                "the values are {size} bytes in one message, which carries {} at most: send fewer at a time",
                crate::frame::LIMIT
            ),
        }
    }
}

impl Error for SubmitError {}
