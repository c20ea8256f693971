//! Any other system: there is no socket, so nothing that needs one is ever reached.

use std::io::{self, IoSlice};

/// One end of a link. There is none on this system: processes are linked on Linux and macOS.
#[derive(Debug)]
pub enum Socket {}

impl Socket {
    /// A connected pair.
    ///
    /// # Errors
    /// Always: processes are linked on Linux and macOS only.
    pub fn pair() -> io::Result<(Self, Self)> {
        let reason = "channels between processes need Linux or macOS: use threads, or sub-interpreters, here";
        Err(io::Error::new(io::ErrorKind::Unsupported, reason))
    }

    pub(crate) fn send(&self, _: &[IoSlice<'_>], _: &[Descriptor]) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn recv(&self, _: &mut [u8], _: &mut impl Extend<Descriptor>) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn wait_writable(&self) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn number(&self) -> i32 {
        match *self {}
    }

    pub(crate) fn let_go(&self) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn shut_down(&self) {
        match *self {}
    }
}

pub(crate) enum Watch {}

impl Watch {
    pub(crate) fn new(socket: &Socket) -> io::Result<Self> {
        match *socket {}
    }

    pub(crate) fn wait(&self, _: &Socket) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn pause(&self, _: &Socket) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn resume(&self, _: &Socket) -> io::Result<()> {
        match *self {}
    }
}

pub(crate) fn is_too_many_in_flight(_: &io::Error) -> bool {
    false
}

#[derive(Clone, Copy)]
pub(crate) enum Descriptor {}

#[derive(Clone)]
pub(crate) enum Passed {}

impl Passed {
    pub(crate) fn descriptor(&self) -> Descriptor {
        match *self {}
    }

    pub(crate) fn copy_into(&self, _: usize, _: &mut Vec<u8>) -> io::Result<()> {
        match *self {}
    }
}

pub(crate) enum Block {}

impl Block {
    pub(crate) fn holding(_: &[u8], _: usize) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn fill(&mut self, _: &[u8]) {
        match *self {}
    }

    pub(crate) fn size(&self) -> usize {
        match *self {}
    }

    pub(crate) fn passed(&self) -> Passed {
        match *self {}
    }
}

pub(crate) enum Board {}

impl Board {
    pub(crate) const WORDS: u32 = 1;

    pub(crate) fn made() -> io::Result<(Self, Passed)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn new(descriptor: Descriptor) -> io::Result<Self> {
        match descriptor {}
    }

    pub(crate) fn word(&self, _: u32) -> &weft_core::chan::Word {
        match *self {}
    }
}

pub(crate) enum Mapping {}

impl Mapping {
    pub(crate) fn new(descriptor: Descriptor, _: usize, _: usize) -> io::Result<Result<Self, Vec<u8>>> {
        match descriptor {}
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        match *self {}
    }

    pub(crate) fn size(&self) -> usize {
        match *self {}
    }

    pub(crate) fn passed(&self) -> Option<Passed> {
        match *self {}
    }
}

/// There is nothing that a fork could make a difference to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forks;

impl Forks {
    pub(crate) fn now() -> Self {
        Self
    }

    pub(crate) fn is_same_process(self, _: Self) -> bool {
        true
    }
}
