//! The frames that pass through the socket, as bytes.
//!
//! ```text
//!   header   length of all that follows (u32), descriptors (u16), spilled blocks (u16)
//!   spilled  each: its length (u64), its bytes
//!   body     a byte that says what it is, then its fields
//! ```
//!
//! Numbers are little-endian and of fixed width. What stands in the body as a new block is, in order, one of the descriptors that came
//! with the frame, or one of the spilled ones: a frame whose descriptors the system would not carry has them as bytes instead. A block
//! that the reader has is named by its number (blocks.rs).
//!
//! A frame is read as if its writer were an enemy: lengths are believed only as far as there are bytes, and what makes no sense is
//! [`Broken`], which ends the link.

use std::sync::Arc;

use weft_core::chan::{End as Ended, Outcome, Overflow, Statistics};
use weft_core::select::Policy;

use crate::ahead::Lease;
use crate::blocks::{Blocks, Notice, Outgoing};
use crate::end::{About, ChannelId, End, Side};
use crate::memory::{Attachment, Bytes, LARGE, Memory, Wire};
use crate::operation::{Action, Case, Decided, Operation, RemoteCause};
use crate::os::{self, Descriptor, Passed};

/// The length of a header.
pub(crate) const HEADER: usize = 8;
/// How many bytes may follow a header.
pub(crate) const LIMIT: usize = 1 << 30;
/// How many descriptors go with one frame; further blocks go as bytes.
pub(crate) const MOST_BLOCKS: usize = 64;

/// A peer that does not keep to the protocol: why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Broken(pub(crate) &'static str);

/// A frame to be written.
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    /// What is still to go with it: new blocks, and how many bytes of each belong to the value.
    pub(crate) blocks: Vec<(Passed, usize)>,
    /// The numbers of the blocks that are lent with it, and which of them are new.
    pub(crate) lent: Vec<(u64, bool)>,
    /// The ends that leave with it.
    pub(crate) ends: Vec<(ChannelId, Side)>,
}

impl Frame {
    /// Bytes in place of descriptors.
    pub(crate) fn spill(&mut self) -> std::io::Result<()> {
        let mut bytes = vec![0; HEADER];
        for (passed, len) in &self.blocks {
            bytes.extend((*len as u64).to_le_bytes());
            passed.copy_into(*len, &mut bytes)?;
        }
        let blocks = std::mem::take(&mut self.blocks).len() as u16;
        bytes.extend_from_slice(&self.bytes[HEADER..]);
        header(&mut bytes, 0, blocks);
        self.bytes = bytes;
        Ok(())
    }

    /// Whether it is longer than the reader will accept.
    pub(crate) fn too_large(&self) -> Option<usize> {
        let size = self.bytes.len() - HEADER;
        (size > LIMIT).then_some(size)
    }
}

/// What is to be said of blocks, in either direction.
pub(crate) fn notices(notices: &[Notice]) -> Frame {
    let mut writer = Writer::new(&NoValues);
    writer.u8(NOTICES);
    writer.count(notices.len());
    for notice in notices {
        let (kind, number) = match *notice {
            Notice::Returned(number) => (0, number),
            Notice::Retired(number) => (1, number),
            Notice::Forgotten(number) => (2, number),
        };
        writer.u8(kind);
        writer.u64(number);
    }
    writer.finish()
}

fn header(bytes: &mut [u8], descriptors: u16, spilled: u16) {
    let length = bytes.len() - HEADER;
    // A length that does not fit is never written: `too_large`.
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[4..6].copy_from_slice(&descriptors.to_le_bytes());
    bytes[6..8].copy_from_slice(&spilled.to_le_bytes());
}

/// A header that was read.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) length: usize,
    pub(crate) descriptors: usize,
    pub(crate) spilled: usize,
}

impl Header {
    pub(crate) fn read(bytes: &[u8; HEADER]) -> Result<Self, Broken> {
        let [a, b, c, d, e, f, g, h] = *bytes;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let descriptors = usize::from(u16::from_le_bytes([e, f]));
        let spilled = usize::from(u16::from_le_bytes([g, h]));
        if length > LIMIT {
            return Err(Broken("a frame longer than the limit"));
        }
        if descriptors > MOST_BLOCKS || spilled > MOST_BLOCKS {
            return Err(Broken("a frame with more blocks than the limit"));
        }
        Ok(Self { length, descriptors, spilled })
    }
}

