//! Two sides without a wire between them: what each may say, and what ends the link.

use super::*;
use crate::memory::LARGE;
use crate::os::Socket;

/// A side, and the other half of its socket, which nobody reads.
fn side() -> (Arc<Blocks>, Socket) {
    let (ours, theirs) = Socket::pair().unwrap();
    (Blocks::new(Outbox::new(ours)), theirs)
}

fn duplicate(passed: &Passed) -> Descriptor {
    passed.descriptor().try_clone_to_owned().unwrap()
}

/// Lends bytes from one side to the other, as a frame would: the number, and what arrived.
fn cross(from: &Arc<Blocks>, to: &Arc<Blocks>, bytes: &[u8]) -> (u64, Arc<dyn Memory>) {
    let Outgoing { number, new } = from.lend(bytes, None, true).unwrap();
    let arrived = match new {
        Some((passed, size)) => to.borrow_new(number, size, bytes.len(), duplicate(&passed)).map(Result::unwrap),
        None => to.borrow_known(number, bytes.len()),
    };
    (number, arrived.unwrap())
}

#[test]
fn a_block_that_was_returned_is_lent_again_by_its_number_alone() {
    let ((one, _a), (other, _b)) = (side(), side());
    let (number, arrived) = cross(&one, &other, &[1; LARGE]);
    assert_eq!(arrived.as_slice(), [1; LARGE]);
    // Not yet returned: another one.
    let (second, also) = cross(&one, &other, &[2; LARGE]);
    assert_ne!(number, second);
    drop(arrived);
    one.hear(Notice::Returned(number)).unwrap();
    let (third, arrived) = cross(&one, &other, &[3; LARGE]);
    assert_eq!(third, number);
    assert_eq!((arrived.as_slice(), also.as_slice()), (&[3; LARGE][..], &[2; LARGE][..]));
}

#[test]
fn a_block_that_is_not_lent_cannot_be_returned_nor_twice() {
    let ((one, _a), (other, _b)) = (side(), side());
    assert!(one.hear(Notice::Returned(1)).is_err());
    assert!(one.hear(Notice::Retired(1)).is_err());
    let (number, _arrived) = cross(&one, &other, &[1; LARGE]);
    one.hear(Notice::Returned(number)).unwrap();
    assert!(one.hear(Notice::Returned(number)).is_err());
    assert!(one.hear(Notice::Retired(number)).is_err());
}

#[test]
fn a_block_is_refused_that_is_unknown_in_use_too_small_or_known_under_its_number() {
    let ((one, _a), (other, _b)) = (side(), side());
    assert!(other.borrow_known(1, LARGE).is_err());
    assert!(other.hear(Notice::Forgotten(1)).is_err());
    let Outgoing { number, new: Some((passed, size)) } = one.lend(&[1; LARGE], None, true).unwrap() else { panic!() };
    assert!(other.borrow_new(number, size, size + 1, duplicate(&passed)).is_err());
    assert!(other.borrow_new(number, 2 * size, size, duplicate(&passed)).is_err(), "the block is shorter than that");
    assert!(other.borrow_new(number, 0, 0, duplicate(&passed)).is_err());
    let arrived = other.borrow_new(number, size, LARGE, duplicate(&passed)).unwrap().unwrap();
    assert!(other.borrow_known(number, LARGE).is_err());
    assert!(other.borrow_new(number, size, LARGE, duplicate(&passed)).is_err());
    assert!(other.hear(Notice::Forgotten(number)).is_err());
    drop(arrived);
    assert!(other.borrow_known(number, size + 1).is_err());
    drop(other.borrow_known(number, LARGE).unwrap());
    other.hear(Notice::Forgotten(number)).unwrap();
    assert!(other.borrow_known(number, LARGE).is_err());
}

#[test]
fn a_block_that_was_retired_is_never_written_to_again() {
    let ((one, _a), (other, _b)) = (side(), side());
    let (number, arrived) = cross(&one, &other, &[1; LARGE]);
    one.hear(Notice::Retired(number)).unwrap();
    assert_ne!(cross(&one, &other, &[2; LARGE]).0, number);
    assert_eq!(arrived.as_slice(), [1; LARGE]);
}

