//! LUs on their way into a pool: what is refused, and what becomes of the configuration when a step
//! of it was done. How the steps follow each other, and why so: `cluster::plan::migrate`.

use cluster::Step;
use model::{
    ApiError, Backing, Config, Leftover, Lu, LuMigrate, LuName, Migration, PoolName, Size,
};

use super::Mark;
use super::ops::no_lu;
use super::pools::no_pool;

/// Begins to bring an LU into a pool, or changes how fast that goes on.
pub fn migrate(config: &Config, name: &LuName, request: &LuMigrate) -> Result<Config, ApiError> {
    let lu = config.lu(name).ok_or_else(|| no_lu(name))?;
    let migration = match (&lu.migration, &request.pool) {
        (Some(is), pool) => {
            if let Some(other) = pool.as_ref().filter(|pool| **pool != is.pool) {
                let message = format!("LU '{name}' is on its way into pool '{}'", is.pool);
                return Err(ApiError::conflict(message).then(match is.from {
                    None => format!("viaduct lu migrate {name} --cancel first"),
                    Some(_) => format!("pool '{other}' cannot have it after that either"),
                }));
            }
            Migration { rate: request.rate.unwrap_or(is.rate), ..is.clone() }
        }
        (None, Some(pool)) => begun(config, lu, pool, request.rate.unwrap_or_default())?,
        (None, None) => {
            return Err(ApiError::usage(format!(
                "say which pool LU '{name}' shall be brought into"
            ))
            .then(format!("viaduct lu migrate {name} --pool POOL")));
        }
    };
    Ok(with(config, name, |lu| lu.migration = Some(migration.clone())))
}

fn begun(config: &Config, lu: &Lu, pool: &PoolName, rate: Size) -> Result<Migration, ApiError> {
    let name = &lu.name;
    config.pool(pool).ok_or_else(|| no_pool(pool))?;
    let why = match &lu.backing {
        Backing::Adopted { path } if lu.shareable => {
            let message = format!("other nodes may write to {path}, which is LU '{name}'");
            return Err(ApiError::conflict(message).then(
                "stop them; then remove the LU, and adopt the disk again without --shareable",
            ));
        }
        Backing::File | Backing::Adopted { .. } => {
            return Ok(Migration { pool: pool.clone(), from: None, size: lu.size, rate });
        }
        Backing::Pool { pool: is } => {
            let message = format!("LU '{name}' is in pool '{is}'");
            return Err(ApiError::conflict(message)
                .then("only LUs that are in no pool can be brought into one"));
        }
        Backing::Memory => "is in memory, and gone when the node stops",
        Backing::Null => "has nothing that could be brought anywhere",
    };
    Err(ApiError::conflict(format!("LU '{name}' {why}"))
        .then(format!("viaduct lu create NAME --size {} --pool {pool}", lu.size)))
}

/// It stays where it is, if nothing was written anywhere else yet.
pub fn cancel(config: &Config, name: &LuName) -> Result<(Config, Vec<Mark>), ApiError> {
    let lu = config.lu(name).ok_or_else(|| no_lu(name))?;
    let Some(Migration { pool, from, .. }) = &lu.migration else {
        return Err(ApiError::conflict(format!("LU '{name}' is not on its way into a pool"))
            .then(format!("viaduct lu show {name}")));
    };
    if from.is_some() {
        let message = format!(
            "LU '{name}' is in pool '{pool}': what was written since is only there, and would be \
             lost"
        );
        return Err(ApiError::conflict(message).then(format!(
            "let it go on; viaduct lu migrate {name} --rate 10M makes that cost less"
        )));
    }
    let marks = left_in_pool(config, lu).into_iter().collect();
    Ok((with(config, name, |lu| lu.migration = None), marks))
}

/// What an LU that is removed has where it is not, or not only.
pub fn left_elsewhere(config: &Config, lu: &Lu) -> Option<Mark> {
    match lu.migration.as_ref()?.from {
        None => left_in_pool(config, lu),
        Some(Backing::File) => Some(left(lu, None)),
        Some(_) => None,
    }
}

/// Of a part of a pool that may be made by now.
fn left_in_pool(config: &Config, lu: &Lu) -> Option<Mark> {
    let pool = config.pool(&lu.migration.as_ref()?.pool)?;
    Some(left(lu, Some(pool.uuid)))
}

