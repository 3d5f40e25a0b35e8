//! Each verb: what is asked of the node and what is printed of its answer.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use model::config::{ConfigRestore, RestoreOutcome};
use model::event::EventPage;
use model::limits::WAIT_SECONDS_MAX;
use model::reservation::ReservationView;
use model::status::{ClientView, ConnectFor, Connection, LuView, MappingView, NodeStatus};
use model::{
    ApiError, ClientChange, ClientName, ImportTold, LuAdopt, LuCreate, LuImport, LuResize,
    MapRequest, Redirect, Via,
};
use node::api::routes::Removed;
use node::datadir::PRIVATE_FILE;
use serde_json::Value;

use crate::args::{self, Arguments, Command, Format};
use crate::client::Client;
use crate::output::{self, show};
use crate::progress::Bar;
use crate::{backup, check, force, migrate, optical, pool, pv, secrets, snapshot, tables};

pub type Done = Result<(), ApiError>;

/// Carries out every command but `up`.
pub fn run(command: Command, data: Option<PathBuf>, format: Format) -> Done {
    match command {
        Command::Completions { shell } => completions(shell),
        Command::Man { directory } => man(directory.as_deref()),
        Command::Pool(args::Pool::Check(arguments)) if arguments.name().is_none() => {
            check::check(arguments, format)
        }
        Command::Pool(args::Pool::Inspect(arguments)) => check::inspect(arguments, format),
        Command::Pool(args::Pool::Backup(arguments)) if arguments.name().is_none() => {
            backup::backup(arguments, format)
        }
        Command::Pool(args::Pool::Restore(arguments)) => backup::restore(arguments, format),
        command => {
            let node = Client::new(data_directory(data)?)?;
            ask(&node, command, format)
        }
    }
}

fn ask(node: &Client, command: Command, format: Format) -> Done {
    match command {
        Command::Status => {
            let status: NodeStatus = node.get("/v1/status")?;
            show(format, &status, tables::status)
        }
        Command::Lu(command) => lu(node, command, format),
        Command::Pool(command) => pool::pool(node, command, format),
        Command::Snapshot(command) => snapshot::snapshot(node, command, format),
        Command::Clone(arguments) => snapshot::clone(node, arguments, format),
        Command::Pv(command) => pv::pv(node, command, format),
        Command::Media(command) => optical::media(node, command, format),
        Command::Drive(command) => optical::drive(node, command, format),
        Command::Client(command) => client(node, command, format),
        Command::Map(arguments) => map(node, arguments, format),
        Command::Unmap(args::Unmap { lu, from, via, force }) => {
            let via = via.map(|via| format!("&via={}", Via::from(via))).unwrap_or_default();
            let path = format!("/v1/mappings?lu={lu}&client={from}&force={force}{via}");
            let removed: Removed = node.delete(&path)?;
            show(format, &removed, |_| format!("{lu} unmapped from {from}\n"))
        }
        Command::Mapping(args::Mapping::Ls) => {
            let mappings: Vec<MappingView> = node.get("/v1/mappings")?;
            show(format, &mappings, |mappings| tables::mappings(mappings))
        }
        Command::Reservation(command) => reservation(node, command, format),
        Command::Connect(arguments) => connect(node, &arguments, format),
        Command::Event(command) => event(node, &command, format),
        Command::Config(command) => config(node, command, format),
        Command::Up(_) | Command::Completions { .. } | Command::Man { .. } => {
            Err(ApiError::failed("this command asks no node"))
        }
    }
}

/// Where the node's data is: as told, or where this user's node would have it.
pub fn data_directory(given: Option<PathBuf>) -> Result<PathBuf, ApiError> {
    if let Some(given) = given {
        return std::path::absolute(&given).map_err(|error| {
            ApiError::usage(format!("'{}' is no directory name: {error}", given.display()))
        });
    }
    if node::world::own_uid() == 0 {
        return Ok(PathBuf::from("/var/lib/viaduct"));
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let share = set("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    share.map(|share| share.join("viaduct")).ok_or_else(|| {
        ApiError::usage("there is no home directory to find the node's data in")
            .then("name it: --data DIR or VIADUCT_DATA")
    })
}

