//! How long a message takes between two processes, beside the bare socket, and how many there are in a second.
//!
//! cargo run --release -p weft-link --example echo

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use weft_core::Channel;
use weft_core::chan::{Chan, Overflow};
use weft_core::error::Cause;
use weft_core::select::Policy;
use weft_link::*;

const IS_CHILD: &str = "WEFT_LINK_CHILD";
const ECHOES: usize = 20_000;
const MESSAGES: usize = 200_000;
const BLOCKS: usize = 100;
const BLOCK: usize = 8 << 20;
const BATCH: usize = 64;

struct Value(Wire);

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

fn small() -> Wire {
    Wire { bytes: vec![7; 16].into(), attachments: Vec::new() }
}

struct Program;

impl Host<Value> for Program {
    fn cause_bytes(&self, cause: &Cause) -> Vec<u8> {
        cause.to_string().into_bytes()
    }
    fn undelivered(&self, _: &Arc<Chan<Value>>, _: Vec<Value>) {}
    fn cause_of_death(&self, _: PeerId, _: &Departure) -> Option<Cause> {
        None
    }
    fn gone(&self, _: PeerId, _: Departure) {}
}

struct Mailbox(Mutex<Sender<Answer>>);

impl Completion for Mailbox {
    fn complete(&self, _: usize, answer: Answer) {
        let _ = self.0.lock().unwrap().send(answer);
    }
}

struct Child {
    client: Client,
    completion: Arc<dyn Completion>,
    answers: Receiver<Answer>,
}

impl Child {
    fn begin(&self, channel: ChannelId, action: Action) {
        let operation = Operation { policy: Policy::Random, park: true, cases: vec![Case { channel, action }] };
        self.client.submit(operation, 0, &self.completion).unwrap();
    }

    fn decided(&self) -> Decided {
        of(self.answers.recv().unwrap())
    }

    fn perform(&self, channel: ChannelId, action: Action) -> Decided {
        self.begin(channel, action);
        self.decided()
    }
}

fn of(answer: Answer) -> Decided {
    match answer {
        Answer::Decided(decided) => decided,
        other => panic!("{other:?}"),
    }
}

