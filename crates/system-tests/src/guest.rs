//! A running guest: QEMU under emulation, Debian's kernel, busybox, an agent that runs commands.
//!
//! A guest boots to its agent in about five seconds. Its second serial port carries commands (see
//! [`crate::line`]); its first is the console, kept in a file and quoted when something goes wrong.
//! Moving a guest to another QEMU is [`crate::migration`].

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cache::Cache;
use crate::error::{Context, Error, Result};
use crate::image::{GuestImage, own_program};
use crate::kernel::Kernel;
use crate::line::{Line, Output};
use crate::qemu::Qemu;
use crate::qmp::Qmp;

/// A busy machine with two guests at once takes several times the usual five seconds.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
/// For commands that say nothing else.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// For QEMU to open its sockets.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(20);
const SOCKET_RETRY: Duration = Duration::from_millis(5);
/// As much of the console as an error quotes.
const TAIL_LINES: usize = 40;

/// Boots fastest under emulation and has SSE4.2.
const CPU: &str = "Nehalem";
/// A tidy console; no mitigations, self tests and other work that only takes time here. Emulated
/// CPUs sometimes sleep through an interrupt on a busy machine: a tick that comes again and again
/// wakes them, a timer that is set for once does not.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet oops=panic panic=-1 mitigations=off nokaslr \
     cryptomgr.notests no_timer_check tsc=reliable random.trust_cpu=on nohz=off highres=off";

/// One vhost-user-blk device by the server's socket.
#[derive(Clone, Debug)]
pub struct VhostBlk {
    pub socket: PathBuf,
    pub queues: u16,
    /// Connect again when the server goes away; without it QEMU gives the device up.
    pub reconnect: bool,
    /// More properties, like `bootindex=1`.
    pub properties: String,
}

impl VhostBlk {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_path_buf(), queues: 1, reconnect: true, properties: String::new() }
    }

    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = queues;
        self
    }

    pub fn reconnect(mut self, reconnect: bool) -> Self {
        self.reconnect = reconnect;
        self
    }

    pub fn properties(mut self, properties: &str) -> Self {
        self.properties = properties.to_owned();
        self
    }
}

/// How to make a guest. Disks appear in it as `/dev/vda`, `/dev/vdb`... in the order given.
#[derive(Clone, Debug)]
pub struct GuestBuilder {
    pub(crate) qemu: Qemu,
    memory_mib: u32,
    shared_memory: bool,
    memory_file: Option<PathBuf>,
    cpus: u32,
    disks: Vec<VhostBlk>,
    drives: Vec<PathBuf>,
    image: GuestImage,
    modules: Vec<String>,
    arguments: Vec<String>,
    hotplug_ports: u32,
    from_disks: bool,
}

impl Default for GuestBuilder {
    fn default() -> Self {
        Self {
            qemu: Qemu::default(),
            memory_mib: 512,
            shared_memory: true,
            memory_file: None,
            cpus: 2,
            disks: Vec::new(),
            drives: Vec::new(),
            image: GuestImage::new(),
            modules: ["virtio_pci", "virtio_blk"].map(String::from).to_vec(),
            arguments: Vec::new(),
            hotplug_ports: 0,
            from_disks: false,
        }
    }
}

impl GuestBuilder {
    pub fn qemu(mut self, qemu: Qemu) -> Self {
        self.qemu = qemu;
        self
    }

    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Whether a vhost-user server can see the guest's memory, which it must; `false` is the
    /// mistake that users make.
    pub fn shared_memory(mut self, shared: bool) -> Self {
        self.shared_memory = shared;
        self
    }

    /// Keeps the guest's memory in this file, where others can reach it.
    pub fn memory_file(mut self, path: &Path) -> Self {
        self.memory_file = Some(path.to_path_buf());
        self
    }

    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    pub fn disk(mut self, disk: VhostBlk) -> Self {
        self.disks.push(disk);
        self
    }

    /// The same guest with other servers behind its disks, for the far end of a migration.
    pub fn disks(mut self, disks: Vec<VhostBlk>) -> Self {
        self.disks = disks;
        self
    }

    /// A raw image served by QEMU itself, after the vhost-user disks.
    pub fn drive(mut self, image: &Path) -> Self {
        self.drives.push(image.to_path_buf());
        self
    }

    pub fn image(mut self, image: GuestImage) -> Self {
        self.image = image;
        self
    }

    /// Loads a kernel module at boot, beside those for virtio-blk.
    pub fn module(mut self, module: &str) -> Self {
        self.modules.push(module.to_owned());
        self
    }

