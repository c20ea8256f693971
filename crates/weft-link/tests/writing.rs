//! Nobody waits for a peer to read.
#![cfg(any(target_os = "linux", target_os = "macos"))]

mod common;

use std::io::Read;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use common::*;
use weft_core::Channel;
use weft_link::*;

const MANY: u64 = 300;
const SIZE: usize = 20_000;

fn numbered(n: u64) -> Wire {
    let mut bytes = vec![n as u8; SIZE];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    Wire { bytes: bytes.into(), attachments: Vec::new() }
}

#[test]
fn a_child_that_does_not_read_keeps_nobody_in_the_root_waiting_and_misses_nothing() {
    let root = Root::new();
    let (chan, end) = root.channel(0);
    let (ours, between) = Socket::pair().unwrap();
    let (behind, theirs) = Socket::pair().unwrap();
    let wire = Wire { bytes: Bytes::default(), attachments: vec![Attachment::End(end)] };
    let peer = root.hub.add_peer(ours, wire).unwrap();
    // What the child sends goes through; what it is sent does, too, when the test lets it.
    let (mut up, mut down) = (UnixStream::from(OwnedFd::from(between)), UnixStream::from(OwnedFd::from(behind)));
    let (mut up_too, mut down_too) = (up.try_clone().unwrap(), down.try_clone().unwrap());
    let sluice = std::thread::spawn(move || std::io::copy(&mut down_too, &mut up_too));
    let mut start = [0; 8];
    up.read_exact(&mut start).unwrap();
    let mut rest = vec![0; u32::from_le_bytes(start[..4].try_into().unwrap()) as usize];
    up.read_exact(&mut rest).unwrap();
    std::io::Write::write_all(&mut down, &[&start[..], &rest].concat()).unwrap();
    let (client, start) = Client::connect(theirs).unwrap();
    let child = Child::new(client, start, peer);

    for n in 0..MANY {
        child.begin(n as usize, child.channel(0), Action::Recv);
    }
    // Each of these is more than it looks: it meets a parked receive, and writes the answer. They return although nobody reads.
    let sender = Channel::from(chan.clone());
    for n in 0..MANY {
        assert!(sender.send(Value(numbered(n))).wait().is_ok());
    }
    assert_eq!(chan.statistics().received, MANY);

    let opened = std::thread::spawn(move || {
        // How it ends says nothing.
        let _ = std::io::copy(&mut up, &mut down);
        down.shutdown(Shutdown::Both)
    });
    for _ in 0..MANY {
        let (token, answer) = child.answer();
        let Answer::Decided(decided) = answer else { panic!("{answer:?}") };
        assert_eq!(*decided.received[0].bytes, *numbered(token as u64).bytes);
    }
    child.client.leave();
    assert_eq!(root.log.gone(peer), Departure::Left);
    assert!(opened.join().is_ok() && sluice.join().is_ok());
}

#[test]
fn a_root_that_does_not_read_keeps_no_submitter_waiting() {
    let (ours, theirs) = Socket::pair().unwrap();
    let mut raw = UnixStream::from(OwnedFd::from(ours));
    std::io::Write::write_all(&mut raw, &[&[14, 0, 0, 0, 0, 0, 0, 0][..], &[0; 14]].concat()).unwrap();
    let (client, start) = Client::connect(theirs).unwrap();
    let child = Child::new(client, start, PeerId(1));
    for n in 0..MANY {
        child.begin(n as usize, 2, Action::Send(numbered(n)));
    }
    // Then it reads, and all is there, in order.
    for n in 0..MANY {
        let mut header = [0; 8];
        raw.read_exact(&mut header).unwrap();
        let mut body = vec![0; u32::from_le_bytes(header[..4].try_into().unwrap()) as usize];
        raw.read_exact(&mut body).unwrap();
        assert!(body.windows(8).any(|window| window == n.to_le_bytes()));
        assert!(body.len() > SIZE);
    }
    drop(raw);
    for _ in 0..MANY {
        assert!(matches!(child.answer().1, Answer::Gone));
    }
}
