//! Whatever a root writes, the child takes it or ends the link, and then each of its operations was told once what became of it.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::thread;

use libfuzzer_sys::fuzz_target;
use weft_fuzz::link::{OPERATIONS, Raw, Root, begin};
use weft_link::{Client, Socket, Wire};

/// What a real root writes first.
static START: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let (_root, mut peer) = Root::new();
    peer.read().expect("the start")
});

fuzz_target!(|bytes: &[u8]| {
    let (ours, theirs) = Socket::pair().expect("a socket");
    let mut root = Raw::new(ours);
    // One in many is without the start.
    if bytes.first() != Some(&0xff) {
        root.send(&START, &[]).expect("room");
    } else {
        let _ = root.play(&bytes[1..]);
    }
    let Ok((client, start)) = Client::connect(theirs) else { return };
    if bytes.first() == Some(&0xff) {
        return;
    }
    let answers = begin(&client);
    let ahead = client.ahead(4);
    client.hear(3, Arc::new(drop));
    thread::scope(|scope| {
        let withdrawal = scope.spawn(|| client.withdraw(0));
        let call = scope.spawn(|| client.statistics(2));
        for _ in 0..OPERATIONS + 3 {
            root.read().expect("the requests");
        }
        let _ = root.play(bytes);
        let _ = call.join().expect("no panic");
        let withdrawn = withdrawal.join().expect("no panic");
        let mut told = [0; OPERATIONS];
        told[0] = usize::from(withdrawn);
        while told.iter().sum::<usize>() < OPERATIONS {
            let (token, _) = answers.recv().expect("one more is awaited");
            told[token] += 1;
        }
        assert_eq!(told, [1; OPERATIONS]);
        while client.recv_ahead(&ahead).is_some() {}
        let _ = client.send_ahead(&ahead, Wire::default());
    });
    drop(start);
});