    /// More arguments for QEMU.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Ports `hotplug0`... that take a PCI device while the guest runs (`device_add`).
    pub fn hotplug_ports(mut self, ports: u32) -> Self {
        self.hotplug_ports = ports;
        self
    }

    /// Without a kernel from outside: the firmware boots what is on disks and discs, in the order
    /// of their `bootindex`. What it finds must start the agent.
    pub fn from_disks(mut self) -> Self {
        self.from_disks = true;
        self
    }

    /// Boots and waits for the agent.
    pub fn boot(&self) -> Result<Guest> {
        self.boot_within(BOOT_TIMEOUT)
    }

    /// The same for a guest that is not expected to come far.
    pub fn boot_within(&self, timeout: Duration) -> Result<Guest> {
        let launched = self.launch(None)?;
        let line = Line::new(launched.line.try_clone()?)?;
        let guest = Guest::of(launched, line);
        guest.line.wait_ready(timeout).map_err(|error| guest.with_tail(error))?;
        Ok(guest)
    }

    /// A guest on this terminal: its console is a shell.
    pub fn interactive(&self) -> Result<()> {
        let dir = tempfile::tempdir()?;
        let mut command = self.command(dir.path(), "viaduct.shell")?;
        command.args(["-serial", "mon:stdio"]);
        let status = command.status().context(|| "start QEMU".into())?;
        match status.success() {
            true => Ok(()),
            false => Err(Error::new(format!("QEMU: {status}"))),
        }
    }

    /// Starts QEMU; with an address (`unix:PATH`) it waits there for another QEMU's guest.
    pub(crate) fn launch(&self, incoming: Option<&str>) -> Result<Launched> {
        let dir = tempfile::Builder::new().prefix("guest-").tempdir()?;
        let mut command = self.command(dir.path(), "")?;
        let line = dir.path().join("line.sock");
        let qmp = dir.path().join("qmp.sock");
        command.arg("-serial").arg(format!("file:{}", dir.path().join(CONSOLE).display()));
        // QEMU waits for the line to be connected, so that the agent's first words are heard.
        command.arg("-serial").arg(format!("unix:{},server=on,wait=on", line.display()));
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", qmp.display()));
        if let Some(address) = incoming {
            command.args(["-incoming", address]);
        }
        command.args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(dir.path().join(QEMU_LOG))?);
        let child = command.spawn().context(|| "start QEMU".into())?;
        let mut process = Process { child, dir };
        let line = process.connect(&line)?;
        let qmp = Qmp::new(process.connect(&qmp)?).context(|| process.tail())?;
        Ok(Launched { line, qmp, process, builder: self.clone() })
    }

    /// QEMU with all but the serial ports.
    fn command(&self, dir: &Path, kernel_arguments: &str) -> Result<Command> {
        let cache = Cache::open()?;
        let mut command = self.qemu.system(&cache)?;
        let (memory, cpus) = (self.memory_mib, self.cpus);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-accel", "tcg,thread=multi", "-cpu", CPU]);
        command.arg("-smp").arg(cpus.to_string()).arg("-m").arg(memory.to_string());
        let shared = if self.shared_memory { ",memory-backend=memory" } else { "" };
        // Firmware without a screen talks on the console.
        let talks = if self.from_disks { ",graphics=off" } else { "" };
        command.arg("-machine").arg(format!("q35{shared}{talks}"));
        if self.shared_memory {
            let kind = match &self.memory_file {
                Some(path) => format!("memory-backend-file,mem-path={}", path.display()),
                None => "memory-backend-memfd".to_owned(),
            };
            command.arg("-object").arg(format!("{kind},id=memory,size={memory}M,share=on"));
        }
        if !self.from_disks {
            let kernel = Kernel::prepare(&cache)?;
            let initramfs = dir.join("initramfs");
            write_initramfs(&cache, &kernel, &self.image, &initramfs)?;
            command.arg("-kernel").arg(kernel.vmlinux()).arg("-initrd").arg(&initramfs);
            let append = format!("{} {kernel_arguments}", kernel_command_line(&self.modules));
            command.arg("-append").arg(append);
        }
        self.add_devices(&mut command);
        Ok(command)
    }

    fn add_devices(&self, command: &mut Command) {
        for (index, disk) in self.disks.iter().enumerate() {
            let (chardev, device) = self.vhost_blk_arguments(&format!("disk{index}"), disk);
            command.arg("-chardev").arg(chardev).arg("-device").arg(device);
        }
        for (index, image) in self.drives.iter().enumerate() {
            let file = format!("file={},format=raw,cache=none", image.display());
            command.arg("-drive").arg(format!("if=none,id=drive{index},{file}"));
            command.arg("-device").arg(format!("virtio-blk-pci,drive=drive{index}"));
        }
        for index in 0..self.hotplug_ports {
            let port = format!("pcie-root-port,id=hotplug{index},chassis={}", index + 1);
            command.arg("-device").arg(port);
        }
    }

    fn vhost_blk_arguments(&self, id: &str, disk: &VhostBlk) -> (String, String) {
        let mut chardev = format!("socket,id={id}-socket,path={}", disk.socket.display());
        if disk.reconnect {
            chardev = format!("{chardev},{}", self.qemu.reconnect());
        }
        let queues = disk.queues;
        let mut device =
            format!("vhost-user-blk-pci,id={id},chardev={id}-socket,num-queues={queues}");
        if !disk.properties.is_empty() {
            device = format!("{device},{}", disk.properties);
        }
        (chardev, device)
    }
}

