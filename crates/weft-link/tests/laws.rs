//! The laws of docs/design/laws.md across processes, each test named after its law.
#![cfg(any(target_os = "linux", target_os = "macos"))]

mod common;

use std::sync::Arc;
use std::thread;

use common::*;
use weft_core::Channel;
use weft_core::chan::{End as Ended, Outcome, Overflow};
use weft_core::select::Policy;
use weft_link::*;

#[test]
fn l1_a_send_without_buffer_is_decided_only_when_it_was_received() {
    let root = Root::new();
    let (chan, end) = root.channel(0);
    let child = root.child([end]);
    child.begin(1, child.channel(0), Action::Send(number(7)));
    child.settle();
    assert_eq!(chan.statistics().parked_senders, 1);
    assert!(child.answers.try_recv().is_err());
    assert_eq!(read(&Channel::from(chan).recv().wait().unwrap().0), 7);
    let (token, answer) = child.answer();
    assert!(matches!((token, answer), (1, Answer::Decided(Decided { outcome: Outcome::Done, sent: 1, .. }))));
}

#[test]
fn l1_two_children_meet_in_the_root() {
    let root = Root::new();
    let (_, end) = root.channel(0);
    let (one, other) = (root.child([end.clone()]), root.child([end]));
    one.begin(0, one.channel(0), Action::Send(number(3)));
    assert_eq!(other.recv(other.channel(0)), Ok(3));
    assert_eq!(one.decided().outcome, Outcome::Done);
}

#[test]
fn l2_values_arrive_in_order_through_any_buffer() {
    for capacity in [0, 1, 7] {
        let root = Root::new();
        let (_, end) = root.channel(capacity);
        let (one, other) = (root.child([end.clone()]), root.child([end]));
        thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..500 {
                    assert_eq!(one.send(one.channel(0), n), Outcome::Done);
                }
                one.client.leave();
            });
            for n in 0..500 {
                assert_eq!(other.recv(other.channel(0)), Ok(n));
            }
        });
    }
}

#[test]
fn l2_parked_children_are_served_first_come_first_served() {
    let root = Root::new();
    let (chan, end) = root.channel(0);
    let (one, other) = (root.child([end.clone()]), root.child([end]));
    one.begin(1, one.channel(0), Action::Recv);
    one.settle();
    other.begin(2, other.channel(0), Action::Recv);
    other.settle();
    for n in [10, 20] {
        let (answer, wakes) = chan.try_send(Value(number(n)));
        wakes.wake();
        assert!(answer.is_ok());
    }
    assert_eq!(read(&one.decided().received[0]), 10);
    assert_eq!(read(&other.decided().received[0]), 20);
}

#[test]
fn l3_a_withdrawn_receive_has_taken_nothing_and_a_withdrawn_send_given_nothing() {
    let root = Root::new();
    let (chan, end) = root.channel(0);
    let child = root.child([end]);
    let id = child.begin(1, child.channel(0), Action::Recv);
    assert!(child.client.withdraw(id));
    assert_eq!(chan.statistics().parked_receivers, 0);
    let id = child.begin(2, child.channel(0), Action::Send(number(1)));
    assert!(child.client.withdraw(id));
    assert_eq!((chan.statistics().parked_senders, chan.statistics().sent), (0, 0));
    child.settle();
    assert!(child.answers.try_recv().is_err(), "a withdrawn operation is not completed");
    assert!(!child.client.withdraw(id), "there is nothing to withdraw any more");
}

#[test]
fn l4_what_was_decided_cannot_be_withdrawn() {
    let root = Root::new();
    let (_, end) = root.channel(1);
    let child = root.child([end]);
    let id = child.begin(1, child.channel(0), Action::Send(number(1)));
    assert!(!child.client.withdraw(id));
    assert_eq!(child.decided().outcome, Outcome::Done);
}

#[test]
fn l5_a_select_commits_exactly_one_of_its_cases() {
    let root = Root::new();
    let ((a, end_a), (b, end_b)) = (root.channel(0), root.channel(0));
    let child = root.child([end_a, end_b]);
    child.submit(1, true, vec![recv(child.channel(0)), send(child.channel(1), 5)]);
    child.settle();
    assert_eq!((a.statistics().parked_receivers, b.statistics().parked_senders), (1, 1));
    // A party of the root meets the second case; the first is as if never tried.
    assert_eq!(read(&Channel::from(b.clone()).recv().wait().unwrap().0), 5);
    let decided = child.decided();
    assert_eq!((decided.case, decided.outcome), (1, Outcome::Done));
    assert_eq!((a.statistics().parked_receivers, b.statistics().parked_senders), (0, 0));
    assert_eq!(a.statistics().received, 0);
}

