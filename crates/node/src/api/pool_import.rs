//! Pools of others: finding them on disks, and taking them over.

use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use model::pool_import::{FoundDisk, FoundLu, FoundPool, Unread};
use model::pv::PvView;
use model::status::Problem;
use model::{
    ApiError, Config, Lu, LuName, PoolImport, PoolImported, PoolName, PoolRemains, PoolSearch,
    PoolsFound, PvPlace, Subject,
};
use tokio::spawn;
use uuid::Uuid;

use super::routes::{Answer, Body};
use super::{Api, must_be_absolute, on_thread, pools};
use crate::control::{Change, PoolChange};
use crate::engine::{Seen, SeenLu, SeenPool};
use crate::pv::signature::is_of_a_pool;
use crate::state::pool_force::remains;
use crate::state::pool_import::{Takeover, choose, refusal};
use crate::state::pools::user_of;
use crate::world;

/// How long a look at pools may take, with all of their LUs.
const LOOK_WAIT: Duration = Duration::from_secs(50);

/// Files of directories that are looked at.
const FILES_MAX: usize = 1000;

/// Finds pools that are not of this node, on the disks that are named or on all that nobody uses.
/// Nothing is written.
#[utoipa::path(post, path = "/v1/pool-searches", tag = "pool", request_body = PoolSearch,
    responses((status = 200, body = PoolsFound), (status = "default", body = ApiError)))]
pub async fn pool_search(
    State(api): State<Api>,
    Body(search): Body<PoolSearch>,
) -> Answer<PoolsFound> {
    let Seen { mut pools, unread } = look(&api, search).await?.0;
    let published = api.published();
    let config = &published.config;
    pools.retain(|pool| config.pools.iter().all(|own| own.uuid != pool.uuid));
    let pools = pools.iter().map(|pool| found(config, pool)).collect();
    let unread = unread.into_iter().map(|(path, error)| Unread { path, error }).collect();
    Ok(Json(PoolsFound { pools, unread }))
}

/// Takes over a pool with its LUs, as its disks tell of them. Answers when they are in effect.
/// Refused where disks are missing that no other failure group stands in for, where one is a copy,
/// where an LU cannot be opened, and where names are taken.
#[utoipa::path(post, path = "/v1/pool-imports", tag = "pool", request_body = PoolImport,
    responses((status = 200, body = PoolImported), (status = "default", body = ApiError)))]
pub async fn pool_import(
    State(api): State<Api>,
    Body(request): Body<PoolImport>,
) -> Answer<PoolImported> {
    // A task of its own: who hangs up half-way gets all of it or nothing too.
    let imported = spawn(async move { import(&api, request).await });
    Ok(Json(imported.await.unwrap_or_else(|_| Err(ApiError::failed("it was given up")))?))
}

/// What is here of a pool that can be imported only if it is forced, as of one of the node that is
/// not open. Nothing is written.
#[utoipa::path(post, path = "/v1/pool-imports/remains", tag = "pool", request_body = PoolImport,
    responses((status = 200, body = PoolRemains), (status = "default", body = ApiError)))]
pub async fn pool_import_remains(
    State(api): State<Api>,
    Body(mut request): Body<PoolImport>,
) -> Answer<PoolRemains> {
    request.force.get_or_insert_default();
    let seen = find(&api, &mut request).await?;
    Ok(Json(remains(&request, &seen)?))
}

/// The pool that is asked for, with paths as they are known here. Refused if something is in the
/// way of it.
async fn find(api: &Api, request: &mut PoolImport) -> Result<SeenPool, ApiError> {
    let (seen, search) = look(api, request.search()).await?;
    request.pvs = search.pvs;
    let Seen { pools, unread } = seen;
    let with_unread = |error: ApiError| {
        let why = |(path, why): &(String, ApiError)| format!("; {path}: {}", why.message);
        let message = error.message.clone() + &unread.iter().map(why).collect::<String>();
        ApiError { message, ..error }
    };
    let seen = choose(pools, &request.pool).map_err(with_unread)?;
    match refusal(&api.published().config, &seen, request.force.is_some()) {
        Some(error) => Err(with_unread(error)),
        None => Ok(seen),
    }
}

