//! What fuzz targets reach of this module: the decoders of bytes that come from other replicas and from the small files.
//!
//! Each function takes any bytes, and panics if a decoder does something that it must not.

use std::cell::RefCell;
use std::fmt::Debug;

use bytes::Bytes;
use openraft::raft;
use prost::Message as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::{
    Id, SavedVote, StateImage, from_file, membership_from_bytes, membership_to_bytes, to_file,
};
use super::files::{ReplicaFile, decode_snapshot};
use super::log::stored_entry;
use super::types::{Payload, Types};
use super::wire;
use crate::env::Disk;
use crate::message::records;
use crate::metadata::{Metadata, MetadataCommand, decode_commands, encode_commands};
use crate::model::{LogIndex, PhysicalOffset};
use crate::store::{decode_entry, position_of};

/// A message of the Raft port; the first byte says which.
pub fn message(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 9 {
        0 => converted(data, |request: wire::VoteRequest| {
            let target = request.target.clone().unwrap_or_default();
            let known = raft::VoteRequest::<Types>::try_from(request.clone()).ok()?;
            Some((
                wire::VoteRequest { target: Some(target.clone()), ..request },
                wire::vote_request(target, &known),
            ))
        }),
        1 => converted(data, |response: wire::VoteResponse| {
            let known = raft::VoteResponse::<Types>::try_from(response).ok()?;
            Some((response, known.into()))
        }),
        2 => converted(data, |request: wire::AppendRequest| {
            let known = wire::append_entries(request.clone(), stored_entry).ok()?;
            Some((wire::AppendRequest { target: None, ..request }, wire::append_request(known).ok()?))
        }),
        3 => converted(data, |response: wire::AppendResponse| {
            let known = wire::append_result(response).ok()?;
            Some((response, known.into()))
        }),
        4 => converted(data, |head: wire::SnapshotHead| {
            let target = head.target.clone().unwrap_or_default();
            let (vote, meta) = wire::snapshot_meta(head.clone()).ok()?;
            let again = wire::snapshot_head(target.clone(), vote, &meta, head.size);
            // A membership has more than one form.
            Some((
                wire::SnapshotHead { target: Some(target), membership: again.membership.clone(), ..head },
                again,
            ))
        }),
        5 => converted(data, |response: wire::SnapshotResponse| {
            let known = raft::SnapshotResponse::<Types>::try_from(response).ok()?;
            Some((response, wire::SnapshotResponse { vote: Some(known.vote.into()) }))
        }),
        6 => converted(data, |request: wire::TransferLeaderRequest| {
            let target = request.target.clone().unwrap_or_default();
            let known = wire::transfer_leader(request.clone()).ok()?;
            let again = wire::transfer_request(target.clone(), &known);
            Some((wire::TransferLeaderRequest { target: Some(target), ..request }, again))
        }),
        7 => converted(data, |response: wire::TransferLeaderResponse| {
            let known = wire::transfer_result(response).ok()?;
            Some((response, known.into()))
        }),
        _ => {
            if let Ok(hello) = wire::HelloResponse::decode(data) {
                let members = hello.members.iter().map(|member| &member.identity);
                members.chain([&hello.identity]).for_each(|identity| {
                    if let Ok(known) = wire::identity_from_bytes(identity) {
                        assert_eq!(wire::identity_to_bytes(known), identity);
                    }
                });
            }
            // Whatever else may come, as it is.
            let _ = wire::FetchResponse::decode(data);
            let _ = wire::SnapshotChunk::decode(data);
        }
    }
}

/// Decodes a message and converts it there and back; what comes back must be what came in.
fn converted<M: prost::Message + Default + PartialEq + Debug>(
    data: &[u8],
    convert: impl FnOnce(M) -> Option<(M, M)>,
) {
    if let Ok(message) = M::decode(data)
        && let Some((sent, again)) = convert(message)
    {
        assert_eq!(sent, again);
    }
}