/// Ends as numbers, and back: what one side of a link does when an end leaves or arrives.
pub(crate) trait Ends {
    /// Takes the end out of this side's book.
    fn export(&self, end: End) -> (ChannelId, Side, Arc<About>);
    /// Enters an end into this side's book; `None`: the peer cannot have held it.
    fn import(&self, channel: ChannelId, side: Side, about: About) -> Option<End>;
    /// The blocks of the link; `None`: it has none.
    fn blocks(&self) -> Option<&Arc<Blocks>>;
}

/// For what carries no values, so neither ends nor blocks.
pub(crate) struct NoValues;

impl Ends for NoValues {
    fn export(&self, end: End) -> (ChannelId, Side, Arc<About>) {
        unreachable!("{end:?} in a frame without values")
    }
    fn import(&self, _: ChannelId, _: Side, _: About) -> Option<End> {
        None
    }
    fn blocks(&self) -> Option<&Arc<Blocks>> {
        None
    }
}

/// The first byte of a frame of notices, as a request and as a reply.
const NOTICES: u8 = 8;

/// What a child sends.
#[derive(Debug)]
pub(crate) enum Request {
    Operation {
        id: u64,
        operation: Operation,
    },
    Withdraw {
        id: u64,
    },
    Create {
        channel: ChannelId,
        about: About,
    },
    Fill {
        channel: ChannelId,
        values: Vec<Wire>,
    },
    /// Values that were received and not taken up, in the order in which they came.
    GiveBack {
        channel: ChannelId,
        values: Vec<Wire>,
    },
    Open {
        channel: ChannelId,
        side: Side,
    },
    Close {
        channel: ChannelId,
        side: Side,
        cause: Option<RemoteCause>,
    },
    Call {
        id: u64,
        channel: ChannelId,
        question: Question,
    },
    /// A value for which there is room promised.
    Put {
        channel: ChannelId,
        value: Wire,
    },
    /// Something that was lent was taken, which was to be told.
    Taken {
        channel: ChannelId,
    },
    /// A barrier, which nobody else will know.
    Barrier {
        barrier: ChannelId,
        parties: usize,
    },
    /// Nobody needs the barrier any more.
    Scrap {
        barrier: ChannelId,
    },
    /// Of a channel that was made here: what is dropped of it is to be handed over.
    Hear {
        channel: ChannelId,
    },
    Leave,
    Notices(Vec<Notice>),
}

/// What a child asks about a channel, to be answered at once.
#[derive(Debug)]
pub(crate) enum Question {
    Close(Option<RemoteCause>),
    Poison(Option<RemoteCause>),
    Statistics,
    Length,
    End,
}

/// What the root sends.
#[derive(Debug)]
pub(crate) enum Reply {
    Start(Wire),
    Decided {
        id: u64,
        decided: Decided,
    },
    WouldBlock {
        id: u64,
    },
    Withdrawn {
        id: u64,
    },
    Said {
        id: u64,
        said: Said,
    },
    /// The words in which leases are counted: a descriptor, once.
    Board(Board),
    /// Room is promised.
    Room {
        channel: ChannelId,
        lease: Lease,
    },
    /// Values are lent, in place of all that were lent before.
    Lent {
        channel: ChannelId,
        lease: Lease,
        values: Vec<Wire>,
    },
    /// Dropped, of a channel that was made there.
    Undelivered {
        channel: ChannelId,
        value: Wire,
    },
    Notices(Vec<Notice>),
}

/// The board on its way.
pub(crate) enum Board {
    Passed(Passed),
    /// `None`: the system has not carried it, and there will be no leases.
    Arrived(Option<Descriptor>),
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Board")
    }
}

/// The answer to a question.
#[derive(Debug)]
pub(crate) enum Said {
    /// To a close or poison: whether it was the first.
    First(bool),
    Statistics(Statistics),
    Length(usize),
    End(Option<Ended>, Option<RemoteCause>),
}