fn lu(node: &Client, command: args::Lu, format: Format) -> Done {
    match command {
        args::Lu::Create(arguments) => lu_create(node, arguments, format),
        args::Lu::Adopt(arguments) => lu_adopt(node, arguments, format),
        args::Lu::Ls => {
            let views: Vec<LuView> = node.get("/v1/lus")?;
            show(format, &views, |views| tables::lus(views))
        }
        args::Lu::Show { name } => {
            let view: LuView = node.get(&format!("/v1/lus/{name}"))?;
            show(format, &view, tables::lu)
        }
        args::Lu::Resize(args::LuResize { name, size, shrink }) => {
            let request = LuResize { size, shrink };
            let view: LuView = node.patch(&format!("/v1/lus/{name}"), &request)?;
            show(format, &view, tables::lu_done)
        }
        args::Lu::Set(args::LuSet { name, limits }) => {
            if limits.is_empty() {
                return Err(ApiError::usage(format!("say what LU '{name}' shall be given"))
                    .then(format!("viaduct lu set {name} --iops 500 --bandwidth 100M")));
            }
            let view: LuView = node.patch(&format!("/v1/lus/{name}/limits"), &limits.change())?;
            show(format, &view, tables::lu_limited)
        }
        args::Lu::Migrate(arguments) => migrate::migrate(node, &arguments, format),
        args::Lu::Force { name, group, yes } => force::force(node, &name, (group, yes), format),
        args::Lu::Rm { name } => {
            let removed: Removed = node.delete(&format!("/v1/lus/{name}"))?;
            show(format, &removed, |_| format!("LU {name} removed\n"))
        }
    }
}

fn lu_create(node: &Client, arguments: args::LuCreate, format: Format) -> Done {
    let args::LuCreate { name, size, from, look, limits, pool, thick, backing } = arguments;
    let args::Look { block_size, serial, shareable, removable, cache } = look;
    let request = LuCreate {
        name,
        size: size.unwrap_or_default(),
        block_size,
        serial,
        shareable,
        cache: cache.into(),
        removable,
        limits: limits.limits(),
        backing: backing.map(Into::into),
        pool,
        thick,
    };
    let view: LuView = match (from, size) {
        (Some(path), size) => lu_import(node, &LuImport::of(request, absolute(&path)?, size))?,
        (None, Some(_)) => node.post("/v1/lus", &request)?,
        (None, None) => return Err(ApiError::usage("say which --size the LU shall have")),
    };
    show(format, &view, tables::lu_done)
}

fn lu_import(node: &Client, request: &LuImport) -> Result<LuView, ApiError> {
    let (bar, mut end) = (Bar::new()?, None);
    node.lines("/v1/imports", request, |told| {
        match told {
            ImportTold::Copying(progress) => bar.draw("copying", progress),
            ImportTold::Verifying(progress) => bar.draw("verifying", progress),
            ImportTold::Done(view) => end = Some(Ok(*view)),
            ImportTold::Failed(error) => end = Some(Err(error)),
        }
        Ok(())
    })?;
    bar.finish();
    end.unwrap_or_else(|| {
        Err(ApiError::failed("the node did not say how the import ended")
            .then("viaduct lu ls shows whether the LU is there"))
    })
}

fn lu_adopt(node: &Client, arguments: args::LuAdopt, format: Format) -> Done {
    let args::LuAdopt { path, name, look, limits, read_only } = arguments;
    let path = absolute(&path)?;
    let request = LuAdopt {
        name,
        path,
        block_size: look.block_size,
        serial: look.serial,
        shareable: look.shareable,
        cache: look.cache.into(),
        removable: look.removable,
        read_only,
        limits: limits.limits(),
    };
    let view: LuView = node.post("/v1/adopt", &request)?;
    show(format, &view, tables::lu_done)
}

/// The node may have been started elsewhere.
pub fn absolute(path: &Path) -> Result<String, ApiError> {
    let absolute = std::path::absolute(path).ok();
    let text = absolute.as_deref().and_then(Path::to_str).map(str::to_owned);
    text.ok_or_else(|| {
        ApiError::usage(format!("the path {} cannot be sent as text", path.display()))
    })
}

