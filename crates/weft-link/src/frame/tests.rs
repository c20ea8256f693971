//! What was written is read again, and whatever is read is never taken amiss.

use proptest::prelude::*;

use super::*;

/// Ends without a channel.
struct Nowhere;

impl Ends for Nowhere {
    fn export(&self, end: End) -> (ChannelId, Side, Arc<About>) {
        (end.channel(), end.side(), end.about().clone())
    }
    fn import(&self, _: ChannelId, _: Side, _: About) -> Option<End> {
        None
    }
    fn blocks(&self) -> Option<&Arc<Blocks>> {
        None
    }
}

/// And with blocks, whose notices nobody reads.
#[cfg(any(target_os = "linux", target_os = "macos"))]
struct Linked(Arc<Blocks>, #[expect(dead_code)] crate::os::Socket);

#[cfg(any(target_os = "linux", target_os = "macos"))]
impl Linked {
    fn new() -> Self {
        let (ours, theirs) = crate::os::Socket::pair().unwrap();
        Self(Blocks::new(crate::outbox::Outbox::new(ours)), theirs)
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
impl Ends for Linked {
    fn export(&self, end: End) -> (ChannelId, Side, Arc<About>) {
        Nowhere.export(end)
    }
    fn import(&self, channel: ChannelId, side: Side, about: About) -> Option<End> {
        Nowhere.import(channel, side, about)
    }
    fn blocks(&self) -> Option<&Arc<Blocks>> {
        Some(&self.0)
    }
}

fn body(frame: &Frame) -> Body<'_> {
    let header = Header::read(frame.bytes.first_chunk().unwrap()).unwrap();
    assert_eq!(header.length, frame.bytes.len() - HEADER);
    Body::new(header, &frame.bytes[HEADER..], std::iter::empty()).unwrap()
}

fn wires() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..4), 0..5)
}

/// A value of the first bytes, with the others attached.
fn wire(parts: &[Vec<u8>]) -> Wire {
    let attachments = parts[1..].iter().map(|part| Attachment::Memory(Arc::new(part.clone())));
    Wire { bytes: parts[0].clone().into(), attachments: attachments.collect() }
}

