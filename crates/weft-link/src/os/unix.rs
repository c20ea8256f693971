//! Linux and macOS.
//!
//! A block is a memfd (memfd_create(2)), on macOS a shared memory object whose name is gone before it holds anything. Either is freed by
//! the system with its last descriptor and mapping, however its holders end.
//!
//! On Linux it is sealed (fcntl(2), F_ADD_SEALS): nobody can shorten it, which would kill who reads it, and nobody but its maker can
//! write to it, whose mapping is older than the seal (F_SEAL_FUTURE_WRITE, Linux 5.1; before, and on macOS, all who have the
//! descriptor could). That the maker writes only when all have returned the block is its word: it is this program, too.
//!
//! A board is such memory that both sides write to, and count in (ahead.rs).

use std::ffi::c_int;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, FdFlags, dup2, fcntl_setfd, pread, retry_on_intr};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};
use rustix::process::{Resource, getrlimit};
use weft_core::chan::Word;

use crate::frame::MOST_BLOCKS;

pub(crate) use std::os::fd::OwnedFd as Descriptor;

/// One end of a link: half of a connected pair of Unix stream sockets.
pub struct Socket(OwnedFd);

impl Socket {
    /// A connected pair: one for [`Hub::add_peer`](crate::Hub::add_peer), the other for the child, which makes its
    /// [`Client`](crate::Client) of it.
    ///
    /// Both are closed on exec, so that no other child inherits the child's half: as long as anybody has it open, the child's
    /// death is not seen. Pass it on as the child's standard input, say, and drop it here.
    ///
    /// # Errors
    /// The system's, as for too many open files; on other systems than Linux and macOS always.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Self::new(one.into())?, Self::new(other.into())?))
    }

    /// The half that this process was started with.
    ///
    /// # Errors
    /// It is no open descriptor.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
        #[cfg(target_os = "macos")]
        {
            // There a single send can neither be told not to block nor not to signal.
            rustix::io::ioctl_fionbio(&descriptor, true)?;
            rustix::net::sockopt::set_socket_nosigpipe(&descriptor, true)?;
        }
        Ok(Self(descriptor))
    }

    /// Writes what fits, and all descriptors, or nothing: `WouldBlock`.
    pub(crate) fn send(&self, slices: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        #[cfg(target_os = "macos")]
        let flags = SendFlags::empty();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_BLOCKS))];
        Ok(retry_on_intr(|| {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                let fits = control.push(SendAncillaryMessage::ScmRights(descriptors));
                debug_assert!(fits);
            }
            sendmsg(&self.0, slices, &mut control, flags)
        })?)
    }

    /// Reads bytes, and the descriptors that come with them, or nothing: `WouldBlock`. 0: there will be none.
    pub(crate) fn recv(&self, buffer: &mut [u8], descriptors: &mut impl Extend<Descriptor>) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        #[cfg(target_os = "macos")]
        let flags = RecvFlags::empty();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_BLOCKS))];
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = match recvmsg(&self.0, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(passed) = message {
                    for descriptor in passed {
                        #[cfg(target_os = "macos")]
                        fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
                        descriptors.extend([descriptor]);
                    }
                }
            }
            if received.flags.contains(ReturnFlags::CTRUNC) {
                return Err(io::Error::other("too many open files to receive a block of memory"));
            }
            return Ok(received.bytes);
        }
    }

    /// Waits until something can be written, or the link is over.
    pub(crate) fn wait_writable(&self) -> io::Result<()> {
        self.wait_for(PollFlags::OUT)
    }

    fn wait_for(&self, event: PollFlags) -> io::Result<()> {
        retry_on_intr(|| poll(&mut [PollFd::new(&self.0, event)], None))?;
        Ok(())
    }

    #[cfg(target_os = "linux")]
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The number of its descriptor.
    pub(crate) fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// In a forked child: the link is its parent's, and as long as anybody has the socket open, its peer does not see the parent's death. The number
    /// stays taken, for whoever believes to have it.
    pub(crate) fn let_go(&self) -> io::Result<()> {
        let nothing = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        // SAFETY: the descriptor is open, and is not closed here.
        let mut descriptor = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.0.as_raw_fd()) });
        dup2(&nothing, &mut descriptor)?;
        Ok(fcntl_setfd(&*descriptor, FdFlags::CLOEXEC)?)
    }

    /// Ends the link for both sides; whoever waits on the socket returns.
    pub(crate) fn shut_down(&self) {
        // It fails only when there is nothing to end any more.
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}

/// Where a thread waits for a socket. It cannot be paused, so nobody leads.
#[cfg(target_os = "macos")]
pub(crate) struct Watch;

#[cfg(target_os = "macos")]
impl Watch {
    pub(crate) fn new(_: &Socket) -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn wait(&self, socket: &Socket) -> io::Result<()> {
        socket.wait_for(PollFlags::IN)
    }

    pub(crate) fn pause(&self, _: &Socket) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn resume(&self, _: &Socket) -> io::Result<()> {
        Ok(())
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.0
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.0).finish()
    }
}

