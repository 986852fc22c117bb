//! What replicas of a group send each other, and the small files that they keep.

use quorate::replication::fuzz;

pub(super) fn message(data: &[u8]) {
    fuzz::message(data);
}

pub(super) fn entry(data: &[u8]) {
    fuzz::entry(data);
}

pub(super) fn file(data: &[u8]) {
    fuzz::file(data);
}

pub(super) fn commands(data: &[u8]) {
    fuzz::commands(data);
}
