//! weft-core beside crossbeam-channel, flume and kanal: nanoseconds per message, with threads.
//!
//! cargo bench -p weft-core                      everything, about three minutes
//! cargo bench -p weft-core -- 'spsc 0' select2   the rows whose name contains one of these
//! WEFT_BENCH_ROUNDS=21 cargo bench -p weft-core
//!
//! Each round measures every library once, in turn, so that whatever else the machine does falls on all of them; a figure is the
//! median of the rounds. The last column is weft's time divided by that of the best of the others, the median of the rounds' ratios.
#![cfg(not(any(loom, shuttle)))]
#![allow(missing_docs)]

use std::hint::black_box;
use std::thread;
use std::time::Instant;

/// What the four libraries have in common. A value is a `usize`, as in crossbeam's and kanal's own benchmarks.
trait Library {
    const NAME: &str;
    type Sender: Clone + Send + 'static;
    type Receiver: Clone + Send + 'static;
    fn channel(capacity: Option<usize>) -> (Self::Sender, Self::Receiver);
    fn send(sender: &Self::Sender, value: usize);
    fn recv(receiver: &Self::Receiver) -> Option<usize>;
    fn try_send(sender: &Self::Sender, value: usize) -> bool;
    fn try_recv(receiver: &Self::Receiver) -> Option<usize>;
    /// Receives from whichever has something; `None`: the library has no select.
    fn select(_receivers: &[Self::Receiver]) -> Option<usize> {
        None
    }
    const SELECTS: bool = true;
}

struct Weft;
impl Library for Weft {
    const NAME: &str = "weft";
    type Sender = weft_core::Sender<usize>;
    type Receiver = weft_core::Receiver<usize>;
    fn channel(capacity: Option<usize>) -> (Self::Sender, Self::Receiver) {
        capacity.map_or_else(weft_core::unbounded, weft_core::channel)
    }
    fn send(sender: &Self::Sender, value: usize) {
        sender.send(value).wait().unwrap();
    }
    fn recv(receiver: &Self::Receiver) -> Option<usize> {
        receiver.recv().wait().ok()
    }
    fn try_send(sender: &Self::Sender, value: usize) -> bool {
        sender.send(value).try_now().is_ok()
    }
    fn try_recv(receiver: &Self::Receiver) -> Option<usize> {
        receiver.recv().try_now().ok()
    }
    fn select(receivers: &[Self::Receiver]) -> Option<usize> {
        use weft_core::{Event, select};
        match receivers {
            [a, b] => {
                let (mut a, mut b) = (a.recv(), b.recv());
                match select(&mut [&mut a, &mut b]).wait() {
                    0 => a.wait().ok(),
                    _ => b.wait().ok(),
                }
            }
            _ => {
                let mut cases: [_; 8] = std::array::from_fn(|n| receivers[n].recv());
                let chosen = {
                    let mut events = cases.each_mut().map(|case| case as &mut dyn Event);
                    select(&mut events).wait()
                };
                cases.into_iter().nth(chosen).and_then(|case| case.wait().ok())
            }
        }
    }
}

struct Crossbeam;
impl Library for Crossbeam {
    const NAME: &str = "crossbeam";
    type Sender = crossbeam_channel::Sender<usize>;
    type Receiver = crossbeam_channel::Receiver<usize>;
    fn channel(capacity: Option<usize>) -> (Self::Sender, Self::Receiver) {
        capacity.map_or_else(crossbeam_channel::unbounded, crossbeam_channel::bounded)
    }
    fn send(sender: &Self::Sender, value: usize) {
        sender.send(value).unwrap();
    }
    fn recv(receiver: &Self::Receiver) -> Option<usize> {
        receiver.recv().ok()
    }
    fn try_send(sender: &Self::Sender, value: usize) -> bool {
        sender.try_send(value).is_ok()
    }
    fn try_recv(receiver: &Self::Receiver) -> Option<usize> {
        receiver.try_recv().ok()
    }
    fn select(receivers: &[Self::Receiver]) -> Option<usize> {
        if let [a, b] = receivers {
            return crossbeam_channel::select! { recv(a) -> value => value.ok(), recv(b) -> value => value.ok() };
        }
        let mut select = crossbeam_channel::Select::new();
        for receiver in receivers {
            select.recv(receiver);
        }
        let chosen = select.select();
        let index = chosen.index();
        chosen.recv(&receivers[index]).ok()
    }
}