#[test]
fn what_was_passed_on_and_retired_is_retired_for_its_maker_too() {
    let ((maker, _a), (between, _b)) = (side(), side());
    let (onward, _c) = side();
    let (number, arrived) = cross(&maker, &between, &[1; LARGE]);
    let passed_on = onward.lend(arrived.as_slice(), Some(&arrived), true).unwrap();
    drop(arrived);
    assert!(lock(&between.borrowed).known[&number].used, "held for the one it was passed on to");
    onward.hear(Notice::Retired(passed_on.number)).unwrap();
    assert!(!lock(&between.borrowed).known.contains_key(&number));
}

#[test]
fn what_was_passed_on_is_known_there_until_its_maker_frees_it() {
    let ((maker, _a), (between, _b)) = (side(), side());
    let (onward, _c) = side();
    let (number, arrived) = cross(&maker, &between, &[1; LARGE]);
    let first = onward.lend(arrived.as_slice(), Some(&arrived), true).unwrap();
    // At the same time once more: under another number.
    let second = onward.lend(arrived.as_slice(), Some(&arrived), true).unwrap();
    assert!(first.new.is_some() && second.new.is_some() && first.number != second.number);
    drop(arrived);
    onward.hear(Notice::Returned(first.number)).unwrap();
    assert!(lock(&between.borrowed).known[&number].used);
    onward.hear(Notice::Returned(second.number)).unwrap();
    assert!(!lock(&between.borrowed).known[&number].used);
    let again = between.borrow_known(number, LARGE).unwrap();
    let third = onward.lend(again.as_slice(), Some(&again), true).unwrap();
    assert!(third.new.is_none() && [first.number, second.number].contains(&third.number));
    onward.hear(Notice::Returned(third.number)).unwrap();
    drop(again);
    between.hear(Notice::Forgotten(number)).unwrap();
    assert!(lock(&onward.lent).passed.is_empty());
}

#[test]
fn what_is_idle_is_bounded_in_bytes_and_in_blocks() {
    for (size, count) in [(LARGE, 3 * IDLE_BLOCKS), (IDLE_BYTES / 4, 6), (2 * IDLE_BYTES, 1)] {
        let (one, _a) = side();
        let bytes = vec![1; size];
        let numbers: Vec<_> = (0..count).map(|_| one.lend(&bytes, None, true).unwrap().number).collect();
        for number in numbers {
            one.hear(Notice::Returned(number)).unwrap();
        }
        let lent = lock(&one.lent);
        assert!(lent.idle.len() <= IDLE_BLOCKS && lent.idle_bytes <= IDLE_BYTES);
        assert_eq!(lent.idle_bytes, lent.idle.iter().map(|(_, block)| block.size()).sum::<usize>());
        assert_eq!(lent.idle.is_empty(), size > IDLE_BYTES);
        assert!(lent.used.is_empty());
    }
}

#[test]
fn a_link_that_is_over_lends_nothing_and_leaves_what_is_read() {
    let ((one, _a), (other, _b)) = (side(), side());
    let (_, arrived) = cross(&one, &other, &[1; LARGE]);
    one.end();
    other.end();
    assert!(one.lend(&[2; LARGE], None, true).is_none());
    assert_eq!(arrived.as_slice(), [1; LARGE]);
    drop(arrived);
    assert!(lock(&other.borrowed).known.is_empty() && lock(&one.lent).used.is_empty());
}

#[test]
fn a_frame_that_was_not_sent_takes_nothing_with_it() {
    let ((one, _a), (other, _b)) = (side(), side());
    let new = one.lend(&[1; LARGE], None, true).unwrap();
    one.take_back(&[(new.number, true)]);
    assert!(lock(&one.lent).used.is_empty() && lock(&one.lent).idle.is_empty());
    let (number, arrived) = cross(&one, &other, &[1; LARGE]);
    drop(arrived);
    one.hear(Notice::Returned(number)).unwrap();
    let known = one.lend(&[2; LARGE], None, true).unwrap();
    one.take_back(&[(known.number, false)]);
    assert_eq!(cross(&one, &other, &[3; LARGE]).0, number);
}
