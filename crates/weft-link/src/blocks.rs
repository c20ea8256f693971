//! The blocks of memory of one link: what this side has lent to the peer, and what it has borrowed.
//!
//! A block is made by the sender of a value, and has a number on the link. It goes with its descriptor once; the receiver keeps
//! the mapping, and says when nobody uses the value any more. Then the sender writes the next value of that size into the same
//! block: it costs one copy and a small frame, and no new pages, which are what is dear.
//!
//! What came as a block and goes on to another process is lent to that one as it is. It goes back to its maker when the last of those who
//! borrowed it has returned it: who passes it on holds the value meanwhile.
//!
//! True of each link whenever its tables are unlocked:
//!   1. A number is either in use or idle, on both sides, and stands for at most one value. It is never given twice.
//!   2. A block of ours is written to only between leaving the idle ones and being lent: nobody reads it then.
//!   3. At most `IDLE_BYTES` and `IDLE_BLOCKS` of ours are idle. The one that was idle longest is freed, and the peer is told.
//!   4. After the end of the link both tables are empty, and nothing is entered any more. What is still read stays mapped.
//!
//! Who writes to a block while it is lent is the peer's concern only as far as the peer trusts its own program: see `os/unix.rs`.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::frame::Broken;
use crate::memory::Memory;
use crate::os::{Block, Descriptor, Forks, Mapping, Passed};
use crate::outbox::Outbox;

/// How much memory may wait to be written to again.
const IDLE_BYTES: usize = 64 << 20;
/// And in how many blocks: each is a descriptor here, and one there.
const IDLE_BLOCKS: usize = 64;

/// What one side tells the other about a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    /// From the borrower: nobody reads it any more.
    Returned(u64),
    /// From the borrower: it has forgotten the number, and the block must not be written to again.
    Retired(u64),
    /// From the lender: the number will not be used again.
    Forgotten(u64),
}

/// Both tables of one side of a link.
pub(crate) struct Blocks {
    outbox: Arc<Outbox>,
    lent: Mutex<Lent>,
    borrowed: Mutex<Table>,
}

#[derive(Default)]
struct Lent {
    over: bool,
    last: u64,
    used: HashMap<u64, Loan>,
    /// Ours, by the time at which they came back.
    idle: VecDeque<(u64, Block)>,
    idle_bytes: usize,
    /// The numbers that the peer knows blocks of others by, for the address of each mapping, which is as long as it is listed here.
    passed: HashMap<usize, Vec<u64>>,
}

/// What is in use.
enum Loan {
    Ours(Block),
    /// A value that came from another process, which is held until the peer has returned it.
    Passed {
        of: usize,
        held: Arc<dyn Memory>,
    },
}

#[derive(Default)]
struct Table {
    over: bool,
    known: HashMap<u64, Known>,
}

/// A block of the peer's.
struct Known {
    mapped: Arc<Mapped>,
    used: bool,
}

/// A mapping, and the links it was passed on through.
struct Mapped {
    mapping: Mapping,
    passed_to: Mutex<Vec<Weak<Blocks>>>,
}

/// A block as it goes into a frame.
pub(crate) struct Outgoing {
    pub(crate) number: u64,
    /// The peer does not know it yet: what is to be passed, and how long that is.
    pub(crate) new: Option<(Passed, usize)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No foreign code runs under these locks, so a panic leaves what they guard as it should be.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Blocks {
    pub(crate) fn new(outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self { outbox, lent: Mutex::default(), borrowed: Mutex::default() })
    }

    /// The bytes in a block. `memory` is what they are, where that may have come as a block itself; `may_pass`: the frame has room for one
    /// more descriptor. `None`: they should travel as bytes.
    pub(crate) fn lend(
        self: &Arc<Self>,
        bytes: &[u8],
        memory: Option<&Arc<dyn Memory>>,
        may_pass: bool,
    ) -> Option<Outgoing> {
        let borrowed = memory.and_then(|memory| Some((memory, memory.as_any().downcast_ref::<Borrowed>()?)));
        match borrowed.and_then(|(memory, borrowed)| Some((memory, borrowed, borrowed.mapped.mapping.passed()?))) {
            Some((memory, borrowed, passed)) => self.pass_on(memory, &borrowed.mapped, passed, may_pass),
            None => self.lend_ours(bytes, may_pass),
        }
    }

    fn lend_ours(&self, bytes: &[u8], may_pass: bool) -> Option<Outgoing> {
        // What is never written takes no memory, so little is lost by few sizes.
        let size = bytes.len().checked_next_power_of_two()?;
        // Copied with no lock held: nobody else can have it meanwhile.
        let (known, block) = match self.take_idle(size) {
            Some((number, mut block)) => {
                block.fill(bytes);
                (Some(number), block)
            }
            None if may_pass => (None, Block::holding(bytes, size).ok()?),
            None => return None,
        };
        let new = known.is_none().then(|| (block.passed(), size));
        let mut lent = lock(&self.lent);
        let number = known.unwrap_or_else(|| lent.number());
        lent.enter(number, Loan::Ours(block)).then_some(Outgoing { number, new })
    }

