//! [`Client`]: who uses storage. Its identities (IQN, host NQN) say which connections are its own;
//! its socket owner says which user may connect to its vhost-user sockets, and how it proves itself
//! over iSCSI is said by [`Chap`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::chap::Chap;
use crate::error::{ApiError, ErrorKind};
use crate::limits::QUALIFIED_NAMES_PER_CLIENT_MAX;
use crate::name::{ClientName, Iqn, Nqn};
use crate::redirect::Redirect;
use crate::schema::schema_as;

/// A guest, a host or a container that uses storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Client {
    pub name: ClientName,
    /// Owner of its vhost-user sockets; the node's own user and group `kvm` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_owner: Option<SocketOwner>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub iqns: Vec<Iqn>,
    /// How it must prove itself over iSCSI; its secrets are elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap: Option<Chap>,
    /// Its logins over iSCSI are sent elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nqns: Vec<Nqn>,
}

/// `client create` takes a client as it shall be.
pub type ClientCreate = Client;

/// What changes about a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientChange {
    #[serde(default)]
    pub add_iqns: Vec<Iqn>,
    #[serde(default)]
    pub remove_iqns: Vec<Iqn>,
}

/// User and group that own a client's sockets, by name or number: `U`, `U:G` or `:G`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SocketOwner {
    pub user: Option<String>,
    pub group: Option<String>,
}

schema_as!(SocketOwner, String);

/// Why a socket owner was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an owner; write USER, USER:GROUP or :GROUP, each a name or a number")]
pub struct OwnerError(String);

/// As long as Linux lets a user name be.
const OWNER_PART_BYTES_MAX: usize = 32;

impl FromStr for SocketOwner {
    type Err = OwnerError;

    fn from_str(text: &str) -> Result<SocketOwner, OwnerError> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let part = |part: &str| match part {
            "" => Ok(None),
            part if is_owner_part(part) => Ok(Some(part.to_owned())),
            _ => Err(OwnerError(text.to_owned())),
        };
        let owner = SocketOwner { user: part(user)?, group: part(group)? };
        match owner {
            SocketOwner { user: None, group: None } => Err(OwnerError(text.to_owned())),
            owner => Ok(owner),
        }
    }
}

fn is_owner_part(part: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '$');
    part.len() <= OWNER_PART_BYTES_MAX && part.chars().all(is_plain)
}

impl TryFrom<String> for SocketOwner {
    type Error = OwnerError;
    fn try_from(text: String) -> Result<SocketOwner, OwnerError> {
        text.parse()
    }
}

impl From<SocketOwner> for String {
    fn from(owner: SocketOwner) -> String {
        owner.to_string()
    }
}

impl fmt::Display for SocketOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_deref().unwrap_or("");
        match &self.group {
            Some(group) => f.pad(&format!("{user}:{group}")),
            None => f.pad(user),
        }
    }
}

impl Client {
    /// Checks what can be checked about a client by itself.
    pub fn validate(&self) -> Result<(), ApiError> {
        let counts = [("iSCSI", self.iqns.len()), ("NVMe", self.nqns.len())];
        for (kind, count) in counts {
            if count > QUALIFIED_NAMES_PER_CLIENT_MAX {
                let message = format!(
                    "client '{}' has {count} {kind} names; at most \
                     {QUALIFIED_NAMES_PER_CLIENT_MAX} are allowed",
                    self.name
                );
                return Err(ApiError::new(ErrorKind::Usage, message));
            }
        }
        self.chap.as_ref().map_or(Ok(()), Chap::validate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_in_every_form() {
        for text in ["libvirt-qemu", "libvirt-qemu:kvm", ":kvm", "64055:108"] {
            assert_eq!(text.parse::<SocketOwner>().unwrap().to_string(), text);
        }
        for text in ["", ":", "a b", "a:b:c", "user/:g", &"u".repeat(33)] {
            assert!(text.parse::<SocketOwner>().is_err(), "{text}");
        }
    }

    #[test]
    fn json_leaves_out_what_is_not_set() {
        let client: Client = serde_json::from_str(r#"{"name":"vm1"}"#).unwrap();
        assert_eq!(serde_json::to_string(&client).unwrap(), r#"{"name":"vm1"}"#);
        let owned: Client =
            serde_json::from_str(r#"{"name":"vm1","socket_owner":"qemu:kvm"}"#).unwrap();
        assert_eq!(owned.socket_owner.unwrap().group.as_deref(), Some("kvm"));
        assert!(serde_json::from_str::<Client>(r#"{"name":"vm1","socket_owner":"::"}"#).is_err());
    }

    #[test]
    fn too_many_names_are_refused() {
        let mut client: Client = serde_json::from_str(r#"{"name":"vm1"}"#).unwrap();
        client.iqns = vec!["iqn.2004-10.org:a".parse().unwrap(); 65];
        assert!(client.validate().unwrap_err().message.contains("65 iSCSI names"));
    }
}
