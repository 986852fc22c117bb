//! The ways between the replicas of the groups in tests, which can be cut, each direction for itself.
//!
//! What is on a way that is cut waits there, as it would in a socket: until the way is whole again, or until whoever sent
//! it gives up.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::LazyLock;

use futures_util::{Stream, StreamExt};
use tokio::sync::watch;

use super::wire;

type Ways = HashSet<(u64, u64)>;

/// By group. Of the whole process, since product code has no place for it; each test has groups of its own.
static CUT: LazyLock<watch::Sender<HashMap<String, Ways>>> =
    LazyLock::new(|| watch::channel(HashMap::new()).0);

/// Cuts these ways of a group, and no other ones.
pub(super) fn cut(group: &str, ways: impl IntoIterator<Item = (u64, u64)>) {
    let ways: Ways = ways.into_iter().collect();
    CUT.send_modify(|cut| {
        if ways.is_empty() {
            cut.remove(group);
        } else {
            cut.insert(group.to_owned(), ways);
        }
    });
}

/// Waits until the way is whole.
pub(super) async fn pass(group: &str, from: u64, to: u64) {
    let mut cut = CUT.subscribe();
    let whole = |cut: &HashMap<String, Ways>| cut.get(group).is_none_or(|ways| !ways.contains(&(from, to)));
    let _ = cut.wait_for(whole).await;
}

/// Sends each item when the way is whole.
pub(super) fn through<S>(items: S, target: &wire::Target) -> Pin<Box<dyn Stream<Item = S::Item> + Send>>
where
    S: Stream<Item: Send> + Send + 'static,
{
    let target = target.clone();
    Box::pin(items.then(move |item| {
        let target = target.clone();
        async move {
            pass(&target.group, target.from, target.to).await;
            item
        }
    }))
}