/// Whether the system refuses to have so many descriptors on their way (unix(7), ETOOMANYREFS).
pub(crate) fn is_too_many_in_flight(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::TOOMANYREFS.raw_os_error())
}

/// Descriptors kept by blocks.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// Whether one more may be kept: a quarter of what the process may open is ours. Past that, memory travels as bytes, and
/// what arrives is mapped and its descriptor closed.
fn may_keep() -> bool {
    let most = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| most as usize / 4);
    // Relaxed: nothing is ordered by it, and one too many does no harm.
    KEPT.load(Ordering::Relaxed) < most
}

/// The descriptor of a block, to be passed to another process.
#[derive(Clone)]
pub(crate) struct Passed(Arc<Kept>);

struct Kept(OwnedFd);

impl Passed {
    fn new(descriptor: OwnedFd) -> Self {
        KEPT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Kept(descriptor)))
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }

    /// Appends the first bytes.
    pub(crate) fn copy_into(&self, len: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        if len == 0 {
            return Ok(()); // nothing is mapped so
        }
        let region = Region::of(self.descriptor(), len, ProtFlags::READ)?;
        // SAFETY: as long as that, and written to by nobody: the block is lent.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(region.start.as_ptr(), len) });
        Ok(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A block of ours, to be written to by whoever has it.
pub(crate) struct Block {
    region: Region,
    passed: Passed,
}

impl Block {
    /// A new block that begins with these bytes; there are at most as many as its size. An error means that they should travel as bytes.
    pub(crate) fn holding(bytes: &[u8], size: usize) -> io::Result<Self> {
        if !may_keep() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let (descriptor, region) = made(bytes, size, Writers::Maker)?;
        Ok(Self { region, passed: Passed::new(descriptor) })
    }

    /// Writes to it again. Nobody reads it, as long as all keep to blocks.rs.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.region.len, "more bytes than the block has");
        // SAFETY: ours to write, and at least as long; the bytes are elsewhere, for what is in an idle block has been returned.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.region.start.as_ptr(), bytes.len()) };
    }

    pub(crate) fn size(&self) -> usize {
        self.region.len
    }

    pub(crate) fn passed(&self) -> Passed {
        self.passed.clone()
    }
}

/// A block of another process, which is only read here.
pub(crate) struct Mapping {
    region: Region,
    /// `None` when there were too many.
    passed: Option<Passed>,
}

impl Mapping {
    /// Maps what another process has passed. Where there is no room for one more mapping: its first `len` bytes.
    pub(crate) fn new(descriptor: OwnedFd, size: usize, len: usize) -> io::Result<Result<Self, Vec<u8>>> {
        check(&descriptor, size)?;
        if let Ok(region) = Region::of(descriptor.as_fd(), size, ProtFlags::READ) {
            return Ok(Ok(Self { region, passed: may_keep().then(|| Passed::new(descriptor)) }));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len)?;
        bytes.resize(len, 0);
        let mut read = 0;
        while read < len {
            match retry_on_intr(|| pread(&descriptor, &mut bytes[read..], read as u64))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                some => read += some,
            }
        }
        Ok(Err(bytes))
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.region.start.as_ptr()
    }

    pub(crate) fn size(&self) -> usize {
        self.region.len
    }

    /// To be passed on.
    pub(crate) fn passed(&self) -> Option<Passed> {
        self.passed.clone()
    }
}

/// Words that two processes count in.
pub(crate) struct Board {
    region: Region,
}

impl Board {
    /// A new one, and what the other process makes its own of.
    pub(crate) fn made() -> io::Result<(Self, Passed)> {
        if !may_keep() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let (descriptor, region) = made(&[], BOARD, Writers::All)?;
        Ok((Self { region }, Passed::new(descriptor)))
    }

    /// The one that the other process has made.
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        check(&descriptor, BOARD)?;
        Ok(Self { region: Region::of(descriptor.as_fd(), BOARD, ProtFlags::READ | ProtFlags::WRITE)? })
    }

    /// How many words it has.
    pub(crate) const WORDS: u32 = (BOARD / LINE) as u32;

    /// One of them.
    pub(crate) fn word(&self, index: u32) -> &Word {
        assert!(index < Self::WORDS, "a word that the board does not have");
        // SAFETY: within the mapping, which lives as long as `self`; aligned, because mappings begin at pages. A word is an atomic number, of which
        // any bits are one, and both processes reach it as that alone.
        unsafe { &*self.region.start.as_ptr().add(index as usize * LINE).cast::<Word>() }
    }
}

/// How large a board is.
const BOARD: usize = 16 << 10;
/// Words lie apart: no two in one cache line.
const LINE: usize = 64;

/// Who may write to memory that is passed on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writers {
    Maker,
    All,
}