impl Request {
    pub(crate) fn write(self, ends: &dyn Ends) -> Frame {
        let mut writer = Writer::new(ends);
        match self {
            Self::Operation { id, operation } => {
                writer.u8(0);
                writer.u64(id);
                writer.u8(match operation.policy {
                    Policy::Random => 0,
                    Policy::Priority => 1,
                });
                writer.u8(u8::from(operation.park));
                writer.count(operation.cases.len());
                for Case { channel, action } in operation.cases {
                    writer.u64(channel);
                    match action {
                        Action::Send(wire) => {
                            writer.u8(0);
                            writer.wire(wire);
                        }
                        Action::SendMany(wires) => {
                            writer.u8(1);
                            writer.wires(wires);
                        }
                        Action::Recv => writer.u8(2),
                        Action::RecvMany(max) => {
                            writer.u8(3);
                            writer.u64(max as u64);
                        }
                        Action::Sync => writer.u8(4),
                    }
                }
            }
            Self::Withdraw { id } => {
                writer.u8(1);
                writer.u64(id);
            }
            Self::Create { channel, about } => {
                writer.u8(2);
                writer.u64(channel);
                writer.about(&about);
            }
            Self::Open { channel, side } => {
                writer.u8(3);
                writer.u64(channel);
                writer.side(side);
            }
            Self::Close { channel, side, cause } => {
                writer.u8(4);
                writer.u64(channel);
                writer.side(side);
                writer.cause(cause);
            }
            Self::Call { id, channel, question } => {
                writer.u8(5);
                writer.u64(id);
                writer.u64(channel);
                match question {
                    Question::Close(cause) => {
                        writer.u8(0);
                        writer.cause(cause);
                    }
                    Question::Poison(cause) => {
                        writer.u8(1);
                        writer.cause(cause);
                    }
                    Question::Statistics => writer.u8(2),
                    Question::Length => writer.u8(3),
                    Question::End => writer.u8(4),
                }
            }
            Self::Leave => writer.u8(6),
            Self::Fill { channel, values } => {
                writer.u8(7);
                writer.u64(channel);
                writer.wires(values);
            }
            Self::GiveBack { channel, values } => {
                writer.u8(9);
                writer.u64(channel);
                writer.wires(values);
            }
            Self::Put { channel, value } => {
                writer.u8(10);
                writer.u64(channel);
                writer.wire(value);
            }
            Self::Taken { channel } => {
                writer.u8(11);
                writer.u64(channel);
            }
            Self::Hear { channel } => {
                writer.u8(12);
                writer.u64(channel);
            }
            Self::Barrier { barrier, parties } => {
                writer.u8(13);
                writer.u64(barrier);
                writer.u64(parties as u64);
            }
            Self::Scrap { barrier } => {
                writer.u8(14);
                writer.u64(barrier);
            }
            Self::Notices(said) => return notices(&said),
        }
        writer.finish()
    }

    pub(crate) fn read(body: Body<'_>, ends: &dyn Ends) -> Result<Self, Broken> {
        let mut reader = Reader { body, ends };
        let request = match reader.u8()? {
            0 => {
                let id = reader.u64()?;
                let policy = match reader.u8()? {
                    0 => Policy::Random,
                    1 => Policy::Priority,
                    _ => return Err(Broken("an unknown policy")),
                };
                let park = reader.bool()?;
                let cases = reader.list(|reader| {
                    let channel = reader.u64()?;
                    let action = match reader.u8()? {
                        0 => Action::Send(reader.wire()?),
                        1 => match reader.wires()? {
                            wires if wires.is_empty() => return Err(Broken("an operation that sends no value")),
                            wires => Action::SendMany(wires),
                        },
                        2 => Action::Recv,
                        3 => Action::RecvMany(reader.size()?),
                        4 => Action::Sync,
                        _ => return Err(Broken("an unknown action")),
                    };
                    Ok(Case { channel, action })
                })?;
                Self::Operation { id, operation: Operation { policy, park, cases } }
            }
            1 => Self::Withdraw { id: reader.u64()? },
            2 => Self::Create { channel: reader.u64()?, about: reader.about()? },
            3 => Self::Open { channel: reader.u64()?, side: reader.side()? },
            4 => Self::Close { channel: reader.u64()?, side: reader.side()?, cause: reader.cause()? },
            5 => {
                let (id, channel) = (reader.u64()?, reader.u64()?);
                let question = match reader.u8()? {
                    0 => Question::Close(reader.cause()?),
                    1 => Question::Poison(reader.cause()?),
                    2 => Question::Statistics,
                    3 => Question::Length,
                    4 => Question::End,
                    _ => return Err(Broken("an unknown question")),
                };
                Self::Call { id, channel, question }
            }
            6 => Self::Leave,
            7 => Self::Fill { channel: reader.u64()?, values: reader.wires()? },
            9 => Self::GiveBack { channel: reader.u64()?, values: reader.wires()? },
            10 => Self::Put { channel: reader.u64()?, value: reader.wire()? },
            11 => Self::Taken { channel: reader.u64()? },
            12 => Self::Hear { channel: reader.u64()? },
            13 => Self::Barrier { barrier: reader.u64()?, parties: reader.size()? },
            14 => Self::Scrap { barrier: reader.u64()? },
            NOTICES => Self::Notices(reader.notices()?),
            _ => return Err(Broken("an unknown request")),
        };
        reader.finish()?;
        Ok(request)
    }
}

