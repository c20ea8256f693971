//! Random operations, withdrawals and deaths: every value is in exactly one place.
#![cfg(any(target_os = "linux", target_os = "macos"))]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use common::*;
use weft_core::chan::{Chan, End as Ended, Outcome};
use weft_link::*;

/// What one child knows when its storm is over.
#[derive(Default)]
struct Account {
    given: Vec<u64>,
    kept: Vec<u64>,
    received: Vec<u64>,
}

/// Submits operations on the channels, withdraws some of them at once and others later, and keeps account.
fn storm(child: &Child, from: u64, operations: u64, dice: &mut Dice) -> Account {
    let mut account = Account::default();
    let mut open: BTreeMap<usize, (u64, Vec<u64>)> = BTreeMap::new();
    let mut next = from;
    for token in 0..operations as usize {
        let mut cases = Vec::new();
        let mut offered = Vec::new();
        for _ in 0..=dice.below(3) {
            let channel = child.channel(dice.below(child.ends.len() as u64) as usize);
            let (many, sends) = (dice.below(4) == 0, dice.below(2) == 0);
            let mut value = || {
                next += 1;
                offered.push(next);
                number(next)
            };
            let action = match (many, sends) {
                (false, false) => Action::Recv,
                (true, false) => Action::RecvMany(5),
                (false, true) => Action::Send(value()),
                (true, true) => Action::SendMany((0..3).map(|_| value()).collect()),
            };
            cases.push(Case { channel, action });
        }
        let sizes: Vec<usize> = cases.iter().map(size).collect();
        let id = child.submit(token, dice.below(8) > 0, cases);
        open.insert(token, (id, offered.clone()));
        let withdrawn = match dice.below(3) {
            0 => vec![token],
            1 => open.keys().copied().filter(|_| dice.below(2) == 0).collect(),
            _ => vec![],
        };
        for token in withdrawn {
            let Some((id, offered)) = open.get(&token) else { continue };
            if child.client.withdraw(*id) {
                account.kept.extend(offered);
                open.remove(&token);
            }
        }
        SIZES.with_borrow_mut(|all| all.insert(token, sizes));
        while let Ok(answer) = child.answers.try_recv() {
            book(answer, &mut open, &mut account);
        }
    }
    for (token, (id, offered)) in std::mem::take(&mut open) {
        if child.client.withdraw(id) {
            account.kept.extend(offered);
        } else {
            open.insert(token, (id, offered));
        }
    }
    while !open.is_empty() {
        book(child.answer(), &mut open, &mut account);
    }
    assert!(child.answers.try_recv().is_err());
    account
}

thread_local! {
    /// How many values each case of each operation offered.
    static SIZES: std::cell::RefCell<BTreeMap<usize, Vec<usize>>> = const { std::cell::RefCell::new(BTreeMap::new()) };
}

fn size(case: &Case) -> usize {
    match &case.action {
        Action::Send(_) => 1,
        Action::SendMany(wires) => wires.len(),
        Action::Recv | Action::RecvMany(_) | Action::Sync => 0,
    }
}

fn book((token, answer): (usize, Answer), open: &mut BTreeMap<usize, (u64, Vec<u64>)>, account: &mut Account) {
    let (_, offered) = open.remove(&token).expect("one answer for each operation, and none for a withdrawn one");
    match answer {
        Answer::WouldBlock => account.kept.extend(offered),
        Answer::Decided(decided) => {
            assert_eq!(decided.outcome, Outcome::Done);
            let from: usize = SIZES.with_borrow(|all| all[&token][..decided.case].iter().sum());
            for (index, value) in offered.into_iter().enumerate() {
                let given = (from..from + decided.sent).contains(&index);
                if given { account.given.push(value) } else { account.kept.push(value) }
            }
            account.received.extend(decided.received.iter().map(read));
        }
        Answer::Gone => panic!("the root is there"),
    }
}

fn rest(chan: &Chan<Value>) -> Vec<u64> {
    let mut values = Vec::new();
    chan.try_recv_many(usize::MAX, &mut values).1.wake();
    values.iter().map(|value| read(&value.0)).collect()
}

#[test]
fn l3_every_value_is_in_exactly_one_place_after_a_storm_of_withdrawals() {
    for seed in 1..=6 {
        let root = Root::new();
        let channels: Vec<_> = [0, 1, 3].into_iter().map(|capacity| root.channel(capacity)).collect();
        let children: Vec<_> = (0..3).map(|_| root.child(channels.iter().map(|(_, end)| end.clone()))).collect();
        let accounts: Vec<Account> = thread::scope(|scope| {
            let storms: Vec<_> = children
                .into_iter()
                .zip(1..)
                .map(|(child, n)| scope.spawn(move || storm(&child, n << 32, 300, &mut Dice(seed * 77 + n))))
                .collect();
            storms.into_iter().map(|storm| storm.join().unwrap()).collect()
        });
        let mut there: Vec<u64> = channels.iter().flat_map(|(chan, _)| rest(chan)).collect();
        let mut given = Vec::new();
        for account in accounts {
            there.extend(account.received);
            given.extend(account.given);
            let kept: BTreeSet<u64> = account.kept.iter().copied().collect();
            assert_eq!(kept.len(), account.kept.len(), "a value came back twice");
        }
        there.sort_unstable();
        given.sort_unstable();
        assert_eq!(there, given, "seed {seed}: what was given is what was received or is still there, each once");
        for (chan, _) in &channels {
            let statistics = chan.statistics();
            assert_eq!((statistics.parked_senders, statistics.parked_receivers), (0, 0));
            assert_eq!(statistics.sent, statistics.received);
        }
    }
}