fn left(lu: &Lu, pool: Option<uuid::Uuid>) -> Mark {
    Mark::Leftover(Leftover::moved_key(lu.uuid), Leftover::Moved { lu: lu.uuid, pool })
}

/// Whether what an LU has left elsewhere is in the way of what is wanted of it.
pub fn is_in_the_way(config: &Config, lu: &Lu, left: &Leftover) -> bool {
    let Leftover::Moved { pool, .. } = left else { return true };
    let is_file = lu.backing == Backing::File;
    let is_there = match pool {
        None => is_file,
        Some(_) => config.pool_of(lu).map(|it| it.uuid) == *pool,
    };
    is_there || lu.migration.is_some()
}

/// What becomes of the configuration when a step was done; with what is told of it.
pub fn ended(config: &Config, step: &Step) -> Option<(Config, Vec<Mark>, (&'static str, String))> {
    let find = |uuid| config.lus.iter().find(|lu| lu.uuid == uuid);
    match step {
        Step::MakePart { device } => {
            let lu = find(device.uuid)?;
            let migration = lu.migration.clone().filter(|it| it.from.is_none())?;
            let is_it = config.pool(&migration.pool).map(|pool| pool.uuid) == device.pool;
            let (name, pool) = (&lu.name, &migration.pool);
            let message = format!("LU '{name}' is in pool '{pool}', over what it was in");
            let backing = Backing::Pool { pool: pool.clone() };
            let next = with(config, name, |lu| {
                let from = Some(std::mem::replace(&mut lu.backing, backing.clone()));
                lu.migration = Some(Migration { from, ..migration.clone() });
            });
            let marks = vec![Mark::Made(lu.uuid)];
            is_it.then_some((next, marks, ("lu-in-pool", message)))
        }
        Step::Bring { uuid, .. } => {
            let lu = find(*uuid)?;
            let from = lu.migration.as_ref()?.from.clone()?;
            let marks = (from == Backing::File).then(|| left(lu, None)).into_iter().collect();
            let what = match &from {
                Backing::Adopted { path } => format!("; {path} is as it was before, and free"),
                _ => String::new(),
            };
            let message = format!("LU '{}' is brought into its pool{what}", lu.name);
            Some((
                with(config, &lu.name, |lu| lu.migration = None),
                marks,
                ("lu-migrated", message),
            ))
        }
        _ => None,
    }
}

/// Whether the end of a step is of no interest: it was to end.
pub fn was_to_end(config: &Config, step: &Step) -> bool {
    let uuid = match step {
        Step::MakePart { device } => device.uuid,
        Step::Bring { uuid, .. } => *uuid,
        _ => return false,
    };
    !config.lus.iter().any(|lu| lu.uuid == uuid && lu.migration.is_some())
}

fn with(config: &Config, name: &LuName, change: impl Fn(&mut Lu)) -> Config {
    let mut next = config.clone();
    next.lus.iter_mut().filter(|lu| lu.name == *name).for_each(change);
    next
}

#[cfg(test)]
mod tests {
    use model::LuResize;

    use super::*;
    use crate::state::{ops, pools, validate};

    fn config() -> Config {
        serde_json::from_str(
            r#"{"version":2,"revision":3,
                "pools":[{"name":"fast","uuid":"00000000-0000-0000-0000-0000000000f0",
                          "pvs":[{"uuid":"00000000-0000-0000-0000-0000000000f1",
                                  "place":{"kind":"path","path":"/dev/sdb"}}]}],
                "lus":[{"name":"a","uuid":"00000000-0000-0000-0000-00000000000a",
                        "size":"1GiB","serial":"a","backing":{"kind":"file"}},
                       {"name":"b","uuid":"00000000-0000-0000-0000-00000000000b","size":4608,
                        "serial":"b","backing":{"kind":"adopted","path":"/dev/sdc"}},
                       {"name":"c","uuid":"00000000-0000-0000-0000-00000000000c",
                        "size":"1GiB","serial":"c","backing":{"kind":"memory"}}]}"#,
        )
        .unwrap()
    }

    fn name(name: &str) -> LuName {
        name.parse().unwrap()
    }

    fn into_fast() -> LuMigrate {
        LuMigrate { pool: Some("fast".parse().unwrap()), rate: None }
    }

    /// As the plan would have it.
    fn step(config: &Config, lu: &str, is_made: bool) -> Step {
        let lu = config.lu(&name(lu)).unwrap();
        let device = cluster::DeviceSpec::of(config, lu);
        match is_made {
            false => Step::MakePart { device: device.to_be().unwrap() },
            true => Step::Bring { uuid: lu.uuid, name: lu.name.clone() },
        }
    }

    #[test]
    fn it_is_in_the_pool_when_its_part_is_made_and_only_there_when_it_is_brought() {
        for lu in ["a", "b"] {
            let before = config();
            let next = migrate(&before, &name(lu), &into_fast()).unwrap();
            validate::config(&next).unwrap();
            let backing = next.lu(&name(lu)).unwrap().backing.clone();
            assert_eq!(backing, before.lu(&name(lu)).unwrap().backing, "{lu} is where it was");
            let (next, marks, _) = ended(&next, &step(&next, lu, false)).unwrap();
            validate::config(&next).unwrap();
            let there = next.lu(&name(lu)).unwrap();
            assert_eq!(there.backing.pool().map(|pool| pool.as_str()), Some("fast"));
            assert_eq!(there.migration.as_ref().unwrap().from, Some(backing.clone()));
            assert_eq!(marks, [Mark::Made(there.uuid)]);
            let refused = cancel(&next, &name(lu)).unwrap_err();
            assert!(refused.message.contains("only there"), "{refused}");
            // Twice is as good as once.
            assert!(ended(&next, &step(&next, lu, true)).is_some());
            let (last, marks, _) = ended(&next, &step(&next, lu, true)).unwrap();
            validate::config(&last).unwrap();
            assert!(last.lu(&name(lu)).unwrap().migration.is_none());
            assert_eq!(marks.len(), usize::from(backing == Backing::File));
            assert!(ended(&last, &step(&next, lu, true)).is_none());
        }
    }

    #[test]
    fn what_it_is_read_from_is_nobody_elses_meanwhile() {
        let next = migrate(&config(), &name("b"), &into_fast()).unwrap();
        let (next, ..) = ended(&next, &step(&next, "b", false)).unwrap();
        assert!(pools::user_of(&next, "/dev/sdc").is_some());
        let (gone, marks) = ops::lu_remove(&next, &name("b")).unwrap();
        assert_eq!(marks.len(), 1, "the disk is left as it is: {marks:?}");
        assert!(gone.lu(&name("b")).is_none());
        let next = migrate(&config(), &name("a"), &into_fast()).unwrap();
        let (next, ..) = ended(&next, &step(&next, "a", false)).unwrap();
        let (_, marks) = ops::lu_remove(&next, &name("a")).unwrap();
        assert_eq!(marks.len(), 2, "its slabs and its file: {marks:?}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let config = config();
        let no = |lu: &str, request: &LuMigrate| {
            migrate(&config, &name(lu), request).unwrap_err().message
        };
        assert!(no("c", &into_fast()).contains("in memory"));
        let mut shared = config.clone();
        shared.lus[1].shareable = true;
        let refused = migrate(&shared, &name("b"), &into_fast()).unwrap_err();
        assert!(refused.message.contains("other nodes may write"), "{refused}");
        assert!(no("a", &LuMigrate::default()).contains("say which pool"));
        let nowhere = LuMigrate { pool: Some("slow".parse().unwrap()), rate: None };
        assert!(no("a", &nowhere).contains("slow"));
        let next = migrate(&config, &name("a"), &into_fast()).unwrap();
        let slower = LuMigrate { pool: None, rate: Some(Size::mib(1)) };
        let slower = migrate(&next, &name("a"), &slower).unwrap();
        let migration = slower.lu(&name("a")).unwrap().migration.clone().unwrap();
        assert_eq!((migration.rate, migration.from), (Size::mib(1), None));
        let size = LuResize { size: Some(Size::gib(2)), shrink: false };
        assert!(ops::lu_resize(&next, &name("a"), &size, None).is_err());
        assert!(pools::pool_remove(&next, &"fast".parse().unwrap()).is_err());
        let (back, marks) = cancel(&next, &name("a")).unwrap();
        assert_eq!(back, config);
        assert_eq!(marks.len(), 1, "what may be there of it goes: {marks:?}");
        assert!(cancel(&back, &name("a")).is_err());
    }
}