fn client(node: &Client, command: args::Client, format: Format) -> Done {
    match command {
        args::Client::Create(args::ClientCreate { name, iqn, nqn, socket_owner }) => {
            let request = model::Client {
                name,
                socket_owner,
                iqns: iqn,
                chap: None,
                redirect: None,
                nqns: nqn,
            };
            let view: ClientView = node.post("/v1/clients", &request)?;
            show(format, &view, tables::client_done)
        }
        args::Client::Ls => {
            let views: Vec<ClientView> = node.get("/v1/clients")?;
            show(format, &views, |views| tables::clients(views))
        }
        args::Client::Show { name } => {
            let view: ClientView = node.get(&format!("/v1/clients/{name}"))?;
            show(format, &view, tables::client)
        }
        args::Client::AddIqn(args::ClientIqns { name, iqns }) => {
            let change = ClientChange { add_iqns: iqns, ..ClientChange::default() };
            client_change(node, &name, &change, format)
        }
        args::Client::RmIqn(args::ClientIqns { name, iqns }) => {
            let change = ClientChange { remove_iqns: iqns, ..ClientChange::default() };
            client_change(node, &name, &change, format)
        }
        args::Client::Chap(arguments) => client_chap(node, arguments, format),
        args::Client::Set(arguments) => client_set(node, &arguments, format),
        args::Client::Rm { name } => {
            let removed: Removed = node.delete(&format!("/v1/clients/{name}"))?;
            show(format, &removed, |_| format!("client {name} removed\n"))
        }
    }
}

fn client_change(node: &Client, name: &ClientName, change: &ClientChange, format: Format) -> Done {
    let view: ClientView = node.patch(&format!("/v1/clients/{name}"), change)?;
    show(format, &view, tables::client_names)
}

fn client_chap(node: &Client, arguments: args::ClientChap, format: Format) -> Done {
    let path = format!("/v1/clients/{}/chap", arguments.client);
    let view: ClientView = if arguments.off {
        node.delete(&path)?
    } else {
        // Who mistyped the client is told before typing a secret.
        let _: ClientView = node.get(&format!("/v1/clients/{}", arguments.client))?;
        node.put(&path, &secrets::read(arguments)?)?
    };
    show(format, &view, tables::client_chap)
}

fn client_set(node: &Client, arguments: &args::ClientSet, format: Format) -> Done {
    let &args::ClientSet { ref name, redirect, permanently, now } = arguments;
    let path = format!("/v1/clients/{name}/redirect");
    let view: ClientView = match redirect {
        args::RedirectTo::Nowhere => node.delete(&path)?,
        args::RedirectTo::Portal(to) => node.put(&path, &Redirect { to, permanently, now })?,
    };
    show(format, &view, tables::client_redirect)
}

fn map(node: &Client, arguments: args::Map, format: Format) -> Done {
    let args::Map { lu, to, via, slot, lun, read_only } = arguments;
    let request = MapRequest { lu, client: to, via: via.into(), slot, lun, read_only };
    let view: MappingView = node.post("/v1/mappings", &request)?;
    show(format, &view, tables::mapping_done)
}

/// The text alone goes to standard output, so that it can be pasted or piped; notes go beside it.
fn connect(node: &Client, arguments: &args::Connect, format: Format) -> Done {
    let wanted = match ConnectFor::from(arguments.tool) {
        ConnectFor::Qemu => "qemu",
        ConnectFor::Libvirt => "libvirt",
        ConnectFor::OpenIscsi => "open-iscsi",
    };
    let path = format!("/v1/clients/{}/connection?for={wanted}", arguments.client);
    let connection: Connection = node.get(&path)?;
    show(format, &connection, tables::connection)?;
    if format == Format::Table {
        for note in &connection.notes {
            eprintln!("note: {note}");
        }
    }
    Ok(())
}

fn reservation(node: &Client, command: args::Reservation, format: Format) -> Done {
    match command {
        args::Reservation::Ls { lu } => {
            let mut views: Vec<ReservationView> = node.get("/v1/reservations")?;
            if let Some(lu) = lu {
                // That there is no such LU is said as everywhere else.
                let _: LuView = node.get(&format!("/v1/lus/{lu}"))?;
                views.retain(|view| view.lu == lu);
            }
            show(format, &views, |views| tables::reservations(views))
        }
        args::Reservation::Clear { lu } => {
            let path = format!("/v1/lus/{lu}/reservations");
            let before: ReservationView = node.delete(&path)?;
            show(format, &before, tables::reservations_cleared)
        }
    }
}