/// A root with a live child and one that dies; the live one must see the ends close and nothing else.
#[test]
fn a_peer_that_dies_leaves_no_party_and_no_end() {
    let root = Root::new();
    let (post, post_end) = root.channel(0);
    let (work, work_end) = root.channel(4);
    let live = root.child([post_end.clone(), work_end.clone()]);
    let dying = root.child([post_end.open(Side::Receiver), work_end.open(Side::Sender)]);
    assert_eq!(dying.send(dying.channel(1), 1), Outcome::Done);
    let select = vec![recv(dying.channel(0)), send(dying.channel(0), 3)];
    dying.submit(0, true, select);
    dying.settle();
    live.begin(0, live.channel(1), Action::RecvMany(4));
    assert_eq!(live.decided().received.iter().map(read).collect::<Vec<_>>(), [1]);
    live.begin(0, live.channel(1), Action::Recv);
    live.settle();
    assert!(root.hub.disconnect(dying.peer));
    assert_eq!(root.log.gone(dying.peer), Departure::Died);
    let decided = live.decided();
    assert_eq!(decided.outcome, Outcome::Ended(Ended::Closed));
    assert_eq!(decided.cause, Some(RemoteCause(b"died".to_vec())));
    let statistics = post.statistics();
    assert_eq!((statistics.parked_senders, statistics.parked_receivers, statistics.receivers), (0, 0, Some(0)));
    assert_eq!(work.statistics().senders, Some(0));
    // And the dead one knows.
    assert!(matches!(dying.answer().1, Answer::Gone));
    assert_eq!(dying.client.len(0), Err(Gone));
    let case = recv(dying.channel(0));
    let operation = Operation { policy: weft_core::select::Policy::Random, park: true, cases: vec![case] };
    let completion: Arc<dyn Completion> = Arc::new(Mailbox(std::sync::Mutex::new(std::sync::mpsc::channel().0)));
    assert_eq!(dying.client.submit(operation, 0, &completion), Err(SubmitError::Gone));
    assert!(!dying.client.withdraw(0));
}

#[test]
fn l3_a_value_decided_for_a_peer_that_is_dead_by_then_goes_back_to_the_front() {
    let root = Root::new();
    let (chan, end) = root.channel(2);
    let child = root.child([end]);
    child.begin(0, child.channel(0), Action::Recv);
    child.settle();
    let (sent, wakes) = chan.try_send(Value(number(1)));
    assert!(sent.is_ok() && chan.statistics().received == 1);
    // Met, and not yet told of it.
    root.hub.disconnect(child.peer);
    assert_eq!(root.log.gone(child.peer), Departure::Died);
    assert!(chan.try_send(Value(number(2))).0.is_ok());
    wakes.wake();
    assert_eq!(chan.statistics().received, 0);
    assert_eq!(rest(&chan), [1, 2]);
}