/// An entry as another replica sends it: its record, its messages, its changes.
pub fn entry(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let Some(position) = position_of(&bytes) else { return };
    let head = decode_entry(&bytes, position);
    match stored_entry(bytes.clone()) {
        Ok(entry) => {
            let head = head.expect("what is taken in can be read");
            assert_eq!(head.len(), data.len());
            assert_eq!(entry.log_id.index(), head.index.0);
            let Payload::Stored(stored) = entry.payload else { panic!("an entry comes with its bytes") };
            assert_eq!((stored.position, stored.bytes), (position, bytes.clone()));
            for record in records(&bytes[head.record_len..]) {
                let Ok(record) = record else { break };
                assert!(record.total_size <= data.len());
            }
            commands(head.command);
            membership(head.command);
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::InvalidData),
    }
    commands(data);
    membership(data);
}

fn membership(data: &[u8]) {
    if let Ok(membership) = membership_from_bytes(data) {
        let again = membership_from_bytes(&membership_to_bytes(&membership));
        assert_eq!(again.expect("what was read can be written and read"), membership);
    }
}

/// The changes in an entry: read, written, carried out.
pub fn commands(data: &[u8]) {
    let Ok(commands) = decode_commands(data) else { return };
    let again = decode_commands(&encode_commands(&commands)).expect("what was read can be written and read");
    assert_eq!(again, commands);
    with_tables(|tables| {
        for command in &commands {
            tables.apply(command, 1);
            if let MetadataCommand::PutTopic(config) = command {
                assert!(tables.topics().get(&config.topic_name).is_some());
            }
        }
        let image = tables.image();
        tables.restore(&image).expect("tables can be restored from their image");
        assert_eq!(tables.image(), image);
    });
}

/// The content of a small file; the first byte says which. Damage is found by a CRC, so what is behind it is read with
/// the right one, too.
pub fn file(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 6 {
        0 => drop(kept::<(u64, SavedVote)>(b"QUORVOT1", data)),
        1 => drop(kept::<ReplicaFile>(b"QUORREP1", data)),
        2 => drop(kept::<Id>(b"QUORCOM1", data)),
        3 => drop(kept::<LogIndex>(b"QUORBAR1", data)),
        _ => {
            let _ = decode_snapshot(data);
            let Some(image) = kept::<StateImage>(b"QUORIMG2", data) else { return };
            let _ = image.meta();
            let queues = image.seeds();
            assert!(queues.len() <= data.len(), "a queue takes more than a byte");
            let _ = image.forgotten_since(PhysicalOffset(1));
            with_tables(|tables| {
                if tables.restore(&image.metadata).is_ok() {
                    let image = tables.image();
                    tables.restore(&image).expect("tables can be restored from their image");
                    assert_eq!(tables.image(), image);
                }
            });
        }
    }
}

fn kept<T: Serialize + DeserializeOwned + PartialEq + Debug>(magic: &[u8; 8], data: &[u8]) -> Option<T> {
    let _ = from_file::<T>(magic, data);
    let value: T =
        from_file(magic, &[magic, &crc32fast::hash(data).to_be_bytes()[..], data].concat()).ok()?;
    assert_eq!(from_file::<T>(magic, &to_file(magic, &value)).expect("what was written can be read"), value);
    Some(value)
}

/// Calls `with` with empty tables.
fn with_tables(with: impl FnOnce(&Metadata)) {
    thread_local! {
        static TABLES: RefCell<Option<Metadata>> = const { RefCell::new(None) };
    }
    TABLES.with_borrow_mut(|tables| {
        // Nothing is ever saved there.
        let folder = std::env::temp_dir();
        let none = std::path::Path::new("quorate-fuzz-tables");
        let tables = tables.get_or_insert_with(|| {
            Metadata::open(&folder.join(none), Disk::real()).expect("a temporary folder can be made")
        });
        tables.restore(&crate::metadata::MetadataImage::default()).expect("tables can be emptied");
        with(tables);
    });
}