impl Reply {
    pub(crate) fn write(self, ends: &dyn Ends) -> Frame {
        let mut writer = Writer::new(ends);
        match self {
            Self::Start(wire) => {
                writer.u8(0);
                writer.wire(wire);
            }
            Self::Decided { id, decided } => {
                writer.u8(1);
                writer.u64(id);
                writer.count(decided.case);
                writer.u8(match decided.outcome {
                    Outcome::Pending => 0,
                    Outcome::Done => 1,
                    Outcome::Full => 2,
                    Outcome::Ended(end) => 3 + ended(end),
                });
                writer.u64(decided.sent as u64);
                writer.wires(decided.received);
                writer.cause(decided.cause);
            }
            Self::WouldBlock { id } => {
                writer.u8(2);
                writer.u64(id);
            }
            Self::Withdrawn { id } => {
                writer.u8(3);
                writer.u64(id);
            }
            Self::Said { id, said } => {
                writer.u8(4);
                writer.u64(id);
                match said {
                    Said::First(first) => {
                        writer.u8(0);
                        writer.u8(u8::from(first));
                    }
                    Said::Statistics(statistics) => {
                        writer.u8(1);
                        writer.u64(statistics.buffered as u64);
                        for number in [statistics.capacity, statistics.senders, statistics.receivers] {
                            writer.optional(number);
                        }
                        writer.u64(statistics.parked_senders as u64);
                        writer.u64(statistics.parked_receivers as u64);
                        for number in [statistics.sent, statistics.received, statistics.dropped] {
                            writer.u64(number);
                        }
                    }
                    Said::Length(length) => {
                        writer.u8(2);
                        writer.u64(length as u64);
                    }
                    Said::End(end, cause) => {
                        writer.u8(3);
                        writer.u8(end.map_or(3, ended));
                        writer.cause(cause);
                    }
                }
            }
            Self::Board(board) => {
                writer.u8(5);
                if let Board::Passed(passed) = board {
                    // Were it spilled, nobody would need its bytes.
                    writer.blocks.push((passed, 0));
                }
            }
            Self::Room { channel, lease } => {
                writer.u8(6);
                writer.u64(channel);
                writer.lease(lease);
            }
            Self::Lent { channel, lease, values } => {
                writer.u8(7);
                writer.u64(channel);
                writer.lease(lease);
                writer.wires(values);
            }
            Self::Undelivered { channel, value } => {
                writer.u8(9);
                writer.u64(channel);
                writer.wire(value);
            }
            Self::Notices(said) => return notices(&said),
        }
        writer.finish()
    }

