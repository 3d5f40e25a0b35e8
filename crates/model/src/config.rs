//! [`Config`]: the whole desired state in one document, for `config save`, `restore` and `show`,
//! and for the copy that a node keeps by itself. The document says which version it is; one of a
//! newer version is refused, never half understood. Secrets are in it only when they were asked
//! for.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::chap::{self, Secrets};
use crate::client::Client;
use crate::drive::Drive;
use crate::error::ApiError;
use crate::lu::Lu;
use crate::mapping::Mapping;
use crate::name::{ClientName, LuName, MediumName, PoolName};
use crate::pool::{DEFAULT_POOL, Pool};

/// The version of the document that this program writes. Version 1 has no pools.
pub const CONFIG_VERSION: u32 = 2;

/// Everything that is wanted, each list in the order of its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub version: u32,
    /// Rises with every change; what a change was based on.
    #[serde(default)]
    pub revision: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<Pool>,
    #[serde(default)]
    pub lus: Vec<Lu>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drives: Vec<Drive>,
    #[serde(default)]
    pub clients: Vec<Client>,
    #[serde(default)]
    pub mappings: Vec<Mapping>,
    /// Only in a document that was saved with them; a node keeps them apart from the rest.
    #[serde(
        default,
        skip_serializing_if = "Secrets::is_empty",
        deserialize_with = "chap::secrets_unseen"
    )]
    #[schema(value_type = Option<std::collections::BTreeMap<String, chap::ChapSecrets>>)]
    pub secrets: Secrets,
}

/// `config restore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigRestore {
    pub config: Config,
    /// Remove LUs and pools that the document does not have, with their data.
    #[serde(default)]
    pub prune: bool,
}

/// What `config restore` did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoreOutcome {
    pub revision: u64,
    pub added: u32,
    pub changed: u32,
    pub removed: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            version: CONFIG_VERSION,
            revision: 0,
            pools: Vec::new(),
            lus: Vec::new(),
            drives: Vec::new(),
            clients: Vec::new(),
            mappings: Vec::new(),
            secrets: Secrets::new(),
        }
    }
}

impl Config {
    pub fn lu(&self, name: &LuName) -> Option<&Lu> {
        self.lus.iter().find(|lu| lu.name == *name)
    }

    pub fn pool(&self, name: &PoolName) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == *name)
    }

    /// The pool of LUs that name neither a pool nor a backing.
    pub fn default_pool(&self) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name.as_str() == DEFAULT_POOL)
    }

    pub fn lus_in<'a>(&'a self, pool: &'a PoolName) -> impl Iterator<Item = &'a Lu> {
        self.lus.iter().filter(move |lu| lu.backing.pool() == Some(pool))
    }

    /// The pool that an LU is in.
    pub fn pool_of(&self, lu: &Lu) -> Option<&Pool> {
        self.pool(lu.backing.pool()?)
    }

    pub fn drive(&self, name: &LuName) -> Option<&Drive> {
        self.drives.iter().find(|drive| drive.name == *name)
    }

    /// What is mapped under this name: an LU's UUID or a drive's.
    pub fn device(&self, name: &LuName) -> Option<Uuid> {
        let drive = || self.drive(name).map(|drive| drive.uuid);
        self.lu(name).map(|lu| lu.uuid).or_else(drive)
    }

    /// Drives that this medium is wanted in.
    pub fn drives_with<'a>(&'a self, medium: &'a MediumName) -> impl Iterator<Item = &'a Drive> {
        self.drives.iter().filter(move |drive| drive.medium.as_ref() == Some(medium))
    }

    pub fn client(&self, name: &ClientName) -> Option<&Client> {
        self.clients.iter().find(|client| client.name == *name)
    }

    /// Of an LU or a drive.
    pub fn mappings_of_lu<'a>(&'a self, name: &'a LuName) -> impl Iterator<Item = &'a Mapping> {
        self.mappings.iter().filter(move |mapping| mapping.lu == *name)
    }

    pub fn mappings_of_client<'a>(
        &'a self,
        name: &'a ClientName,
    ) -> impl Iterator<Item = &'a Mapping> {
        self.mappings.iter().filter(move |mapping| mapping.client == *name)
    }

    /// Puts every list into its order.
    pub fn sort(&mut self) {
        self.pools.sort_by(|a, b| a.name.cmp(&b.name));
        self.lus.sort_by(|a, b| a.name.cmp(&b.name));
        self.drives.sort_by(|a, b| a.name.cmp(&b.name));
        self.clients.sort_by(|a, b| a.name.cmp(&b.name));
        let key = |m: &Mapping| (m.client.clone(), m.slot, m.lun);
        self.mappings.sort_by_key(key);
    }

    /// Refuses a document that this program does not understand.
    pub fn check_version(version: u32) -> Result<(), ApiError> {
        match version {
            1..=CONFIG_VERSION => Ok(()),
            _ => Err(ApiError::usage(format!(
                "the configuration document has version {version}; this program knows versions 1 \
                 to {CONFIG_VERSION}"
            ))
            .then("use the release of viaduct that wrote it, or a later one")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_document_is_refused() {
        assert!(Config::check_version(1).is_ok());
        assert!(Config::check_version(CONFIG_VERSION).is_ok());
        let error = Config::check_version(3).unwrap_err();
        assert!(error.message.contains("version 3"));
        assert!(Config::check_version(0).is_err());
    }

    #[test]
    fn wrong_secrets_are_not_repeated() {
        for wrong in [r#""horse""#, r#"{"h":"horse"}"#, r#"{"h":{"horse":1}}"#] {
            let text = format!(r#"{{"version":1,"secrets":{wrong}}}"#);
            let error = serde_json::from_str::<Config>(&text).unwrap_err().to_string();
            assert!(error.contains("--with-secrets") && !error.contains("horse"), "{error}");
        }
    }

    #[test]
    fn a_document_without_a_version_is_refused() {
        assert!(serde_json::from_str::<Config>("{}").is_err());
        let config: Config = serde_json::from_str(r#"{"version":2}"#).unwrap();
        assert_eq!(config, Config::default());
    }
}
