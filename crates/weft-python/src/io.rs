//! `readable` and `writable`, and the little of `poll(2)` they need: the one door to the operating system's descriptors.
//!
//! A loop watches a duplicate of the descriptor, so that it never meets the loop's own registrations for the same one. A thread polls.
//! Where there is no `poll(2)` (Windows) a thread cannot wait for a descriptor, and is told so.

use std::ffi::c_int;
use std::time::Instant;

use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::op::{self, Kind, OpObject};
use crate::state::{Ref, State};

/// The number of a descriptor given as an int or as something with `fileno()`.
fn number(state: &State, object: *mut PyObject) -> Py<c_int> {
    // SAFETY: a live object.
    unsafe {
        let number = if c::PyLong_Check(object) != 0 && c::PyBool_Check(object) == 0 {
            Owned::from_borrowed(object)
        } else {
            match ffi::call_method(state.get(Ref::Fileno), &[object]) {
                Ok(number) if c::PyLong_Check(number.as_ptr()) != 0 => number,
                Err(ffi::Raised) if c::PyErr_ExceptionMatches(c::PyExc_AttributeError) == 0 => return Err(ffi::Raised),
                _ => {
                    c::PyErr_Clear();
                    return Err(ffi::type_error(&format!(
                        "a file descriptor or an object with fileno() is needed, not {}",
                        ffi::type_name(object)
                    )));
                }
            }
        };
        let number = ffi::long(number.as_ptr())?;
        match c_int::try_from(number) {
            Ok(fd) if fd >= 0 => Ok(fd),
            _ => Err(ffi::value_error(&format!("a file descriptor is not negative: {number}"))),
        }
    }
}

fn make(module: *mut PyObject, file: *mut PyObject, kind: Kind) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes our module and a live object.
        let state = unsafe { crate::state_of_module(module) };
        let fd = number(state, file)?;
        op::descriptor(state, kind, file, fd)
    })
}

/// `readable(fd)`
pub unsafe extern "C" fn readable(module: *mut PyObject, file: *mut PyObject) -> *mut PyObject {
    make(module, file, Kind::Readable)
}

/// `writable(fd)`
pub unsafe extern "C" fn writable(module: *mut PyObject, file: *mut PyObject) -> *mut PyObject {
    make(module, file, Kind::Writable)
}

/// The descriptors among an operation's leaves.
pub fn watched(leaves: &[*mut OpObject]) -> Vec<Watched> {
    leaves
        .iter()
        .enumerate()
        .filter_map(|(case, leaf)| {
            // SAFETY: the operation holds its leaves.
            let leaf = unsafe { &**leaf };
            let fd = leaf.descriptor()?;
            Some(Watched::new(case as u32, fd, leaf.kind() == Kind::Writable))
        })
        .collect()
}

pub use system::{Pipe, Watched, close, duplicate, is_ready, poll};

#[cfg(unix)]
mod system {
    use std::time::Duration;

    use super::{Instant, Py, c_int, ffi};

    /// One descriptor of a poll.
    pub struct Watched {
        case: u32,
        poll: libc::pollfd,
    }

    impl Watched {
        pub fn new(case: u32, fd: c_int, write: bool) -> Self {
            Self { case, poll: entry(fd, write) }
        }

        pub fn case(&self) -> u32 {
            self.case
        }

        pub fn is_ready(&self) -> bool {
            self.poll.revents != 0
        }
    }

    fn entry(fd: c_int, write: bool) -> libc::pollfd {
        libc::pollfd { fd, events: if write { libc::POLLOUT } else { libc::POLLIN }, revents: 0 }
    }

    /// Whether the descriptor is ready now; an error when there is no such descriptor.
    pub fn is_ready(fd: c_int, write: bool) -> Py<bool> {
        let mut poll = entry(fd, write);
        // SAFETY: one entry.
        let count = unsafe { libc::poll(&mut poll, 1, 0) };
        if count > 0 && poll.revents & libc::POLLNVAL != 0 {
            return Err(ffi::value_error(&format!("file descriptor {fd} is not open")));
        }
        Ok(count > 0)
    }

