//! Whatever a child writes, the root performs it or ends the link, and then nothing of the child is left in its channels.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_fuzz::link::Root;

fuzz_target!(|bytes: &[u8]| {
    let (root, peer) = Root::new();
    // It fails when the root has ended the link.
    let _ = peer.play(bytes);
    root.departure.recv().expect("the root is told of the end");
    Root::empty();
    for chan in &root.channels {
        let left = chan.statistics();
        assert_eq!((left.parked_senders, left.parked_receivers), (0, 0));
        assert_eq!((left.senders, left.receivers), (Some(1), Some(1)), "besides the root's own");
    }
});
