//! From files, command line and environment to checked settings, and changes at run time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde::de::{self, DeserializeOwned};
use serde::{Serialize, forward_to_deserialize_any};

use super::known_keys::KNOWN_KEYS;
use super::{Error, Origin, properties};
use crate::env::Disk;
use crate::fields::{self, Booleans};

/// What is read, the strongest last: environment, file, options, overrides.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file of `-c`.
    pub file: Option<PathBuf>,
    /// The value of `-n`.
    pub namesrv_addr: Option<String>,
    /// `key=value` arguments. Java accepts and ignores them.
    pub overrides: Vec<String>,
    /// What the environment says.
    pub environment: Environment,
}

/// The variables that settings depend on.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `NAMESRV_ADDR`.
    pub namesrv_addr: Option<String>,
    /// `ROCKETMQ_HOME`.
    pub rocketmq_home: Option<String>,
    /// `HOME`, where data goes by default.
    pub home: Option<PathBuf>,
}

impl Environment {
    /// Reads the variables of this process. Blank ones count as absent.
    pub fn of_process() -> Self {
        let text = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        Self {
            namesrv_addr: text("NAMESRV_ADDR"),
            rocketmq_home: text("ROCKETMQ_HOME"),
            home: text("HOME").map(PathBuf::from),
        }
    }
}

/// A struct that can be loaded.
pub trait Settings: Default + Clone + PartialEq + Serialize + DeserializeOwned {
    /// The keys that `-m` prints.
    const IMPORTANT: &'static [&'static str];
    /// Keys that are read once: a change at run time goes to the file and waits for the next start.
    const AT_START: &'static [&'static str];
    /// Keys that each replica of a group has for itself, beside those of [`Settings::AT_START`].
    const OF_REPLICA: &'static [&'static str];
    /// Keys that an update may never name, beside those of `configBlackList`.
    const BLACK_LIST: &'static [&'static str];

    /// Fills in what depends on the machine and on other keys, clamps what Java clamps. `is_set` tells whether a key
    /// was given a value, so that a default can depend on others.
    fn resolve(&mut self, environment: &Environment, is_set: &dyn Fn(&str) -> bool);

    /// Checks what types cannot say. On a wrong value returns its key and what it should have been.
    fn check(&self) -> Result<(), Refused>;

    /// Returns what an operator should know about resolved settings that are legal, one line each.
    fn risks(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns `configBlackList`.
    fn config_black_list(&self) -> &str;
}

/// Why [`Settings::check`] failed.
#[derive(Debug)]
pub enum Refused {
    /// The value of this key, for this reason.
    Value(&'static str, String),
    /// For a reason that has an error of its own.
    Other(Error),
}

/// Settings with the text that they came from.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    values: T,
    /// What was set explicitly, known or not.
    items: BTreeMap<String, Item>,
    /// Changed at run time, in force after the next start.
    pending: BTreeMap<String, Item>,
    file: Option<PathBuf>,
    environment: Environment,
    warnings: Vec<String>,
}

#[derive(Debug, Clone)]
struct Item {
    value: String,
    origin: Origin,
}

/// An update that was accepted.
#[derive(Debug, Clone)]
pub struct Changed<T> {
    /// The settings after it.
    pub config: Loaded<T>,
    /// Keys that have another value at once.
    pub live: Vec<String>,
    /// Keys that have another value after the next start.
    pub after_restart: Vec<String>,
}

/// Settings with those of the group over them.
#[derive(Debug)]
pub struct TakenOver<T> {
    /// The settings after it.
    pub config: Loaded<T>,
    /// Keys that are set to another text than before, or for the first time: what a file has to hear of.
    pub set: Vec<String>,
    /// Keys that have another value.
    pub live: Vec<String>,
    /// Keys that this replica was given another value for, and where.
    pub overruled: Vec<(String, Origin)>,
    /// Why some of them could not be taken over.
    pub refused: Vec<Error>,
}

/// Returns the items of an update request.
pub fn update_items(text: &str) -> Result<BTreeMap<String, String>, Error> {
    Ok(parse(text, Origin::Update)?.into_iter().map(|item| (item.key, item.value)).collect())
}

