//! Changes about drives and media: drives are part of the configuration; media are data, known to
//! the node that has them.

use model::limits::MEDIA_MAX;
use model::lu::serial_of;
use model::{ApiError, Config, Drive, DriveCreate, LuName, Medium, MediumName};
use uuid::Uuid;

use super::Media;

pub fn no_drive(name: &LuName) -> ApiError {
    ApiError::not_found(format!("there is no drive '{name}'"))
        .then("viaduct drive ls shows those that are there")
}

pub fn no_medium(name: &MediumName) -> ApiError {
    ApiError::not_found(format!("there is no medium '{name}' in the library"))
        .then(format!("viaduct media ls; viaduct media add FILE --name {name}"))
}

/// What a name of something that can be mapped stands for: `LU 'web1'`, `drive 'dvd1'`.
pub fn kind_and_name(config: &Config, name: &LuName) -> String {
    let kind = if config.drive(name).is_some() { "drive" } else { "LU" };
    format!("{kind} '{name}'")
}

/// Whether a medium of this name can be added.
pub fn medium_add(media: &Media, name: &MediumName) -> Result<(), ApiError> {
    if media.contains_key(name) {
        return Err(ApiError::conflict(format!("the library has a medium '{name}' already"))
            .then(format!("choose another name with --name, or viaduct media rm {name}")));
    }
    if media.len() >= MEDIA_MAX {
        return Err(ApiError::conflict(format!("the library is full: it has {MEDIA_MAX} media"))
            .then("viaduct media rm NAME, of one that nobody needs"));
    }
    Ok(())
}

/// Whether a medium can be removed: not while a drive has it, also in an open tray.
pub fn medium_remove<'a>(
    config: &Config,
    media: &'a Media,
    name: &MediumName,
) -> Result<&'a Medium, ApiError> {
    let medium = media.get(name).ok_or_else(|| no_medium(name))?;
    let drives: Vec<&str> = config.drives_with(name).map(|drive| drive.name.as_str()).collect();
    match drives[..] {
        [] => Ok(medium),
        [first, ..] => {
            let (word, all) =
                (if drives.len() == 1 { "drive" } else { "drives" }, drives.join(", "));
            Err(ApiError::conflict(format!("medium '{name}' is loaded in {word} {all}"))
                .then(format!("viaduct drive eject {first}")))
        }
    }
}

pub fn drive_create(
    config: &Config,
    media: &Media,
    request: &DriveCreate,
    uuid: Uuid,
) -> Result<Config, ApiError> {
    let name = &request.name;
    if config.device(name).is_some() {
        let thing = kind_and_name(config, name);
        return Err(ApiError::conflict(format!("{thing} exists already"))
            .then("choose another name: LUs and drives share them, as they are mapped by name"));
    }
    let is_same = |drive: &&Drive| drive.device.is_some() && drive.device == request.device;
    if let Some(other) = config.drives.iter().find(is_same) {
        let device = request.device.as_deref().unwrap_or_default();
        return Err(ApiError::conflict(format!("{device} is drive '{}' already", other.name))
            .then("make that one --shareable, and map it to all who shall have it"));
    }
    if let Some(medium) = &request.medium {
        media.get(medium).ok_or_else(|| no_medium(medium))?;
    }
    let drive = Drive {
        name: name.clone(),
        uuid,
        serial: request.serial.clone().unwrap_or_else(|| serial_of(uuid)),
        shareable: request.shareable,
        medium: request.medium.clone(),
        device: request.device.clone(),
    };
    drive.validate()?;
    let mut next = config.clone();
    next.drives.push(drive);
    super::validate::config(&next)?;
    Ok(next)
}

pub fn drive_remove(config: &Config, name: &LuName) -> Result<Config, ApiError> {
    config.drive(name).ok_or_else(|| no_drive(name))?;
    if let Some(mapping) = config.mappings_of_lu(name).next() {
        let client = &mapping.client;
        return Err(ApiError::conflict(format!(
            "drive '{name}' is mapped to client '{client}' at slot {}",
            mapping.slot
        ))
        .then(format!("viaduct unmap {name} --from {client}")));
    }
    let mut next = config.clone();
    next.drives.retain(|drive| drive.name != *name);
    Ok(next)
}

/// From now on this medium is in the drive, or none.
pub fn drive_load(
    config: &Config,
    media: &Media,
    name: &LuName,
    medium: Option<&MediumName>,
) -> Result<Config, ApiError> {
    let drive = config.drive(name).ok_or_else(|| no_drive(name))?;
    if drive.device.is_some() {
        return Err(drive.has_its_own());
    }
    if let Some(medium) = medium {
        media.get(medium).ok_or_else(|| no_medium(medium))?;
    }
    let mut next = config.clone();
    for drive in next.drives.iter_mut().filter(|drive| drive.name == *name) {
        drive.medium = medium.cloned();
    }
    Ok(next)
}