    pub(crate) fn read(body: Body<'_>, ends: &dyn Ends) -> Result<Self, Broken> {
        let mut reader = Reader { body, ends };
        let reply = match reader.u8()? {
            0 => Self::Start(reader.wire()?),
            1 => {
                let id = reader.u64()?;
                let case = reader.count()?;
                let outcome = match reader.u8()? {
                    0 => Outcome::Pending,
                    1 => Outcome::Done,
                    2 => Outcome::Full,
                    code => Outcome::Ended(reader.ended(code - 3)?),
                };
                let (sent, received, cause) = (reader.size()?, reader.wires()?, reader.cause()?);
                Self::Decided { id, decided: Decided { case, outcome, sent, received, cause } }
            }
            2 => Self::WouldBlock { id: reader.u64()? },
            3 => Self::Withdrawn { id: reader.u64()? },
            4 => {
                let id = reader.u64()?;
                let said = match reader.u8()? {
                    0 => Said::First(reader.bool()?),
                    1 => {
                        let mut statistics = Statistics::default();
                        statistics.buffered = reader.size()?;
                        statistics.capacity = reader.optional()?;
                        statistics.senders = reader.optional()?;
                        statistics.receivers = reader.optional()?;
                        statistics.parked_senders = reader.size()?;
                        statistics.parked_receivers = reader.size()?;
                        statistics.sent = reader.u64()?;
                        statistics.received = reader.u64()?;
                        statistics.dropped = reader.u64()?;
                        Said::Statistics(statistics)
                    }
                    2 => Said::Length(reader.size()?),
                    3 => {
                        let end = match reader.u8()? {
                            3 => None,
                            code => Some(reader.ended(code)?),
                        };
                        Said::End(end, reader.cause()?)
                    }
                    _ => return Err(Broken("an unknown answer")),
                };
                Self::Said { id, said }
            }
            5 => match reader.body.blocks.next() {
                Some(Arrived::Passed(descriptor)) => Self::Board(Board::Arrived(Some(descriptor))),
                Some(Arrived::Spilled(_)) => Self::Board(Board::Arrived(None)),
                None => return Err(Broken("a board without its memory")),
            },
            6 => Self::Room { channel: reader.u64()?, lease: reader.lease()? },
            7 => Self::Lent { channel: reader.u64()?, lease: reader.lease()?, values: reader.wires()? },
            9 => Self::Undelivered { channel: reader.u64()?, value: reader.wire()? },
            NOTICES => Self::Notices(reader.notices()?),
            _ => return Err(Broken("an unknown reply")),
        };
        reader.finish()?;
        Ok(reply)
    }
}

fn ended(end: Ended) -> u8 {
    match end {
        Ended::Closed => 0,
        Ended::NoReceivers => 1,
        Ended::Poisoned => 2,
    }
}

/// What a frame is written with.
struct Writer<'a> {
    bytes: Vec<u8>,
    blocks: Vec<(Passed, usize)>,
    lent: Vec<(u64, bool)>,
    exported: Vec<(ChannelId, Side)>,
    ends: &'a dyn Ends,
}

impl<'a> Writer<'a> {
    fn new(ends: &'a dyn Ends) -> Self {
        let mut bytes = Vec::with_capacity(64);
        bytes.resize(HEADER, 0);
        Self { bytes, blocks: Vec::new(), lent: Vec::new(), exported: Vec::new(), ends }
    }

    fn finish(mut self) -> Frame {
        header(&mut self.bytes, self.blocks.len() as u16, 0);
        Frame { bytes: self.bytes, blocks: self.blocks, lent: self.lent, ends: self.exported }
    }

    fn u8(&mut self, number: u8) {
        self.bytes.push(number);
    }