fn p50(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn timed(count: usize, mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        f();
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// The child: first the bare socket, then the link.
fn child() -> io::Result<()> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let mut raw = UnixStream::from(input.try_clone()?);
    let mut message = [0; 16];
    let mut times = Vec::new();
    for _ in 0..ECHOES {
        let start = Instant::now();
        raw.write_all(&message)?;
        raw.read_exact(&mut message)?;
        times.push(start.elapsed());
    }
    let bare = p50(times);

    let (client, start) = Client::connect(Socket::new(input)?)?;
    let ends: Vec<End> = start
        .attachments
        .into_iter()
        .filter_map(|attachment| match attachment {
            Attachment::End(end) => Some(end),
            Attachment::Memory(_) => None,
        })
        .collect();
    let [ping, pong, out, inward, blocks_out, blocks_in] = [0, 1, 2, 3, 4, 5].map(|index: usize| ends[index].channel());
    let (sender, answers) = channel();
    let child = Child { client, completion: Arc::new(Mailbox(Mutex::new(sender))), answers };

    let echo = |apart: bool| {
        let mut times = Vec::new();
        for _ in 0..ECHOES {
            let start = Instant::now();
            child.begin(ping, Action::Send(small()));
            if apart {
                child.decided();
            }
            child.begin(pong, Action::Recv);
            child.decided();
            if !apart {
                child.decided();
            }
            times.push(start.elapsed());
        }
        p50(times)
    };
    let (apart, together) = (echo(true), echo(false));
    println!("echo, p50: bare socket {bare:.1} us; send, then receive {apart:.1} us ({:.1} x)", apart / bare);
    println!("           both begun at once {together:.1} us ({:.1} x)", together / bare);

    let one = timed(MESSAGES / 10, || drop(child.perform(out, Action::Send(small()))));
    for _ in 0..BATCH {
        child.begin(out, Action::Send(small()));
    }
    let piped = timed(MESSAGES, || {
        child.decided();
        child.begin(out, Action::Send(small()));
    });
    (0..BATCH).for_each(|_| drop(child.decided()));
    let mut sent = 0;
    let start = Instant::now();
    while sent < 10 * MESSAGES {
        sent += child.perform(out, Action::SendMany((0..BATCH).map(|_| small()).collect())).sent;
    }
    let many = sent as f64 / start.elapsed().as_secs_f64();
    println!(
        "to the root, a second: {one:.0} one by one, {piped:.0} with {BATCH} begun, {many:.0} in batches of {BATCH}"
    );

    let one = timed(MESSAGES / 10, || drop(child.perform(inward, Action::Recv)));
    let mut received = 0;
    let start = Instant::now();
    while received < 10 * MESSAGES {
        received += child.perform(inward, Action::RecvMany(BATCH)).received.len();
    }
    let many = received as f64 / start.elapsed().as_secs_f64();
    println!("from the root, a second: {one:.0} one by one, {many:.0} in batches of at most {BATCH}");

    let block: Arc<dyn Memory> = Arc::new(vec![7_u8; BLOCK]);
    let out = timed(BLOCKS, || {
        let wire = Wire { bytes: Bytes::default(), attachments: vec![Attachment::Memory(block.clone())] };
        child.perform(blocks_out, Action::Send(wire));
    });
    let inward = timed(BLOCKS, || {
        let received = child.perform(blocks_in, Action::Recv).received;
        assert!(matches!(&received[0].attachments[0], Attachment::Memory(memory) if read_through(memory) > 0));
    });
    println!(
        "blocks of 8 MiB, a second: {out:.0} to the root, {inward:.0} from it, each made, passed and read through"
    );
    child.client.leave();
    Ok(())
}

/// Looks at each page.
fn read_through(memory: &Arc<dyn Memory>) -> u64 {
    memory.as_slice().iter().step_by(4096).map(|byte| u64::from(*byte)).sum()
}

fn main() -> io::Result<()> {
    if std::env::var_os(IS_CHILD).is_some() {
        return child();
    }
    let (ours, theirs) = UnixStream::pair()?;
    let mut process =
        Command::new(std::env::current_exe()?).env(IS_CHILD, "1").stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
    let mut raw = ours.try_clone()?;
    let mut message = [0; 16];
    for _ in 0..ECHOES {
        raw.read_exact(&mut message)?;
        raw.write_all(&message)?;
    }

    let hub = Hub::new(Arc::new(Program));
    let mut wire = Wire::default();
    let [ping, pong, out, inward, blocks_out, blocks_in] = [1, 1, 1024, 1024, 1, 1].map(|capacity| {
        let chan = Arc::new(Chan::<Value>::new(Some(capacity), Overflow::Block));
        let about = About { capacity: Some(capacity), overflow: Overflow::Block, name: String::new() };
        wire.attachments.push(Attachment::End(hub.end(&chan, Arc::new(about))));
        Channel::from(chan)
    });
    thread::spawn(move || {
        while let Ok(value) = ping.recv().wait() {
            let _ = pong.send(value).wait();
        }
    });
    thread::spawn(move || while out.recv_many(BATCH).wait().is_ok() {});
    thread::spawn(move || while inward.send(Value(small())).wait().is_ok() {});
    thread::spawn(move || {
        while let Ok(Value(wire)) = blocks_out.recv().wait() {
            assert!(matches!(&wire.attachments[0], Attachment::Memory(memory) if read_through(memory) > 0));
        }
    });
    thread::spawn(move || {
        let block: Arc<dyn Memory> = Arc::new(vec![7_u8; BLOCK]);
        loop {
            let wire = Wire { bytes: Bytes::default(), attachments: vec![Attachment::Memory(block.clone())] };
            let _ = blocks_in.send(Value(wire)).wait();
        }
    });
    hub.add_peer(Socket::new(ours.into())?, wire)?;
    process.wait()?;
    Ok(())
}
