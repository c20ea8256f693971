//! Large values travel as memory that nobody can change, and that is freed with its last holder.
//!
//! One test alone in its process: it counts the descriptors that are open.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use common::*;
use weft_core::chan::Outcome;
use weft_link::*;

/// The open descriptors that are blocks of memory.
fn blocks() -> Vec<i32> {
    let open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap());
    let is_block = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().contains("/memfd:weft"))
    };
    open.filter(is_block).map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect()
}

fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().matches("/memfd:weft").count()
}

fn large(n: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(n)).collect()
}

fn with_memory(memory: Arc<dyn Memory>) -> Wire {
    Wire { bytes: vec![1].into(), attachments: vec![Attachment::Memory(memory)] }
}

fn memory(wire: &Wire) -> Arc<dyn Memory> {
    match &wire.attachments[..] {
        [Attachment::Memory(memory)] => memory.clone(),
        other => panic!("{other:?}"),
    }
}

fn inode(descriptor: i32) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(format!("/proc/self/fd/{descriptor}")).unwrap().ino()
}

#[test]
fn large_values_travel_as_sealed_memory_and_are_freed() {
    let root = Root::new();
    let (chan, end) = root.channel(100);
    let (one, other) = (root.child([end.clone()]), root.child([end]));
    let before = || assert_eq!((blocks().len(), mappings()), (0, 0));
    before();

    // Just below the limit: bytes.
    assert_eq!(
        one.perform(one.channel(0), Action::Send(with_memory(Arc::new(large(1, LARGE - 1))))).outcome,
        Outcome::Done
    );
    assert_eq!(blocks().len(), 0);
    let received = other.perform(other.channel(0), Action::Recv).received;
    assert_eq!(memory(&received[0]).as_slice(), large(1, LARGE - 1));

    // From the limit on: a block, in the root one descriptor and one mapping, and for the other child the same memory.
    for bytes in [large(2, LARGE), large(3, 3 * LARGE + 7)] {
        assert_eq!(
            one.perform(one.channel(0), Action::Send(with_memory(Arc::new(bytes.clone())))).outcome,
            Outcome::Done
        );
        assert_eq!((blocks().len(), mappings()), (1, 1));
        let block = inode(blocks()[0]);
        sealed(blocks()[0]);
        let received = other.perform(other.channel(0), Action::Recv).received.remove(0);
        assert!(blocks().iter().all(|descriptor| inode(*descriptor) == block), "passed on, not copied");
        let arrived = memory(&received);
        drop(received);
        assert_eq!(arrived.as_slice(), bytes);
        // And back again it is still that one.
        other.perform(other.channel(0), Action::Send(with_memory(arrived)));
        let received = one.perform(one.channel(0), Action::Recv).received.remove(0);
        assert!(blocks().iter().all(|descriptor| inode(*descriptor) == block));
        assert_eq!(memory(&received).as_slice(), bytes);
        drop(received);
        freed(&one, &other);
    }

    // The bytes of a value, too.
    let wire = Wire { bytes: large(4, 2 * LARGE).into(), attachments: Vec::new() };
    one.perform(one.channel(0), Action::Send(wire));
    let received = other.perform(other.channel(0), Action::Recv).received.remove(0);
    assert!(matches!(received.bytes, Bytes::Block(_)) && *received.bytes == *large(4, 2 * LARGE));
    drop(received);
    freed(&one, &other);

    // Many of them in one operation, more than one frame has descriptors for.
    let many: Vec<Wire> = (0..70).map(|n| with_memory(Arc::new(large(n, LARGE)))).collect();
    assert_eq!(one.perform(one.channel(0), Action::SendMany(many)).sent, 70);
    let mut received = Vec::new();
    while received.len() < 70 {
        received.extend(other.perform(other.channel(0), Action::RecvMany(100)).received);
    }
    assert!(received.iter().zip(0..).all(|(wire, n)| memory(wire).as_slice() == large(n, LARGE)));
    drop(received);
    freed(&one, &other);

    // Dropped on the way: withdrawn, poisoned, and with a child that dies.
    let (_, rendezvous) = root.channel(0);
    let third = root.child([rendezvous, root.hub.end(&chan, Arc::new(about()))]);
    let id = third.begin(0, third.channel(0), Action::Send(with_memory(Arc::new(large(5, LARGE)))));
    third.settle();
    assert_eq!(blocks().len(), 1);
    assert!(third.client.withdraw(id));
    third.settle();
    before();
    third.begin(0, third.channel(0), Action::Send(with_memory(Arc::new(large(6, LARGE)))));
    third.settle();
    assert_eq!(blocks().len(), 1);
    root.hub.disconnect(third.peer);
    root.log.gone(third.peer);
    freed(&one, &other);

    // Without a descriptor to spare it goes as bytes, and arrives all the same.
    let hoard: Vec<OwnedFd> = std::iter::from_fn(|| fs::File::open("/dev/null").ok().map(OwnedFd::from)).collect();
    one.perform(one.channel(0), Action::Send(with_memory(Arc::new(large(7, LARGE)))));
    let received = other.perform(other.channel(0), Action::Recv).received.remove(0);
    drop(hoard);
    assert_eq!((memory(&received).as_slice(), blocks().len()), (&*large(7, LARGE), 0));
}

fn about() -> About {
    About { capacity: Some(100), overflow: weft_core::Overflow::Block, name: "test".into() }
}

/// A thread of the link's drops what it held a moment after it told of it: a call and its answer are after that.
fn freed(one: &Child, other: &Child) {
    one.settle();
    other.settle();
    assert_eq!((blocks().len(), mappings()), (0, 0));
}

/// Whoever has the block can neither write to it nor make it shorter.
fn sealed(descriptor: i32) {
    let path = format!("/proc/self/fd/{descriptor}");
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    assert!(std::io::Write::write_all(&mut &file, b"x").is_err());
    assert!(file.set_len(0).is_err() && file.set_len(1 << 30).is_err());
}