struct Flume;
impl Library for Flume {
    const NAME: &str = "flume";
    type Sender = flume::Sender<usize>;
    type Receiver = flume::Receiver<usize>;
    fn channel(capacity: Option<usize>) -> (Self::Sender, Self::Receiver) {
        capacity.map_or_else(flume::unbounded, flume::bounded)
    }
    fn send(sender: &Self::Sender, value: usize) {
        sender.send(value).unwrap();
    }
    fn recv(receiver: &Self::Receiver) -> Option<usize> {
        receiver.recv().ok()
    }
    fn try_send(sender: &Self::Sender, value: usize) -> bool {
        sender.try_send(value).is_ok()
    }
    fn try_recv(receiver: &Self::Receiver) -> Option<usize> {
        receiver.try_recv().ok()
    }
    fn select(receivers: &[Self::Receiver]) -> Option<usize> {
        receivers.iter().fold(flume::Selector::new(), |selector, receiver| selector.recv(receiver, Result::ok)).wait()
    }
}

struct Kanal;
impl Library for Kanal {
    const NAME: &str = "kanal";
    const SELECTS: bool = false;
    type Sender = kanal::Sender<usize>;
    type Receiver = kanal::Receiver<usize>;
    fn channel(capacity: Option<usize>) -> (Self::Sender, Self::Receiver) {
        capacity.map_or_else(kanal::unbounded, kanal::bounded)
    }
    fn send(sender: &Self::Sender, value: usize) {
        sender.send(value).unwrap();
    }
    fn recv(receiver: &Self::Receiver) -> Option<usize> {
        receiver.recv().ok()
    }
    fn try_send(sender: &Self::Sender, value: usize) -> bool {
        sender.try_send(value).is_ok_and(|sent| sent)
    }
    fn try_recv(receiver: &Self::Receiver) -> Option<usize> {
        receiver.try_recv().ok().flatten()
    }
}

#[derive(Clone, Copy)]
enum Program {
    /// `n` senders, `n` receivers, a capacity.
    Threads(usize, usize, Option<usize>),
    /// One thread sends and receives in turn: no other is there.
    Alone(Option<usize>),
    /// One thread selects over so many channels, each with a sender thread.
    Select(usize, Option<usize>),
    /// One thread selects over so many channels, one of which always has a value.
    SelectAlone(usize),
}

