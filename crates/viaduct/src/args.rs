//! The grammar of the command line: nouns and verbs. What is parsed here is valid by itself; help,
//! shell completions and man pages are made from it.

mod limits;
mod migrate;
mod pools;
mod settings;
mod synonyms;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use model::lu::NewBacking;
use model::status::ConnectFor;
use model::{
    ApiError, BlockSize, Cache, ClientName, Iqn, LuName, MediumName, Nqn, PoolName, PortalAddress,
    Size, Slot, SnapshotRef, SocketOwner, Via,
};
use node::DefaultPool;

pub use limits::{Bandwidth, LimitArgs};
pub use migrate::LuMigrate;
pub use pools::{
    Pool, PoolAddPv, PoolBackup, PoolCheck, PoolCreate, PoolImport, PoolInspect, PoolReplacePv,
    PoolRestore, PoolRmPv, PoolScrub, PoolSet,
};
pub use settings::SettingArgs;
pub use synonyms::with_synonyms;

/// Longest time that a core may look for work before it sleeps.
const POLL_MICROSECONDS_MAX: i64 = 1000;

/// A virtual I/O server: shares this machine's storage with virtual machines and hosts.
#[derive(Debug, Parser)]
#[command(name = "viaduct", version, max_term_width = 100, subcommand_required = true)]
pub struct Arguments {
    /// Data directory of the node [default: /var/lib/viaduct for root, ~/.local/share/viaduct
    /// otherwise]
    #[arg(long, global = true, env = "VIADUCT_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node in the foreground
    Up(Up),
    /// Show the health of the node
    Status,
    /// Logical units: virtual disks
    #[command(subcommand)]
    Lu(Lu),
    /// Pools: disks that LUs are cut from
    #[command(subcommand)]
    Pool(Pool),
    /// Snapshots of LUs in pools
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Make an LU that begins as a snapshot of another one
    Clone(CloneCreate),
    /// Physical volumes: the disks of this machine
    #[command(subcommand)]
    Pv(Pv),
    /// Media: disc images in the library
    #[command(subcommand)]
    Media(Media),
    /// Drives: virtual CD and DVD drives for media
    #[command(subcommand)]
    Drive(Drive),
    /// Clients: who uses storage
    #[command(subcommand)]
    Client(Client),
    /// Map an LU or a drive to a client
    Map(Map),
    /// Take an LU or a drive away from a client
    Unmap(Unmap),
    /// Mappings: which client sees which LU or drive
    #[command(subcommand)]
    Mapping(Mapping),
    /// Reservations: what clients keep each other from
    #[command(subcommand)]
    Reservation(Reservation),
    /// Print what to run on the client's side
    Connect(Connect),
    /// Events: what happened
    #[command(subcommand)]
    Event(Event),
    /// The whole desired state in one document
    #[command(subcommand)]
    Config(Config),
    /// Print completions for a shell
    Completions { shell: Shell },
    /// Print the man page, or write all of them into a directory
    Man { directory: Option<PathBuf> },
}

#[derive(Debug, Args)]
pub struct Up {
    /// Read options from this TOML file: what is given here wins over it [default: the file that
    /// VIADUCT_CONFIG names, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where to serve reading and /metrics over TCP: ADDRESS:PORT, PORT or off
    #[arg(long, value_name = "ADDR|off", default_value = "127.0.0.1:7878")]
    pub http: Door,

    /// Where to serve iSCSI: ADDRESS, ADDRESS:PORT, PORT or off; may be given several times, or as
    /// a list with commas
    #[arg(long, value_name = "ADDR|off", default_value = "127.0.0.1:3260", value_delimiter = ',')]
    pub iscsi: Vec<Portal>,

    /// CPUs for the data plane, like 0,2-3 [default: all]
    #[arg(long, value_name = "LIST", default_value = "")]
    pub cores: Cores,

    /// Size of the sparse file that pool `default` is made of when the data directory is new, auto
    /// (nine tenths of what its file system has free) or off
    #[arg(long, value_name = "SIZE|auto|off", default_value = "auto")]
    pub default_pool: PoolAtFirst,

