//! The desired state: held in memory, kept in `kv`, changed by one writer.
//!
//! | module | holds |
//! |---|---|
//! | [`ops`] | each change, from configuration to configuration, with what it refuses |
//! | [`migrations`] | the same for LUs on their way into a pool |
//! | [`snapshots`] | the same for snapshots and clones |
//! | [`pools`], [`pool_pvs`] | the same for pools, and for the disks that they have |
//! | [`pool_import`] | the same for a pool that is taken over with its LUs |
//! | [`optical`] | the same for drives and media |
//! | [`validate`] | what must hold of every configuration, however it came about |
//! | here | how a configuration is kept: one key per object, changed by compare-and-set |
//!
//! Keys, with `G` the generation:
//!
//! | key | value |
//! |---|---|
//! | `/config/head` | version of the document and G |
//! | `/config/G/pool/NAME`, `/config/G/lu/NAME`, `/config/G/drive/NAME`, `/config/G/client/NAME` | the object |
//! | `/config/G/mapping/CLIENT/SLOT/LUN` | the object |
//! | `/config/G/secret/CLIENT` | the client's CHAP secrets, which are in no other value |
//! | `/node/ID/made/UUID` | the LU or the pool was made on this node |
//! | `/node/ID/making/UUID` | the pool was asked for on this node, or the disk for a pool, and is not made yet |
//! | `/node/ID/importing/UUID` | an image is being copied into an LU to be; what will be left of it |
//! | `/node/ID/leftover/UUID` | the LU, medium, pool or disk of a pool was removed; what is left: nothing said is a file |
//! | `/node/ID/medium/NAME` | a medium of the node's library |
//! | `/node/ID/fresh` | the data directory was made just now; whether it gets a pool is open |
//!
//! Every change compares the head and writes it again, so two writers cannot both win. A change
//! that is too large for one transaction writes the next generation beside the old one and switches
//! the head.

pub mod migrations;
pub mod ops;
pub mod optical;
pub mod pool_force;
pub mod pool_import;
pub mod pool_pvs;
pub mod pool_split;
pub mod pools;
pub mod snapshots;
pub mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kv::{
    Entry, Kv, Operation, Outcome, Revision, TRANSACTION_OPERATIONS_MAX, Transaction, range_all,
};
use model::config::CONFIG_VERSION;
use model::{
    ApiError, ChapSecrets, Client, ClientName, Config, Drive, Leftover, Lu, Mapping, Medium,
    MediumName, Pool, Secrets,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::records::{self, Record};

const HEAD: &str = "/config/head";

/// Operations of one transaction beside the head and the marks that go with a change.
const BATCH: usize = TRANSACTION_OPERATIONS_MAX - 1 - MARKS_WITH_SWITCH * MARK_OPERATIONS_MAX;

/// Marks that go with the switch to another generation.
const MARKS_WITH_SWITCH: usize = 4;

/// Operations of one mark.
const MARK_OPERATIONS_MAX: usize = 3;

/// Reads of a configuration that changed meanwhile, before giving up.
const READ_ATTEMPTS_MAX: usize = 10;

/// The library of a node.
pub type Media = BTreeMap<MediumName, Medium>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    version: u32,
    generation: u64,
}

/// The desired state of the cluster, and what this node keeps about its own files.
pub struct State {
    kv: Arc<dyn Kv>,
    node: Uuid,
    head: Head,
    /// Without the secrets.
    config: Config,
    secrets: Arc<Secrets>,
    made: BTreeSet<Uuid>,
    making: BTreeSet<Uuid>,
    leftovers: BTreeMap<Uuid, Leftover>,
    media: Arc<Media>,
    is_fresh: bool,
}

/// A note about something made that goes into `kv` together with a change or by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// An image is being copied into the LU, which nobody knows yet.
    Importing(Uuid, Leftover),
    /// That will never be an LU: what there is of it is to be deleted.
    Abandoned(Uuid, Leftover),
    /// Disks are about to become a pool, and what is on them may be lost.
    Making(Uuid),
    Made(Uuid),
    Leftover(Uuid, Leftover),
    /// It is deleted.
    Gone(Uuid),
    /// What the plane is to find as its own record, or that it finds none.
    Record(Record, Option<Vec<u8>>),
    /// What a fresh data directory begins with is decided.
    Begun,
}