fn run<L: Library>(program: Program, messages: usize) -> f64 {
    let start;
    let count;
    match program {
        Program::Threads(senders, receivers, capacity) => {
            let (tx, rx) = L::channel(capacity);
            let each = messages / senders;
            count = each * senders;
            start = Instant::now();
            let handles: Vec<_> = (0..senders)
                .map(|_| {
                    let tx = tx.clone();
                    thread::spawn(move || (0..each).for_each(|n| L::send(&tx, n)))
                })
                .collect();
            drop(tx);
            let drains: Vec<_> = (1..receivers)
                .map(|_| {
                    let rx = rx.clone();
                    thread::spawn(move || std::iter::from_fn(|| L::recv(&rx)).count())
                })
                .collect();
            let mut got = std::iter::from_fn(|| L::recv(&rx)).count();
            got += drains.into_iter().map(|drain| drain.join().unwrap()).sum::<usize>();
            assert_eq!(got, count);
            handles.into_iter().for_each(|handle| handle.join().unwrap());
        }
        Program::Alone(capacity) => {
            let (tx, rx) = L::channel(capacity);
            count = messages;
            start = Instant::now();
            for n in 0..count {
                assert!(L::try_send(&tx, black_box(n)));
                assert_eq!(L::try_recv(&rx), Some(n));
            }
        }
        Program::Select(channels, capacity) => {
            let each = messages / channels;
            count = each * channels;
            let (senders, receivers): (Vec<_>, Vec<_>) = (0..channels).map(|_| L::channel(capacity)).unzip();
            start = Instant::now();
            let handles: Vec<_> = senders
                .iter()
                .map(|tx| {
                    let tx = tx.clone();
                    thread::spawn(move || (0..each).for_each(|n| L::send(&tx, n)))
                })
                .collect();
            for _ in 0..count {
                L::select(&receivers).unwrap();
            }
            handles.into_iter().for_each(|handle| handle.join().unwrap());
            drop(senders);
        }
        Program::SelectAlone(channels) => {
            let (senders, receivers): (Vec<_>, Vec<_>) = (0..channels).map(|_| L::channel(Some(1))).unzip();
            count = messages;
            start = Instant::now();
            for n in 0..count {
                L::send(&senders[n % channels], n);
                assert_eq!(L::select(&receivers), Some(n));
            }
        }
    }
    start.elapsed().as_nanos() as f64 / count as f64
}

type Run = fn(Program, usize) -> f64;

/// NaN when there is none: a library that cannot do it.
fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let rounds = std::env::var("WEFT_BENCH_ROUNDS").map_or(41, |rounds| rounds.parse().unwrap());
    let mut rows = Vec::new();
    for (name, capacity) in [("0", Some(0)), ("1", Some(1)), ("128", Some(128)), ("unbounded", None)] {
        for (kind, senders, receivers) in [("spsc", 1, 1), ("mpsc", 4, 1), ("mpmc", 4, 4)] {
            rows.push((format!("{kind} {name}"), Program::Threads(senders, receivers, capacity)));
        }
        if capacity != Some(0) {
            rows.push((format!("alone {name}"), Program::Alone(capacity)));
        }
    }
    for channels in [2, 8] {
        for capacity in [0, 1, 128] {
            rows.push((format!("select{channels} blocked {capacity}"), Program::Select(channels, Some(capacity))));
        }
        rows.push((format!("select{channels} ready"), Program::SelectAlone(channels)));
    }
    rows.retain(|(name, _)| words.is_empty() || words.iter().any(|word| name.contains(word.as_str())));

    let names = [Weft::NAME, Crossbeam::NAME, Flume::NAME, Kanal::NAME];
    println!("{:22}{:>10}{:>10}{:>10}{:>10}   weft/best", "ns per message", names[0], names[1], names[2], names[3]);
    for (name, program) in rows {
        let selects = matches!(program, Program::Select(..) | Program::SelectAlone(_));
        let libraries: [(Run, bool); 4] = [
            (run::<Weft>, true),
            (run::<Crossbeam>, true),
            (run::<Flume>, true),
            (run::<Kanal>, !selects || Kanal::SELECTS),
        ];
        // Enough messages for about 5 ms, the same number for all.
        // Twice, because starting the threads counts for much in a short run.
        let mut messages = 2000;
        for _ in 0..2 {
            messages = ((5e6 / run::<Weft>(program, messages)) as usize).clamp(2000, 1_000_000);
        }
        let mut times: [Vec<f64>; 4] = Default::default();
        for _ in 0..rounds {
            for (times, (run, able)) in times.iter_mut().zip(libraries) {
                if able {
                    times.push(run(program, messages));
                }
            }
        }
        let medians = times.each_ref().map(|times| median(times.clone()));
        let best = (1..4).min_by(|a, b| medians[*a].total_cmp(&medians[*b])).unwrap();
        // Round by round, so that a busy moment counts for both.
        let ratio = median(times[0].iter().zip(&times[best]).map(|(weft, best)| weft / best).collect());
        print!("{name:22}");
        medians.iter().for_each(|median| print!("{median:10.1}"));
        println!("{ratio:11.2}");
    }
}
