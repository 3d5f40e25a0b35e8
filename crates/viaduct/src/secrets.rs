//! Secrets for `client chap`: out of files, the standard input, or typed twice without being shown.
//! They never stand on a command line, where every user of the machine could read them.

use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use model::chap::ChapRequest;
use model::limits::CHAP_SECRET_BYTES_MAX;
use model::{ApiError, Secret};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use crate::args::ClientChap;

/// More than this is no secret with its line ending.
const INPUT_BYTES_MAX: u64 = CHAP_SECRET_BYTES_MAX as u64 + 3;

/// Stands for the standard input.
const STANDARD_INPUT: &str = "-";

/// The request that arguments, files and keyboard make together.
pub fn read(arguments: ClientChap) -> Result<ChapRequest, ApiError> {
    let ClientChap { client, secret_file, name, mutual, mutual_secret_file, mutual_name, .. } =
        arguments;
    let files = [secret_file.as_deref(), mutual_secret_file.as_deref()];
    if files.iter().all(|file| *file == Some(Path::new(STANDARD_INPUT))) {
        return Err(ApiError::usage("the standard input has one secret, not two")
            .then("give one of them in a file"));
    }
    let is_mutual = mutual || mutual_secret_file.is_some() || mutual_name.is_some();
    let secret = one(secret_file.as_deref(), &format!("secret of client '{client}'"))?;
    let of_node = || {
        let what = format!("secret of the node towards client '{client}'");
        one(mutual_secret_file.as_deref(), &what)
    };
    let mutual_secret = is_mutual.then(of_node).transpose()?;
    Ok(ChapRequest { name, secret, mutual_name, mutual_secret })
}

fn one(file: Option<&Path>, what: &str) -> Result<Secret, ApiError> {
    let (bytes, from) = match file {
        None => (typed(what)?, "the keyboard".to_owned()),
        Some(file) if file == Path::new(STANDARD_INPUT) => {
            (taken(io::stdin().lock(), file)?, "the standard input".to_owned())
        }
        Some(file) => {
            let opened = std::fs::File::open(file).map_err(|error| unreadable(file, &error))?;
            (taken(opened, file)?, file.display().to_string())
        }
    };
    Secret::from_input(&bytes)
        .map_err(|error| ApiError::usage(format!("the {what}, from {from}: {error}")))
}

fn taken(input: impl Read, file: &Path) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let read = input.take(INPUT_BYTES_MAX).read_to_end(&mut bytes);
    read.map(|_| bytes).map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &io::Error) -> ApiError {
    let shown = file.display();
    match error.kind() {
        io::ErrorKind::NotFound => ApiError::not_found(format!("there is no file {shown}")),
        _ => ApiError::failed(format!("cannot read {shown}: {error}")),
    }
}

/// A line from the terminal, twice the same.
fn typed(what: &str) -> Result<Vec<u8>, ApiError> {
    let hidden = Hidden::begin().map_err(|_| {
        ApiError::usage(format!("there is no terminal to type the {what} on"))
            .then("--secret-file FILE reads it from a file, --secret-file - from standard input")
    })?;
    let ask = |text: &str| -> io::Result<Vec<u8>> {
        write!(io::stderr(), "{text}: ")?;
        let mut line = Vec::new();
        io::stdin().lock().take(INPUT_BYTES_MAX).read_until(b'\n', &mut line)?;
        // The one that was typed was not shown either.
        writeln!(io::stderr())?;
        Ok(line)
    };
    let failed = |error| ApiError::failed(format!("cannot read the {what}: {error}"));
    let first = ask(&format!("CHAP {what}")).map_err(failed)?;
    let second = ask("again").map_err(failed)?;
    drop(hidden);
    if first == second {
        return Ok(first);
    }
    Err(ApiError::usage("the two are not the same").then("run the command again"))
}

/// A terminal that does not show what is typed, as long as this lives.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn begin() -> io::Result<Hidden> {
        let input = rustix::stdio::stdin();
        let before = termios::tcgetattr(input)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(input, OptionalActions::Flush, &hidden)?;
        Ok(Hidden { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}
