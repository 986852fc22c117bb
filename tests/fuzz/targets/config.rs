//! Configuration files of the broker and of the name server, and updates of settings.

use std::collections::BTreeMap;

use quorate::config::properties::{decode, escape, parse, rewrite};
use quorate::config::{BrokerConfig, Loaded, NamesrvConfig, Settings, update_items};

pub(super) fn config(data: &[u8]) {
    let text = decode(data);
    let Ok(items) = parse(&text) else { return };
    assert!(items.len() <= data.len() + 1);
    let mut pairs = BTreeMap::new();
    for item in &items {
        assert!((1..=data.len() + 1).contains(&item.line()));
        pairs.insert(item.key.clone(), item.value.clone());
        let again = parse(&escape(&item.key, &item.value)).expect("what is escaped can be read");
        assert_eq!((&again[0].key, &again[0].value), (&item.key, &item.value));
    }
    let changed: BTreeMap<_, _> = pairs.keys().map(|key| (key.clone(), "new value ".to_owned())).collect();
    let rewritten =
        parse(&rewrite(&text, &changed).expect("it was read before")).expect("it was just written");
    for (key, value) in &changed {
        let last = rewritten.iter().rfind(|item| item.key == *key).map(|item| &item.value);
        assert_eq!(last, Some(value));
    }
    if let Ok(updated) = update_items(&text) {
        assert_eq!(updated, pairs);
    }
    settings::<BrokerConfig>(&text);
    settings::<NamesrvConfig>(&text);
}

/// Takes an update over; what it becomes can be written to a file and read from it.
fn settings<T: Settings + Default + PartialEq + std::fmt::Debug>(text: &str) {
    let before = Loaded::of(T::default());
    if let Ok(changed) = before.with_changes(text) {
        let _ = (changed.config.important(), changed.config.warnings());
        let file = changed.config.to_properties();
        parse(&file).expect("settings can be written");
    }
    if let Ok(items) = update_items(text) {
        let taken = before.with_shared(&items);
        assert!(taken.set.len() <= items.len());
        parse(&taken.config.to_properties()).expect("settings can be written");
    }
}
