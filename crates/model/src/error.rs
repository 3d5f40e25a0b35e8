//! [`ApiError`]: what went wrong, for whom, and what to do next, in one shape for API and command
//! line. The kind decides the HTTP status and the exit code: one table, so that a script sees the
//! same whether it calls the program or the API.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An answer that is not the one hoped for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
pub struct ApiError {
    pub kind: ErrorKind,
    /// What went wrong, with the name of the thing.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// It was tried and did not work.
    Failed,
    /// The request is not valid by itself.
    Usage,
    /// The thing that is named does not exist.
    NotFound,
    /// It contradicts what is there.
    Conflict,
    /// It may work later, as it stands: stopping, busy, still in progress.
    NotNow,
    /// The caller may not do that.
    Forbidden,
}

/// kind → (exit code, HTTP status).
const CODES: [(ErrorKind, u8, u16); 6] = [
    (ErrorKind::Failed, 1, 500),
    (ErrorKind::Usage, 2, 400),
    (ErrorKind::NotFound, 3, 404),
    (ErrorKind::Conflict, 4, 409),
    (ErrorKind::NotNow, 5, 503),
    (ErrorKind::Forbidden, 1, 403),
];

impl ErrorKind {
    pub fn exit_code(self) -> u8 {
        CODES[self as usize].1
    }

    pub fn http_status(self) -> u16 {
        CODES[self as usize].2
    }
}

impl ApiError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ApiError {
        ApiError { kind, message: message.into(), next: None }
    }

    pub fn failed(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::Usage, message)
    }

    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::NotFound, message)
    }

    pub fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::Conflict, message)
    }

    pub fn not_now(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::NotNow, message)
    }

    pub fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::Forbidden, message)
    }

    /// Adds what to do next.
    pub fn then(mut self, next: impl Into<String>) -> ApiError {
        self.next = Some(next.into());
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_in_its_own_row() {
        for (index, (kind, exit, status)) in CODES.iter().enumerate() {
            assert_eq!(*kind as usize, index);
            assert_eq!((kind.exit_code(), kind.http_status()), (*exit, *status));
        }
    }

    #[test]
    fn an_error_names_the_next_thing_to_do() {
        let error = ApiError::not_found("there is no LU 'web1'").then("viaduct lu ls");
        assert_eq!(error.to_string(), "there is no LU 'web1'\n  next: viaduct lu ls");
        let json = serde_json::to_string(&error).unwrap();
        assert_eq!(
            json,
            r#"{"kind":"not-found","message":"there is no LU 'web1'","next":"viaduct lu ls"}"#
        );
    }
}
