//! The node's own log, on standard error, as text for people or JSON for machines. Nothing that is
//! logged is a secret: names, numbers and paths only.

use std::io::IsTerminal;

use model::ApiError;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::args::LogFormat;

/// Begins logging. The filter has been given by the user and may be wrong.
pub fn begin(format: LogFormat, filter: &str) -> Result<(), ApiError> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        ApiError::usage(format!("the log filter '{filter}' is not valid: {error}"))
            .then("viaduct up --log-level info")
    })?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let begun = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    begun.map_err(|error| ApiError::failed(format!("cannot begin logging: {error}")))
}