    /// How much of the maps of pools' LUs is kept in memory, for all LUs together; with less, LUs
    /// are slower
    #[arg(long, value_name = "SIZE", default_value = "48M")]
    pub map_memory: MapMemory,

    /// Look for work so long before sleeping, in microseconds; 0 to sleep at once
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(0..=POLL_MICROSECONDS_MAX))]
    pub poll_us: u32,

    /// How to write the log
    #[arg(long, value_enum, env = "VIADUCT_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log: LogFormat,

    /// What to log: error, warn, info, debug, trace, or a filter like info,node=debug
    #[arg(long, env = "VIADUCT_LOG", default_value = "info", value_name = "FILTER")]
    pub log_level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// A TCP door: an address, or shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door(pub Option<SocketAddr>);

impl FromStr for Door {
    type Err = String;

    fn from_str(text: &str) -> Result<Door, String> {
        if text == "off" {
            return Ok(Door(None));
        }
        if let Ok(port) = text.parse::<u16>() {
            return Ok(Door(Some(SocketAddr::from(([127, 0, 0, 1], port)))));
        }
        text.parse().map(|address| Door(Some(address))).map_err(|_| {
            format!("'{text}' is no address; write ADDRESS:PORT, PORT (on 127.0.0.1) or off")
        })
    }
}

/// The pool of a new data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolAtFirst(pub DefaultPool);

impl FromStr for PoolAtFirst {
    type Err = String;

    fn from_str(text: &str) -> Result<PoolAtFirst, String> {
        match text {
            "auto" => Ok(PoolAtFirst(DefaultPool::Fitting)),
            "off" => Ok(PoolAtFirst(DefaultPool::Off)),
            size => match size.parse() {
                Ok(size) => Ok(PoolAtFirst(DefaultPool::Of(size))),
                Err(error) => Err(format!("{error}, auto or off")),
            },
        }
    }
}

/// Memory for maps: at least what a few requests at one time need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapMemory(pub Size);

impl MapMemory {
    const LEAST: Size = Size::mib(1);
}

impl FromStr for MapMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<MapMemory, String> {
        let size = text.parse::<Size>().map_err(|error| error.to_string())?;
        let least = MapMemory::LEAST;
        let too_little = || format!("'{text}' is too little for maps; write {least} or more");
        (size >= least).then_some(MapMemory(size)).ok_or_else(too_little)
    }
}

/// Where iSCSI is expected (RFC 7143 13.8).
const ISCSI_PORT: u16 = 3260;

/// An address of iSCSI, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portal(pub Option<SocketAddr>);

impl FromStr for Portal {
    type Err = String;

    fn from_str(text: &str) -> Result<Portal, String> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Portal(Some(SocketAddr::new(address, ISCSI_PORT))));
        }
        text.parse().map(|Door(address)| Portal(address)).map_err(|_| {
            format!(
                "'{text}' is no address; write ADDRESS, ADDRESS:PORT, PORT (on 127.0.0.1) or off"
            )
        })
    }
}

impl Portal {
    /// The addresses of a list.
    pub fn addresses(portals: &[Portal]) -> Result<Vec<SocketAddr>, ApiError> {
        let addresses: Vec<SocketAddr> = portals.iter().filter_map(|portal| portal.0).collect();
        if !addresses.is_empty() && addresses.len() < portals.len() {
            return Err(ApiError::usage("--iscsi is off and has addresses too")
                .then("give addresses, or off alone"));
        }
        Ok(addresses)
    }
}

/// A list of CPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

/// CPUs that Linux can have at all.
const CPUS_MAX: usize = 8192;

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Cores, String> {
        let mut cpus = std::collections::BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let bounds = (first.parse::<usize>(), last.parse::<usize>());
            let (Ok(first), Ok(last)) = bounds else {
                return Err(format!("'{part}' is no CPU; write a list like 0,2-3"));
            };
            if first > last || last >= CPUS_MAX {
                return Err(format!("'{part}' is no range of CPUs below {CPUS_MAX}"));
            }
            cpus.extend(first..=last);
        }
        Ok(Cores(cpus.into_iter().collect()))
    }
}