fn parts(wire: &Wire) -> Vec<Vec<u8>> {
    let attached = wire.attachments.iter().map(|attachment| match attachment {
        Attachment::Memory(memory) => memory.as_slice().to_vec(),
        Attachment::End(end) => panic!("{end:?}"),
    });
    std::iter::once(wire.bytes.to_vec()).chain(attached).collect()
}

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_written(id: u64, park: bool, max: usize, values in wires()) {
        let action = Action::SendMany(values.iter().map(|parts| wire(parts)).collect());
        let cases = vec![
            Case { channel: 1, action },
            Case { channel: u64::MAX, action: Action::RecvMany(max) },
            Case { channel: 3, action: Action::Recv },
            Case { channel: 5, action: Action::Sync },
        ];
        let frame = Request::Operation { id, operation: Operation { policy: Policy::Priority, park, cases } }.write(&Nowhere);
        let request = Request::read(body(&frame), &Nowhere);
        if values.is_empty() {
            prop_assert!(matches!(request, Err(Broken("an operation that sends no value"))));
            return Ok(());
        }
        let Ok(Request::Operation { id: read, operation }) = request else { panic!() };
        prop_assert_eq!((read, operation.park, operation.policy), (id, park, Policy::Priority));
        let [first, second, third, fourth] = &operation.cases[..] else { panic!() };
        let Action::SendMany(wires) = &first.action else { panic!() };
        prop_assert_eq!(wires.iter().map(parts).collect::<Vec<_>>(), values);
        assert!(matches!(second, Case { channel: u64::MAX, action: Action::RecvMany(read) } if *read == max));
        assert!(matches!(third, Case { channel: 3, action: Action::Recv }));
        assert!(matches!(fourth, Case { channel: 5, action: Action::Sync }));
        let frame = Request::Barrier { barrier: id, parties: max }.write(&Nowhere);
        assert!(matches!(Request::read(body(&frame), &Nowhere), Ok(Request::Barrier { barrier, parties }) if (barrier, parties) == (id, max)));
        let frame = Request::Scrap { barrier: id }.write(&Nowhere);
        assert!(matches!(Request::read(body(&frame), &Nowhere), Ok(Request::Scrap { barrier }) if barrier == id));
    }

    #[test]
    fn a_reply_is_read_as_it_was_written(id: u64, case in 0_usize..9, sent: usize, cause: Option<Vec<u8>>, values in wires()) {
        let received = values.iter().map(|parts| wire(parts)).collect();
        for outcome in [Outcome::Done, Outcome::Full, Outcome::Ended(Ended::Closed), Outcome::Ended(Ended::Poisoned)] {
            let decided = Decided { case, outcome, sent, received: Vec::new(), cause: cause.clone().map(RemoteCause) };
            let frame = Reply::Decided { id, decided }.write(&Nowhere);
            let Ok(Reply::Decided { id: read, decided }) = Reply::read(body(&frame), &Nowhere) else { panic!() };
            prop_assert_eq!((read, decided.case, decided.outcome, decided.sent), (id, case, outcome, sent));
            prop_assert_eq!(decided.cause.map(|cause| cause.0), cause.clone());
        }
        let decided = Decided { case, outcome: Outcome::Done, sent, received, cause: None };
        let frame = Reply::Decided { id, decided }.write(&Nowhere);
        let Ok(Reply::Decided { decided, .. }) = Reply::read(body(&frame), &Nowhere) else { panic!() };
        prop_assert_eq!(decided.received.iter().map(parts).collect::<Vec<_>>(), values);
    }

    #[test]
    fn what_goes_ahead_is_read_as_it_was_written(channel: u64, number: u32, word in 0..os::Board::WORDS, values in wires()) {
        let lease = Lease { word, number };
        let frame = Reply::Room { channel, lease }.write(&Nowhere);
        assert!(matches!(Reply::read(body(&frame), &Nowhere), Ok(Reply::Room { channel: c, lease: l }) if (c, l) == (channel, lease)));
        let lent = values.iter().map(|parts| wire(parts)).collect();
        let frame = Reply::Lent { channel, lease, values: lent }.write(&Nowhere);
        let Ok(Reply::Lent { channel: c, lease: l, values: read }) = Reply::read(body(&frame), &Nowhere) else { panic!() };
        prop_assert_eq!((c, l), (channel, lease));
        prop_assert_eq!(read.iter().map(parts).collect::<Vec<_>>(), values.clone());
        for value in values {
            let frame = Request::Put { channel, value: wire(&value) }.write(&Nowhere);
            let Ok(Request::Put { channel: c, value: read }) = Request::read(body(&frame), &Nowhere) else { panic!() };
            prop_assert_eq!((c, parts(&read)), (channel, value.clone()));
            let frame = Reply::Undelivered { channel, value: wire(&value) }.write(&Nowhere);
            let Ok(Reply::Undelivered { channel: c, value: read }) = Reply::read(body(&frame), &Nowhere) else { panic!() };
            prop_assert_eq!((c, parts(&read)), (channel, value));
        }
        let frame = Request::Taken { channel }.write(&Nowhere);
        assert!(matches!(Request::read(body(&frame), &Nowhere), Ok(Request::Taken { channel: c }) if c == channel));
        let frame = Request::Hear { channel }.write(&Nowhere);
        assert!(matches!(Request::read(body(&frame), &Nowhere), Ok(Request::Hear { channel: c }) if c == channel));
        let beyond = Lease { word: word + os::Board::WORDS, number };
        let frame = Reply::Room { channel, lease: beyond }.write(&Nowhere);
        prop_assert_eq!(Reply::read(body(&frame), &Nowhere).unwrap_err(), Broken("a word that the board does not have"));
    }

    #[test]
    fn statistics_are_read_as_they_were_written(numbers: [usize; 8], some: bool) {
        let mut statistics = Statistics::default();
        statistics.buffered = numbers[0];
        statistics.capacity = some.then_some(numbers[1]);
        statistics.senders = (!some).then_some(numbers[2]);
        statistics.receivers = some.then_some(numbers[3]);
        statistics.parked_senders = numbers[4];
        statistics.parked_receivers = numbers[5];
        statistics.sent = numbers[6] as u64;
        statistics.dropped = numbers[7] as u64;
        let frame = Reply::Said { id: 1, said: Said::Statistics(statistics) }.write(&Nowhere);
        let read = Reply::read(body(&frame), &Nowhere);
        assert!(matches!(read, Ok(Reply::Said { id: 1, said: Said::Statistics(read) }) if read == statistics));
    }

    #[test]
    fn any_bytes_are_a_message_or_broken(length: u32, spilled in 0_u16..3, bytes in prop::collection::vec(0_u8..9, 0..200)) {
        let header = [&length.to_le_bytes()[..], &[0, 0], &spilled.to_le_bytes()].concat();
        let Ok(header) = Header::read(header.first_chunk().unwrap()) else {
            prop_assert!(length as usize > LIMIT);
            return Ok(());
        };
        if let Ok(body) = Body::new(header, &bytes, std::iter::empty()) {
            let _ = Request::read(body, &Nowhere);
        }
        if let Ok(body) = Body::new(header, &bytes, std::iter::empty()) {
            let _ = Reply::read(body, &Nowhere);
        }
    }

    #[test]
    fn notices_are_read_as_they_were_written(numbers in prop::collection::vec((0..3, any::<u64>()), 0..40)) {
        let said = numbers.iter().map(|(kind, number)| match kind {
            0 => Notice::Returned(*number),
            1 => Notice::Retired(*number),
            _ => Notice::Forgotten(*number),
        });
        let said: Vec<_> = said.collect();
        let frame = notices(&said);
        let request = Request::read(body(&frame), &Nowhere);
        assert!(matches!(request, Ok(Request::Notices(read)) if read == said));
        let reply = Reply::read(body(&frame), &Nowhere);
        assert!(matches!(reply, Ok(Reply::Notices(read)) if read == said));
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    fn any_word_of_blocks_is_a_message_or_broken(kind in 0_u8..4, fields: [u64; 3], spilled: bool, rest in prop::collection::vec(0_u8..9, 0..40)) {
        let linked = Linked::new();
        let fields = fields.map(|field| if spilled { field % 8 } else { field });
        let words = fields.iter().flat_map(|field| field.to_le_bytes());
        let value: Vec<u8> = [7].into_iter().chain([0; 8]).chain([1, 0, 0, 0, kind]).chain(words).chain(rest).collect();
        let front = if spilled { [&1_u64.to_le_bytes()[..], &[9]].concat() } else { Vec::new() };
        let bytes = [front, value].concat();
        let header = Header { length: bytes.len(), descriptors: 0, spilled: usize::from(spilled) };
        let body = Body::new(header, &bytes, std::iter::empty()).unwrap();
        if let Ok(Request::Notices(said)) = Request::read(body, &linked) {
            prop_assert!(said.into_iter().all(|notice| linked.0.hear(notice).is_err()));
        }
    }

    #[test]
    fn a_shortened_frame_is_broken(keep in 0.0..1.0_f64, values in wires()) {
        let frame = Request::Fill { channel: 1, values: values.iter().map(|parts| wire(parts)).collect() }.write(&Nowhere);
        let length = ((frame.bytes.len() - HEADER) as f64 * keep) as usize;
        let header = Header { length, descriptors: 0, spilled: 0 };
        let body = Body::new(header, &frame.bytes[HEADER..HEADER + length], std::iter::empty()).unwrap();
        prop_assert!(Request::read(body, &Nowhere).is_err());
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
#[test]
fn a_frame_whose_descriptors_are_refused_carries_the_same_as_bytes() {
    let large: Vec<u8> = (0..LARGE + 5).map(|n| n as u8).collect();
    let values = vec![wire(&[vec![1, 2], large.clone()]), wire(&[large.clone(), vec![3]])];
    let (writer, reader) = (Linked::new(), Linked::new());
    let mut frame = Request::Fill { channel: 7, values }.write(&writer);
    assert_eq!(frame.blocks.len(), 2);
    assert!(frame.bytes.len() < LARGE);
    frame.spill().unwrap();
    assert!(frame.blocks.is_empty() && frame.bytes.len() > 2 * LARGE);
    let Ok(Request::Fill { channel: 7, values }) = Request::read(body(&frame), &reader) else { panic!() };
    assert_eq!(values.iter().map(parts).collect::<Vec<_>>(), [[vec![1, 2], large.clone()], [large, vec![3]]]);
}
