//! The writing task of a connection.

use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::atomic::Ordering;

use bytes::Buf;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tracing::debug;

use super::Connection;
use super::outbox::{Batch, Next};

/// As many pieces as one system call gets; Linux takes 1024, but a pull answer has fewer than this.
const PIECES_MAX: usize = 128;

/// A buffer larger than this is given back to the allocator after use, so that one big burst does not cost memory for
/// as long as its connection lives.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// Writes what is queued until the connection closes.
pub(super) async fn run(mut socket: impl AsyncWrite + Unpin, connection: Connection) {
    let mut closed = pin!(connection.closed());
    let mut batch = Batch::default();
    loop {
        let next = connection.outbox().take(&mut batch);
        match next {
            Next::End => break,
            Next::Wait => connection.0.filled.notified().await,
            Next::Write => {
                let written = tokio::select! {
                    written = write(&mut socket, &connection, &mut batch) => written,
                    () = &mut closed => break,
                };
                if let Err(error) = written {
                    debug!(%error, "write to a connection");
                    break;
                }
            }
        }
    }
    // A clean end tells the peer at once, where a lost connection would cost it a timeout.
    let _ = socket.shutdown().await;
    connection.close();
}

async fn write(
    socket: &mut (impl AsyncWrite + Unpin),
    connection: &Connection,
    batch: &mut Batch,
) -> io::Result<()> {
    // Whole pieces that are written.
    let mut done = 0;
    let mut tail: &[u8] = &batch.tail;
    while done < batch.pieces.len() || !tail.is_empty() {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let mut count = 0;
        let sources = batch.pieces[done..].iter().map(|piece| &**piece).chain(std::iter::once(tail));
        for (slice, source) in slices.iter_mut().zip(sources) {
            *slice = IoSlice::new(source);
            count += 1;
        }
        let written = socket.write_vectored(&slices[..count]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut rest = written;
        while let Some(piece) = batch.pieces.get_mut(done) {
            if rest < piece.len() {
                piece.advance(rest);
                rest = 0;
                break;
            }
            rest -= piece.len();
            done += 1;
        }
        tail = &tail[rest..];
        note(connection, written);
    }
    batch.pieces.clear();
    batch.tail.clear();
    if batch.tail.capacity() > KEPT_BYTES_MAX {
        batch.tail = Vec::new();
    }
    Ok(())
}

fn note(connection: &Connection, written: usize) {
    connection.0.sent_bytes.fetch_add(u64::try_from(written).unwrap_or(0), Ordering::Relaxed);
    let left = connection.outbox().written(written);
    if left <= connection.0.outbound_bytes_max / 2 {
        connection.0.drained.notify_one();
    }
}