/// Returns whether all replicas of a group have the same value of a key: it takes effect at once, and does not describe
/// one replica.
pub fn is_shared<T: Settings>(key: &str) -> bool {
    !T::AT_START.contains(&key) && !T::OF_REPLICA.contains(&key)
}

impl<T> Deref for Loaded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.values
    }
}

/// Loads settings. The first wrong value is an error; what is merely odd is in [`Loaded::warnings`].
pub fn load<T: Settings>(sources: &Sources, disk: &Disk) -> Result<Loaded<T>, Error> {
    let mut items = BTreeMap::new();
    let mut warnings = Vec::new();
    let environment = sources.environment.clone();
    let mut set = |key: &str, value: &str, origin| {
        items.insert(key.to_owned(), Item { value: value.to_owned(), origin })
    };
    if let Some(addresses) = &environment.namesrv_addr {
        set("namesrvAddr", addresses, Origin::Environment("NAMESRV_ADDR"));
    }
    if let Some(home) = &environment.rocketmq_home {
        set("rocketmqHome", home, Origin::Environment("ROCKETMQ_HOME"));
    }
    if let Some(path) = &sources.file {
        let at = |line| Origin::File(path.clone(), line);
        for item in parse(&read(disk, path)?, at)? {
            let before = set(&item.key, &item.value, at(item.line()));
            if let Some(Item { origin: Origin::File(_, line), .. }) = before {
                warnings.push(format!(
                    "{}: {} is set again, line {line} is not used",
                    at(item.line()),
                    item.key
                ));
            }
        }
    }
    if let Some(addresses) = &sources.namesrv_addr {
        set("namesrvAddr", addresses, Origin::CommandLine);
    }
    for text in &sources.overrides {
        let Some((key, value)) = text.split_once('=') else {
            let reason = format!("{text}: expected key=value");
            return Err(Error::Syntax { origin: Origin::CommandLine, reason });
        };
        set(key.trim(), value.trim(), Origin::CommandLine);
    }
    warnings.extend(unknown_keys::<T>(&items));
    let values: T = build(&items, &environment)?;
    warnings.extend(values.risks());
    let file = sources.file.clone();
    Ok(Loaded { values, items, pending: BTreeMap::new(), file, environment, warnings })
}

impl<T: Settings> Loaded<T> {
    /// Takes settings as they are, without file and checks.
    pub fn of(values: T) -> Self {
        Self {
            values,
            items: BTreeMap::new(),
            pending: BTreeMap::new(),
            file: None,
            environment: Environment::default(),
            warnings: Vec::new(),
        }
    }

    /// Returns what an operator should know about the files, one line each: unknown keys, keys without
    /// effect, duplicates, settings that risk something.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns the value that a key was given, if it was.
    pub fn set_value(&self, key: &str) -> Option<&str> {
        self.items.get(key).map(|item| item.value.as_str())
    }

    /// Returns the file of `-c`.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns every item as `key=value` lines, sorted: effective values, and keys that were set but have no
    /// meaning here. This is what GET_BROKER_CONFIG and GET_NAMESRV_CONFIG answer and what `-p` prints.
    pub fn to_properties(&self) -> String {
        self.text(|_| true)
    }

    /// Returns the items that `-m` prints.
    pub fn important(&self) -> String {
        self.text(|key| T::IMPORTANT.contains(&key))
    }

    /// Applies an update request (`key=value` lines) to a copy: all of it or nothing.
    ///
    /// Unlike Java, unknown keys and wrong values are refused.
    pub fn with_changes(&self, text: &str) -> Result<Changed<T>, Error> {
        let mut items = self.items.clone();
        let mut pending = self.pending.clone();
        for item in parse(text, Origin::Update)? {
            if self.is_black_listed(&item.key) {
                return Err(Error::BlackListed(item.key));
            }
            if !is_field::<T>(&item.key) && !is_known(&item.key) && !items.contains_key(&item.key) {
                return Err(Error::UnknownKey { hint: nearest::<T>(&item.key), key: item.key });
            }
            let waits = T::AT_START.contains(&item.key.as_str());
            let origin = Origin::Update(item.line());
            let target = if waits { &mut pending } else { &mut items };
            target.insert(item.key, Item { value: item.value, origin });
        }
        // What waits for the next start must not make that start fail.
        let mut next_start = items.clone();
        next_start.extend(pending.clone());
        build::<T>(&next_start, &self.environment)?;
        let values = build(&items, &self.environment)?;
        let config = Self { values, items, pending, ..self.clone() };
        let live = differences(&self.effective(), &config.effective());
        let after_restart = differences(&texts(&self.pending), &texts(&config.pending));
        Ok(Changed { config, live, after_restart })
    }

