//! What waits to be written to a connection.

use bytes::Bytes;

use crate::remoting::command::Command;

/// Pieces of a body up to this size are copied next to the headers; larger ones are written from where they are.
/// Copying a page costs less than one more piece in a vectored write and its reference count.
const COPY_BYTES_MAX: usize = 4096;

/// Frames in the order in which they were queued: `pieces`, then `tail`.
#[derive(Default)]
pub(super) struct Outbox {
    pieces: Vec<Bytes>,
    tail: Vec<u8>,
    /// Bytes queued or being written.
    bytes: usize,
    state: State,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// Closes when all is written.
    Finishing,
    Closed,
}

/// The outbox holds more than it may.
pub(super) struct Full {
    pub(super) bytes: usize,
}

/// A part of the outbox that the writer is writing.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) pieces: Vec<Bytes>,
    pub(super) tail: Vec<u8>,
}

/// What the writer shall do next.
pub(super) enum Next {
    Write,
    Wait,
    /// Everything is written and nothing will follow.
    End,
}

impl Outbox {
    /// Queues a frame. A single frame is taken whatever its size.
    pub(super) fn push(&mut self, command: &Command, bytes_max: usize) -> Result<(), Full> {
        let before = self.tail.len();
        command.encode_head(&mut self.tail);
        let frame = self.tail.len() - before + command.body.len();
        let queued = self.bytes;
        self.bytes += frame;
        for slice in command.body.slices() {
            if slice.len() <= COPY_BYTES_MAX {
                self.tail.extend_from_slice(slice);
            } else {
                self.pieces.push(Bytes::from(std::mem::take(&mut self.tail)));
                self.pieces.push(slice.clone());
            }
        }
        if queued > 0 && self.bytes > bytes_max { Err(Full { bytes: self.bytes }) } else { Ok(()) }
    }

    /// Moves everything into `batch`, whose buffers become the outbox's own.
    pub(super) fn take(&mut self, batch: &mut Batch) -> Next {
        match self.state {
            State::Closed => return Next::End,
            State::Finishing if self.pieces.is_empty() && self.tail.is_empty() => return Next::End,
            _ if self.pieces.is_empty() && self.tail.is_empty() => return Next::Wait,
            _ => {}
        }
        std::mem::swap(&mut self.pieces, &mut batch.pieces);
        std::mem::swap(&mut self.tail, &mut batch.tail);
        Next::Write
    }

    /// Notes that `bytes` have been written; returns how many are left.
    pub(super) fn written(&mut self, bytes: usize) -> usize {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.bytes
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    pub(super) fn finish(&mut self) {
        if self.state == State::Open {
            self.state = State::Finishing;
        }
    }

    /// Closes and lets go of all that is queued.
    pub(super) fn close(&mut self) {
        *self = Self { state: State::Closed, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::code::RequestCode;

    #[test]
    fn small_pieces_are_copied_and_large_ones_are_not() {
        let large = Bytes::from(vec![1; COPY_BYTES_MAX + 1]);
        let command = Command::request(RequestCode::PullMessage).with_body(vec![
            Bytes::from_static(b"small"),
            large.clone(),
            Bytes::from_static(b"end"),
        ]);
        let mut outbox = Outbox::default();
        assert!(outbox.push(&command, 1 << 20).is_ok());
        assert!(outbox.push(&command, 1 << 20).is_ok());
        let mut batch = Batch::default();
        assert!(matches!(outbox.take(&mut batch), Next::Write));
        assert_eq!(batch.pieces.len(), 4);
        assert_eq!(batch.pieces[1].as_ptr(), large.as_ptr());
        let all = [batch.pieces.concat(), batch.tail].concat();
        assert_eq!(all.len(), outbox.bytes());
        assert_eq!(all, [command.to_bytes(), command.to_bytes()].concat());
    }

    #[test]
    fn only_a_second_frame_can_be_too_much() {
        let command = Command::request(RequestCode::PullMessage);
        let mut outbox = Outbox::default();
        assert!(outbox.push(&command, 1).is_ok());
        assert!(outbox.push(&command, 1).is_err());
    }
}