/// What a real client writes, to be replayed by hand.
fn recorded(write: impl FnOnce(&Child)) -> Vec<u8> {
    let (ours, theirs) = Socket::pair().unwrap();
    let mut raw = UnixStream::from(OwnedFd::from(ours));
    // A start without bytes or attachments.
    raw.write_all(&[14, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    raw.write_all(&[0; 14]).unwrap();
    let (client, start) = Client::connect(theirs).unwrap();
    let child = Child::new(client, start, PeerId(0));
    write(&child);
    raw.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    let _ = std::io::Read::read_to_end(&mut raw, &mut bytes);
    bytes
}

/// Everything a child may say that needs no answer to go on, about the channels 2 and 4.
fn everything(child: &Child) {
    child.begin(0, 2, Action::Send(number(1)));
    child.begin(0, 4, Action::Recv);
    let made =
        child.client.create(About { capacity: Some(1), overflow: weft_core::Overflow::Block, name: "a name".into() });
    child.client.fill(made.channel(), vec![number(5)]).unwrap();
    let sender = made.open(Side::Sender);
    child.begin(0, 2, Action::SendMany(vec![number(2), with_end(sender)]));
    child.submit(0, true, vec![recv(2), send(4, 9), recv(made.channel())]);
    sender_of(&made).close(Some(RemoteCause(b"a cause".to_vec())));
    child.begin(0, 4, Action::RecvMany(3));
}

fn sender_of(end: &End) -> End {
    end.open(Side::Sender)
}

/// Plays bytes to a hub whose peer holds the channels 2 and 4, cuts the link, and checks that nothing of the peer is left.
fn play(bytes: &[u8]) -> Departure {
    let root = Root::new();
    let (a, end_a) = root.channel(1);
    let (b, end_b) = root.channel(0);
    let (ours, theirs) = Socket::pair().unwrap();
    let attachments = vec![Attachment::End(end_a.open(Side::Sender)), Attachment::End(end_b.open(Side::Receiver))];
    let peer = root.hub.add_peer(ours, Wire { bytes: Bytes::default(), attachments }).unwrap();
    let mut raw = UnixStream::from(OwnedFd::from(theirs));
    // The hub may have hung up in the middle of it.
    let _ = raw.write_all(bytes);
    drop(raw);
    let departure = root.log.gone(peer);
    for chan in [&a, &b] {
        let statistics = chan.statistics();
        assert_eq!((statistics.parked_senders, statistics.parked_receivers), (0, 0));
        assert_eq!((statistics.senders.unwrap_or(0), statistics.receivers.unwrap_or(0)), (0, 0));
    }
    assert_eq!((a.end().0, b.end().0), (Some(Ended::Closed), Some(Ended::NoReceivers)));
    departure
}

#[test]
fn a_link_cut_after_any_byte_delivers_no_half_of_a_frame() {
    let bytes = recorded(everything);
    assert!(bytes.len() > 200);
    for length in 0..=bytes.len() {
        assert_eq!(play(&bytes[..length]), Departure::Died);
    }
}

#[test]
fn a_link_that_carries_nonsense_is_ended_and_does_no_other_harm() {
    let bytes = recorded(everything);
    let mut dice = Dice(0x5eed);
    let said = play(&[&bytes[..], &[1, 0, 0, 0, 0, 0, 0, 0, 99]].concat());
    assert_eq!(said, Departure::Failed("the peer sent an unknown request".into()));
    let said = play(&[0xff; 8]);
    assert_eq!(said, Departure::Failed("the peer sent a frame longer than the limit".into()));
    for _ in 0..1500 {
        let mut bytes = bytes.clone();
        for _ in 0..=dice.below(4) {
            let place = dice.below(bytes.len() as u64) as usize;
            match dice.below(3) {
                0 => bytes[place] = dice.below(256) as u8,
                1 => bytes[place] ^= 1 << dice.below(8),
                _ => bytes.truncate(place.max(1)),
            }
        }
        play(&bytes);
    }
    for _ in 0..300 {
        let noise: Vec<u8> = (0..dice.below(200)).map(|_| dice.below(256) as u8).collect();
        play(&noise);
    }
}

#[test]
fn a_child_that_sends_no_value_is_cut_off_and_no_receiver_is_given_one() {
    let sends_none = recorded(|child| {
        child.begin(0, 2, Action::SendMany(Vec::new()));
    });
    let said = play(&sends_none);
    assert_eq!(said, Departure::Failed("the peer sent an operation that sends no value".into()));
}

#[test]
fn a_long_chain_of_channels_in_each_others_buffers_is_closed() {
    let root = Root::new();
    let child = root.child([]);
    let mut last: Option<End> = None;
    for _ in 0..20_000 {
        let about = About { capacity: Some(1), overflow: weft_core::Overflow::Block, name: String::new() };
        let made = child.client.create(about);
        if let Some(end) = last.replace(made.open(Side::Receiver)) {
            let wire = Wire { attachments: vec![Attachment::End(end)], ..number(1) };
            child.client.fill(made.channel(), vec![wire]).unwrap();
        }
    }
    drop(last);
    child.client.leave();
    assert_eq!(root.log.gone(child.peer), Departure::Left);
    assert_eq!(root.log.undelivered.lock().unwrap().len(), 19_999);
}

#[test]
fn a_withdrawal_that_nobody_has_asked_for_leaves_no_operation_untold() {
    let (ours, theirs) = Socket::pair().unwrap();
    let mut raw = UnixStream::from(OwnedFd::from(ours));
    raw.write_all(&[&[14, 0, 0, 0, 0, 0, 0, 0][..], &[0; 14]].concat()).unwrap();
    let (client, start) = Client::connect(theirs).unwrap();
    let child = Child::new(client, start, PeerId(0));
    let id = child.begin(7, 2, Action::Recv);
    raw.write_all(&[&[9, 0, 0, 0, 0, 0, 0, 0, 3][..], &id.to_le_bytes()].concat()).unwrap();
    assert!(matches!(child.answer(), (7, Answer::Gone)));
}

#[test]
fn a_child_whose_root_speaks_nonsense_is_told_that_it_is_gone() {
    let mut dice = Dice(0xca11);
    for _ in 0..300 {
        let (ours, theirs) = Socket::pair().unwrap();
        let mut raw = UnixStream::from(OwnedFd::from(ours));
        let noise: Vec<u8> = (0..dice.below(60)).map(|_| dice.below(6) as u8).collect();
        raw.write_all(&noise).unwrap();
        drop(raw);
        if let Ok((client, _)) = Client::connect(theirs) {
            assert_eq!(client.len(2), Err(Gone));
        }
    }
}
