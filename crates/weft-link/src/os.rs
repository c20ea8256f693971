//! The one door to the operating system: sockets that carry descriptors, and memory that can be passed on.

#[cfg_attr(any(target_os = "linux", target_os = "macos"), path = "os/unix.rs")]
#[cfg_attr(not(any(target_os = "linux", target_os = "macos")), path = "os/unsupported.rs")]
mod system;

pub use system::Socket;
pub(crate) use system::{Block, Board, Descriptor, Forks, Mapping, Passed, Watch, is_too_many_in_flight};
