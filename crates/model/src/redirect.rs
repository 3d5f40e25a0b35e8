//! Where a client is sent that logs in over iSCSI: another portal of this node, or of another one
//! that serves the same target.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema::schema_as;

/// The port of a portal that is named without one.
const ISCSI_PORT: u16 = 3260;

/// That logins of a client are sent elsewhere; its sessions stay where they are until they end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// A login that comes to this portal is let in.
    pub to: PortalAddress,
    /// The client may forget this node's address: its target has moved for good.
    #[serde(default)]
    pub permanently: bool,
    /// The sessions that there are when this is set are asked to log out.
    #[serde(default)]
    pub now: bool,
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.permanently { "permanently" } else { "for now" };
        write!(f, "to {}, {how}", self.to)
    }
}

/// `ADDRESS:PORT`, an IPv6 address in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortalAddress(SocketAddr);

schema_as!(PortalAddress, String);

/// Why a portal was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no portal that a client could be sent to; write ADDRESS or ADDRESS:PORT, with an \
         IPv6 address in brackets"
)]
pub struct PortalError(String);

impl PortalAddress {
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for PortalAddress {
    type Err = PortalError;

    fn from_str(text: &str) -> Result<PortalAddress, PortalError> {
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
        let alone = || bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, ISCSI_PORT));
        let address = text.parse().or_else(|_| alone());
        let is_one = |at: &SocketAddr| {
            !at.ip().is_unspecified() && !at.ip().is_multicast() && at.port() != 0
        };
        let address = address.ok().filter(is_one);
        address.map(PortalAddress).ok_or_else(|| PortalError(text.to_owned()))
    }
}

impl fmt::Display for PortalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for PortalAddress {
    type Error = PortalError;

    fn try_from(text: String) -> Result<PortalAddress, PortalError> {
        text.parse()
    }
}

impl From<PortalAddress> for String {
    fn from(portal: PortalAddress) -> String {
        portal.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portal_is_written_as_target_addresses_are() {
        for (written, told) in [
            ("192.0.2.7", "192.0.2.7:3260"),
            ("192.0.2.7:3261", "192.0.2.7:3261"),
            ("2001:db8::1", "[2001:db8::1]:3260"),
            ("[2001:db8::1]", "[2001:db8::1]:3260"),
            ("[2001:db8::1]:860", "[2001:db8::1]:860"),
        ] {
            assert_eq!(written.parse::<PortalAddress>().unwrap().to_string(), told);
        }
        for wrong in
            ["", "here", "192.0.2.7:", "192.0.2.7:0", "0.0.0.0:1", "[::]", "ff02::1", "[::1"]
        {
            assert!(wrong.parse::<PortalAddress>().is_err(), "{wrong}");
        }
        let text = r#"{"to":"192.0.2.7:3260"}"#;
        let redirect: Redirect = serde_json::from_str(text).unwrap();
        assert_eq!(redirect.to_string(), "to 192.0.2.7:3260, for now");
    }
}
