//! A helper process that reads what strangers made, with as little of the machine as it needs.
//!
//! A program that understands a format may be led astray by a file in it: to other files that the
//! image names, or by a bug of its own. So the child may open only what is named here (Landlock,
//! where the kernel has it; since Linux 5.13), has no more memory than it is given, writes no
//! files, makes no core dump, gains no rights, and dies with the process that started it.
//!
//! It is held by a thread of its own, for the kernel ties a child to the thread that made it. What
//! it starts itself is in its process group, and is killed with it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use crate::sync::{Reply, reply};

/// Bytes kept of what a child says on its standard error.
const SAID_BYTES_MAX: usize = 4096;

/// What a child may do.
#[derive(Clone, Debug, Default)]
pub struct Confined {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Files and directories that it may read, and run. Those that are not there are left out.
    pub reads: Vec<PathBuf>,
    /// Directories in which it may make sockets, and remove them.
    pub sockets: Vec<PathBuf>,
    /// Address space.
    pub memory_max: u64,
    pub files_max: u64,
}

/// A running child; dropped, it is killed.
pub struct Child {
    pid: i32,
    /// Tells the thread that holds it not to reap it before it is killed.
    alive: mpsc::Sender<()>,
}

/// How a child ended, and what it said.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    pub said: String,
}

/// A program by its name, in the directories of `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

impl Confined {
    /// Starts it; the reply tells how it ended.
    pub fn start(self) -> io::Result<(Child, Reply<Ended>)> {
        let (answer, ended) = reply();
        let (tell, told) = mpsc::channel();
        super::thread::spawn("viaduct-child", move || {
            let started = self.spawn();
            let (mut child, pid) = match started {
                Ok(child) => {
                    let pid = child.id() as i32;
                    (child, pid)
                }
                Err(error) => {
                    // Whoever started it waits for one or the other.
                    let _ = tell.send(Err(error));
                    return;
                }
            };
            let (alive, dropped) = mpsc::channel::<()>();
            let _ = tell.send(Ok(Child { pid, alive }));
            let said = child.stderr.take().map(read_some).unwrap_or_default();
            let exited = wait_without_reaping(pid);
            answer.give(Ended { code: exited, said });
            // Its number belongs to it until it is reaped, and until then it may be killed by it.
            let _ = dropped.recv();
            let _ = child.wait();
        })?;
        let child = told.recv().map_err(io::Error::other)??;
        Ok((child, ended))
    }

    fn spawn(&self) -> io::Result<std::process::Child> {
        let rules = Rules::of(self)?;
        let limits = [
            (libc::RLIMIT_AS, self.memory_max),
            (libc::RLIMIT_NOFILE, self.files_max),
            (libc::RLIMIT_FSIZE, 0),
            (libc::RLIMIT_CORE, 0),
        ];
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.current_dir("/").process_group(0);
        let parent = std::process::id() as i32;
        // SAFETY: between fork and exec only system calls are made, on memory prepared before.
        unsafe { command.pre_exec(move || confine(&rules, &limits, parent)) };
        command.spawn()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: it is not reaped before the sender is gone, so the number is still its group's.
        unsafe { libc::kill(-self.pid, libc::SIGKILL) };
        let _ = self.alive.send(());
    }
}