    /// The one that was used last: most of it may still be near the processor.
    fn take_idle(&self, size: usize) -> Option<(u64, Block)> {
        let mut lent = lock(&self.lent);
        let at = lent.idle.iter().rposition(|(_, block)| block.size() == size)?;
        lent.idle_bytes -= size;
        lent.idle.remove(at)
    }

    fn pass_on(
        self: &Arc<Self>,
        memory: &Arc<dyn Memory>,
        mapped: &Arc<Mapped>,
        passed: Passed,
        may_pass: bool,
    ) -> Option<Outgoing> {
        let of = Arc::as_ptr(mapped).addr();
        let mut lent = lock(&self.lent);
        let known = lent.passed.get_mut(&of).and_then(Vec::pop);
        if known.is_none() && !may_pass {
            return None;
        }
        let number = known.unwrap_or_else(|| lent.number());
        if !lent.enter(number, Loan::Passed { of, held: memory.clone() }) {
            return None;
        }
        drop(lent);
        if known.is_none() {
            let mut links = lock(&mapped.passed_to);
            if !links.iter().any(|link| link.as_ptr() == Arc::as_ptr(self)) {
                links.push(Arc::downgrade(self));
            }
        }
        let new = known.is_none().then(|| (passed, mapped.mapping.size()));
        Some(Outgoing { number, new })
    }

    /// What was lent in a frame that was not sent after all: the numbers, and which of them the peer has never heard of.
    pub(crate) fn take_back(&self, numbers: &[(u64, bool)]) {
        for (number, new) in numbers {
            let notice = if *new { Notice::Retired(*number) } else { Notice::Returned(*number) };
            // It fails only when the link is over, and nothing is lent any more.
            let _ = self.hear(notice);
        }
    }

    /// A block that the peer has not passed before; or its bytes, when it cannot be had.
    pub(crate) fn borrow_new(
        self: &Arc<Self>,
        number: u64,
        size: usize,
        len: usize,
        descriptor: Descriptor,
    ) -> Result<Result<Arc<dyn Memory>, Vec<u8>>, Broken> {
        if len > size {
            return Err(Broken("a value larger than its block"));
        }
        if size == 0 {
            return Err(Broken("a block of nothing"));
        }
        let mapping = match Mapping::new(descriptor, size, len).map_err(|_| Broken("a block that cannot be mapped"))? {
            Ok(mapping) => mapping,
            Err(bytes) => {
                self.refuse(number, size);
                return Ok(Err(bytes));
            }
        };
        let mapped = Arc::new(Mapped { mapping, passed_to: Mutex::default() });
        let mut table = lock(&self.borrowed);
        if table.known.contains_key(&number) {
            return Err(Broken("a new block whose number is taken"));
        }
        if !table.over {
            table.known.insert(number, Known { mapped: mapped.clone(), used: true });
        }
        drop(table);
        Ok(Ok(self.borrow(number, len, mapped)))
    }

    /// A block that the peer has passed before.
    pub(crate) fn borrow_known(self: &Arc<Self>, number: u64, len: usize) -> Result<Arc<dyn Memory>, Broken> {
        let mut table = lock(&self.borrowed);
        let known = table.known.get_mut(&number).ok_or(Broken("an unknown block"))?;
        if len > known.mapped.mapping.size() {
            return Err(Broken("a value larger than its block"));
        }
        if std::mem::replace(&mut known.used, true) {
            return Err(Broken("a block that is in use"));
        }
        let mapped = known.mapped.clone();
        drop(table);
        Ok(self.borrow(number, len, mapped))
    }

    fn borrow(self: &Arc<Self>, number: u64, len: usize, mapped: Arc<Mapped>) -> Arc<dyn Memory> {
        Arc::new(Borrowed {
            mapped: ManuallyDrop::new(mapped),
            blocks: ManuallyDrop::new(self.clone()),
            len,
            number,
            forks: Forks::now(),
            retired: AtomicBool::new(false),
        })
    }

    /// A block that came as bytes, because its descriptor could not be passed.
    pub(crate) fn refuse(&self, number: u64, size: usize) {
        self.outbox.notify(Notice::Retired(number), size);
    }