/// Memory that is shared with other processes.
struct Region {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is unmapped by `drop` alone; who may write to it, and when, is for its holders to say.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn of(descriptor: BorrowedFd<'_>, len: usize, allowed: ProtFlags) -> io::Result<Self> {
        // SAFETY: a new mapping, at an address of the system's choice, takes nothing away from anybody.
        let start = unsafe { mmap(ptr::null_mut(), len, allowed, MapFlags::SHARED, descriptor, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `of` with this length, and whoever uses it borrows from `self`, which is going.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Refuses what is shorter than announced, or may become so: reading it could kill the process.
#[cfg(target_os = "linux")]
fn check(descriptor: &OwnedFd, len: usize) -> io::Result<()> {
    use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
    let seals = fcntl_get_seals(descriptor)?;
    let size = fstat(descriptor)?.st_size;
    if seals.contains(SealFlags::SHRINK) && usize::try_from(size).is_ok_and(|size| len <= size) {
        return Ok(());
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// As on Linux; but there are no seals, and that nobody shortens it is the word of the peer, which is this program too.
#[cfg(target_os = "macos")]
fn check(descriptor: &OwnedFd, len: usize) -> io::Result<()> {
    let size = rustix::fs::fstat(descriptor)?.st_size;
    if usize::try_from(size).is_ok_and(|size| len <= size) {
        return Ok(());
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(target_os = "linux")]
fn made(bytes: &[u8], size: usize, writers: Writers) -> io::Result<(OwnedFd, Region)> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    let name = if writers == Writers::Maker { "weft-block" } else { "weft-board" };
    let descriptor = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        // Writing finds the pages without a fault for each of them, which filling the mapping would take.
        let written = retry_on_intr(|| rustix::io::write(&descriptor, rest))?;
        rest = &rest[written..];
    }
    ftruncate(&descriptor, size as u64)?;
    let region = Region::of(descriptor.as_fd(), size, ProtFlags::READ | ProtFlags::WRITE)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    if writers == Writers::All {
        fcntl_add_seals(&descriptor, seals)?;
        return Ok((descriptor, region));
    }
    match fcntl_add_seals(&descriptor, seals | SealFlags::FUTURE_WRITE) {
        // Linux before 5.1 does not know that one.
        Err(Errno::INVAL) => fcntl_add_seals(&descriptor, seals)?,
        sealed => sealed?,
    }
    Ok((descriptor, region))
}

#[cfg(target_os = "macos")]
fn made(bytes: &[u8], size: usize, _: Writers) -> io::Result<(OwnedFd, Region)> {
    use rustix::fs::{Mode, ftruncate};
    use rustix::shm;
    /// Tells the names of this process apart.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let descriptor = loop {
        let name = format!("/weft.{}.{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        match shm::open(&name, shm::OFlags::CREATE | shm::OFlags::EXCL | shm::OFlags::RDWR, Mode::RUSR | Mode::WUSR) {
            // Left by a process with our number that was killed right here.
            Err(Errno::EXIST) => continue,
            opened => {
                let descriptor = opened?;
                shm::unlink(&name)?;
                break descriptor;
            }
        }
    };
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    ftruncate(&descriptor, size as u64)?;
    let region = Region::of(descriptor.as_fd(), size, ProtFlags::READ | ProtFlags::WRITE)?;
    // SAFETY: the mapping is ours alone, and at least as long as the bytes.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), region.start.as_ptr(), bytes.len()) };
    Ok((descriptor, region))
}

/// A moment in the life of this process, as far as forks go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forks(u64);

/// How often this process was forked, and above `PROCESS` how often it came out of a fork itself.
static FORKS: AtomicU64 = AtomicU64::new(0);
const PROCESS: u64 = 1 << 32;

unsafe extern "C" {
    /// POSIX: `prepare` is called before each fork, the others after it.
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> c_int;
}

unsafe extern "C" fn forks() {
    FORKS.fetch_add(1, Ordering::SeqCst);
}

unsafe extern "C" fn is_forked() {
    FORKS.fetch_add(PROCESS, Ordering::SeqCst);
}

impl Forks {
    /// From the first call on, forks are counted.
    pub(crate) fn now() -> Self {
        static COUNTED: Once = Once::new();
        COUNTED.call_once(|| {
            // Before a fork and after it: what came between the two must not look younger than the fork.
            // SAFETY: the functions touch one atomic number, which is all that may be done there. It fails only without memory
            // for three pointers; then forks go unseen.
            unsafe { pthread_atfork(Some(forks), Some(forks), Some(is_forked)) };
        });
        // SeqCst, with the above: it is in one order with the forks.
        Self(FORKS.load(Ordering::SeqCst))
    }

    /// Whether both are of one process, and not of one and a child that was forked from it.
    pub(crate) fn is_same_process(self, other: Self) -> bool {
        self.0 / PROCESS == other.0 / PROCESS
    }
}

#[cfg(all(test, target_os = "linux", target_pointer_width = "64"))]
mod tests {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

    use super::*;

    #[test]
    fn what_cannot_be_mapped_is_read() {
        let beyond_all_addresses = 1 << 47;
        let descriptor = memfd_create("weft-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::write(&descriptor, b"what is in it").unwrap();
        ftruncate(&descriptor, beyond_all_addresses as u64).unwrap();
        fcntl_add_seals(&descriptor, SealFlags::SHRINK).unwrap();
        let read = Mapping::new(descriptor, beyond_all_addresses, 7).unwrap();
        assert_eq!(read.err().as_deref(), Some(&b"what is"[..]));
    }
}