#[derive(Debug, Subcommand)]
pub enum Lu {
    /// Make an LU
    Create(LuCreate),
    /// Make an LU of a raw image or block device that holds data already
    Adopt(LuAdopt),
    /// List LUs
    Ls,
    /// Show one LU
    Show { name: LuName },
    /// Change the size of an LU, also while it is in use
    Resize(LuResize),
    /// Limit what an LU is given, also while it is in use
    Set(LuSet),
    /// Bring an LU that is in no pool into one, also while it is in use
    Migrate(LuMigrate),
    /// Show the copies of an LU whose last one with everything is gone; with --yes take another one
    /// for the LU, and what that has missed is lost
    Force {
        name: LuName,
        /// The failure group whose copy is to be taken [default: the best one]
        #[arg(long)]
        group: Option<String>,
        /// Do it
        #[arg(long)]
        yes: bool,
    },
    /// Remove an LU with its data; what was adopted keeps its data
    Rm { name: LuName },
}

#[derive(Debug, Args)]
pub struct LuCreate {
    pub name: LuName,
    /// Like 20G, 512MiB or 4096 (bytes) [default with --from: that of the image]
    #[arg(long, required_unless_present = "from")]
    pub size: Option<Size>,
    /// Begin as a copy of this image: raw, qcow2, VMDK or VHDX
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    #[command(flatten)]
    pub look: Look,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Cut it from this pool [default: pool default, where there is one]
    #[arg(long, conflicts_with = "backing")]
    pub pool: Option<PoolName>,
    /// Grant it all of its space at once, so that no write ever fails for want of some
    #[arg(long, conflicts_with = "backing")]
    pub thick: bool,
    /// Where the blocks are, in no pool [default: file, where there is no pool default]
    #[arg(long, value_enum)]
    pub backing: Option<BackingKind>,
}

#[derive(Debug, Args)]
pub struct LuAdopt {
    pub path: PathBuf,
    /// Name of the LU [default: from the file's name]
    #[arg(long)]
    pub name: Option<LuName>,
    #[command(flatten)]
    pub look: Look,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Nobody may write it
    #[arg(long)]
    pub read_only: bool,
}

