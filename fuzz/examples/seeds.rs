//! Writes what a real child and a real root say to each other into the corpora of the targets `requests` and `replies`.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use weft_core::chan::Overflow;
use weft_fuzz::link::{OPERATIONS, Raw, Root, begin, input};
use weft_link::*;

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let (root, mut peer) = Root::new();
    let start = peer.read().expect("the start");
    let asked = requests(&start);
    // A real root answers them. Where a block is meant, the descriptor of one goes along.
    let whole = asked.iter().flat_map(|frame| input(frame)).collect::<Vec<_>>();
    peer.play(&whole).expect("a root that reads on");
    let answered: Vec<_> = std::iter::from_fn(|| peer.read()).collect();
    root.departure.recv().expect("the root is told of the end");
    Root::empty();
    assert!(answered.len() > OPERATIONS, "only {} answers", answered.len());
    write(&corpus.join("requests"), &asked);
    write(&corpus.join("replies"), &[answered, vec![dropped()]].concat());
}

/// What a child writes that does something of everything.
fn requests(start: &[u8]) -> Vec<Vec<u8>> {
    let (ours, theirs) = Socket::pair().expect("a socket");
    let mut root = Raw::new(ours);
    root.send(start, &[]).expect("room");
    let (client, _start) = Client::connect(theirs).expect("a start");
    let answers = begin(&client);
    let about = About { capacity: Some(3), overflow: Overflow::DropNewest, name: "made by the child".into() };
    let end = client.create(about);
    client.hear(end.channel(), Arc::new(drop));
    let (sender, receiver) = (end.open(Side::Sender), end.open(Side::Receiver));
    let bytes = |n: u8| Wire { bytes: vec![n; 9].into(), attachments: Vec::new() };
    client.fill(end.channel(), vec![bytes(1), bytes(2)]).expect("linked");
    let large = Wire { bytes: vec![7; LARGE].into(), attachments: vec![Attachment::End(receiver)] };
    client.fill(end.channel(), vec![large]).expect("linked");
    client.give_back(4, vec![bytes(3)]).expect("linked");
    sender.close(Some(RemoteCause(b"enough".to_vec())));
    let mut frames = Vec::new();
    let calls: [fn(&Client); 7] = [
        |client| _ = client.withdraw(0),
        |client| _ = client.len(2),
        |client| _ = client.statistics(4),
        |client| _ = client.ended(6),
        |client| _ = client.close(4, Some(RemoteCause(b"over".to_vec()))),
        |client| _ = client.poison(6, None),
        |client| client.leave(),
    ];
    let client = Arc::new(client);
    for call in calls {
        let caller = client.clone();
        // It ends with the link.
        thread::spawn(move || call(&caller));
        frames.extend(until_asked(&mut root, frames.len()));
    }
    drop(root);
    answers.iter().take(OPERATIONS).for_each(drop);
    frames.splice(OPERATIONS..OPERATIONS, ahead().into_iter().chain(barrier()));
    frames
}

/// What goes ahead, as a child would write it that was promised room on channel 4: a value, and that one of those it was lent was taken.
fn ahead() -> [Vec<u8>; 2] {
    let channel = 4_u64.to_le_bytes();
    [framed([&[10][..], &channel, &value()].concat()), framed([&[11][..], &channel].concat())]
}

/// A barrier, two who pass it, and its end.
fn barrier() -> [Vec<u8>; 4] {
    let (barrier, parties) = (99_u64.to_le_bytes(), 2_u64.to_le_bytes());
    let sync = |id: u64| [&[0][..], &id.to_le_bytes(), &[0, 1], &1_u32.to_le_bytes(), &barrier, &[4]].concat();
    let made = [&[13][..], &barrier, &parties].concat();
    [made, sync(77), sync(78), [&[14][..], &barrier].concat()].map(framed)
}

/// What a root would write that dropped a value of channel 3, which the child made.
fn dropped() -> Vec<u8> {
    framed([&[9][..], &3_u64.to_le_bytes(), &value()].concat())
}

fn value() -> Vec<u8> {
    [&[0][..], &3_u64.to_le_bytes(), &[1, 2, 3], &0_u32.to_le_bytes()].concat()
}

fn framed(body: Vec<u8>) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], &[0; 4], &body].concat()
}

/// Reads up to the next call, or all that came before the first one.
fn until_asked(root: &mut Raw, read: usize) -> Vec<Vec<u8>> {
    let before = if read == 0 { OPERATIONS + 8 } else { 0 };
    (0..=before).map(|_| root.read().expect("a request")).collect()
}

fn write(folder: &Path, frames: &[Vec<u8>]) {
    fs::create_dir_all(folder).expect("a corpus");
    let inputs: Vec<_> = frames.iter().map(|frame| input(frame)).collect();
    for (index, bytes) in inputs.iter().enumerate() {
        fs::write(folder.join(format!("frame-{index}")), bytes).expect("a seed");
    }
    fs::write(folder.join("all"), inputs.concat()).expect("a seed");
}