async fn import(api: &Api, mut request: PoolImport) -> Result<PoolImported, ApiError> {
    let seen = find(api, &mut request).await?;
    let paths: Vec<String> = seen.disks.iter().map(|disk| disk.path.clone()).collect();
    let looking = api.clone();
    let found = on_thread("viaduct-pvs", move || pools::probed(&looking, &paths)).await?;
    let (uuid, missing) = (seen.uuid, seen.missing.len() as u16);
    let lus: Vec<Uuid> = seen.lus.iter().map(|lu| lu.uuid).collect();
    let (own, now) = (api.info.pools.clone(), api.world.wall());
    let takeover = Takeover { request, seen, found, own, now };
    let change = Change::Pool(PoolChange::Import(Box::new(takeover)));
    let changed = api.change(change).await;
    let config = &api.published().config;
    let name = config.pools.iter().find(|pool| pool.uuid == uuid).map(|pool| pool.name.clone());
    let (Ok(_), Some(name)) = (&changed, name) else {
        return Err(changed.err().unwrap_or_else(|| ApiError::failed("it was removed again")));
    };
    let of_lu = |uuid: &Uuid| config.lus.iter().find(|lu| lu.uuid == *uuid);
    let without = lus.iter().filter(|uuid| of_lu(uuid).is_none()).copied().collect();
    let mut own: Vec<&Lu> = lus.iter().filter_map(of_lu).collect();
    own.sort_by_key(|lu| &lu.name);
    let outdated = own.iter().filter(|lu| lu.outdated).map(|lu| lu.name.clone()).collect();
    let lus: Vec<LuName> = own.iter().map(|lu| lu.name.clone()).collect();
    let pool = pools::pool_view(api, &name).await?;
    Ok(PoolImported { pool, lus, missing, without, outdated })
}

/// Looks at disks; once more what was asked for, with paths as they are known here.
async fn look(api: &Api, mut search: PoolSearch) -> Result<(Seen, PoolSearch), ApiError> {
    search.pvs.iter().try_for_each(|pv| must_be_absolute(&pv.path))?;
    search.dirs.iter().try_for_each(|dir| must_be_absolute(dir))?;
    let looking = api.clone();
    let (paths, mut used, search) = on_thread("viaduct-pvs", move || {
        for pv in &mut search.pvs {
            pv.path = canonical(&pv.path)?.to_string_lossy().into_owned();
        }
        let (paths, used) = candidates(&looking, &search)?;
        Ok((paths, used, search))
    })
    .await?;
    let seen = api.ask(LOOK_WAIT, |done| api.engine.look_at_pools(&paths, done)).await?;
    used.extend(seen.unread);
    Ok((Seen { unread: used, ..seen }, search))
}

fn canonical(path: &str) -> Result<PathBuf, ApiError> {
    world::canonical(path.as_ref()).map_err(|error| {
        ApiError::not_found(format!("there is no disk or file {path}: {error}"))
            .then("viaduct pv ls shows the disks that are there")
    })
}

/// What is to be looked at, and what is not because this node uses it.
type Candidates = (Vec<PathBuf>, Vec<(String, ApiError)>);

fn candidates(api: &Api, search: &PoolSearch) -> Result<Candidates, ApiError> {
    let published = api.published();
    let config = &published.config;
    if search.pvs.is_empty() && search.dirs.is_empty() {
        return Ok((on_disks(api, config)?, Vec::new()));
    }
    let mut paths: Vec<PathBuf> = search.pvs.iter().map(|pv| PathBuf::from(&pv.path)).collect();
    for dir in &search.dirs {
        paths.extend(in_directory(api, config, &canonical(dir)?)?);
    }
    let (mut free, mut used) = (Vec::new(), Vec::new());
    for path in paths {
        match user_of_path(api, config, &path) {
            Some(user) => {
                let message = format!("it is in use: {user}");
                used.push((path.display().to_string(), ApiError::conflict(message)));
            }
            None if free.contains(&path) => {}
            None => free.push(path),
        }
    }
    Ok((free, used))
}