#[derive(Debug, Args)]
pub struct LuSet {
    pub name: LuName,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// What a client sees of an LU.
#[derive(Debug, Args)]
pub struct Look {
    /// Bytes of a logical block: 512 or 4096
    #[arg(long, default_value_t = BlockSize::B512, value_name = "BYTES")]
    pub block_size: BlockSize,
    /// Serial number, up to 20 characters [default: from the UUID]
    #[arg(long)]
    pub serial: Option<String>,
    /// Several clients may use it at once
    #[arg(long)]
    pub shareable: bool,
    /// What an answered write means: stable after the next flush, or stable
    #[arg(long, value_enum, default_value_t = CacheMode::Writeback)]
    pub cache: CacheMode,
    /// Shown to the client as removable
    #[arg(long)]
    pub removable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackingKind {
    /// A sparse file in the data directory
    File,
    /// The node's memory, gone when it stops
    Memory,
    /// Nowhere, for measurements
    Null,
}

impl From<BackingKind> for NewBacking {
    fn from(kind: BackingKind) -> NewBacking {
        match kind {
            BackingKind::File => NewBacking::File,
            BackingKind::Memory => NewBacking::Memory,
            BackingKind::Null => NewBacking::Null,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CacheMode {
    Writeback,
    Writethrough,
}

impl From<CacheMode> for Cache {
    fn from(mode: CacheMode) -> Cache {
        match mode {
            CacheMode::Writeback => Cache::Writeback,
            CacheMode::Writethrough => Cache::Writethrough,
        }
    }
}

#[derive(Debug, Args)]
pub struct LuResize {
    pub name: LuName,
    /// The new size; leave it out for an adopted LU, to take over the size its file or device has
    /// now
    #[arg(long)]
    pub size: Option<Size>,
    /// Let it become smaller, which cuts off what lies behind the new end
    #[arg(long)]
    pub shrink: bool,
}

#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Take snapshots; those named together hold what their LUs were at one instant
    Create {
        /// LU@NAME
        #[arg(required = true, value_name = "LU@NAME")]
        snapshots: Vec<SnapshotRef>,
    },
    /// List snapshots
    Ls {
        /// Only those of this LU
        lu: Option<LuName>,
    },
    /// Remove snapshots; what only they held is let go in the background
    Rm {
        #[arg(required = true, value_name = "LU@NAME")]
        snapshots: Vec<SnapshotRef>,
        /// Until all of it is let go
        #[arg(long)]
        wait: bool,
    },
    /// Make an LU what it was then; what was written since is lost
    Rollback {
        #[arg(value_name = "LU@NAME")]
        snapshot: SnapshotRef,
        /// Also under clients that are connected
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub struct CloneCreate {
    #[arg(value_name = "LU@SNAPSHOT")]
    pub snapshot: SnapshotRef,
    /// Of the new LU
    pub name: LuName,
    /// What a guest reads as the disk's serial number
    #[arg(long)]
    pub serial: Option<String>,
    /// May be mapped to several clients at once
    #[arg(long)]
    pub shareable: bool,
    /// Grant it all of its space at once
    #[arg(long)]
    pub thick: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

#[derive(Debug, Subcommand)]
pub enum Pv {
    /// List disks, with what is on them and who uses them
    Ls,
    /// Show one disk or file
    Show { path: PathBuf },
}

#[derive(Debug, Subcommand)]
pub enum Media {
    /// Copy a disc image, or the disc in a drive of this machine, into the library, and verify the
    /// copy
    Add(MediaAdd),
    /// List media
    Ls,
    /// Show one medium
    Show { name: MediumName },
    /// Remove a medium with its data
    Rm { name: MediumName },
}

#[derive(Debug, Args)]
pub struct MediaAdd {
    pub path: PathBuf,
    /// Name of the medium [default: from the file's name]
    #[arg(long)]
    pub name: Option<MediumName>,
    /// Take it although it is no disc image, or one that was cut off
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Subcommand)]
pub enum Drive {
    /// Make a drive, which is then mapped as an LU is
    Create(DriveCreate),
    /// Put a medium in, in the place of what is in
    Load(DriveLoad),
    /// Take the medium out
    Eject {
        name: LuName,
        /// Although a client locks it
        #[arg(long)]
        force: bool,
    },
    /// List drives
    Ls,
    /// Show one drive
    Show { name: LuName },
    /// Remove a drive; what is in it stays in the library
    Rm { name: LuName },
}

#[derive(Debug, Args)]
pub struct DriveCreate {
    pub name: LuName,
    /// What is in it from the start [default: nothing]
    #[arg(long)]
    pub medium: Option<MediumName>,
    /// It is this drive of the node, like /dev/sr0, with what is in that
    #[arg(long, value_name = "PATH", conflicts_with = "medium")]
    pub device: Option<PathBuf>,
    /// Serial number, up to 20 characters [default: from the UUID]
    #[arg(long)]
    pub serial: Option<String>,
    /// Several clients may use it at once, and share its tray
    #[arg(long)]
    pub shareable: bool,
}

#[derive(Debug, Args)]
pub struct DriveLoad {
    pub name: LuName,
    pub medium: MediumName,
    /// Take out what is in, although a client locks it
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Subcommand)]
pub enum Client {
    /// Make a client
    Create(ClientCreate),
    /// List clients
    Ls,
    /// Show one client
    Show { name: ClientName },
    /// Give a client more iSCSI names
    AddIqn(ClientIqns),
    /// Take iSCSI names from a client
    RmIqn(ClientIqns),
    /// Make a client prove itself over iSCSI with CHAP; its sessions end and log in anew
    Chap(ClientChap),
    /// Change how a client is served
    Set(ClientSet),
    /// Remove a client
    Rm { name: ClientName },
}

#[derive(Debug, Args)]
pub struct ClientSet {
    pub name: ClientName,
    /// Portal that its iSCSI logins are sent to, another one of this node or of a node that serves
    /// the same target; none lets it log in here
    #[arg(long, value_name = "ADDRESS:PORT|none", required = true)]
    pub redirect: RedirectTo,
    /// Its target has moved for good: the client may forget the address that it used
    #[arg(long)]
    pub permanently: bool,
    /// Ask the sessions that it has to log out; without this they stay until they end
    #[arg(long)]
    pub now: bool,
}

/// A portal, or the word for none.
#[derive(Debug, Clone, Copy)]
pub enum RedirectTo {
    Nowhere,
    Portal(PortalAddress),
}

impl FromStr for RedirectTo {
    type Err = model::redirect::PortalError;

    fn from_str(text: &str) -> Result<RedirectTo, Self::Err> {
        match text {
            "none" => Ok(RedirectTo::Nowhere),
            portal => portal.parse().map(RedirectTo::Portal),
        }
    }
}

#[derive(Debug, Args)]
pub struct ClientIqns {
    pub name: ClientName,
    /// iSCSI names of its initiators
    #[arg(required = true, value_name = "IQN")]
    pub iqns: Vec<Iqn>,
}

/// Secrets are read from files or typed, and never stand on a command line.
#[derive(Debug, Args)]
pub struct ClientChap {
    pub client: ClientName,
    /// File with the secret that the client must know, 12 to 255 characters; - is the standard
    /// input [default: ask for it]
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// What the client calls itself [default: its name]
    #[arg(long)]
    pub name: Option<String>,
    /// Prove the node to the client as well, and ask for the secret of that
    #[arg(long)]
    pub mutual: bool,
    /// The same with the secret from a file
    #[arg(long, value_name = "FILE")]
    pub mutual_secret_file: Option<PathBuf>,
    /// What the node calls itself then [default: viaduct]
    #[arg(long, value_name = "NAME")]
    pub mutual_name: Option<String>,
    /// Let it log in by its iSCSI name alone
    #[arg(long, conflicts_with_all = ["secret_file", "name", "mutual", "mutual_secret_file",
                                      "mutual_name"])]
    pub off: bool,
}

#[derive(Debug, Args)]
pub struct ClientCreate {
    pub name: ClientName,
    /// iSCSI name of its initiator; may be given several times
    #[arg(long)]
    pub iqn: Vec<Iqn>,
    /// NVMe name of its host; may be given several times
    #[arg(long)]
    pub nqn: Vec<Nqn>,
    /// Owner of its vhost-user sockets, USER, USER:GROUP or :GROUP [default: the node's user, group
    /// kvm]
    #[arg(long, value_name = "U:G")]
    pub socket_owner: Option<SocketOwner>,
}

#[derive(Debug, Args)]
pub struct Map {
    /// The LU or the drive
    pub lu: LuName,
    /// The client that shall see it
    #[arg(long, value_name = "CLIENT")]
    pub to: ClientName,
    /// How the client reaches it
    #[arg(long, value_enum)]
    pub via: Transport,
    /// Virtual slot, 2 to 255 [default: the lowest free one; iSCSI has one slot for all its LUNs]
    #[arg(long)]
    pub slot: Option<Slot>,
    /// Logical unit number at that slot [default: the lowest free one]
    #[arg(long)]
    pub lun: Option<u16>,
    /// This client may only read
    #[arg(long)]
    pub read_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    VhostUserBlk,
    VhostUserScsi,
    Iscsi,
}

impl From<Transport> for Via {
    fn from(transport: Transport) -> Via {
        match transport {
            Transport::VhostUserBlk => Via::VhostUserBlk,
            Transport::VhostUserScsi => Via::VhostUserScsi,
            Transport::Iscsi => Via::Iscsi,
        }
    }
}

#[derive(Debug, Args)]
pub struct Unmap {
    /// The LU or the drive
    pub lu: LuName,
    /// The client that shall not see it any more
    #[arg(long, value_name = "CLIENT")]
    pub from: ClientName,
    /// Only needed where it is mapped by two transports
    #[arg(long, value_enum)]
    pub via: Option<Transport>,
    /// Also while the client uses it
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Subcommand)]
pub enum Mapping {
    /// List mappings
    Ls,
}

#[derive(Debug, Subcommand)]
pub enum Reservation {
    /// List reservations and registrations
    Ls {
        /// Only those of this LU
        lu: Option<LuName>,
    },
    /// End all reservations and registrations of an LU
    Clear { lu: LuName },
}

#[derive(Debug, Args)]
pub struct Connect {
    pub client: ClientName,
    /// What runs the client
    #[arg(long = "for", value_enum, default_value_t = Tool::Qemu)]
    pub tool: Tool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tool {
    Qemu,
    Libvirt,
    OpenIscsi,
}

impl From<Tool> for ConnectFor {
    fn from(tool: Tool) -> ConnectFor {
        match tool {
            Tool::Qemu => ConnectFor::Qemu,
            Tool::Libvirt => ConnectFor::Libvirt,
            Tool::OpenIscsi => ConnectFor::OpenIscsi,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Event {
    /// Print the last events and then each new one, until interrupted
    Tail(EventCount),
    /// Print the last events
    Ls(EventCount),
}

#[derive(Debug, Args)]
pub struct EventCount {
    /// How many of the past ones
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
    pub lines: u16,
}

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Write the document to a file
    Save {
        file: PathBuf,
        /// With the CHAP secrets of clients; the file is for its owner alone then
        #[arg(long)]
        with_secrets: bool,
    },
    /// Make a document (JSON or YAML) the desired state
    Restore {
        file: PathBuf,
        /// Remove LUs that the document does not have, with their data
        #[arg(long)]
        prune: bool,
    },
    /// Print the document
    Show,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn doors_and_cores() {
        let door = |text: &str| text.parse::<Door>();
        assert_eq!(door("off"), Ok(Door(None)));
        assert_eq!(door("8080").unwrap().0.unwrap().to_string(), "127.0.0.1:8080");
        assert_eq!(door("[::1]:80").unwrap().0.unwrap().to_string(), "[::1]:80");
        assert!(door("localhost").is_err());
        let portal = |text: &str| text.parse::<Portal>();
        let shown = |text: &str| portal(text).unwrap().0.map(|address| address.to_string());
        assert_eq!(shown("off"), None);
        for (text, address) in [
            ("3261", "127.0.0.1:3261"),
            ("10.0.0.7", "10.0.0.7:3260"),
            ("10.0.0.7:3261", "10.0.0.7:3261"),
            ("::1", "[::1]:3260"),
            ("[::1]", "[::1]:3260"),
            ("[::1]:3261", "[::1]:3261"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(address));
        }
        assert!(portal("localhost").is_err() && portal("").is_err());
        let list = |texts: &[&str]| {
            let portals: Vec<Portal> = texts.iter().map(|text| portal(text).unwrap()).collect();
            Portal::addresses(&portals).map(|addresses| addresses.len())
        };
        assert_eq!((list(&["off"]), list(&["::1", "3261"])), (Ok(0), Ok(2)));
        assert!(list(&["off", "3261"]).is_err());
        let pool = |text: &str| text.parse::<PoolAtFirst>().map(|it| it.0);
        assert_eq!(pool("off"), Ok(DefaultPool::Off));
        assert_eq!(pool("2G"), Ok(DefaultPool::Of(Size::gib(2))));
        assert!(pool("some").unwrap_err().ends_with("auto or off"));
        let cores = |text: &str| text.parse::<Cores>();
        assert_eq!(cores("0,2-4,3"), Ok(Cores(vec![0, 2, 3, 4])));
        assert_eq!(cores(""), Ok(Cores(vec![])));
        for wrong in ["a", "3-1", "1-", "0-99999"] {
            assert!(cores(wrong).is_err(), "{wrong}");
        }
    }
}