    /// The peer has said something about a block.
    pub(crate) fn hear(&self, notice: Notice) -> Result<(), Broken> {
        match notice {
            Notice::Returned(number) => self.returned(number),
            Notice::Retired(number) => {
                let loan = lock(&self.lent).used.remove(&number).ok_or(Broken("a block back that it does not have"))?;
                if let Loan::Passed { held, .. } = &loan
                    && let Some(borrowed) = held.as_any().downcast_ref::<Borrowed>()
                {
                    borrowed.retire();
                }
                Ok(())
            }
            Notice::Forgotten(number) => {
                let mut table = lock(&self.borrowed);
                match table.known.get(&number) {
                    None => return Err(Broken("an end of a block that is unknown")),
                    Some(Known { used: true, .. }) => return Err(Broken("an end of a block that is in use")),
                    Some(_) => {}
                }
                let known = table.known.remove(&number);
                drop(table);
                drop(known);
                Ok(())
            }
        }
    }

    fn returned(&self, number: u64) -> Result<(), Broken> {
        let mut lent = lock(&self.lent);
        let freed = match lent.used.remove(&number) {
            None => return Err(Broken("a block back that it does not have")),
            Some(Loan::Ours(block)) => lent.keep(number, block),
            Some(Loan::Passed { of, held }) => {
                lent.passed.entry(of).or_default().push(number);
                drop(lent);
                drop(held);
                return Ok(());
            }
        };
        drop(lent);
        for (number, block) in freed {
            self.outbox.notify(Notice::Forgotten(number), block.size());
        }
        Ok(())
    }

    /// A mapping is going that may have been passed on: the peer will not see it again.
    fn forget(&self, of: usize, size: usize) {
        let numbers = lock(&self.lent).passed.remove(&of).unwrap_or_default();
        for number in numbers {
            self.outbox.notify(Notice::Forgotten(number), size);
        }
    }

    fn give_back(&self, number: u64, retire: bool) {
        let mut table = lock(&self.borrowed);
        let Some(known) = table.known.get_mut(&number) else {
            return;
        };
        known.used = false;
        let size = known.mapped.mapping.size();
        let known = if retire { table.known.remove(&number) } else { None };
        drop(table);
        drop(known);
        self.outbox.notify(if retire { Notice::Retired(number) } else { Notice::Returned(number) }, size);
    }

    /// The link is over.
    pub(crate) fn end(&self) {
        let lent = std::mem::replace(&mut *lock(&self.lent), Lent { over: true, ..Lent::default() });
        let borrowed = std::mem::replace(&mut *lock(&self.borrowed), Table { over: true, ..Table::default() });
        drop((lent, borrowed));
    }
}

impl Lent {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// `false`: the link is over.
    fn enter(&mut self, number: u64, loan: Loan) -> bool {
        if !self.over {
            self.used.insert(number, loan);
        }
        !self.over
    }

    /// Keeps a block for later; what is freed instead is to be dropped by the caller, with no lock held.
    fn keep(&mut self, number: u64, block: Block) -> Vec<(u64, Block)> {
        if block.size() > IDLE_BYTES {
            return vec![(number, block)];
        }
        self.idle_bytes += block.size();
        self.idle.push_back((number, block));
        let mut freed = Vec::new();
        while self.idle_bytes > IDLE_BYTES || self.idle.len() > IDLE_BLOCKS {
            let Some((number, block)) = self.idle.pop_front() else {
                break;
            };
            self.idle_bytes -= block.size();
            freed.push((number, block));
        }
        freed
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let of = std::ptr::from_mut(self).addr();
        let links = self.passed_to.get_mut().unwrap_or_else(PoisonError::into_inner);
        for link in links.iter().filter_map(Weak::upgrade) {
            link.forget(of, self.mapping.size());
        }
    }
}

/// The memory of a value that came in a block. Dropped, it gives the block back.
struct Borrowed {
    mapped: ManuallyDrop<Arc<Mapped>>,
    blocks: ManuallyDrop<Arc<Blocks>>,
    len: usize,
    number: u64,
    /// When it came.
    forks: Forks,
    retired: AtomicBool,
}

impl Borrowed {
    /// Somebody it was passed on to may read it for ever.
    fn retire(&self) {
        // Relaxed: the caller has a share, and `drop` comes after all of these.
        self.retired.store(true, Ordering::Relaxed);
    }
}

impl Memory for Borrowed {
    fn as_ptr(&self) -> *const u8 {
        self.mapped.mapping.as_ptr()
    }
    fn len(&self) -> usize {
        self.len
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let now = Forks::now();
        if !self.forks.is_same_process(now) {
            // A forked child: the link is its parent's, and a thread that is not here may hold its locks.
            return;
        }
        // A child that was forked while the value was here may still read it.
        self.blocks.give_back(self.number, *self.retired.get_mut() || self.forks != now);
        // SAFETY: dropped once, and not used after.
        unsafe {
            ManuallyDrop::drop(&mut self.mapped);
            ManuallyDrop::drop(&mut self.blocks);
        }
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "macos")))]
mod tests;
