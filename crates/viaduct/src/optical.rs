//! The verbs of media and drives, and how they are shown.

use model::medium::MediumTold;
use model::{ApiError, DriveCreate, DriveLoad, DriveView, MediumAdd, MediumView};
use node::api::routes::Removed;

use crate::args;
use crate::args::Format;
use crate::client::Client;
use crate::commands::{Done, absolute};
use crate::output::{list, show, table};
use crate::progress::Bar;
use crate::tables::{joined, or_none, problem, yes};

/// How many digits of a checksum a listing shows.
const SUM_DIGITS: usize = 12;

pub fn media(node: &Client, command: args::Media, format: Format) -> Done {
    match command {
        args::Media::Add(arguments) => add(node, arguments, format),
        args::Media::Ls => {
            let views: Vec<MediumView> = node.get("/v1/media")?;
            show(format, &views, |views| media_table(views))
        }
        args::Media::Show { name } => {
            let view: MediumView = node.get(&format!("/v1/media/{name}"))?;
            show(format, &view, medium)
        }
        args::Media::Rm { name } => {
            let removed: Removed = node.delete(&format!("/v1/media/{name}"))?;
            show(format, &removed, |_| format!("medium {name} removed\n"))
        }
    }
}

fn add(
    node: &Client,
    args::MediaAdd { path, name, force }: args::MediaAdd,
    format: Format,
) -> Done {
    let request = MediumAdd { path: absolute(&path)?, name, force };
    let bar = Bar::new()?;
    let mut end = None;
    node.lines("/v1/media", &request, |told| {
        match told {
            MediumTold::Copying(progress) => bar.draw("copying", progress),
            MediumTold::Verifying(progress) => bar.draw("verifying", progress),
            MediumTold::Done(view) => end = Some(Ok(view)),
            MediumTold::Failed(error) => end = Some(Err(error)),
        }
        Ok(())
    })?;
    bar.finish();
    let view = end.unwrap_or_else(|| {
        Err(ApiError::failed("the node did not say how the copy ended")
            .then("viaduct media ls shows whether it is there"))
    })?;
    if view.medium.padding > 0 && format == Format::Table {
        eprintln!(
            "note: {} was not of whole blocks of 2048 bytes; {} zeroes were added at its end",
            path.display(),
            view.medium.padding
        );
    }
    show(format, &view, medium_done)
}

pub fn drive(node: &Client, command: args::Drive, format: Format) -> Done {
    match command {
        args::Drive::Create(args::DriveCreate { name, medium, device, serial, shareable }) => {
            let device = device.map(|path| absolute(&path)).transpose()?;
            let request = DriveCreate { name, serial, shareable, medium, device };
            let view: DriveView = node.post("/v1/drives", &request)?;
            show(format, &view, drive_done)
        }
        args::Drive::Load(args::DriveLoad { name, medium, force }) => {
            let path = format!("/v1/drives/{name}/medium");
            let view: DriveView = node.put(&path, &DriveLoad { medium, force })?;
            show(format, &view, drive_done)
        }
        args::Drive::Eject { name, force } => {
            let path = format!("/v1/drives/{name}/medium?force={force}");
            let view: DriveView = node.delete(&path)?;
            show(format, &view, drive_done)
        }
        args::Drive::Ls => {
            let views: Vec<DriveView> = node.get("/v1/drives")?;
            show(format, &views, |views| drives_table(views))
        }
        args::Drive::Show { name } => {
            let view: DriveView = node.get(&format!("/v1/drives/{name}"))?;
            show(format, &view, drive_list)
        }
        args::Drive::Rm { name } => {
            let removed: Removed = node.delete(&format!("/v1/drives/{name}"))?;
            show(format, &removed, |_| format!("drive {name} removed\n"))
        }
    }
}

fn media_table(views: &[MediumView]) -> String {
    let row = |MediumView { medium, loaded_in }: &MediumView| {
        [
            medium.name.to_string(),
            medium.size.to_string(),
            or_none(medium.label.as_ref()),
            joined(&medium.boots),
            medium.sha256.chars().take(SUM_DIGITS).collect(),
            joined(loaded_in),
        ]
    };
    let heading = ["NAME", "SIZE", "LABEL", "BOOTS", "SHA256", "LOADED IN"];
    table(heading, &views.iter().map(row).collect::<Vec<_>>())
}

fn medium(MediumView { medium, loaded_in }: &MediumView) -> String {
    let mut pairs = vec![
        ("name", medium.name.to_string()),
        ("uuid", medium.uuid.to_string()),
        ("size", medium.size.to_string()),
        ("format", medium.format.to_string()),
        ("label", or_none(medium.label.as_ref())),
        ("boots", joined(&medium.boots)),
        ("sha256", medium.sha256.clone()),
        ("loaded in", joined(loaded_in)),
    ];
    if medium.padding > 0 {
        pairs.insert(3, ("of that added", format!("{} zeroes at the end", medium.padding)));
    }
    list(&pairs)
}

fn medium_done(MediumView { medium, .. }: &MediumView) -> String {
    let label = medium.label.as_ref().map(|label| format!(" '{label}'")).unwrap_or_default();
    let boots = match medium.boots[..] {
        [] => "not bootable".to_owned(),
        _ => format!("boots {}", joined(&medium.boots)),
    };
    let (name, size, format, sum) = (&medium.name, medium.size, medium.format, &medium.sha256);
    format!("medium {name}: {size}, {format}{label}, {boots}\nsha256 {sum}\n")
}

/// What is in a drive, in words.
fn inside(view: &DriveView) -> String {
    match (&view.drive.device, view.loaded) {
        (Some(device), true) => format!("what is in {device}"),
        (Some(device), false) => format!("none in {device}"),
        (None, _) => or_none(view.drive.medium.as_ref()),
    }
}

fn drives_table(views: &[DriveView]) -> String {
    let row = |view: &DriveView| {
        [
            view.drive.name.to_string(),
            inside(view),
            view.tray.to_string(),
            yes(!view.locked_by.is_empty()),
            view.state.to_string(),
            joined(&view.mapped_to),
        ]
    };
    let heading = ["NAME", "MEDIUM", "TRAY", "LOCKED", "STATE", "MAPPED TO"];
    table(heading, &views.iter().map(row).collect::<Vec<_>>())
}

fn drive_list(view: &DriveView) -> String {
    let drive = &view.drive;
    let mut pairs = vec![
        ("name", drive.name.to_string()),
        ("uuid", drive.uuid.to_string()),
        ("serial", drive.serial.clone()),
        ("shareable", yes(drive.shareable)),
        ("medium", inside(view)),
        ("tray", view.tray.to_string()),
        ("locked by", joined(&view.locked_by)),
        ("state", view.state.to_string()),
        ("mapped to", joined(&view.mapped_to)),
    ];
    pairs.extend(problem(view.problem.as_ref()));
    list(&pairs)
}

fn drive_done(view: &DriveView) -> String {
    let drive = &view.drive;
    let of = drive.medium.as_ref().map(ToString::to_string).or_else(|| drive.device.clone());
    let medium = of.unwrap_or_else(|| "empty".to_owned());
    format!("drive {}: {medium}, {}\n", drive.name, view.state)
}