    /// Waits for the descriptors, the pipe, the deadline, or a signal.
    pub fn poll(watched: &mut [Watched], pipe: &Pipe, deadline: Option<Instant>) {
        let mut all: Vec<libc::pollfd> = watched.iter().map(|watched| watched.poll).collect();
        all.push(entry(pipe.read, false));
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let count = poll_for(&mut all, left);
        if count < 0 {
            return;
        }
        for (watched, polled) in watched.iter_mut().zip(&all) {
            watched.poll.revents = polled.revents;
        }
    }

    #[cfg(target_os = "linux")]
    fn poll_for(all: &mut [libc::pollfd], left: Option<Duration>) -> c_int {
        let left = left.map(|left| libc::timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let timeout = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the array and its length; the time, or none; no signals are blocked.
        unsafe { libc::ppoll(all.as_mut_ptr(), all.len() as libc::nfds_t, timeout, std::ptr::null()) }
    }

    #[cfg(not(target_os = "linux"))]
    fn poll_for(all: &mut [libc::pollfd], left: Option<Duration>) -> c_int {
        let milliseconds =
            left.map_or(-1, |left| c_int::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX));
        // SAFETY: the array and its length.
        unsafe { libc::poll(all.as_mut_ptr(), all.len() as libc::nfds_t, milliseconds) }
    }

    /// A way to wake a thread that polls.
    pub struct Pipe {
        read: c_int,
        write: c_int,
    }

    impl Pipe {
        pub fn new() -> Py<Self> {
            let mut ends = [0; 2];
            // SAFETY: room for two descriptors, which are then ours.
            unsafe {
                if libc::pipe(ends.as_mut_ptr()) < 0 {
                    return Err(last_error());
                }
                for end in ends {
                    libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC);
                    libc::fcntl(end, libc::F_SETFL, libc::O_NONBLOCK);
                }
            }
            Ok(Self { read: ends[0], write: ends[1] })
        }

        /// The descriptor to watch.
        pub fn reads(&self) -> c_int {
            self.read
        }

        pub fn write(&self) {
            // SAFETY: one byte; a full pipe is as good.
            unsafe { libc::write(self.write, [1_u8].as_ptr().cast(), 1) };
        }

        pub fn drain(&self) {
            let mut bytes = [0_u8; 64];
            // SAFETY: room for what is read.
            while unsafe { libc::read(self.read, bytes.as_mut_ptr().cast(), bytes.len()) } > 0 {}
        }
    }

    impl Drop for Pipe {
        fn drop(&mut self) {
            close(self.read);
            close(self.write);
        }
    }

    /// A second descriptor for the same file.
    pub fn duplicate(fd: c_int) -> Py<c_int> {
        // SAFETY: plain call.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        if copy < 0 { Err(last_error()) } else { Ok(copy) }
    }

    pub fn close(fd: c_int) {
        // SAFETY: a descriptor of ours.
        unsafe { libc::close(fd) };
    }

    fn last_error() -> ffi::Raised {
        // SAFETY: an exception type; errno was just set.
        unsafe { ffi::c::PyErr_SetFromErrno(ffi::c::PyExc_OSError) };
        ffi::Raised
    }
}

#[cfg(not(unix))]
mod system {
    use super::{Instant, Py, c_int, ffi};

    pub struct Watched {
        case: u32,
    }

    impl Watched {
        pub fn new(case: u32, _: c_int, _: bool) -> Self {
            Self { case }
        }

        pub fn case(&self) -> u32 {
            self.case
        }

        pub fn is_ready(&self) -> bool {
            false
        }
    }

    /// In a loop the loop will say; here nothing is known yet.
    pub fn is_ready(_: c_int, _: bool) -> Py<bool> {
        Ok(false)
    }

    pub fn poll(_: &mut [Watched], _: &Pipe, _: Option<Instant>) {}

    pub struct Pipe(std::convert::Infallible);

    impl Pipe {
        pub fn new() -> Py<Self> {
            // SAFETY: an exception type.
            Err(unsafe {
                ffi::raise(
                    ffi::c::PyExc_NotImplementedError,
                    "a thread cannot wait for a descriptor on this system: await the operation in an event loop",
                )
            })
        }

        pub fn reads(&self) -> c_int {
            -1
        }

        pub fn write(&self) {}

        pub fn drain(&self) {}
    }

    pub fn duplicate(fd: c_int) -> Py<c_int> {
        Ok(fd)
    }

    pub fn close(_: c_int) {}
}
