//! [`Event`]: something happened. An event names its subject and, where there is something to do,
//! what.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::mapping::AdapterId;
use crate::name::{ClientName, LuName, MediumName, PoolName};
use crate::schema::schema_as;

/// Something that happened, as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Rises by at least one from event to event, also over a restart.
    pub id: u64,
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    pub severity: Severity,
    pub subject: Subject,
    /// What happened, as a word for programs: `lu-created`, `client-connected`.
    pub kind: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Events after a certain one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    pub events: Vec<Event>,
    /// Ask with `after` set to this for what comes next.
    pub last: u64,
    /// Events may have been forgotten before they were told here: too many, or a restart.
    pub missed: bool,
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warning,
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// What an event or a problem is about; `lu/web1`, `pool/fast`, `drive/dvd1`, `medium/debian`,
/// `client/vm1`, `adapter/vm1-2` or `node`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    Node,
    Lu(LuName),
    Pool(PoolName),
    Drive(LuName),
    Medium(MediumName),
    Client(ClientName),
    Adapter(AdapterId),
}

schema_as!(Subject, String);

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Node => f.pad("node"),
            Subject::Lu(name) => f.pad(&format!("lu/{name}")),
            Subject::Pool(name) => f.pad(&format!("pool/{name}")),
            Subject::Drive(name) => f.pad(&format!("drive/{name}")),
            Subject::Medium(name) => f.pad(&format!("medium/{name}")),
            Subject::Client(name) => f.pad(&format!("client/{name}")),
            Subject::Adapter(id) => f.pad(&format!("adapter/{id}")),
        }
    }
}

/// Why a subject was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a subject; write node, lu/NAME, pool/NAME, drive/NAME, medium/NAME, \
     client/NAME or adapter/CLIENT-SLOT"
)]
pub struct SubjectError(String);

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Subject, SubjectError> {
        let error = || SubjectError(text.to_owned());
        let Some((kind, name)) = text.split_once('/') else {
            return if text == "node" { Ok(Subject::Node) } else { Err(error()) };
        };
        match kind {
            "lu" => name.parse().map(Subject::Lu).map_err(|_| error()),
            "pool" => name.parse().map(Subject::Pool).map_err(|_| error()),
            "drive" => name.parse().map(Subject::Drive).map_err(|_| error()),
            "medium" => name.parse().map(Subject::Medium).map_err(|_| error()),
            "client" => name.parse().map(Subject::Client).map_err(|_| error()),
            "adapter" => {
                let (client, slot) = name.rsplit_once('-').ok_or_else(error)?;
                let client = client.parse().map_err(|_| error())?;
                let slot = slot.parse().map_err(|_| error())?;
                Ok(Subject::Adapter(AdapterId { client, slot }))
            }
            _ => Err(error()),
        }
    }
}

impl TryFrom<String> for Subject {
    type Error = SubjectError;
    fn try_from(text: String) -> Result<Subject, SubjectError> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        subject.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_read_as_they_print() {
        for text in ["node", "lu/web1", "pool/fast", "drive/dvd1", "medium/deb-12", "client/vm-1"] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        let adapter = "adapter/vm-1-2";
        assert_eq!(adapter.parse::<Subject>().unwrap().to_string(), adapter);
        for text in ["", "lu", "lu/", "node/x", "adapter/vm1", "adapter/vm1-1", "x/y"] {
            assert!(text.parse::<Subject>().is_err(), "{text}");
        }
    }
}
