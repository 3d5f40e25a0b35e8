//! The build cache of the harness: what is made once and used by every run.
//!
//! It lies outside the checkout (`$VIADUCT_CACHE`, by default `~/.cache/viaduct-tests`) and can be
//! deleted at any time. An entry is a directory whose name ends in a hash of its recipe, which has
//! the source text of what makes it; so one that was made differently is never looked at (and
//! stays, for another checkout may use it). It is built beside its place under a lock and renamed
//! into it, so a killed build is never seen.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::{Context, Result};

/// Prefix of directories that are being built.
const UNFINISHED: &str = "unfinished-";

#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache of this user.
    pub fn open() -> Result<Self> {
        let root = match std::env::var_os("VIADUCT_CACHE") {
            Some(path) => PathBuf::from(path),
            None => {
                let home = std::env::var_os("HOME")
                    .context(|| "neither VIADUCT_CACHE nor HOME is set".into())?;
                Path::new(&home).join(".cache/viaduct-tests")
            }
        };
        Self::at(root)
    }

    pub fn at(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).context(|| format!("create the cache {}", root.display()))?;
        let root = root.canonicalize()?;
        Ok(Self { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the entry of this recipe is, or would be.
    pub fn place(&self, name: &str, recipe: &str) -> PathBuf {
        self.root.join(format!("{name}-{:016x}", hash_of(recipe)))
    }

    /// The entry `name` made by `recipe`; `build` fills an empty directory if it is not there yet.
    pub fn entry(
        &self,
        name: &str,
        recipe: &str,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let place = self.place(name, recipe);
        if place.exists() {
            return Ok(place);
        }
        // One lock per entry: making one may need another.
        let lock = File::create(self.root.join(format!("{name}.lock")))?;
        lock.lock().context(|| format!("lock the cache entry {name}"))?;
        if place.exists() {
            return Ok(place);
        }
        let unfinished = self.root.join(format!("{UNFINISHED}{name}"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir(&unfinished)?;
        build(&unfinished).context(|| format!("build {name} in the cache"))?;
        fs::rename(&unfinished, &place)?;
        Ok(place)
    }

    /// Removes every entry, so that the next use builds from nothing.
    pub fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(&path).context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// A name for content: the same text gives the same number in every process of one toolchain.
pub fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache")).unwrap();
        (dir, cache)
    }

    #[test]
    fn an_entry_is_built_once() {
        let (_dir, cache) = cache();
        let first = cache.entry("thing", "v1", |dir| Ok(fs::write(dir.join("file"), "1")?));
        let again = cache.entry("thing", "v1", |_| Err(Error::new("built twice")));
        assert_eq!(first.unwrap(), again.unwrap());
    }

    #[test]
    fn another_recipe_is_another_entry() {
        let (_dir, cache) = cache();
        let old = cache.entry("thing", "v1", |_| Ok(())).unwrap();
        let new = cache.entry("thing", "v2", |_| Ok(())).unwrap();
        assert!(old != new && old.exists() && new.exists());
    }

    #[test]
    fn a_failed_build_is_never_seen() {
        let (_dir, cache) = cache();
        let failed = cache.entry("thing", "v1", |dir| {
            fs::write(dir.join("half"), "")?;
            Err(Error::new("power cut"))
        });
        assert!(failed.unwrap_err().to_string().contains("power cut"));
        let built = cache.entry("thing", "v1", |_| Ok(())).unwrap();
        assert!(!built.join("half").exists());
    }
}
