//! `lu migrate`: begins it, and shows how far it is until it is done.

use std::time::Duration;

use model::ApiError;
use model::medium::Progress;
use model::status::{Brought, LuView};

use crate::args::{Format, LuMigrate};
use crate::client::Client;
use crate::commands::Done;
use crate::output::show;
use crate::progress::Bar;
use crate::tables;

/// When to look again how far it is.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

pub fn migrate(node: &Client, arguments: &LuMigrate, format: Format) -> Done {
    let path = format!("/v1/lus/{}/migration", arguments.name);
    let view: LuView = match arguments.cancel {
        true => node.delete(&path)?,
        false => node.put(&path, &arguments.request())?,
    };
    // Who only says how fast it goes does not wait for it.
    let is_enough = arguments.cancel || arguments.no_wait || arguments.pool.is_none();
    let view = if is_enough { view } else { wait_for(node, view)? };
    show(format, &view, tables::lu_migrated)
}

/// Who hangs up ends nothing.
fn wait_for(node: &Client, mut view: LuView) -> Result<LuView, ApiError> {
    let (name, bar, mut told) = (view.lu.name.clone(), Bar::new()?, None);
    while view.lu.migration.is_some() {
        if let Some(Brought { bytes, of, .. }) = &view.brought {
            bar.draw("bringing", Progress { bytes: bytes.bytes(), of: of.bytes() });
        }
        // Once for each reason: the bar is drawn over what it says.
        if told != view.problem {
            told.clone_from(&view.problem);
            if let Some(problem) = &told {
                let next = problem.next.as_ref().map(|next| format!("\n  next: {next}"));
                bar.say(&format!("{}{}", problem.message, next.unwrap_or_default()));
            }
        }
        node::world::sleep(LOOK_AGAIN);
        view = node.get(&format!("/v1/lus/{name}"))?;
    }
    bar.finish();
    match view.lu.backing.pool() {
        Some(_) => Ok(view),
        None => Err(ApiError::conflict(format!("LU '{name}' stays where it is"))),
    }
}
