//! Frames of weft-link made of the fuzzer's bytes, and what the two targets put at the other end.
//!
//! An input is a row of frames: a byte of flags, the length of the rest (u16, little-endian), the rest. The header is made from these, so that
//! a mutation is more often in what a frame says than in how long it is. A frame can also be written as it stands, without a header.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use weft_core::chan::{Chan, Overflow};
use weft_core::error::Cause;
use weft_core::select::Policy;
use weft_link::*;

/// The flags: how many descriptors go along,
const DESCRIPTORS: u8 = 0b0000_0011;
/// that they are no blocks that weft-link may map,
const UNSEALED: u8 = 0b0000_0100;
/// how many spilled blocks the header announces,
const SPILLED: u8 = 0b0011_0000;
/// and that there is no header.
const BARE: u8 = 0b1000_0000;

/// How large a block is that is passed.
const BLOCK: u64 = 256 << 10;

static SEALED: LazyLock<OwnedFd> = LazyLock::new(|| block(SealFlags::SHRINK | SealFlags::GROW));
static OPEN: LazyLock<OwnedFd> = LazyLock::new(|| block(SealFlags::empty()));

fn block(seals: SealFlags) -> OwnedFd {
    let block = memfd_create("weft-fuzz", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memory");
    ftruncate(&block, BLOCK).expect("memory");
    fcntl_add_seals(&block, seals).expect("a new block");
    block
}

/// A real frame, as an input of one.
pub fn input(frame: &[u8]) -> Vec<u8> {
    let (header, body) = frame.split_at(8);
    let flags = (header[4] & DESCRIPTORS) | ((header[6] << 4) & SPILLED);
    let length = u16::try_from(body.len()).expect("a short frame");
    [&[flags][..], &length.to_le_bytes(), body].concat()
}

/// The peer of a link that is under test.
pub struct Raw(UnixStream);

impl Raw {
    pub fn new(socket: Socket) -> Self {
        Self(UnixStream::from(OwnedFd::from(socket)))
    }

    /// Writes the frames of an input, then nothing more. An error says that the other side has ended the link.
    pub fn play(&self, mut input: &[u8]) -> io::Result<()> {
        while let Some((&[flags, low, high], rest)) = input.split_first_chunk() {
            let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
            let (body, rest) = rest.split_at(length);
            input = rest;
            if flags & BARE != 0 {
                self.send(body, &[])?;
                continue;
            }
            let count = flags & DESCRIPTORS;
            let block = if flags & UNSEALED == 0 { &*SEALED } else { &*OPEN };
            let header = [&(length as u32).to_le_bytes()[..], &[count, 0], &[(flags & SPILLED) >> 4, 0]].concat();
            self.send(&[&header, body].concat(), &vec![block.as_fd(); usize::from(count)])?;
        }
        self.0.shutdown(Shutdown::Write)
    }

    /// Writes a frame of its own.
    pub fn send(&self, mut bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS as usize))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        while !bytes.is_empty() {
            let sent = sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
            control.clear();
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Reads a frame with its header; `None`: there is none any more.
    pub fn read(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 8];
        self.0.read_exact(&mut frame).ok()?;
        let length = u32::from_le_bytes(*frame.first_chunk()?);
        frame.resize(8 + length as usize, 0);
        self.0.read_exact(&mut frame[8..]).ok()?;
        Some(frame)
    }
}

/// A value, which [`Root::empty`] can take to pieces wherever it is: it may be in the buffer of a channel that it keeps alive itself.
pub struct Value(Arc<Mutex<Wire>>);

static VALUES: Mutex<Vec<Weak<Mutex<Wire>>>> = Mutex::new(Vec::new());