#[test]
fn l5_two_selects_of_two_children_that_face_each_other_pair() {
    let root = Root::new();
    let ((_, end_a), (_, end_b)) = (root.channel(0), root.channel(0));
    let one = root.child([end_a.clone(), end_b.clone()]);
    let other = root.child([end_a, end_b]);
    for n in 0..200 {
        one.submit(0, true, vec![send(one.channel(0), n), recv(one.channel(1))]);
        other.submit(0, true, vec![recv(other.channel(0)), send(other.channel(1), n)]);
        let (mine, theirs) = (one.decided(), other.decided());
        assert_eq!(mine.case, theirs.case);
        let received = if mine.case == 0 { theirs.received } else { mine.received };
        assert_eq!(received.iter().map(read).collect::<Vec<_>>(), [n]);
    }
}

#[test]
fn l5_a_select_on_both_sides_of_one_channel_never_meets_itself() {
    let root = Root::new();
    let (chan, end) = root.channel(0);
    let child = root.child([end]);
    let id = child.submit(0, true, vec![send(child.channel(0), 1), recv(child.channel(0))]);
    child.settle();
    assert_eq!((chan.statistics().parked_senders, chan.statistics().parked_receivers), (1, 1));
    assert!(child.client.withdraw(id));
    assert_eq!((chan.statistics().parked_senders, chan.statistics().parked_receivers), (0, 0));
}

#[test]
fn l6_priority_takes_the_first_listed_ready_case() {
    let root = Root::new();
    let ((a, end_a), (b, end_b)) = (root.channel(9), root.channel(9));
    let child = root.child([end_a, end_b]);
    for n in 0..9 {
        assert!(a.try_send(Value(number(n))).0.is_ok() && b.try_send(Value(number(n))).0.is_ok());
    }
    let (sender, answers) = std::sync::mpsc::channel();
    let completion: Arc<dyn Completion> = Arc::new(Mailbox(std::sync::Mutex::new(sender)));
    for _ in 0..9 {
        let cases = vec![recv(child.channel(1)), recv(child.channel(0))];
        let operation = Operation { policy: Policy::Priority, park: true, cases };
        child.client.submit(operation, 0, &completion).unwrap();
        let answer = answers.recv().unwrap().1;
        assert!(matches!(answer, Answer::Decided(Decided { case: 0, .. })), "{answer:?}");
    }
    assert_eq!((a.len(), b.len()), (9, 0));
}

#[test]
fn l7_close_delivers_what_is_buffered_and_then_the_cause() {
    let root = Root::new();
    let (_, end) = root.channel(4);
    let (one, other) = (root.child([end.clone()]), root.child([end]));
    assert_eq!(one.send(one.channel(0), 1), Outcome::Done);
    assert_eq!(one.client.close(one.channel(0), Some(RemoteCause(b"enough".to_vec()))), Ok(true));
    assert_eq!(one.client.close(one.channel(0), None), Ok(false));
    assert_eq!(other.recv(other.channel(0)), Ok(1));
    let decided = other.perform(other.channel(0), Action::Recv);
    assert_eq!(decided.outcome, Outcome::Ended(Ended::Closed));
    assert_eq!(decided.cause, Some(RemoteCause(b"enough".to_vec())));
    assert_eq!(other.send(other.channel(0), 2), Outcome::Ended(Ended::Closed));
    let ended = other.client.ended(other.channel(0)).unwrap();
    assert_eq!(ended, (Some(Ended::Closed), Some(RemoteCause(b"enough".to_vec()))));
}

#[test]
fn l7_a_cause_given_in_the_root_reaches_a_parked_child() {
    let root = Root::new();
    let (chan, end) = root.channel(0);
    let child = root.child([end]);
    child.begin(0, child.channel(0), Action::Recv);
    child.settle();
    chan.close(Some(Arc::new(std::io::Error::other("the loom is broken")))).1.wake();
    let decided = child.decided();
    assert_eq!(decided.outcome, Outcome::Ended(Ended::Closed));
    assert_eq!(decided.cause, Some(RemoteCause(b"the loom is broken".to_vec())));
}

