//! The one door to the operating system: sockets that carry descriptors, and memory that can be passed on.

#[cfg_attr(any(target_os = "linux", target_os = "macos"), path = "os/unix.rs")]
#[cfg_attr(not(any(target_os = "linux", target_os = "macos")), path = "os/unsupported.rs")]
mod system;
#[cfg(target_os = "linux")]
mod watch;

pub use system::Socket;
#[cfg(not(target_os = "linux"))]
pub(crate) use system::Watch;
pub(crate) use system::{Block, Board, Descriptor, Forks, Mapping, Passed, is_too_many_in_flight};
#[cfg(target_os = "linux")]
pub(crate) use watch::Watch;