fn event(node: &Client, command: &args::Event, format: Format) -> Done {
    let (args::Event::Tail(count) | args::Event::Ls(count)) = command;
    let mut page: EventPage = node.get(&format!("/v1/events?limit={}", count.lines))?;
    if matches!(command, args::Event::Ls(_)) {
        return show(format, &page.events, |_| tables::events(&page));
    }
    loop {
        for event in &page.events {
            output::print(&match format {
                Format::Table => tables::event(event),
                Format::Json => {
                    let line = serde_json::to_string(event);
                    line.map_err(|error| ApiError::failed(error.to_string()))? + "\n"
                }
                Format::Yaml => format!("---\n{}", output::yaml(event)?),
            })?;
        }
        if page.missed {
            eprintln!("note: the node has forgotten what came before this; see its log");
        }
        page = node.get(&format!("/v1/events?after={}&wait_s={WAIT_SECONDS_MAX}", page.last))?;
    }
}

fn config(node: &Client, command: args::Config, format: Format) -> Done {
    match command {
        args::Config::Show => {
            let config: model::Config = node.get("/v1/config")?;
            let text = output::json(&config)?;
            show(format, &config, |_| text)
        }
        args::Config::Save { file, with_secrets } => {
            let path = if with_secrets { "/v1/config/secrets" } else { "/v1/config" };
            let config: model::Config = node.get(path)?;
            let text = if format == Format::Yaml {
                output::yaml(&config)?
            } else {
                output::json(&config)?
            };
            let written = if with_secrets {
                std::path::absolute(&file).and_then(|path| {
                    node::world::replace_file(&path, text.as_bytes(), PRIVATE_FILE)
                })
            } else {
                std::fs::write(&file, text)
            };
            written.map_err(|error| {
                ApiError::failed(format!("cannot write {}: {error}", file.display()))
            })?;
            eprintln!("revision {} saved to {}", config.revision, file.display());
            let have_chap = config.clients.iter().any(|client| client.chap.is_some());
            if have_chap && !with_secrets {
                eprintln!(
                    "note: without the CHAP secrets of clients; --with-secrets saves them too"
                );
            }
            Ok(())
        }
        args::Config::Restore { file, prune } => {
            let config = read_config(&file)?;
            let request = ConfigRestore { config, prune };
            let outcome: RestoreOutcome = node.put("/v1/config", &request)?;
            show(format, &outcome, |outcome| {
                let RestoreOutcome { revision, added, changed, removed } = outcome;
                format!(
                    "revision {revision}: {added} added, {changed} changed, {removed} removed\n"
                )
            })
        }
    }
}

/// Reads a document, JSON or YAML; what a newer release wrote is refused before it is misread.
fn read_config(file: &Path) -> Result<model::Config, ApiError> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ApiError::not_found(format!("there is no file {shown}")),
        _ => ApiError::failed(format!("cannot read {shown}: {error}")),
    })?;
    let value: Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(json) => serde_saphyr::from_str(&text).map_err(|yaml| {
            ApiError::usage(format!("{shown} is neither JSON ({json}) nor YAML ({yaml})"))
        })?,
    };
    let version = value.get("version").and_then(Value::as_u64).ok_or_else(|| {
        ApiError::usage(format!("{shown} is no configuration document: it has no version"))
            .then("viaduct config save FILE writes one")
    })?;
    model::Config::check_version(u32::try_from(version).unwrap_or(u32::MAX))?;
    serde_json::from_value(value).map_err(|error| ApiError::usage(format!("{shown}: {error}")))
}

fn completions(shell: clap_complete::Shell) -> Done {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "viaduct", &mut text);
    output::print(&String::from_utf8_lossy(&text))
}

fn man(directory: Option<&Path>) -> Done {
    if let Some(directory) = directory {
        let made = std::fs::create_dir_all(directory);
        let written = made.and_then(|()| clap_mangen::generate_to(Arguments::command(), directory));
        return written.map_err(|error| {
            let shown = directory.display();
            ApiError::failed(format!("cannot write man pages into {shown}: {error}"))
        });
    }
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(Arguments::command()).render(&mut text);
    rendered.map_err(|error| ApiError::failed(format!("cannot write: {error}")))?;
    output::print(&String::from_utf8_lossy(&text))
}