#[test]
fn l8_poison_reaches_both_ends_at_once_and_what_it_dropped_is_told() {
    let root = Root::new();
    let ((full, end), (empty, other_end)) = (root.channel(1), root.channel(0));
    let (one, other) = (root.child([end.clone(), other_end.clone()]), root.child([end, other_end]));
    assert_eq!(one.send(one.channel(0), 1), Outcome::Done);
    one.begin(0, one.channel(0), Action::Send(number(2)));
    one.settle();
    other.begin(0, other.channel(1), Action::Recv);
    other.settle();
    assert_eq!((full.statistics().parked_senders, empty.statistics().parked_receivers), (1, 1));
    let cause = Some(RemoteCause(b"stop".to_vec()));
    assert_eq!(other.client.poison(other.channel(0), cause.clone()), Ok(true));
    assert_eq!(other.client.poison(other.channel(1), cause.clone()), Ok(true));
    for child in [&one, &other] {
        let decided = child.decided();
        assert_eq!((decided.outcome, decided.sent), (Outcome::Ended(Ended::Poisoned), 0));
        assert_eq!(decided.cause, cause);
    }
    assert_eq!(*root.log.undelivered.lock().unwrap(), [1]);
    assert_eq!(full.statistics().dropped, 1);
}

#[test]
fn l9_the_last_sender_of_a_child_closes_the_channel() {
    let root = Root::new();
    let (chan, end) = root.channel(4);
    let child = root.child([end.open(Side::Sender), end.open(Side::Sender)]);
    assert_eq!(chan.statistics().senders, Some(2));
    let [first, second] = <[End; 2]>::try_from(child.ends).unwrap();
    let third = first.clone();
    drop((first, second));
    child.client.statistics(third.channel()).unwrap();
    assert_eq!((chan.statistics().senders, chan.end().0), (Some(1), None));
    third.close(Some(RemoteCause(b"done".to_vec())));
    // A call is answered after all that was sent before it.
    let _ = child.client.len(0);
    assert_eq!(chan.end().0, Some(Ended::Closed));
    assert_eq!(chan.end().1.unwrap().downcast_ref(), Some(&RemoteCause(b"done".to_vec())));
}

#[test]
fn l9_the_last_receiver_of_a_child_frees_parked_senders() {
    let root = Root::new();
    let (chan, end) = root.channel(0);
    let (one, other) = (root.child([end.open(Side::Receiver)]), root.child([end]));
    other.begin(0, other.channel(0), Action::Send(number(1)));
    other.settle();
    drop(one.ends);
    assert_eq!(other.decided().outcome, Outcome::Ended(Ended::NoReceivers));
    assert_eq!(chan.statistics().receivers, Some(0));
}

#[test]
fn l9_an_end_that_travels_is_counted_once_wherever_it_is() {
    let root = Root::new();
    let (post, post_end) = root.channel(1);
    let (chan, end) = root.channel(4);
    let one = root.child([post_end.clone(), end.open(Side::Sender)]);
    let other = root.child([post_end]);
    let travelling = one.ends[1].clone();
    one.settle();
    assert_eq!(chan.statistics().senders, Some(2));
    // In the root's buffer it is the root's.
    let decided = one.perform(one.channel(0), Action::Send(with_end(travelling)));
    assert_eq!(decided.outcome, Outcome::Done);
    assert_eq!((chan.statistics().senders, post.len()), (Some(2), 1));
    // What the first child does does not touch it.
    one.client.leave();
    assert_eq!((root.log.gone(one.peer), chan.statistics().senders), (Departure::Left, Some(1)));
    // Received, it is the other child's.
    let arrived = end_of(other.perform(other.channel(0), Action::Recv).received.remove(0));
    assert_eq!((arrived.side(), arrived.about().name.as_str()), (Side::Sender, "test"));
    assert_eq!(other.send(arrived.channel(), 8), Outcome::Done);
    assert_eq!(chan.end().0, None);
    drop(arrived);
    other.settle();
    assert_eq!(chan.end().0, Some(Ended::Closed));
}

#[test]
fn l9_an_end_in_a_value_that_is_dropped_is_closed() {
    let root = Root::new();
    let ((post, post_end), (chan, end)) = (root.channel(1), root.channel(4));
    let child = root.child([post_end, end.open(Side::Sender)]);
    let travelling = child.ends[1].clone();
    child.perform(child.channel(0), Action::Send(with_end(travelling)));
    assert_eq!(chan.statistics().senders, Some(2));
    let (values, wakes) = post.poison(None);
    wakes.wake();
    drop(values);
    assert_eq!(chan.statistics().senders, Some(1));
}

#[test]
fn l9_the_root_takes_an_end_over_with_its_count() {
    let root = Root::new();
    let ((post, post_end), (chan, end)) = (root.channel(1), root.channel(4));
    let mut child = root.child([post_end, end.open(Side::Sender)]);
    let (channel, travelling) = (child.channel(0), child.ends.pop().unwrap());
    assert_eq!(child.perform(channel, Action::Send(with_end(travelling))).outcome, Outcome::Done);
    let arrived = end_of(Channel::from(post).recv().wait().unwrap().0);
    assert!(arrived.chan::<Value>().is_some_and(|its| Arc::ptr_eq(its, &chan)));
    let (taken, counted) = arrived.into_chan::<Value>().unwrap();
    assert!(counted && chan.statistics().senders == Some(1));
    taken.remove_sender(None).wake();
    assert_eq!(chan.end().0, Some(Ended::Closed));
}

