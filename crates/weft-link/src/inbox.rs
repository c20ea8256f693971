//! What comes from one peer: bytes and descriptors into frames.
//!
//! A frame is handed out when all of it is there. What a peer wrote half before it died is never seen. Descriptors arrive no later than
//! the first byte of the frame they belong to (unix(7): a receive does not pass the bytes they were sent with), and in the order of
//! the frames, so each frame takes as many as its header says.

use std::collections::VecDeque;
use std::io;

use crate::frame::{Body, Broken, HEADER, Header};
use crate::os::{Descriptor, Socket};

/// How much is read at once.
const CHUNK: usize = 64 << 10;

pub(crate) struct Inbox {
    buffer: Vec<u8>,
    /// What of the buffer was read from the socket and not yet handed out.
    start: usize,
    end: usize,
    descriptors: VecDeque<Descriptor>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; CHUNK], start: 0, end: 0, descriptors: VecDeque::new() }
    }

    /// Reads what is there: `WouldBlock` when that is nothing. `false`: there will be none.
    pub(crate) fn fill(&mut self, socket: &Socket) -> io::Result<bool> {
        self.make_room();
        let count = socket.recv(&mut self.buffer[self.end..], &mut self.descriptors)?;
        self.end += count;
        Ok(count > 0)
    }

    /// The next frame, if all of it is there.
    pub(crate) fn next(&mut self) -> Result<Option<Body<'_>>, Broken> {
        let Some(header) = self.header()? else {
            return Ok(None);
        };
        let from = self.start + HEADER;
        if self.end - from < header.length {
            return Ok(None);
        }
        self.start = from + header.length;
        if self.descriptors.len() < header.descriptors {
            return Err(Broken("a frame without its descriptors"));
        }
        let bytes = &self.buffer[from..self.start];
        Body::new(header, bytes, self.descriptors.drain(..header.descriptors)).map(Some)
    }

    fn header(&self) -> Result<Option<Header>, Broken> {
        self.buffer[self.start..self.end].first_chunk().map(Header::read).transpose()
    }

    /// Room to read into: at least a chunk, or twice what there is of a longer frame. What is only announced takes no memory.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            // A long frame is past; its room is not kept for ever.
            self.buffer.truncate(CHUNK);
            self.buffer.shrink_to(CHUNK);
        } else if self.buffer.len() - self.end < CHUNK / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let wanted = CHUNK.max(self.end * 2);
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
        }
    }
}