    /// Puts the settings of a group over these. Keys that a replica has for itself are left as they are.
    ///
    /// They were checked with the settings of the replica that led; a value that does not go together with what this
    /// replica has for itself is left out.
    pub fn with_shared(&self, shared: &BTreeMap<String, String>) -> TakenOver<T> {
        let shared: Vec<(&String, &String)> = shared.iter().filter(|(key, _)| is_shared::<T>(key)).collect();
        let over =
            |base: &Self, added: &[(&String, &String)]| {
                let mut items = base.items.clone();
                items.extend(added.iter().map(|&(key, value)| {
                    (key.clone(), Item { value: value.clone(), origin: Origin::Group })
                }));
                let values = build(&items, &base.environment)?;
                Ok::<_, Error>(Self { values, items, ..base.clone() })
            };
        let mut refused = Vec::new();
        let config = over(self, &shared).unwrap_or_else(|_| {
            let mut config = self.clone();
            for item in &shared {
                match over(&config, &[*item]) {
                    Ok(next) => config = next,
                    Err(error) => refused.push(error),
                }
            }
            config
        });
        let is_new = |key: &String| {
            let (old, new) = (self.items.get(key), config.items.get(key));
            old.map(|item| &item.value) != new.map(|item| &item.value)
        };
        let set: Vec<String> =
            shared.iter().filter(|(key, _)| is_new(key)).map(|(key, _)| (*key).clone()).collect();
        let overruled = set.iter().filter_map(|key| Some((key.clone(), self.items.get(key)?.origin.clone())));
        let overruled = overruled.collect();
        let live = differences(&self.effective(), &config.effective());
        TakenOver { set, live, overruled, refused, config }
    }

    /// Writes changed keys into a file, which keeps its comments and its order. Makes it if it is absent.
    ///
    /// Blocks on two fsyncs.
    pub fn save(&self, keys: &[String], path: &Path, disk: &Disk) -> Result<(), Error> {
        let bytes = match disk.read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
        };
        let changes = keys.iter().filter_map(|key| {
            let item = self.pending.get(key).or_else(|| self.items.get(key))?;
            Some((key.clone(), item.value.clone()))
        });
        let new = properties::rewrite(&properties::decode(&bytes), &changes.collect())
            .map_err(|error| syntax(error, |line| Origin::File(path.to_owned(), line)))?;
        disk.replace(path, &encode_like(&bytes, &new))
            .map_err(|source| Error::Write { path: path.to_owned(), source })
    }

    fn text(&self, wanted: impl Fn(&str) -> bool) -> String {
        let mut items = self.effective();
        items.extend(texts(&self.pending));
        items.iter().filter(|(key, _)| wanted(key)).map(|(key, value)| format!("{key}={value}\n")).collect()
    }

    fn effective(&self) -> BTreeMap<String, String> {
        let mut all = texts(&self.items);
        let fields = fields::to_fields(&self.values).expect("settings are flat structs");
        all.extend(fields.into_iter().map(|(key, value)| (key.to_owned(), value)));
        all
    }

    fn is_black_listed(&self, key: &str) -> bool {
        let listed = self.values.config_black_list().split(';').any(|listed| listed.trim() == key);
        listed || T::BLACK_LIST.contains(&key)
    }
}

fn read(disk: &Disk, path: &Path) -> Result<String, Error> {
    let bytes = disk.read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(properties::decode(&bytes))
}

fn parse(text: &str, at: impl Fn(usize) -> Origin) -> Result<Vec<properties::Item>, Error> {
    properties::parse(text).map_err(|error| syntax(error, at))
}