#[test]
fn l10_an_operation_that_is_not_to_wait_says_so() {
    let root = Root::new();
    let (chan, end) = root.channel(0);
    let child = root.child([end]);
    child.submit(0, false, vec![recv(child.channel(0)), send(child.channel(0), 1)]);
    assert!(matches!(child.answer().1, Answer::WouldBlock));
    assert_eq!((chan.statistics().parked_senders, chan.statistics().parked_receivers), (0, 0));
}

#[test]
fn overflow_policies_are_the_roots() {
    let root = Root::new();
    let (oldest, a) = root.channel_with(1, Overflow::DropOldest);
    let (newest, b) = root.channel_with(1, Overflow::DropNewest);
    let (_, c) = root.channel_with(1, Overflow::Error);
    let child = root.child([a, b, c]);
    let outcomes: Vec<_> = (0..6).map(|n| child.send(child.channel(n % 3), n as u64)).collect();
    assert_eq!(outcomes[..5], [Outcome::Done; 5]);
    assert_eq!(outcomes[5], Outcome::Full);
    assert_eq!(*root.log.undelivered.lock().unwrap(), [0, 4]);
    assert_eq!((oldest.statistics().dropped, newest.statistics().dropped), (1, 1));
}

#[test]
fn many_are_sent_and_received_in_one_operation() {
    let root = Root::new();
    let (chan, end) = root.channel(64);
    let child = root.child([end]);
    let decided = child.perform(child.channel(0), Action::SendMany((0..100).map(number).collect()));
    assert_eq!((decided.sent, chan.len()), (64, 64));
    let decided = child.perform(child.channel(0), Action::RecvMany(40));
    assert!(decided.received.iter().map(read).eq(0..40));
    let decided = child.perform(child.channel(0), Action::RecvMany(40));
    assert!(decided.received.iter().map(read).eq(40..64));
    // A parked receiver is met with the first, and gets the others that the sender had.
    child.begin(1, child.channel(0), Action::RecvMany(8));
    child.begin(2, child.channel(0), Action::SendMany((0..3).map(number).collect()));
    let mut answers = [child.answer(), child.answer()];
    answers.sort_by_key(|(token, _)| *token);
    let [(_, Answer::Decided(received)), (_, Answer::Decided(sent))] = answers else { panic!("{answers:?}") };
    assert_eq!((sent.sent, received.received.len()), (3, 3));
}

#[test]
fn a_channel_made_by_a_child_is_one_like_any_other() {
    let root = Root::new();
    let (_, post) = root.channel(1);
    let (one, other) = (root.child([post.clone()]), root.child([post]));
    let about = About { capacity: Some(2), overflow: Overflow::Block, name: "made by a child".into() };
    let made = one.client.create(about.clone());
    // What was in the local channel, one more than there is room for.
    one.client.fill(made.channel(), (0..3).map(number).collect()).unwrap();
    let receiver = made.open(Side::Receiver);
    one.perform(one.channel(0), Action::Send(with_end(receiver)));
    let receiver = end_of(other.perform(other.channel(0), Action::Recv).received.remove(0));
    assert_eq!(**receiver.about(), about);
    let statistics = other.client.statistics(receiver.channel()).unwrap();
    assert_eq!((statistics.buffered, statistics.sent, statistics.receivers), (3, 3, Some(1)));
    for n in 0..3 {
        assert_eq!(other.recv(receiver.channel()), Ok(n));
    }
    drop(receiver);
    other.settle();
    assert_eq!(one.send(made.channel(), 9), Outcome::Ended(Ended::NoReceivers));
}

