//! CHAP: how a client proves over iSCSI that it is who its name says, and the node to it.
//!
//! What may be seen ([`Chap`]) is part of the client and of the configuration. The secrets
//! ([`Secrets`]) are kept beside it and go nowhere by themselves: no listing, no event, no log, no
//! copy for people. `Debug` does not print them, and what is wrong with one is said without it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::limits::{CHAP_NAME_BYTES_MAX, CHAP_SECRET_BYTES_MAX, CHAP_SECRET_BYTES_MIN};
use crate::name::ClientName;
use crate::schema::schema_as;

/// The node's name towards a client that wants proof of it, where none was chosen.
pub const MUTUAL_NAME: &str = "viaduct";

/// That a client must prove itself, and under which names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Chap {
    /// What the client calls itself.
    pub name: String,
    /// What the node calls itself when the client wants proof of it too (mutual CHAP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutual_name: Option<String>,
}

impl Chap {
    pub fn validate(&self) -> Result<(), ApiError> {
        for name in [Some(&self.name), self.mutual_name.as_ref()].into_iter().flatten() {
            let is_plain = name.chars().all(|c| c.is_ascii_graphic() && c != ',');
            if name.is_empty() || name.len() > CHAP_NAME_BYTES_MAX || !is_plain {
                return Err(ApiError::usage(format!(
                    "'{name}' is no CHAP name; use 1 to {CHAP_NAME_BYTES_MAX} visible ASCII \
                     characters without ','"
                )));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Chap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mutual = if self.mutual_name.is_some() { "mutual, " } else { "" };
        write!(f, "{mutual}name {}", self.name)
    }
}

/// A shared secret: text that can be typed on every initiator.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Secret(String);

schema_as!(Secret, String);

/// Why a secret was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error(
        "the secret has {0} bytes; it must have {CHAP_SECRET_BYTES_MIN} to \
         {CHAP_SECRET_BYTES_MAX}"
    )]
    Length(usize),
    #[error(
        "the secret has something in it that is no printable ASCII character; initiators could \
         not be given it"
    )]
    Character,
}

impl Secret {
    /// A secret as it stands in a file or was typed: one line ending at its end is not part of it.
    pub fn from_input(bytes: &[u8]) -> Result<Secret, SecretError> {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let text = std::str::from_utf8(bytes).map_err(|_| SecretError::Character)?;
        Secret::new(text)
    }

    fn new(text: &str) -> Result<Secret, SecretError> {
        if !(CHAP_SECRET_BYTES_MIN..=CHAP_SECRET_BYTES_MAX).contains(&text.len()) {
            return Err(SecretError::Length(text.len()));
        }
        if !text.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            return Err(SecretError::Character);
        }
        Ok(Secret(text.to_owned()))
    }

    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Written by hand, because a derived one repeats what it does not understand.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

fn no_text<T, E: de::Error>() -> Result<T, E> {
    Err(E::custom("a secret is text"))
}

impl Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        Secret::new(text).map_err(E::custom)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        no_text()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        no_text()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        no_text()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        no_text()
    }
}

/// The secrets of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChapSecrets {
    /// What the client must know.
    pub secret: Secret,
    /// What the node proves itself with (mutual CHAP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutual_secret: Option<Secret>,
}

/// The secrets of all clients that have some.
pub type Secrets = BTreeMap<ClientName, ChapSecrets>;

/// `client chap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChapRequest {
    /// The client's name when absent.
    #[serde(default)]
    pub name: Option<String>,
    pub secret: Secret,
    /// [`MUTUAL_NAME`] when absent; says nothing without a mutual secret.
    #[serde(default)]
    pub mutual_name: Option<String>,
    #[serde(default)]
    pub mutual_secret: Option<Secret>,
}

