//! Linux and macOS.
//!
//! A block is a sealed memfd (memfd_create(2), fcntl(2) F_ADD_SEALS), on macOS a shared memory object whose name is gone before it holds
//! anything. Either is freed by the system with its last descriptor and mapping, however its holders end.

use std::any::Any;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd, retry_on_intr};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};
use rustix::process::{Resource, getrlimit};

use crate::frame::MOST_BLOCKS;
use crate::memory::Memory;

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

    /// Waits for bytes, and for the descriptors that come with them. 0: there will be none.
    pub(crate) fn recv(&self, buffer: &mut [u8], descriptors: &mut impl Extend<Descriptor>) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        let flags = RecvFlags::CMSG_CLOEXEC;
        #[cfg(target_os = "macos")]
        let flags = RecvFlags::empty();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_BLOCKS))];
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = match recvmsg(&self.0, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.wait_for(PollFlags::IN)?;
                    continue;
                }
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

    /// Ends the link for both sides; whoever waits on the socket returns.
    pub(crate) fn shut_down(&self) {
        // It fails only when there is nothing to end any more.
        let _ = shutdown(&self.0, Shutdown::Both);
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

/// Memory that can be passed to another process and is never written to again.
#[derive(Clone)]
pub(crate) struct Block(Arc<Kept>);

struct Kept {
    descriptor: OwnedFd,
    len: usize,
}

impl Block {
    /// A copy of the bytes. An error means that they should travel as bytes.
    pub(crate) fn holding(bytes: &[u8]) -> io::Result<Self> {
        if !may_keep() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        Ok(Self::keeping(copied(bytes)?, bytes.len()))
    }

    fn keeping(descriptor: OwnedFd, len: usize) -> Self {
        KEPT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Kept { descriptor, len }))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.descriptor.as_fd()
    }

    /// Appends the bytes.
    pub(crate) fn copy_into(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mapping = Mapping::of(&self.0.descriptor, self.0.len)?;
        bytes.extend_from_slice((&mapping as &dyn Memory).as_slice());
        Ok(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A block as memory of this process: private and read-only.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    /// To be passed on; `None` when there were too many.
    block: Option<Block>,
}

// SAFETY: the memory is read-only, belongs to nobody else, and is unmapped by `drop` alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps what another process has passed.
    pub(crate) fn new(descriptor: OwnedFd, len: usize) -> io::Result<Self> {
        check(&descriptor, len)?;
        let mut mapping = Self::of(&descriptor, len)?;
        mapping.block = may_keep().then(|| Block::keeping(descriptor, len));
        Ok(mapping)
    }

    /// Maps a block that was checked, or that this process made.
    fn of(descriptor: &OwnedFd, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping, at an address of the system's choice, takes nothing away from anybody.
        let start = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, descriptor.as_fd(), 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len, block: None })
    }

    pub(crate) fn block(&self) -> Option<Block> {
        self.block.clone()
    }
}

impl Memory for Mapping {
    fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }
    fn len(&self) -> usize {
        self.len
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of` with this length, and whoever reads it borrows from `self`, which is going.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Refuses what is shorter than announced, or may change: reading it could kill the process.
#[cfg(target_os = "linux")]
fn check(descriptor: &OwnedFd, len: usize) -> io::Result<()> {
    use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
    let seals = fcntl_get_seals(descriptor)?;
    let size = fstat(descriptor)?.st_size;
    if seals.contains(SealFlags::SHRINK | SealFlags::WRITE) && usize::try_from(size).is_ok_and(|size| len <= size) {
        return Ok(());
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// As on Linux; but there are no seals, and that nobody writes to it is the word of the peer, which is this program too.
#[cfg(target_os = "macos")]
fn check(descriptor: &OwnedFd, len: usize) -> io::Result<()> {
    let size = rustix::fs::fstat(descriptor)?.st_size;
    if usize::try_from(size).is_ok_and(|size| len <= size) {
        return Ok(());
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(target_os = "linux")]
fn copied(bytes: &[u8]) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let descriptor = memfd_create("weft", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        // Writing finds the pages without a fault for each of them, which filling a mapping would take.
        let written = retry_on_intr(|| rustix::io::write(&descriptor, rest))?;
        rest = &rest[written..];
    }
    fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(descriptor)
}

#[cfg(target_os = "macos")]
fn copied(bytes: &[u8]) -> io::Result<OwnedFd> {
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
    ftruncate(&descriptor, bytes.len() as u64)?;
    // SAFETY: a new mapping takes nothing away from anybody.
    let start =
        unsafe { mmap(ptr::null_mut(), bytes.len(), ProtFlags::WRITE, MapFlags::SHARED, descriptor.as_fd(), 0) }?;
    // SAFETY: the mapping is ours alone and as long as the bytes; it goes with nothing pointing to it.
    unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr(), start.cast(), bytes.len());
        munmap(start, bytes.len())?;
    }
    Ok(descriptor)
}