#[test]
fn who_made_a_channel_is_handed_what_is_dropped_of_it_as_long_as_it_has_an_end() {
    let root = Root::new();
    let (_, post) = root.channel(1);
    let (one, other) = (root.child([post.clone()]), root.child([post]));
    let about = About { capacity: Some(3), overflow: Overflow::Block, name: "made by a child".into() };
    let made = one.client.create(about);
    let (tell, told) = std::sync::mpsc::channel();
    one.client.hear(made.channel(), Arc::new(move |wire| tell.send(read(&wire)).unwrap()));
    one.client.fill(made.channel(), (0..3).map(number).collect()).unwrap();
    one.perform(one.channel(0), Action::Send(with_end(made.clone())));
    let theirs = end_of(other.perform(other.channel(0), Action::Recv).received.remove(0));
    other.client.poison(theirs.channel(), None).unwrap();
    assert_eq!(*root.log.undelivered.lock().unwrap(), [0, 1, 2]);
    let chan = root.log.dropping.lock().unwrap().remove(0);
    // As the host of this hub might have done at once.
    root.hub.undelivered(&chan, (0..3).map(|n| Value(number(n))));
    assert_eq!([told.recv(), told.recv(), told.recv()], [Ok(0), Ok(1), Ok(2)]);
    // Another's wish does not count, and nothing is sent any more when the last end is gone.
    drop(made);
    one.settle();
    root.hub.undelivered(&chan, [Value(number(3))]);
    one.settle();
    assert!(told.try_recv().is_err());
    other.client.hear(theirs.channel(), Arc::new(|_| ()));
    assert!(matches!(root.log.gone(other.peer), Departure::Failed(why) if why.contains("another's channel")));
}

#[test]
fn a_select_of_a_channel_and_a_barrier_commits_one() {
    let root = Root::new();
    let (chan, end) = root.channel(0);
    let child = root.child([end]);
    let barrier = child.client.barrier(2);
    let cases = |channel| vec![recv(channel), Case { channel: barrier, action: Action::Sync }];
    let select = |token| child.submit(token, true, cases(child.channel(0)));
    // The channel first: nobody waits at the barrier any more.
    select(1);
    child.settle();
    assert_eq!(child.client.len(barrier), Ok(1));
    let (sent, wakes) = chan.try_send(Value(number(7)));
    wakes.wake();
    assert!(sent.is_ok());
    let (1, Answer::Decided(decided)) = child.answer() else { panic!() };
    assert_eq!((decided.case, decided.received.len()), (0, 1));
    assert_eq!(child.client.len(barrier), Ok(0));
    // The barrier first: both pass, and nobody waits on the channel.
    select(2);
    select(3);
    let mut answers = [child.answer(), child.answer()];
    answers.sort_by_key(|(token, _)| *token);
    let [(2, Answer::Decided(one)), (3, Answer::Decided(two))] = answers else { panic!("{answers:?}") };
    assert_eq!((one.case, one.sent, two.case, two.sent), (1, 0, 1, 1));
    assert_eq!(chan.statistics().parked_receivers, 0);
    child.client.scrap(barrier);
    assert_eq!(child.client.len(barrier), Ok(0));
    select(4);
    assert!(matches!(root.log.gone(child.peer), Departure::Failed(why) if why.contains("a barrier that is not there")));
}

#[test]
fn values_that_are_given_back_are_received_next_in_their_order() {
    let root = Root::new();
    let (chan, end) = root.channel(8);
    let child = root.child([end]);
    child.perform(child.channel(0), Action::SendMany((0..4).map(number).collect()));
    let received = child.perform(child.channel(0), Action::RecvMany(3)).received;
    child.client.give_back(child.channel(0), received).unwrap();
    child.settle();
    assert_eq!((chan.len(), chan.statistics().received), (4, 0));
    for n in 0..4 {
        assert_eq!(child.recv(child.channel(0)), Ok(n));
    }
    // To whoever waits, if somebody does.
    let received = child.perform(child.channel(0), Action::SendMany(vec![number(7)]));
    assert_eq!(received.sent, 1);
    let received = child.perform(child.channel(0), Action::Recv).received;
    child.begin(1, child.channel(0), Action::Recv);
    child.client.give_back(child.channel(0), received).unwrap();
    let (1, Answer::Decided(decided)) = child.answer() else { panic!() };
    assert!(decided.received.iter().map(read).eq([7]));
}

#[test]
fn more_values_back_than_were_received_end_the_link() {
    let root = Root::new();
    let (chan, end) = root.channel(8);
    let child = root.child([end]);
    child.client.give_back(child.channel(0), vec![number(1)]).unwrap();
    // The call is answered, or broken off, after the request before it was heard.
    assert!(child.client.len(child.channel(0)).is_err() && child.client.is_gone());
    assert_eq!(chan.len(), 0);
}

#[test]
fn a_channel_that_nobody_holds_any_more_answers_as_a_closed_one() {
    let root = Root::new();
    let (_, end) = root.channel(1);
    let mut child = root.child([end]);
    let channel = child.channel(0);
    child.ends.clear();
    assert_eq!(child.recv(channel), Err(Outcome::Ended(Ended::Closed)));
    assert_eq!(child.client.close(channel, None), Ok(false));
}