/// The beginning of what a child says; the rest is read and forgotten.
fn read_some(mut from: impl io::Read) -> String {
    let (mut said, mut piece) = (Vec::new(), [0; 1024]);
    while let Ok(count @ 1..) = from.read(&mut piece) {
        let room = SAID_BYTES_MAX.saturating_sub(said.len());
        said.extend_from_slice(&piece[..count.min(room)]);
    }
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// Its exit code, if it ended by itself.
fn wait_without_reaping(pid: i32) -> Option<i32> {
    loop {
        // SAFETY: a zeroed record is valid, and the call writes it.
        let (result, info) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let options = libc::WEXITED | libc::WNOWAIT;
            (libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, options), info)
        };
        if result == 0 {
            // SAFETY: the record of a child that ended has a status.
            return (info.si_code == libc::CLD_EXITED).then(|| unsafe { info.si_status() });
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

/// In the child, before its program runs.
fn confine(
    rules: &Rules,
    limits: &[(libc::__rlimit_resource_t, u64)],
    parent: i32,
) -> io::Result<()> {
    // SAFETY: system calls on values of this frame.
    unsafe {
        super::check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        if libc::getppid() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        super::check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        for (resource, most) in limits {
            let limit = libc::rlimit { rlim_cur: *most, rlim_max: *most };
            super::check(libc::setrlimit(*resource, &limit))?;
        }
    }
    rules.enter()
}

/// A Landlock ruleset; none where the kernel has no Landlock.
struct Rules(Option<OwnedFd>);

/// Rights of Landlock's first version (linux/landlock.h).
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_SOCK: u64 = 1 << 9;
const ALL: u64 = (1 << 13) - 1;

const RULE_PATH_BENEATH: libc::c_int = 1;

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// What every program needs: libraries, and devices that hold nothing.
const COMMON: [&str; 6] = ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/dev/urandom"];

impl Rules {
    fn of(confined: &Confined) -> io::Result<Self> {
        let handled = ALL;
        // SAFETY: the kernel reads one number of eight bytes.
        let made = unsafe {
            let size = size_of::<u64>();
            libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size, 0)
        };
        if made < 0 {
            return Ok(Self(None));
        }
        // SAFETY: the call made this descriptor, and it is closed on exec.
        let ruleset = unsafe { OwnedFd::from_raw_fd(made as i32) };
        let rules = Self(Some(ruleset));
        let common = COMMON.iter().map(Path::new);
        for path in common.chain(confined.reads.iter().map(PathBuf::as_path)) {
            rules.allow(path, EXECUTE | READ_FILE, READ_DIR)?;
        }
        rules.allow(Path::new("/dev/null"), READ_FILE | WRITE_FILE, 0)?;
        for path in &confined.sockets {
            rules.allow(path, 0, READ_DIR | MAKE_SOCK | REMOVE_FILE)?;
        }
        Ok(rules)
    }

    /// Allows these rights below a path, and some more if it is a directory.
    fn allow(&self, path: &Path, rights: u64, of_directories: u64) -> io::Result<()> {
        let Some(ruleset) = &self.0 else { return Ok(()) };
        let name = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a string with its end.
        let opened = unsafe { libc::open(name.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
        if opened < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
        }
        // SAFETY: just opened.
        let opened = unsafe { OwnedFd::from_raw_fd(opened) };
        let more = if path.is_dir() { of_directories } else { 0 };
        let rule = PathBeneath { allowed: rights | more, parent: opened.as_raw_fd() };
        // SAFETY: the kernel reads one rule of its own layout.
        let added = unsafe {
            let number = libc::SYS_landlock_add_rule;
            libc::syscall(number, ruleset.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0)
        };
        if added < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn enter(&self) -> io::Result<()> {
        let Some(ruleset) = &self.0 else { return Ok(()) };
        // SAFETY: a system call on a descriptor.
        let entered =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
        if entered < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, reads: &[&Path]) -> Confined {
        Confined {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            reads: reads.iter().map(|path| path.to_path_buf()).collect(),
            sockets: Vec::new(),
            memory_max: 1 << 30,
            files_max: 32,
        }
    }

    fn run(confined: Confined) -> Ended {
        let (child, ended) = confined.start().unwrap();
        let ended = ended.wait().unwrap();
        drop(child);
        ended
    }

    /// Whether this kernel has Landlock at all.
    fn has_landlock() -> bool {
        Rules::of(&Confined::default()).unwrap().0.is_some()
    }

    #[test]
    fn a_child_reads_what_it_may_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (open, secret) = (dir.path().join("open"), dir.path().join("secret"));
        std::fs::write(&open, "x").unwrap();
        std::fs::write(&secret, "x").unwrap();
        let read = |path: &Path| format!("cat {} > /dev/null", path.display());
        assert_eq!(run(shell(&read(&open), &[&open])).code, Some(0));
        let ended = run(shell(&read(&secret), &[&open]));
        assert_eq!(ended.code == Some(0), !has_landlock(), "{}", ended.said);
        let wrote = run(shell(&format!("echo x > {}/new", dir.path().display()), &[dir.path()]));
        assert!(
            wrote.code != Some(0)
                && std::fs::read(dir.path().join("new")).unwrap_or_default().is_empty()
        );
        assert_eq!(run(shell("exit 3", &[])).code, Some(3));
    }

    #[test]
    fn a_child_has_no_more_memory_than_it_is_given() {
        let greedy = "a=x; while :; do a=$a$a; done";
        let confined = Confined { memory_max: 64 << 20, ..shell(greedy, &[]) };
        let ended = run(confined);
        assert_ne!(ended.code, Some(0), "{}", ended.said);
    }

    #[test]
    fn a_child_that_is_dropped_is_killed() {
        // With what it has started, which holds its standard error, or is about to start.
        for wait_ms in [0, 1, 50] {
            let (child, ended) = shell("sleep 1000; true", &[]).start().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(wait_ms));
            drop(child);
            assert_eq!(ended.wait().unwrap().code, None);
        }
        let missing = Confined { program: "/nowhere".into(), ..shell("", &[]) };
        assert!(missing.start().is_err());
    }
}