    fn u64(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    /// How many there are of something of which each takes at least a byte: more than fit are refused as a whole.
    fn count(&mut self, count: usize) {
        self.bytes.extend_from_slice(&(count as u32).to_le_bytes());
    }

    fn lease(&mut self, lease: Lease) {
        self.u64(u64::from(lease.word) << 32 | u64::from(lease.number));
    }

    fn optional(&mut self, number: Option<usize>) {
        self.u8(u8::from(number.is_some()));
        self.u64(number.unwrap_or(0) as u64);
    }

    fn text(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn cause(&mut self, cause: Option<RemoteCause>) {
        self.u8(u8::from(cause.is_some()));
        if let Some(RemoteCause(bytes)) = cause {
            self.text(&bytes);
        }
    }

    fn side(&mut self, side: Side) {
        self.u8(match side {
            Side::Sender => 0,
            Side::Receiver => 1,
            Side::Both => 2,
        });
    }

    fn about(&mut self, about: &About) {
        self.optional(about.capacity);
        self.u8(match about.overflow {
            Overflow::Block => 0,
            Overflow::DropOldest => 1,
            Overflow::DropNewest => 2,
            Overflow::Error => 3,
        });
        self.text(about.name.as_bytes());
    }

    fn wires(&mut self, wires: Vec<Wire>) {
        self.count(wires.len());
        for wire in wires {
            self.wire(wire);
        }
    }

    fn wire(&mut self, wire: Wire) {
        match &wire.bytes {
            Bytes::Inline(bytes) => self.memory(bytes, None),
            Bytes::Block(block) => self.memory(block.as_slice(), Some(block)),
        }
        self.count(wire.attachments.len());
        for attachment in wire.attachments {
            match attachment {
                Attachment::Memory(memory) => {
                    self.u8(0);
                    self.memory(memory.as_slice(), Some(&memory));
                }
                Attachment::End(end) => {
                    self.u8(1);
                    let (channel, side, about) = self.ends.export(end);
                    self.exported.push((channel, side));
                    self.u64(channel);
                    self.side(side);
                    self.about(&about);
                }
            }
        }
    }

    /// Bytes, or a block where they are many and there is one, or a descriptor for a new one.
    fn memory(&mut self, bytes: &[u8], memory: Option<&Arc<dyn Memory>>) {
        if bytes.len() >= LARGE
            && let Some(blocks) = self.ends.blocks()
            && let Some(Outgoing { number, new }) = blocks.lend(bytes, memory, self.blocks.len() < MOST_BLOCKS)
        {
            self.lent.push((number, new.is_some()));
            self.u8(if new.is_some() { 1 } else { 2 });
            self.u64(number);
            self.u64(bytes.len() as u64);
            if let Some((passed, size)) = new {
                self.u64(size as u64);
                self.blocks.push((passed, bytes.len()));
            }
            return;
        }
        self.u8(0);
        self.text(bytes);
    }
}

/// What follows a header, and the blocks that belong to it.
pub(crate) struct Body<'a> {
    rest: &'a [u8],
    blocks: std::vec::IntoIter<Arrived>,
}

/// A block as it arrived.
enum Arrived {
    Passed(Descriptor),
    Spilled(Vec<u8>),
}

impl<'a> Body<'a> {
    pub(crate) fn new(
        header: Header,
        bytes: &'a [u8],
        descriptors: impl Iterator<Item = Descriptor>,
    ) -> Result<Self, Broken> {
        let mut body = Self { rest: bytes, blocks: Vec::new().into_iter() };
        let mut blocks = Vec::new();
        for _ in 0..header.spilled {
            blocks.push(Arrived::Spilled(body.text()?.to_vec()));
        }
        blocks.extend(descriptors.map(Arrived::Passed));
        body.blocks = blocks.into_iter();
        Ok(body)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Broken("a frame that ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn text(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.size()?;
        self.take(length)
    }

    fn size(&mut self) -> Result<usize, Broken> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| Broken("a number beyond the address space"))
    }
}

/// What a frame is read with.
struct Reader<'a, 'e> {
    body: Body<'a>,
    ends: &'e dyn Ends,
}

impl Reader<'_, '_> {
    fn finish(mut self) -> Result<(), Broken> {
        if self.body.rest.is_empty() && self.body.blocks.next().is_none() {
            return Ok(());
        }
        Err(Broken("a frame with something left over"))
    }

    fn u8(&mut self) -> Result<u8, Broken> {
        let [byte] = self.body.array()?;
        Ok(byte)
    }

    fn u64(&mut self) -> Result<u64, Broken> {
        Ok(u64::from_le_bytes(self.body.array()?))
    }

    fn size(&mut self) -> Result<usize, Broken> {
        self.body.size()
    }

    fn count(&mut self) -> Result<usize, Broken> {
        Ok(u32::from_le_bytes(self.body.array()?) as usize)
    }

