//! Disks of pools that are not open here: which pools they are, and whether those could be opened.
//! They are opened for reading only, under the locks of this node, for as long as it takes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{ApiError, Size};
use rt::Core;
use store::FileStore;
use store::file::{OpenError, Options};
use uuid::Uuid;
use volume::pool::disks::Backing;
use volume::pool::home::{self, PoolError, read_label};
use volume::pool::label::Label;
use volume::pool::lu::LuError;
use volume::pool::owner::LayerId;
use volume::pool::root::Frozen;
use volume::pool::survey::{Said, Survey, Surveyed, Unsaid, survey};

use super::super::lus;
use super::epochs;
use crate::engine::{Context, Seen, SeenAbout, SeenDisk, SeenLayer, SeenLu, SeenPool};
use crate::pool_disk::PoolDisk;

/// How long a disk may take to be opened: one that this node has open itself never is.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// A disk with its label.
type Labelled = (Arc<dyn Backing>, Label);

/// Looks which pools these disks are.
pub(in crate::plane) async fn look(context: &Context, core: &Core, paths: Vec<PathBuf>) -> Seen {
    let (mut disks, mut seen) = (Vec::new(), Seen::default());
    for path in paths {
        match labelled(context, core, &path).await {
            Ok(disk) => disks.push(disk),
            Err(error) => seen.unread.push((path.display().to_string(), error)),
        }
    }
    let said: Vec<(String, String)> =
        disks.iter().map(|(disk, it)| (disk.name().to_owned(), it.pool_name.clone())).collect();
    // What a crash has left on the way from one pool to another one is what it was to be.
    let disks = home::decided(disks);
    let is_decided = |name: &str| disks.iter().any(|(disk, _)| disk.name() == name);
    for (name, pool) in said.into_iter().filter(|(name, _)| !is_decided(name)) {
        seen.unread.push((name.clone(), undecided(&name, &pool)));
    }
    let mut pools = BTreeMap::<[u8; 16], Vec<Labelled>>::new();
    for disk in disks {
        pools.entry(disk.1.pool).or_default().push(disk);
    }
    for disks in pools.into_values() {
        seen.pools.push(look_at(core, disks).await);
    }
    seen
}

async fn labelled(context: &Context, core: &Core, path: &Path) -> Result<Labelled, ApiError> {
    let name = path.display().to_string();
    let node = lus::number(context.node);
    let options = Options { read_only: true, node, ..Options::default() };
    let opened = core.timeout(OPEN_LIMIT, FileStore::open(core, path, options, || ())).await;
    let store = match opened {
        Some(Ok(store)) => store,
        Some(Err(OpenError::Served { .. })) => {
            return Err(ApiError::not_now(format!("a node has {name} open"))
                .then("stop that node, or remove the pool there"));
        }
        Some(Err(OpenError::Size { .. })) => return Err(none(&name)),
        Some(Err(error)) => return Err(ApiError::failed(error.to_string())),
        None => {
            let limit = OPEN_LIMIT.as_secs();
            return Err(ApiError::not_now(format!("{name} cannot be opened within {limit} s")));
        }
    };
    let disk: Arc<dyn Backing> = Arc::new(PoolDisk { store, name: name.clone() });
    match read_label(core, &disk).await {
        Ok((label, _)) if label.has_left() => {
            let message = format!("{name} has left pool '{}'", label.pool_name);
            Err(ApiError::conflict(message).then("nothing of that is on it any more"))
        }
        Ok((label, _)) => Ok((disk, label)),
        Err(PoolError::Unlabelled { .. }) => Err(none(&name)),
        Err(error) => Err(ApiError::failed(error.to_string())),
    }
}

fn undecided(name: &str, pool: &str) -> ApiError {
    let message = format!(
        "{name} is of a failure group that was just leaving pool '{pool}', and the disk of that \
         group is missing that says whether it has"
    );
    ApiError::conflict(message).then("name all disks of its failure group")
}

fn none(name: &str) -> ApiError {
    ApiError::usage(format!("{name} is no disk of a pool")).then("viaduct pv ls shows what it is")
}

/// What these disks say, which all have labels of one pool.
async fn look_at(core: &Core, disks: Vec<Labelled>) -> SeenPool {
    let newest = disks.iter().map(|(_, label)| label).max_by_key(|label| label.epoch);
    let Label { pool, pool_name, shape, members, .. } = newest.expect("a pool has disks").clone();
    let mut seen = SeenPool {
        uuid: Uuid::from_bytes(pool),
        name: pool_name,
        slab_size: Size(shape.slab_bytes()),
        extent_size: Size(shape.extent_bytes()),
        checksums: shape.has_sums(),
        disks: disks.iter().map(|(disk, label)| seen_disk(&**disk, label)).collect(),
        wanted: members,
        missing: Vec::new(),
        lus: Vec::new(),
        unfinished: Vec::new(),
        record: Vec::new(),
        groups: Vec::new(),
        problem: None,
    };
    seen.disks.sort_by(|a, b| (a.group, &a.path).cmp(&(b.group, &b.path)));
    let backings: Vec<_> = disks.iter().map(|(disk, _)| disk.clone()).collect();
    if let Err(error) = survey_all(core, &mut seen, backings).await {
        seen.problem = Some(problem(&seen, &error));
    }
    seen
}

