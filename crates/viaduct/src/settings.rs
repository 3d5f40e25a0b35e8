//! The file of `viaduct up --config FILE`: TOML, whose keys are the long options of `up`.
//!
//! What stands in the file becomes the default of its option, so the command line and the
//! environment win over it, and the grammar in [`args`](crate::args) stays the only list of options
//! and of what they accept. Each value is tried by itself, so that a wrong one is found also where
//! something else wins over it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory, FromArgMatches};
use model::ApiError;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::args::Arguments;

/// Options of `up` that say nothing about the node.
const NOT_IN_FILES: [&str; 3] = ["config", "help", "output"];

/// The arguments of a command line, with the settings of a file below them.
pub fn read(path: &Path, line: Vec<OsString>) -> Result<Arguments, ApiError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            ApiError::not_found(format!("there is no configuration file {shown}"))
        }
        _ => ApiError::failed(format!("cannot read {shown}: {error}")),
    })?;
    let mut command = Arguments::command();
    for (option, value) in settings(&text).map_err(|Wrong { line, what, next }| {
        let error = ApiError::usage(format!("{shown}:{line}: {what}"));
        ApiError { next, ..error }
    })? {
        command = with_default(command, &option, value);
    }
    // What is wrong here is wrong on the command line, and ends this process as it does there.
    let matches = command.get_matches_from(line);
    Ok(Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
}

/// The file that the environment names, if it is there: a service may have one or not.
pub fn of_environment() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("VIADUCT_CONFIG")?);
    path.exists().then_some(path)
}

/// What is wrong with a file, and where.
struct Wrong {
    line: usize,
    what: String,
    next: Option<String>,
}

/// Every setting of a file: the option's name and its value as one would type it.
fn settings(text: &str) -> Result<Vec<(String, String)>, Wrong> {
    let line_of = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| Wrong {
        line: line_of(error.span().map_or(0, |span| span.start)),
        what: format!("this is no TOML: {}", error.message()),
        next: None,
    })?;
    let known = options();
    let mut settings = Vec::new();
    for (key, value) in table.get_ref() {
        let (line, key) = (line_of(key.span().start), key.get_ref());
        let wrong = |what, next| Wrong { line, what, next };
        if !known.contains(&key.to_string()) {
            let next = Some(format!("known keys are {}", known.join(", ")));
            return Err(wrong(format!("unknown key '{key}'"), next));
        }
        let typed = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Array(items) if takes_list(key) => {
                let text = |item: &Spanned<DeValue<'_>>| item.get_ref().as_str().map(str::to_owned);
                let items: Option<Vec<String>> = items.iter().map(text).collect();
                let what = format!("'{key}': a list must have strings in it");
                items.ok_or_else(|| wrong(what, None))?.join(",")
            }
            other => {
                let what = format!("'{key}': {}, not string or integer", other.type_str());
                return Err(wrong(what, None));
            }
        };
        try_alone(key, &typed).map_err(|why| wrong(format!("'{key}': {why}"), None))?;
        settings.push((key.to_string(), typed));
    }
    Ok(settings)
}

/// The command `up` with the global options among its own.
fn grammar() -> Command {
    let mut command = Arguments::command();
    command.build();
    command.find_subcommand("up").expect("a verb").clone()
}

/// The long options of `up`.
fn options() -> Vec<String> {
    let up = grammar();
    let options = up.get_arguments().filter_map(Arg::get_long);
    let mut options: Vec<String> =
        options.filter(|option| !NOT_IN_FILES.contains(option)).map(str::to_owned).collect();
    options.sort();
    options
}

/// Whether an option has several values.
fn takes_list(option: &str) -> bool {
    let up = grammar();
    let argument = up.get_arguments().find(|argument| argument.get_long() == Some(option));
    argument.is_some_and(|argument| argument.get_value_delimiter().is_some())
}

/// Whether the grammar takes this value; what it says otherwise.
fn try_alone(option: &str, value: &str) -> Result<(), String> {
    let argument = format!("--{option}={value}");
    match Arguments::command().try_get_matches_from(["viaduct", "up", &argument]) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let said = text.trim_start_matches("error: ");
            let said = said.split("\n\n").next().unwrap_or(said);
            Err(said.split_whitespace().collect::<Vec<_>>().join(" "))
        }
    }
}

fn with_default(command: Command, option: &str, value: String) -> Command {
    let is_here = |command: &Command| {
        command.get_arguments().any(|argument| argument.get_long() == Some(option))
    };
    let set = |command: Command| {
        command.mut_args(|argument| {
            if argument.get_long() == Some(option) {
                // A default is taken whole: a list is one only after it was taken apart.
                return match argument.get_value_delimiter() {
                    Some(delimiter) => {
                        let items: Vec<String> =
                            value.split(delimiter).map(str::to_owned).collect();
                        argument.default_values(items)
                    }
                    None => argument.default_value(value.clone()),
                };
            }
            argument
        })
    };
    if is_here(&command) { set(command) } else { command.mut_subcommand("up", set) }
}
