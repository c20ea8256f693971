//! A root and its children in one process: what the link cannot tell from several.
#![allow(dead_code)] // Each test file uses its own part.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};

use weft_core::chan::{Chan, Outcome, Overflow};
use weft_core::error::Cause;
use weft_core::select::Policy;
use weft_link::*;

/// A value of the tests: whatever a wire carries.
#[derive(Debug)]
pub struct Value(pub Wire);

impl Parcel for Value {
    fn into_wire(self) -> Wire {
        self.0
    }
    fn from_wire(wire: Wire) -> Self {
        Self(wire)
    }
    fn copied(&self, most: usize) -> Option<Self> {
        let plain = self.0.attachments.is_empty() && self.0.bytes.len() <= most;
        plain.then(|| Self(Wire { bytes: self.0.bytes.to_vec().into(), attachments: Vec::new() }))
    }
}

pub fn number(n: u64) -> Wire {
    Wire { bytes: n.to_le_bytes().to_vec().into(), attachments: Vec::new() }
}

pub fn with_end(end: End) -> Wire {
    Wire { bytes: Bytes::default(), attachments: vec![Attachment::End(end)] }
}

pub fn read(wire: &Wire) -> u64 {
    u64::from_le_bytes(wire.bytes[..8].try_into().unwrap())
}

pub fn end_of(wire: Wire) -> End {
    match wire.attachments.into_iter().next() {
        Some(Attachment::End(end)) => end,
        other => panic!("no end but {other:?}"),
    }
}

/// What the hub told its host.
#[derive(Default)]
pub struct Log {
    gone: Mutex<HashMap<PeerId, Departure>>,
    changed: Condvar,
    pub undelivered: Mutex<Vec<u64>>,
    /// What dropped them.
    pub dropping: Mutex<Vec<Arc<Chan<Value>>>>,
}

impl Log {
    /// Waits until the peer is gone.
    pub fn gone(&self, peer: PeerId) -> Departure {
        let mut gone = self.gone.lock().unwrap();
        loop {
            match gone.remove(&peer) {
                Some(departure) => return departure,
                None => gone = self.changed.wait(gone).unwrap(),
            }
        }
    }
}

impl Host<Value> for Log {
    fn cause_bytes(&self, cause: &Cause) -> Vec<u8> {
        cause.to_string().into_bytes()
    }
    fn undelivered(&self, chan: &Arc<Chan<Value>>, values: Vec<Value>) {
        self.dropping.lock().unwrap().push(chan.clone());
        self.undelivered.lock().unwrap().extend(values.iter().map(|value| read(&value.0)));
    }
    fn cause_of_death(&self, _: PeerId, _: &Departure) -> Option<Cause> {
        Some(Arc::new(RemoteCause(b"died".to_vec())))
    }
    fn gone(&self, peer: PeerId, departure: Departure) {
        self.gone.lock().unwrap().insert(peer, departure);
        self.changed.notify_all();
    }
}

pub struct Root {
    pub hub: Hub<Value>,
    pub log: Arc<Log>,
}

impl Root {
    pub fn new() -> Self {
        let log = Arc::new(Log::default());
        Self { hub: Hub::new(log.clone()), log }
    }

    /// A channel of the root's, and an uncounted end of it.
    pub fn channel(&self, capacity: impl Into<Option<usize>>) -> (Arc<Chan<Value>>, End) {
        self.channel_with(capacity, Overflow::Block)
    }

    pub fn channel_with(&self, capacity: impl Into<Option<usize>>, overflow: Overflow) -> (Arc<Chan<Value>>, End) {
        let capacity = capacity.into();
        let chan = Arc::new(Chan::new(capacity, overflow));
        let end = self.hub.end(&chan, Arc::new(About { capacity, overflow, name: "test".into() }));
        (chan, end)
    }

    /// A child that holds these ends.
    pub fn child(&self, ends: impl IntoIterator<Item = End>) -> Child {
        let (ours, theirs) = Socket::pair().unwrap();
        let attachments = ends.into_iter().map(Attachment::End).collect();
        let peer = self.hub.add_peer(ours, Wire { bytes: Bytes::default(), attachments }).unwrap();
        let (client, start) = Client::connect(theirs).unwrap();
        Child::new(client, start, peer)
    }
}

/// A child, whose operations this thread performs.
pub struct Child {
    pub client: Client,
    pub ends: Vec<End>,
    pub peer: PeerId,
    completion: Arc<dyn Completion>,
    pub answers: Receiver<(usize, Answer)>,
}

pub struct Mailbox(pub Mutex<Sender<(usize, Answer)>>);

impl Completion for Mailbox {
    fn complete(&self, token: usize, answer: Answer) {
        // The test may be over.
        let _ = self.0.lock().unwrap().send((token, answer));
    }
}

impl Child {
    pub fn new(client: Client, start: Wire, peer: PeerId) -> Self {
        let ends = start.attachments.into_iter().map(|attachment| match attachment {
            Attachment::End(end) => end,
            other @ Attachment::Memory(_) => panic!("{other:?}"),
        });
        let (sender, answers) = channel();
        let completion = Arc::new(Mailbox(Mutex::new(sender)));
        Self { client, ends: ends.collect(), peer, completion, answers }
    }

    /// The channel of the first end it was given, and so on.
    pub fn channel(&self, index: usize) -> ChannelId {
        self.ends[index].channel()
    }

    pub fn submit(&self, token: usize, park: bool, cases: Vec<Case>) -> u64 {
        let operation = Operation { policy: Policy::Random, park, cases };
        self.client.submit(operation, token, &self.completion).unwrap()
    }

    pub fn begin(&self, token: usize, channel: ChannelId, action: Action) -> u64 {
        self.submit(token, true, vec![Case { channel, action }])
    }

    /// Waits for the next answer.
    pub fn answer(&self) -> (usize, Answer) {
        self.answers.recv().unwrap()
    }

    pub fn decided(&self) -> Decided {
        match self.answer().1 {
            Answer::Decided(decided) => decided,
            other => panic!("{other:?}"),
        }
    }

    pub fn perform(&self, channel: ChannelId, action: Action) -> Decided {
        self.begin(0, channel, action);
        self.decided()
    }

    pub fn send(&self, channel: ChannelId, n: u64) -> Outcome {
        self.perform(channel, Action::Send(number(n))).outcome
    }

    pub fn recv(&self, channel: ChannelId) -> Result<u64, Outcome> {
        let decided = self.perform(channel, Action::Recv);
        decided.received.first().map(read).ok_or(decided.outcome)
    }

    /// Returns when the root has read all that was sent so far.
    pub fn settle(&self) {
        let _ = self.client.len(0);
    }
}

pub fn send(channel: ChannelId, n: u64) -> Case {
    Case { channel, action: Action::Send(number(n)) }
}

pub fn recv(channel: ChannelId) -> Case {
    Case { channel, action: Action::Recv }
}

/// A generator of numbers that is the same in each run (xorshift64, Marsaglia 2003).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}