/// The command line of a guest's kernel that is to load these modules.
pub fn kernel_command_line(modules: &[String]) -> String {
    format!("{KERNEL_ARGUMENTS} viaduct.load={}", modules.join(","))
}

/// Writes the initramfs with this image and the agent.
pub fn write_initramfs(
    cache: &Cache,
    kernel: &Kernel,
    image: &GuestImage,
    to: &Path,
) -> Result<()> {
    let image = image.clone();
    image.with_host_program("guest-agent", &own_program("guest-agent")?).write(cache, kernel, to)
}

const CONSOLE: &str = "console.log";
const QEMU_LOG: &str = "qemu.log";

/// QEMU's process and its directory; killed when dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    dir: tempfile::TempDir,
}

impl Process {
    fn connect(&mut self, socket: &Path) -> Result<UnixStream> {
        let deadline = Instant::now() + SOCKET_TIMEOUT;
        loop {
            let error = match UnixStream::connect(socket) {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            if let Some(status) = self.child.try_wait()? {
                return Err(Error::new(format!("QEMU ended ({status})\n{}", self.tail())));
            }
            if Instant::now() > deadline {
                return Err(Error::new(format!("connect to QEMU: {error}\n{}", self.tail())));
            }
            thread::sleep(SOCKET_RETRY);
        }
    }

    /// The last words of QEMU and of the guest's console.
    fn tail(&self) -> String {
        let mut text = String::new();
        for (title, file) in [("QEMU", QEMU_LOG), ("console", CONSOLE)] {
            let log = fs::read(self.dir.path().join(file)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            text.push_str(&format!("--- {title} ---\n{}\n", tail.join("\n")));
        }
        text
    }

    fn kill(&mut self) {
        // Both fail only when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A QEMU that runs, with a guest or ready to take one.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) line: UnixStream,
    pub(crate) qmp: Qmp,
    process: Process,
    builder: GuestBuilder,
}

/// A running guest; killed when dropped.
#[derive(Debug)]
pub struct Guest {
    pub(crate) line: Line,
    pub(crate) qmp: Qmp,
    process: Process,
    builder: GuestBuilder,
}

impl Guest {
    pub fn builder() -> GuestBuilder {
        GuestBuilder::default()
    }

    /// How this guest was made, to make another like it.
    pub fn like_this(&self) -> GuestBuilder {
        self.builder.clone()
    }

    /// Runs a shell command to its end, whatever its status.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.run_for(command, COMMAND_TIMEOUT)
    }

    pub fn run_for(&self, command: &str, timeout: Duration) -> Result<Output> {
        let job = self.start(command)?;
        job.close_input()?;
        job.wait(timeout).map_err(|error| self.with_tail(error))
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub fn ok(&self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        if output.status == 0 {
            return Ok(output.text());
        }
        Err(Error::new(format!(
            "`{command}` in the guest: status {}\n{}\n{}",
            output.status,
            output.text(),
            output.error_text()
        )))
    }

    /// Starts a command in the background; its input stays open.
    pub fn start(&self, command: &str) -> Result<Job> {
        let id = self.line.start(command).map_err(|error| self.with_tail(error))?;
        Ok(Job { line: self.line.clone(), id, command: command.to_owned() })
    }

    /// Writes a file in the guest.
    pub fn put(&self, path: &str, content: &[u8]) -> Result<()> {
        let job = self.start(&format!("cat > '{path}'"))?;
        job.input(content)?;
        job.close_input()?;
        let output = job.wait(COMMAND_TIMEOUT)?;
        match output.status {
            0 => Ok(()),
            _ => Err(Error::new(format!("write {path}: {}", output.error_text()))),
        }
    }

    /// A command for QEMU itself.
    pub fn qmp(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.qmp.execute(command, arguments)
    }

    pub fn wait_event(&mut self, name: &str, timeout: Duration) -> Result<Value> {
        self.qmp.wait_event(name, timeout)
    }

    /// Stops the guest's processors.
    pub fn pause(&mut self) -> Result<()> {
        self.qmp("stop", json!({})).map(drop)
    }

    pub fn resume(&mut self) -> Result<()> {
        self.qmp("cont", json!({})).map(drop)
    }

    /// Plugs a vhost-user disk into a hot-plug port while the guest runs.
    pub fn plug(&mut self, id: &str, port: u32, disk: &VhostBlk) -> Result<()> {
        let mut backend = json!({
            "type": "socket",
            "data": {
                "addr": { "type": "unix", "data": { "path": disk.socket } },
                "server": false,
            },
        });
        if disk.reconnect {
            let setting = match self.builder.qemu {
                Qemu::V7_2 => ("reconnect", 1),
                Qemu::V10 => ("reconnect-ms", 100),
            };
            backend["data"][setting.0] = json!(setting.1);
        }
        let chardev = format!("{id}-socket");
        self.qmp("chardev-add", json!({ "id": chardev, "backend": backend }))?;
        let device = json!({
            "driver": "vhost-user-blk-pci",
            "id": id,
            "chardev": chardev,
            "num-queues": disk.queues,
            "bus": format!("hotplug{port}"),
        });
        self.qmp("device_add", device).map(drop)
    }

    /// Unplugs a device and waits until the guest has let go of it.
    pub fn unplug(&mut self, id: &str, timeout: Duration) -> Result<()> {
        self.qmp("device_del", json!({ "id": id }))?;
        self.wait_event("DEVICE_DELETED", timeout).map(drop)
    }

    /// Ends QEMU at once, as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks QEMU to end, and waits.
    pub fn quit(mut self) -> Result<()> {
        self.qmp("quit", json!({}))?;
        self.process.child.wait()?;
        Ok(())
    }

    /// The process id of QEMU.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// The console so far.
    pub fn console(&self) -> String {
        let log = fs::read(self.process.dir.path().join(CONSOLE)).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// What QEMU itself has said.
    pub fn qemu_log(&self) -> String {
        fs::read_to_string(self.process.dir.path().join(QEMU_LOG)).unwrap_or_default()
    }

    /// The guest in a QEMU, reached over `line`.
    pub(crate) fn of(launched: Launched, line: Line) -> Self {
        let Launched { qmp, process, builder, .. } = launched;
        Self { line, qmp, process, builder }
    }

    pub(crate) fn with_tail(&self, error: Error) -> Error {
        Error::new(format!("{error}\n{}", self.process.tail()))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.process.dir.path()
    }
}

/// A command running in a guest, also while the guest moves to another QEMU.
#[derive(Debug)]
pub struct Job {
    line: Line,
    id: u32,
    command: String,
}

impl Job {
    /// Waits for its end and returns what it printed.
    pub fn wait(&self, timeout: Duration) -> Result<Output> {
        self.line.wait_exit(self.id, timeout).context(|| self.what())
    }

    /// Waits until it has printed `text`.
    pub fn wait_for_text(&self, text: &str, timeout: Duration) -> Result<()> {
        let has_text =
            |stdout: &[u8]| stdout.windows(text.len()).any(|window| window == text.as_bytes());
        self.line.wait_stdout(self.id, timeout, has_text).context(|| self.what())
    }

    pub fn input(&self, bytes: &[u8]) -> Result<()> {
        self.line.input(self.id, bytes, COMMAND_TIMEOUT).context(|| self.what())
    }

    pub fn close_input(&self) -> Result<()> {
        self.line.end_input(self.id).context(|| self.what())
    }

    /// Sends a signal (`TERM`, `KILL`, `STOP`) to the command and its children.
    pub fn signal(&self, name: &str) -> Result<()> {
        self.line.signal(self.id, name).context(|| self.what())
    }

    pub fn has_ended(&self) -> bool {
        self.line.has_ended(self.id)
    }

    pub fn stdout_so_far(&self) -> String {
        String::from_utf8_lossy(&self.line.stdout_so_far(self.id)).into_owned()
    }

    fn what(&self) -> String {
        format!("`{}` in the guest", self.command)
    }
}