/// What they say of its LUs; and what is left of it, where others may have more.
async fn survey_all(
    core: &Core,
    seen: &mut SeenPool,
    backings: Vec<Arc<dyn Backing>>,
) -> Result<(), PoolError> {
    let found = home::Pool::find_some(core, backings.clone()).await?;
    let whole = found.must_have_everything();
    take(seen, survey(found).await?);
    if whole.is_err() && seen.problem.is_none() {
        seen.groups = home::Pool::find_some(core, backings).await?.groups(None).await?;
    }
    whole
}

fn seen_disk(disk: &dyn Backing, label: &Label) -> SeenDisk {
    let (uuid, size) = (Uuid::from_bytes(label.pv), Size(label.size));
    SeenDisk { path: disk.name().to_owned(), uuid, group: label.group, size }
}

fn take(seen: &mut SeenPool, survey: Survey) {
    let Survey { labels, missing, old, lus, unfinished } = survey;
    seen.missing = missing;
    seen.unfinished = unfinished.into_iter().map(Uuid::from_bytes).collect();
    match epochs::record_of(&labels) {
        Ok(record) => seen.record = record,
        Err(error) => seen.problem = Some(error),
    }
    let is_later = |lu: &Surveyed| lu.said.as_ref().is_err_and(|why| why.is_later());
    let oldest = labels.iter().min_by_key(|label| label.epoch);
    let old = old.first().or(oldest.filter(|_| lus.iter().any(is_later)));
    if let Some(label) = old {
        let is_it = |disk: &&SeenDisk| disk.uuid.into_bytes() == label.pv;
        let path = seen.disks.iter().find(is_it).map_or("a disk", |disk| &disk.path);
        let message = format!(
            "{path} is an old copy of a disk of pool '{}': others were used since it was",
            seen.name
        );
        seen.problem = Some(ApiError::conflict(message).then(
            "name the newest copy of that disk with --pv; where other failure groups have \
             everything, name only the disks of those",
        ));
    }
    seen.lus = lus.into_iter().map(seen_lu).collect();
}

fn seen_lu(Surveyed { id, said }: Surveyed) -> SeenLu {
    // Without that it would read zero wherever it has not been brought.
    let whole = |said: Said| match said.about.source.clone() {
        Some(source) => Err(LuError::Source(source).to_string()),
        None => Ok(said),
    };
    let outdated = match &said {
        Ok(said) => said.is_outdated,
        Err(why) => matches!(why, Unsaid::Part(_)),
    };
    let said = said.map_err(|why| why.to_string()).and_then(whole);
    let about = said.map(|Said { about, frozen, .. }| SeenAbout {
        name: about.name,
        size: Size(about.size),
        block_size: about.block_size,
        thick: about.thick,
        base: about.base.map(|base| (Uuid::from_bytes(base.lu), Uuid::from_bytes(base.layer))),
        layers: seen_layers(frozen),
    });
    SeenLu { uuid: Uuid::from_bytes(id), outdated, about }
}

/// Those that are snapshots, or may be.
pub(super) fn seen_layers(frozen: impl IntoIterator<Item = (LayerId, Frozen)>) -> Vec<SeenLayer> {
    let layer = |(id, frozen): (LayerId, Frozen)| SeenLayer {
        uuid: Uuid::from_bytes(id),
        name: frozen.name,
        size: Size(frozen.size),
    };
    frozen.into_iter().filter(|(_, frozen)| !frozen.is_going).map(layer).collect()
}

/// Why a pool cannot be opened, and what can be done.
fn problem(seen: &SeenPool, error: &PoolError) -> ApiError {
    let message = format!("pool '{}' cannot be imported: {error}", seen.name);
    let next = match error {
        PoolError::Missing { .. } => "connect its other disks, or say where they are: --pv, --dir",
        PoolError::Behind { .. } => {
            let which = &seen.name;
            return ApiError::conflict(message).then(format!(
                "connect its other disks, or say where they are: --pv, --dir; viaduct pool import \
                 {which} --force shows what would be lost without them"
            ));
        }
        PoolError::Replaced { .. } => "leave that disk out: say which ones it has with --pv",
        PoolError::Twice { .. } => "say which of them is the disk: --pv",
        PoolError::Shrunk { .. } => "give the disk the size back that it had",
        _ => "viaduct pool check with all of its disks says what is wrong",
    };
    ApiError::conflict(message).then(next)
}