impl ChapRequest {
    /// The two halves of it: what may be seen and what may not.
    pub fn parts(self, client: &ClientName) -> Result<(Chap, ChapSecrets), ApiError> {
        let ChapRequest { name, secret, mutual_name, mutual_secret } = self;
        if mutual_name.is_some() && mutual_secret.is_none() {
            return Err(ApiError::usage("a mutual name without a mutual secret proves nothing")
                .then(format!("viaduct client chap {client} --mutual-secret-file FILE")));
        }
        // RFC 7143 9.2.1: whoever may choose the challenge in one direction would get the answer
        // for the other.
        if mutual_secret.as_ref() == Some(&secret) {
            return Err(ApiError::usage("both directions have the same secret")
                .then("choose another one for the node"));
        }
        let mutual_name =
            mutual_secret.as_ref().map(|_| mutual_name.unwrap_or(MUTUAL_NAME.to_owned()));
        let chap = Chap { name: name.unwrap_or(client.to_string()), mutual_name };
        chap.validate()?;
        Ok((chap, ChapSecrets { secret, mutual_secret }))
    }
}

/// Reads secrets; what is wrong with them is said without them.
pub fn secrets_unseen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secrets, D::Error> {
    Secrets::deserialize(deserializer).map_err(|_| {
        de::Error::custom("'secrets' is not as viaduct config save --with-secrets writes it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "correct horse battery";

    #[test]
    fn secrets_are_read_from_files_and_checked() {
        let read = |bytes: &[u8]| Secret::from_input(bytes);
        for bytes in [&b"correct horse battery"[..], b"correct horse battery\n"] {
            assert_eq!(read(bytes).unwrap().bytes(), GOOD.as_bytes());
        }
        assert_eq!(read(b"correct horse battery\r\n").unwrap().bytes(), GOOD.as_bytes());
        assert_eq!(read(b"short\n"), Err(SecretError::Length(5)));
        assert_eq!(read(b"eleven-char"), Err(SecretError::Length(11)));
        assert!(read(b"twelve-chars").is_ok() && read(&[b'a'; 255]).is_ok());
        assert_eq!(read(&[b'a'; 256]), Err(SecretError::Length(256)));
        assert_eq!(read(b"two lines of\ntext"), Err(SecretError::Character));
        assert_eq!(read(b"bytes \xff\xfe and others"), Err(SecretError::Character));
    }

    #[test]
    fn nothing_says_a_secret_that_is_not_asked_for_it() {
        let request = format!(r#"{{"secret":"{GOOD}","mutual_secret":"{GOOD} staple"}}"#);
        let request: ChapRequest = serde_json::from_str(&request).unwrap();
        let (chap, secrets) = request.clone().parts(&"host1".parse().unwrap()).unwrap();
        for shown in [format!("{request:?}"), format!("{secrets:?}"), format!("{chap:?}{chap}")] {
            assert!(!shown.contains("horse"), "{shown}");
        }
        assert_eq!(chap.to_string(), "mutual, name host1");
        assert_eq!(chap.mutual_name.as_deref(), Some(MUTUAL_NAME));
        let wrongs = [r#""horse""#, "[\"horse\"]", "{\"horse\":1}", "4711", "47.11", "-4711"];
        for wrong in wrongs.into_iter().chain(["true", "null"]) {
            let error = serde_json::from_str::<Secret>(wrong).unwrap_err().to_string();
            assert!(!error.contains("horse") && !error.contains("47"), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let parts = |request: &str| {
            let request: ChapRequest = serde_json::from_str(request).unwrap();
            request.parts(&"host1".parse().unwrap()).map(|(chap, _)| chap)
        };
        let same = format!(r#"{{"secret":"{GOOD}","mutual_secret":"{GOOD}"}}"#);
        let half = format!(r#"{{"secret":"{GOOD}","mutual_name":"node"}}"#);
        let name = format!(r#"{{"secret":"{GOOD}","name":"a,b"}}"#);
        for (request, reason) in
            [(same, "the same secret"), (half, "without a mutual secret"), (name, "no CHAP name")]
        {
            let error = parts(&request).unwrap_err();
            assert!(error.message.contains(reason), "{error}");
            assert!(!error.to_string().contains("horse"), "{error}");
        }
        assert_eq!(parts(&format!(r#"{{"secret":"{GOOD}"}}"#)).unwrap().to_string(), "name host1");
    }
}