/// Disks of pools that nobody uses, and files of this node that no pool of it has.
fn on_disks(api: &Api, config: &Config) -> Result<Vec<PathBuf>, ApiError> {
    let own = files_in(&api.info.pools)?;
    let views = api.looker.list(api.world.as_ref(), config, &own);
    Ok(unused(api, config, views))
}

fn in_directory(api: &Api, config: &Config, dir: &FilePath) -> Result<Vec<PathBuf>, ApiError> {
    let files = files_in(dir)?;
    let mut views = api.looker.list(api.world.as_ref(), config, &files);
    views.retain(|view| files.contains(&PathBuf::from(&view.path)));
    Ok(unused(api, config, views))
}

fn unused(api: &Api, config: &Config, views: Vec<PvView>) -> Vec<PathBuf> {
    let is_one = |view: &PvView| {
        let is_used = !view.used_by.is_empty();
        !is_used && view.holds.iter().any(|holds| is_of_a_pool(holds))
    };
    let paths = views.into_iter().filter(is_one).map(|view| PathBuf::from(view.path));
    paths.filter(|path| user_of_path(api, config, path).is_none()).collect()
}

fn files_in(dir: &FilePath) -> Result<Vec<PathBuf>, ApiError> {
    let shown = dir.display();
    let names = world::names_in(dir)
        .map_err(|error| ApiError::failed(format!("{shown} cannot be looked at: {error}")))?;
    if names.len() > FILES_MAX {
        let message = format!("{shown} has {} files, more than {FILES_MAX}", names.len());
        return Err(ApiError::usage(message).then("name the disks of the pool: --pv"));
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// What of this node uses a disk, its own files included.
fn user_of_path(api: &Api, config: &Config, path: &FilePath) -> Option<String> {
    let is_own = |pool: &&model::Pool| {
        let mut files = pool.pvs.iter().filter(|pv| matches!(pv.place, PvPlace::File { .. }));
        files.any(|pv| crate::datadir::pool_file(&api.info.pools, pv.uuid) == path)
    };
    let own = config.pools.iter().find(is_own).map(|pool| format!("pool {}", pool.name));
    own.or_else(|| user_of(config, &path.to_string_lossy()))
}

fn found(config: &Config, pool: &SeenPool) -> FoundPool {
    let disk = |disk: &crate::engine::SeenDisk| FoundDisk {
        path: disk.path.clone(),
        uuid: disk.uuid,
        group: disk.group,
        size: disk.size,
    };
    let lu = |lu: &SeenLu| {
        let about = lu.about.as_ref();
        let names = about.map(|about| about.layers.iter().map(|layer| layer.name.clone()));
        let named = names.into_iter().flatten().filter(|name| !name.is_empty());
        FoundLu {
            uuid: lu.uuid,
            name: about.ok().map(|about| about.name.clone()),
            size: about.ok().map(|about| about.size),
            snapshots: named.collect(),
            outdated: lu.outdated,
            problem: about.err().cloned(),
        }
    };
    let subject = pool.name.parse::<PoolName>().map_or(Subject::Node, Subject::Pool);
    let problem = refusal(config, pool, false).map(|ApiError { message, next, .. }| Problem {
        subject,
        message,
        next,
    });
    FoundPool {
        name: pool.name.clone(),
        uuid: pool.uuid,
        disks: pool.disks.iter().map(disk).collect(),
        disks_wanted: pool.wanted,
        lus: pool.lus.iter().map(lu).collect(),
        problem,
    }
}