fn syntax(error: properties::BadEscape, at: impl Fn(usize) -> Origin) -> Error {
    Error::Syntax { origin: at(error.line), reason: error.to_string() }
}

fn build<T: Settings>(items: &BTreeMap<String, Item>, environment: &Environment) -> Result<T, Error> {
    let refused = |key: &str, value: Option<String>, reason| {
        let item = items.get(key);
        Error::Value {
            origin: item.map_or(Origin::Default, |item| item.origin.clone()),
            key: key.to_owned(),
            value: value.or_else(|| item.map(|item| item.value.clone())).unwrap_or_default(),
            reason,
        }
    };
    let pairs = items.iter().map(|(key, item)| (key.as_str(), item.value.as_str()));
    let mut values: T = fields::from_fields(pairs, Booleans::Strict).map_err(|error| match error {
        fields::Error::Value { field, value, expected } => {
            refused(&field, Some(value), format!("expected {expected}"))
        }
        fields::Error::Shape(reason) => Error::Syntax { origin: Origin::Default, reason },
    })?;
    match values.check() {
        Ok(()) => {}
        Err(Refused::Value(key, reason)) => return Err(refused(key, None, reason)),
        Err(Refused::Other(error)) => return Err(error),
    }
    values.resolve(environment, &|key| items.contains_key(key));
    Ok(values)
}

/// Returns at most two lines: the keys that nobody knows, and those that have no effect here.
fn unknown_keys<T: Settings>(items: &BTreeMap<String, Item>) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut without_effect = Vec::new();
    for (key, item) in items {
        if matches!(item.origin, Origin::Environment(_)) || is_field::<T>(key) {
            continue;
        }
        if is_known(key) {
            without_effect.push(key.clone());
            continue;
        }
        let hint = nearest::<T>(key).map_or(String::new(), |hint| format!(", did you mean {hint}?"));
        unknown.push(format!("{key} ({}{hint})", item.origin));
    }
    let line =
        |what: &str, keys: &[String]| (!keys.is_empty()).then(|| format!("{what}: {}", keys.join(", ")));
    let lines = [line("unknown keys", &unknown), line("keys without effect in this broker", &without_effect)];
    lines.into_iter().flatten().collect()
}

fn is_field<T: Settings>(key: &str) -> bool {
    field_names::<T>().contains(&key)
}

fn is_known(key: &str) -> bool {
    KNOWN_KEYS.binary_search(&key).is_ok()
}

/// Returns the known key that is spelt most like `key`, if any is close.
fn nearest<T: Settings>(key: &str) -> Option<String> {
    let lower = key.to_lowercase();
    let candidates = field_names::<T>().iter().chain(KNOWN_KEYS);
    let (distance, best) =
        candidates.map(|known| (edit_distance(&lower, &known.to_lowercase()), known)).min()?;
    (distance <= key.chars().count() / 4 + 1).then(|| (*best).to_owned())
}

/// Returns how many characters must be inserted, deleted or replaced to make `b` of `a`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn texts(items: &BTreeMap<String, Item>) -> BTreeMap<String, String> {
    items.iter().map(|(key, item)| (key.clone(), item.value.clone())).collect()
}

/// Returns the keys that are not the same in both.
fn differences(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).cloned().collect()
}

/// Encodes a rewritten file as the old one was: UTF-8, or ISO-8859-1 if it was not valid UTF-8. What a
/// rewrite adds is ASCII.
fn encode_like(old: &[u8], text: &str) -> Vec<u8> {
    if std::str::from_utf8(old).is_ok() {
        return text.as_bytes().to_vec();
    }
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

/// Returns the keys of a settings struct, as serde names them.
fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // The reader stops with an error once it has been told the names.
    let _ = T::deserialize(NamesReader(&mut names));
    names
}

struct NamesReader<'a>(&'a mut &'static [&'static str]);

impl<'de> de::Deserializer<'de> for NamesReader<'_> {
    type Error = fields::Error;

    fn deserialize_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("names only"))
    }

    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = names;
        Err(de::Error::custom("names only"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