impl State {
    /// Reads the state, or begins an empty one.
    pub fn load(kv: Arc<dyn Kv>, node: Uuid) -> Result<State, ApiError> {
        let (head, mut config) = read_config(kv.as_ref(), &fresh_key(node))?;
        let secrets = Arc::new(std::mem::take(&mut config.secrets));
        let uuids = |kind: &str| read_uuids(kv.as_ref(), &format!("/node/{node}/{kind}/"));
        let noted = |kind: &str| read_leftovers(kv.as_ref(), &format!("/node/{node}/{kind}/"));
        let (made, making, leftovers) = (uuids("made")?, uuids("making")?, noted("leftover")?);
        let entries = range_all(kv.as_ref(), &format!("/node/{node}/medium/"));
        let media: Vec<Medium> = decode_all(&entries.map_err(unavailable)?)?;
        let media = Arc::new(media.into_iter().map(|it| (it.name.clone(), it)).collect());
        let importing = noted("importing")?;
        let is_fresh = kv.get(&fresh_key(node)).map_err(unavailable)?.is_some();
        let mut state =
            State { kv, node, head, config, secrets, made, making, leftovers, media, is_fresh };
        // Who copied is gone, and what is there is half an LU.
        for (uuid, leftover) in importing {
            state.mark(Mark::Abandoned(uuid, leftover))?;
        }
        Ok(state)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn secrets(&self) -> &Arc<Secrets> {
        &self.secrets
    }

    pub fn made(&self) -> &BTreeSet<Uuid> {
        &self.made
    }

    /// Pools that were asked for and are not made yet.
    pub fn making(&self) -> &BTreeSet<Uuid> {
        &self.making
    }

    pub fn leftovers(&self) -> &BTreeMap<Uuid, Leftover> {
        &self.leftovers
    }

    pub fn media(&self) -> &Arc<Media> {
        &self.media
    }

    /// Whether what a fresh data directory begins with is still to be decided.
    pub fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// A medium becomes known. The configuration stays what it was.
    pub fn add_medium(&mut self, medium: Medium) -> Result<(), ApiError> {
        let key = self.medium_key(&medium.name);
        self.keep_config(Transaction::new().put(key, encode(&medium)?))?;
        Arc::make_mut(&mut self.media).insert(medium.name.clone(), medium);
        Ok(())
    }

    /// A medium is forgotten, and its file is to be deleted.
    pub fn remove_medium(&mut self, medium: &Medium) -> Result<(), ApiError> {
        let marks = [Mark::Leftover(medium.uuid, Leftover::File)];
        let transaction = Transaction::new().delete(self.medium_key(&medium.name));
        self.keep_config(self.with_marks(transaction, &marks)?)?;
        Arc::make_mut(&mut self.media).remove(&medium.name);
        self.note(&marks);
        Ok(())
    }

    fn medium_key(&self, name: &MediumName) -> String {
        format!("/node/{}/medium/{name}", self.node)
    }

    /// Does something that was judged by the configuration as it is here.
    fn keep_config(&self, transaction: Transaction) -> Result<(), ApiError> {
        let transaction = transaction.unchanged(HEAD, self.config.revision);
        match self.kv.transact(&transaction).map_err(unavailable)? {
            Outcome::Committed { .. } => Ok(()),
            Outcome::Refused { .. } => Err(changed_meanwhile()),
        }
    }

    /// Makes `next` the desired state, durably, if nobody changed it since it was read here. The
    /// secrets in it are added to those that are kept.
    pub fn commit(&mut self, mut next: Config, marks: &[Mark]) -> Result<(), ApiError> {
        next.sort();
        validate::config(&next)?;
        let added = std::mem::take(&mut next.secrets);
        let secrets = kept_secrets(&next, &self.secrets, added);
        let is_going = |uuid: &Uuid| self.leftovers.contains_key(uuid);
        let is_in_the_way = |lu: &&Lu| {
            let left = self.leftovers.get(&Leftover::moved_key(lu.uuid));
            let is_new = !self.config.lus.contains(lu);
            let moved = left.is_some_and(|left| migrations::is_in_the_way(&next, lu, left));
            is_going(&lu.uuid) || is_new && moved
        };
        let lu = next.lus.iter().find(is_in_the_way).map(|lu| format!("LU '{}'", lu.name));
        let pool = next.pools.iter().find(|pool| is_going(&pool.uuid));
        if let Some(thing) = lu.or_else(|| pool.map(|pool| format!("pool '{}'", pool.name))) {
            return Err(ApiError::not_now(format!("{thing} is still being removed"))
                .then("run the command again in a moment"));
        }
        let before = objects(&self.config, &self.secrets)?;
        let after = objects(&next, &secrets)?;
        let mut operations = Vec::new();
        for (key, value) in &after {
            if before.get(key) != Some(value) {
                operations.push((key.clone(), Some(value.clone())));
            }
        }
        let gone = before.keys().filter(|key| !after.contains_key(*key));
        operations.extend(gone.map(|key| (key.clone(), None)));
        if operations.is_empty() && marks.is_empty() {
            return Ok(());
        }
        let count = operations.len() + marks.len() * MARK_OPERATIONS_MAX;
        let revision = if count < TRANSACTION_OPERATIONS_MAX {
            let generation = self.head.generation;
            let transaction = write(Transaction::new(), generation, operations);
            self.switch(transaction, self.head, marks)?
        } else {
            self.commit_generation(after, marks)?
        };
        next.revision = revision;
        self.config = next;
        self.secrets = Arc::new(secrets);
        self.note(marks);
        Ok(())
    }

    /// Notes what became of a file.
    pub fn mark(&mut self, mark: Mark) -> Result<(), ApiError> {
        let marks = [mark];
        let transaction = self.with_marks(Transaction::new(), &marks)?;
        self.kv.transact(&transaction).map_err(unavailable)?;
        self.note(&marks);
        Ok(())
    }

    /// Writes everything anew beside the old and switches over in one transaction.
    fn commit_generation(
        &mut self,
        after: BTreeMap<String, Vec<u8>>,
        marks: &[Mark],
    ) -> Result<Revision, ApiError> {
        let next = Head { version: CONFIG_VERSION, generation: self.head.generation + 1 };
        // A crash may have left a generation half written.
        self.clear(next.generation)?;
        let after: Vec<_> = after.into_iter().map(|(key, value)| (key, Some(value))).collect();
        for batch in after.chunks(BATCH) {
            let transaction = write(Transaction::new(), next.generation, batch.to_vec());
            self.kv.transact(&transaction).map_err(unavailable)?;
        }
        // Marks come with the switch or after it, never before: a mark of an LU that is still
        // wanted would be a lie. A crash between leaves a file that nobody deletes, which is the
        // safe side.
        let (few, many) = marks.split_at(marks.len().min(MARKS_WITH_SWITCH));
        let revision = self.switch(Transaction::new(), next, few)?;
        for batch in many.chunks(BATCH / MARK_OPERATIONS_MAX) {
            let transaction = self.with_marks(Transaction::new(), batch)?;
            self.kv.transact(&transaction).map_err(unavailable)?;
        }
        let old = std::mem::replace(&mut self.head, next).generation;
        if let Err(error) = self.clear(old) {
            tracing::warn!(%error, "the former configuration stays in the store for now");
        }
        Ok(revision)
    }

    fn switch(
        &self,
        transaction: Transaction,
        head: Head,
        marks: &[Mark],
    ) -> Result<Revision, ApiError> {
        let transaction = self
            .with_marks(transaction, marks)?
            .unchanged(HEAD, self.config.revision)
            .put(HEAD, encode(&head)?);
        match self.kv.transact(&transaction).map_err(unavailable)? {
            Outcome::Committed { revision } => Ok(revision),
            Outcome::Refused { .. } => Err(changed_meanwhile()),
        }
    }

    fn clear(&self, generation: u64) -> Result<(), ApiError> {
        let prefix = format!("/config/{generation}/");
        let entries = range_all(self.kv.as_ref(), &prefix).map_err(unavailable)?;
        for batch in entries.chunks(BATCH) {
            let delete = |txn: Transaction, entry: &Entry| txn.delete(&entry.key);
            let transaction = batch.iter().fold(Transaction::new(), delete);
            self.kv.transact(&transaction).map_err(unavailable)?;
        }
        Ok(())
    }

    fn with_marks(&self, txn: Transaction, marks: &[Mark]) -> Result<Transaction, ApiError> {
        let key = |kind: &str, uuid: &Uuid| format!("/node/{}/{kind}/{uuid}", self.node);
        marks.iter().try_fold(txn, |txn, mark| {
            Ok(match mark {
                Mark::Importing(uuid, left) => txn.put(key("importing", uuid), noted(left)?),
                Mark::Making(uuid) => txn.put(key("making", uuid), ""),
                Mark::Made(uuid) => {
                    let txn = txn.delete(key("importing", uuid)).delete(key("making", uuid));
                    txn.put(key("made", uuid), "")
                }
                Mark::Leftover(uuid, left) => txn.put(key("leftover", uuid), noted(left)?),
                Mark::Abandoned(uuid, left) => {
                    txn.put(key("leftover", uuid), noted(left)?).delete(key("importing", uuid))
                }
                Mark::Gone(uuid) => {
                    let txn = txn.delete(key("made", uuid)).delete(key("making", uuid));
                    txn.delete(key("leftover", uuid))
                }
                Mark::Record(of, Some(value)) => txn.put(records::key(*of), value.clone()),
                Mark::Record(of, None) => txn.delete(records::key(*of)),
                Mark::Begun => txn.delete(fresh_key(self.node)),
            })
        })
    }

    fn note(&mut self, marks: &[Mark]) {
        for mark in marks {
            match mark {
                Mark::Importing(..) | Mark::Record(..) => {}
                Mark::Making(uuid) => {
                    self.making.insert(*uuid);
                }
                Mark::Made(uuid) => {
                    self.making.remove(uuid);
                    self.made.insert(*uuid);
                }
                Mark::Leftover(uuid, left) | Mark::Abandoned(uuid, left) => {
                    self.leftovers.insert(*uuid, left.clone());
                }
                Mark::Gone(uuid) => {
                    self.made.remove(uuid);
                    self.making.remove(uuid);
                    self.leftovers.remove(uuid);
                }
                Mark::Begun => self.is_fresh = false,
            }
        }
    }
}

fn changed_meanwhile() -> ApiError {
    ApiError::not_now("the configuration was changed by someone else at the same moment")
        .then("run the command again")
}

/// Says in the words of the API that the store did not answer.
pub fn unavailable(error: kv::Error) -> ApiError {
    match error {
        kv::Error::Stopped | kv::Error::Io(_) => ApiError::failed(error.to_string())
            .then("look at the data directory's disk (is it full?) and restart the node"),
        _ => ApiError::failed(error.to_string()),
    }
}

fn fresh_key(node: Uuid) -> String {
    format!("/node/{node}/fresh")
}

fn read_config(kv: &dyn Kv, fresh: &str) -> Result<(Head, Config), ApiError> {
    for _ in 0..READ_ATTEMPTS_MAX {
        let Some(entry) = kv.get(HEAD).map_err(unavailable)? else {
            let head = Head { version: CONFIG_VERSION, generation: 1 };
            let transaction = Transaction::new().absent(HEAD).put(HEAD, encode(&head)?);
            let transaction = transaction.put(fresh, "");
            kv.transact(&transaction).map_err(unavailable)?;
            continue;
        };
        let head: Head = decode(&entry)?;
        Config::check_version(head.version)?;
        let list = |kind: &str| {
            let prefix = format!("/config/{}/{kind}/", head.generation);
            range_all(kv, &prefix).map_err(unavailable)
        };
        let mut config = Config {
            version: CONFIG_VERSION,
            revision: entry.mod_revision,
            pools: decode_all::<Pool>(&list("pool")?)?,
            lus: decode_all::<Lu>(&list("lu")?)?,
            drives: decode_all::<Drive>(&list("drive")?)?,
            clients: decode_all::<Client>(&list("client")?)?,
            mappings: decode_all::<Mapping>(&list("mapping")?)?,
            secrets: read_secrets(head.generation, &list("secret")?)?,
        };
        let again = kv.get(HEAD).map_err(unavailable)?;
        if again.is_some_and(|again| again.mod_revision == entry.mod_revision) {
            config.sort();
            // What an older program wrote is written by this one from now on.
            return Ok((Head { version: CONFIG_VERSION, ..head }, config));
        }
    }
    Err(ApiError::not_now("the configuration changes faster than it can be read"))
}

fn read_secrets(generation: u64, entries: &[Entry]) -> Result<Secrets, ApiError> {
    let prefix = format!("/config/{generation}/secret/");
    let secrets = |entry: &Entry| {
        let name = entry.key.strip_prefix(&prefix).unwrap_or_default();
        let client: ClientName =
            name.parse().map_err(|_| damaged(&entry.key, "is no client's name"))?;
        // What is wrong with it is said without it.
        let secrets: ChapSecrets = serde_json::from_slice(&entry.value)
            .map_err(|_| damaged(&entry.key, "it is no CHAP secret"))?;
        Ok((client, secrets))
    };
    entries.iter().map(secrets).collect()
}

/// The secrets of a configuration: those of before and those added, of clients that prove
/// themselves in the way that they are for.
fn kept_secrets(config: &Config, before: &Secrets, added: Secrets) -> Secrets {
    let mut secrets = before.clone();
    secrets.extend(added);
    secrets.retain(|name, secrets| {
        let chap = config.client(name).and_then(|client| client.chap.as_ref());
        if chap.is_some_and(|chap| chap.mutual_name.is_none()) {
            secrets.mutual_secret = None;
        }
        chap.is_some()
    });
    secrets
}

fn read_uuids(kv: &dyn Kv, prefix: &str) -> Result<BTreeSet<Uuid>, ApiError> {
    let entries = range_all(kv, prefix).map_err(unavailable)?;
    entries.iter().map(|entry| uuid_of(entry, prefix)).collect()
}

fn read_leftovers(kv: &dyn Kv, prefix: &str) -> Result<BTreeMap<Uuid, Leftover>, ApiError> {
    let entries = range_all(kv, prefix).map_err(unavailable)?;
    let leftover = |entry: &Entry| match entry.value[..] {
        [] => Ok(Leftover::File),
        _ => decode(entry),
    };
    entries.iter().map(|entry| Ok((uuid_of(entry, prefix)?, leftover(entry)?))).collect()
}

/// A file is noted without a word.
fn noted(leftover: &Leftover) -> Result<Vec<u8>, ApiError> {
    if *leftover == Leftover::File { Ok(Vec::new()) } else { encode(leftover) }
}

fn uuid_of(entry: &Entry, prefix: &str) -> Result<Uuid, ApiError> {
    let text = entry.key.strip_prefix(prefix).unwrap_or_default();
    Uuid::parse_str(text).map_err(|_| damaged(&entry.key, "is no UUID"))
}

/// Every object under its key, without the generation.
fn objects(config: &Config, secrets: &Secrets) -> Result<BTreeMap<String, Vec<u8>>, ApiError> {
    let mut objects = BTreeMap::new();
    for pool in &config.pools {
        objects.insert(format!("pool/{}", pool.name), encode(pool)?);
    }
    for lu in &config.lus {
        objects.insert(format!("lu/{}", lu.name), encode(lu)?);
    }
    for drive in &config.drives {
        objects.insert(format!("drive/{}", drive.name), encode(drive)?);
    }
    for client in &config.clients {
        objects.insert(format!("client/{}", client.name), encode(client)?);
    }
    for mapping in &config.mappings {
        let Mapping { client, slot, lun, .. } = mapping;
        objects.insert(format!("mapping/{client}/{slot}/{lun}"), encode(mapping)?);
    }
    for (client, secrets) in secrets {
        objects.insert(format!("secret/{client}"), encode(secrets)?);
    }
    Ok(objects)
}

fn write(
    transaction: Transaction,
    generation: u64,
    operations: Vec<(String, Option<Vec<u8>>)>,
) -> Transaction {
    operations.into_iter().fold(transaction, |mut txn, (key, value)| {
        let key = format!("/config/{generation}/{key}");
        txn.operations.push(match value {
            Some(value) => Operation::Put { key, value, lease: None },
            None => Operation::Delete { key },
        });
        txn
    })
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|error| ApiError::failed(error.to_string()))
}

fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T, ApiError> {
    serde_json::from_slice(&entry.value).map_err(|error| damaged(&entry.key, &error.to_string()))
}

fn decode_all<T: DeserializeOwned>(entries: &[Entry]) -> Result<Vec<T>, ApiError> {
    entries.iter().map(decode).collect()
}

fn damaged(key: &str, why: &str) -> ApiError {
    ApiError::failed(format!("the store is damaged at {key}: {why}"))
        .then("restore config.json into a new data directory (viaduct config restore)")
}

#[cfg(test)]
mod tests;
