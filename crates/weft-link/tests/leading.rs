//! Who reads a link, and that it makes no difference.
#![cfg(target_os = "linux")]

mod common;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use weft_link::*;

/// Counts how often it was asked to give up.
fn counter() -> (Arc<AtomicUsize>, Arc<dyn Fn() + Send + Sync>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counts = count.clone();
    let give_up = move || {
        counts.fetch_add(1, Ordering::SeqCst);
    };
    (count, Arc::new(give_up))
}

/// Until there is something, and then once.
fn serve(lead: &Lead, mut until: impl FnMut() -> bool) {
    while !until() {
        assert!(lead.serve());
        std::thread::yield_now();
    }
}

#[test]
fn a_child_that_leads_hears_its_own_answers() {
    let root = Root::new();
    let (_, end) = root.channel(4);
    let child = root.child([end]);
    let (_, give_up) = counter();
    let lead = child.client.lead(give_up).unwrap();
    for n in 0..100 {
        child.begin(0, child.channel(0), Action::Send(number(n)));
        let mut answer = None;
        serve(&lead, || {
            answer = child.answers.try_recv().ok();
            answer.is_some()
        });
        child.begin(0, child.channel(0), Action::Recv);
        serve(&lead, || child.answers.try_recv().is_ok());
    }
    drop(lead);
    assert!(child.answers.try_recv().is_err());
    // And now its own thread does.
    assert_eq!(child.send(child.channel(0), 1), weft_core::chan::Outcome::Done);
    assert_eq!(child.recv(child.channel(0)), Ok(1));
}

#[test]
fn a_root_that_leads_reads_the_peer_that_was_heard_of_last() {
    let root = Root::new();
    let (chan, end) = root.channel(4);
    let (one, other) = (root.child([end.clone()]), root.child([end]));
    for child in [&one, &other, &one] {
        child.settle();
        let (_, give_up) = counter();
        let lead = root.hub.lead(give_up).expect("there was a peer");
        child.begin(0, child.channel(0), Action::Send(number(7)));
        serve(&lead, || chan.len() == 1);
        assert_eq!(child.decided().sent, 1);
        assert!(chan.try_recv().0.is_ok());
    }
}

#[test]
fn one_leads_at_a_time_and_gives_up_for_the_next() {
    let root = Root::new();
    let (_, end) = root.channel(4);
    let child = root.child([end]);
    let (count, give_up) = counter();
    let lead = child.client.lead(give_up.clone()).unwrap();
    assert!(child.client.lead(give_up.clone()).is_none());
    assert_eq!(count.load(Ordering::SeqCst), 1);
    drop(lead);
    assert!(child.client.lead(give_up).is_some());
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn what_a_leader_finds_at_the_end_is_what_the_hub_is_told() {
    for (said, departure) in [
        (&[1, 0, 0, 0, 0, 0, 0, 0, 6][..], Departure::Left),
        (&[1, 0, 0, 0, 0, 0, 0, 0, 99], Departure::Failed("the peer sent an unknown request".into())),
        (&[], Departure::Died),
    ] {
        let root = Root::new();
        let (chan, end) = root.channel(1);
        let (ours, theirs) = Socket::pair().unwrap();
        let attachments = vec![Attachment::End(end.open(Side::Sender))];
        let mut raw = UnixStream::from(OwnedFd::from(theirs));
        let peer = root.hub.add_peer(ours, Wire { bytes: Bytes::default(), attachments }).unwrap();
        // A question, so that the hub has heard of it: the length of no channel.
        raw.write_all(&[18, 0, 0, 0, 0, 0, 0, 0, 5]).unwrap();
        raw.write_all(&[0; 16]).unwrap();
        raw.write_all(&[3]).unwrap();
        let (_, give_up) = counter();
        let lead = loop {
            if let Some(lead) = root.hub.lead(give_up.clone()) {
                break lead;
            }
            std::thread::yield_now();
        };
        raw.write_all(said).unwrap();
        if said.is_empty() {
            drop(raw);
        }
        while lead.serve() {
            std::thread::yield_now();
        }
        drop(lead);
        assert_eq!(root.log.gone(peer), departure);
        assert_eq!(chan.statistics().senders, Some(0));
    }
}

#[test]
fn a_child_that_leads_is_told_that_the_root_is_gone() {
    let root = Root::new();
    let (_, end) = root.channel(0);
    let child = root.child([end]);
    child.begin(0, child.channel(0), Action::Recv);
    let (_, give_up) = counter();
    let lead = child.client.lead(give_up).unwrap();
    root.hub.disconnect(child.peer);
    while lead.serve() {
        std::thread::yield_now();
    }
    drop(lead);
    assert!(matches!(child.answer().1, Answer::Gone));
}
