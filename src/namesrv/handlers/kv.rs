//! PUT_KV_CONFIG (100), GET_KV_CONFIG (101), DELETE_KV_CONFIG (102), GET_KVLIST_BY_NAMESPACE (219).

use super::{Refusal, Result, success};
use crate::namesrv::kv::KvStore;
use crate::remoting::Command;
use crate::remoting::header::{
    GetKvConfigResponseHeader, GetKvListByNamespaceRequestHeader, KvConfigRequestHeader,
    PutKvConfigRequestHeader,
};

pub(in crate::namesrv) async fn put(store: &KvStore, request: &Command) -> Result {
    let fields = &request.ext_fields;
    if fields.get("namespace").is_none() || fields.get("key").is_none() {
        return Err(Refusal::NoNamespaceOrKey);
    }
    let PutKvConfigRequestHeader { namespace, key, value } = request.header()?;
    store.change(|values| values.put(&namespace, &key, &value)).await?;
    Ok(success())
}

pub(in crate::namesrv) fn get(store: &KvStore, request: &Command) -> Result {
    let KvConfigRequestHeader { namespace, key } = request.header()?;
    match store.read().get(&namespace, &key) {
        Some(value) => {
            Ok(success().with_header(&GetKvConfigResponseHeader { value: Some(value.to_owned()) }))
        }
        None => Err(Refusal::NoItem(namespace, key)),
    }
}

pub(in crate::namesrv) async fn delete(store: &KvStore, request: &Command) -> Result {
    let KvConfigRequestHeader { namespace, key } = request.header()?;
    store.change(|values| values.remove(&namespace, &key)).await?;
    Ok(success())
}

pub(in crate::namesrv) fn list(store: &KvStore, request: &Command) -> Result {
    let GetKvListByNamespaceRequestHeader { namespace } = request.header()?;
    match store.read().list(&namespace) {
        Some(table) => Ok(success().with_json(&table)),
        None => Err(Refusal::NoNamespace(namespace)),
    }
}