    fn bool(&mut self) -> Result<bool, Broken> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Broken("neither yes nor no")),
        }
    }

    fn lease(&mut self) -> Result<Lease, Broken> {
        let both = self.u64()?;
        let word = (both >> 32) as u32;
        if word >= os::Board::WORDS {
            return Err(Broken("a word that the board does not have"));
        }
        Ok(Lease { word, number: both as u32 })
    }

    fn optional(&mut self) -> Result<Option<usize>, Broken> {
        let is_some = self.bool()?;
        let number = self.size()?;
        Ok(is_some.then_some(number))
    }

    /// A counted list. Nothing is reserved for what was only announced.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T, Broken>) -> Result<Vec<T>, Broken> {
        let count = self.count()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn cause(&mut self) -> Result<Option<RemoteCause>, Broken> {
        Ok(if self.bool()? { Some(RemoteCause(self.body.text()?.to_vec())) } else { None })
    }

    fn side(&mut self) -> Result<Side, Broken> {
        match self.u8()? {
            0 => Ok(Side::Sender),
            1 => Ok(Side::Receiver),
            2 => Ok(Side::Both),
            _ => Err(Broken("an unknown side")),
        }
    }

    fn ended(&mut self, code: u8) -> Result<Ended, Broken> {
        match code {
            0 => Ok(Ended::Closed),
            1 => Ok(Ended::NoReceivers),
            2 => Ok(Ended::Poisoned),
            _ => Err(Broken("an unknown end")),
        }
    }

    fn about(&mut self) -> Result<About, Broken> {
        let capacity = self.optional()?;
        let overflow = match self.u8()? {
            0 => Overflow::Block,
            1 => Overflow::DropOldest,
            2 => Overflow::DropNewest,
            3 => Overflow::Error,
            _ => return Err(Broken("an unknown overflow policy")),
        };
        let name = std::str::from_utf8(self.body.text()?).map_err(|_| Broken("a name that is no text"))?.to_owned();
        Ok(About { capacity, overflow, name })
    }

    fn wires(&mut self) -> Result<Vec<Wire>, Broken> {
        self.list(Self::wire)
    }

    fn wire(&mut self) -> Result<Wire, Broken> {
        let bytes = match self.memory()? {
            Piece::Inline(bytes) => Bytes::Inline(bytes),
            Piece::Block(block) => Bytes::Block(block),
        };
        let attachments = self.list(|reader| match reader.u8()? {
            0 => Ok(Attachment::Memory(match reader.memory()? {
                Piece::Inline(bytes) => Arc::new(bytes),
                Piece::Block(block) => block,
            })),
            1 => {
                let (channel, side, about) = (reader.u64()?, reader.side()?, reader.about()?);
                let end = reader.ends.import(channel, side, about);
                end.map(Attachment::End).ok_or(Broken("an end that the peer does not hold"))
            }
            _ => Err(Broken("an unknown attachment")),
        })?;
        Ok(Wire { bytes, attachments })
    }

    fn memory(&mut self) -> Result<Piece, Broken> {
        let kind = self.u8()?;
        if kind == 0 {
            return Ok(Piece::Inline(self.body.text()?.to_vec()));
        }
        let blocks = self.ends.blocks().ok_or(Broken("a block on a link that has none"))?;
        let (number, length) = (self.u64()?, self.size()?);
        match kind {
            1 => {
                let size = self.size()?;
                match self.body.blocks.next() {
                    Some(Arrived::Passed(descriptor)) => {
                        let block = blocks.borrow_new(number, size, length, descriptor)?;
                        Ok(block.map_or_else(Piece::Inline, Piece::Block))
                    }
                    Some(Arrived::Spilled(bytes)) if bytes.len() == length => {
                        blocks.refuse(number, size);
                        Ok(Piece::Inline(bytes))
                    }
                    Some(Arrived::Spilled(_)) => Err(Broken("a block of another length than announced")),
                    None => Err(Broken("a block that did not come")),
                }
            }
            2 => blocks.borrow_known(number, length).map(Piece::Block),
            _ => Err(Broken("an unknown kind of memory")),
        }
    }

    fn notices(&mut self) -> Result<Vec<Notice>, Broken> {
        self.list(|reader| {
            let (kind, number) = (reader.u8()?, reader.u64()?);
            match kind {
                0 => Ok(Notice::Returned(number)),
                1 => Ok(Notice::Retired(number)),
                2 => Ok(Notice::Forgotten(number)),
                _ => Err(Broken("an unknown notice")),
            }
        })
    }
}

enum Piece {
    Inline(Vec<u8>),
    Block(Arc<dyn Memory>),
}

#[cfg(test)]
mod tests;