fn values() -> std::sync::MutexGuard<'static, Vec<Weak<Mutex<Wire>>>> {
    VALUES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn content(wire: &Mutex<Wire>) -> Wire {
    std::mem::take(&mut *wire.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Parcel for Value {
    fn into_wire(self) -> Wire {
        content(&self.0)
    }
    fn from_wire(wire: Wire) -> Self {
        let value = Arc::new(Mutex::new(wire));
        values().push(Arc::downgrade(&value));
        Self(value)
    }
    fn copied(&self, most: usize) -> Option<Self> {
        let wire = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let plain = wire.attachments.is_empty() && wire.bytes.len() <= most;
        plain.then(|| Self(Arc::new(Mutex::new(Wire { bytes: wire.bytes.to_vec().into(), attachments: Vec::new() }))))
    }
}

struct Log(Mutex<Sender<Departure>>);

impl Host<Value> for Log {
    fn cause_bytes(&self, cause: &Cause) -> Vec<u8> {
        cause.to_string().into_bytes()
    }
    fn undelivered(&self, _: &Arc<Chan<Value>>, values: Vec<Value>) {
        drop(values);
    }
    fn cause_of_death(&self, _: PeerId, _: &Departure) -> Option<Cause> {
        Some(Arc::new(RemoteCause(b"died".to_vec())))
    }
    fn gone(&self, _: PeerId, departure: Departure) {
        // Nobody may want to know.
        let _ = self.0.lock().expect("no panic").send(departure);
    }
}

/// A root with three channels, of which its one peer holds ends: 2 is a rendezvous, 4 and 6 are bounded.
pub struct Root {
    pub channels: Vec<Arc<Chan<Value>>>,
    pub departure: Receiver<Departure>,
    _hub: Hub<Value>,
}

impl Root {
    pub fn new() -> (Self, Raw) {
        let (tell, departure) = channel();
        let hub = Hub::new(Arc::new(Log(Mutex::new(tell))));
        let (mut channels, mut attachments) = (Vec::new(), Vec::new());
        for (capacity, overflow) in [(0, Overflow::Block), (8, Overflow::Block), (2, Overflow::DropOldest)] {
            let chan = Arc::new(Chan::new(Some(capacity), overflow));
            assert!(chan.add_sender() && chan.add_receiver());
            let about = About { capacity: Some(capacity), overflow, name: "fuzzed".into() };
            let end = hub.end(&chan, Arc::new(about));
            attachments.extend([Side::Sender, Side::Receiver].map(|side| Attachment::End(end.open(side))));
            attachments.push(Attachment::End(end));
            channels.push(chan);
        }
        let (ours, theirs) = Socket::pair().expect("a socket");
        hub.add_peer(ours, Wire { bytes: Bytes::default(), attachments }).expect("a thread");
        (Self { channels, departure, _hub: hub }, Raw::new(theirs))
    }

    /// Takes apart whatever is still buffered, so that the ends in it are closed.
    pub fn empty() {
        // One may hold the last share of another, which is then gone when its turn comes.
        for value in std::mem::take(&mut *values()) {
            drop(value.upgrade().map(|value| content(&value)));
        }
    }
}

/// What became of the operations that [`begin`] has begun, by their numbers.
pub struct Mailbox(Mutex<Sender<(usize, Answer)>>);

impl Completion for Mailbox {
    fn complete(&self, token: usize, answer: Answer) {
        self.0.lock().expect("no panic").send((token, answer)).expect("the answers are awaited");
    }
}

/// How many operations [`begin`] begins.
pub const OPERATIONS: usize = 6;

/// Has a client that holds the ends of a [`Root`] begin operations of each kind, with the numbers from 0 on.
pub fn begin(client: &Client) -> Receiver<(usize, Answer)> {
    let (tell, answers) = channel();
    let mailbox: Arc<dyn Completion> = Arc::new(Mailbox(Mutex::new(tell)));
    let value = |n: u8| Wire { bytes: vec![n; 5].into(), attachments: vec![Attachment::Memory(Arc::new(vec![n; 3]))] };
    let operations: [Vec<Case>; OPERATIONS] = [
        vec![Case { channel: 2, action: Action::Recv }],
        vec![Case { channel: 4, action: Action::SendMany(vec![value(1), value(2), value(3)]) }],
        vec![Case { channel: 6, action: Action::Send(value(4)) }],
        vec![Case { channel: 2, action: Action::Recv }, Case { channel: 4, action: Action::Recv }],
        vec![Case { channel: 6, action: Action::RecvMany(7) }],
        vec![Case { channel: 2, action: Action::Send(value(5)) }, Case { channel: 6, action: Action::Recv }],
    ];
    for (token, cases) in operations.into_iter().enumerate() {
        let policy = if token % 2 == 0 { Policy::Random } else { Policy::Priority };
        let id = client.submit(Operation { policy, park: token != 4, cases }, token, &mailbox).expect("linked");
        assert_eq!(id, token as u64);
    }
    answers
}
