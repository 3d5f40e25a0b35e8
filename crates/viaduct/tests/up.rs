//! `viaduct up` as systemd runs it: ready, alive, stopped by a signal, killed, and started again on
//! the same data, with the real data plane.

#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

struct Up {
    child: Child,
    notifications: UnixDatagram,
    data: PathBuf,
}

fn viaduct(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viaduct"));
    command.env("VIADUCT_DATA", data).stdin(Stdio::null());
    command
}

impl Up {
    fn start(data: &Path, arguments: &[&str], watchdog_ms: Option<u64>) -> Up {
        let mut command = viaduct(data);
        if let Some(watchdog_ms) = watchdog_ms {
            command.env("WATCHDOG_USEC", (watchdog_ms * 1000).to_string());
        }
        Up::start_as(command, data, arguments)
    }

    fn start_as(mut command: Command, data: &Path, arguments: &[&str]) -> Up {
        let path = data.with_extension("notify");
        drop(std::fs::remove_file(&path));
        let notifications = UnixDatagram::bind(&path).unwrap();
        notifications.set_read_timeout(Some(PATIENCE)).unwrap();
        command.arg("up").args(arguments).env("NOTIFY_SOCKET", &path);
        // Its port is the same for all nodes of a machine.
        if !arguments.contains(&"--iscsi") && !arguments.contains(&"--config") {
            command.args(["--iscsi", "off"]);
        }
        let log = std::fs::File::create(data.with_extension("log")).unwrap();
        let child = command.stderr(log).spawn().unwrap();
        let up = Up { child, notifications, data: data.to_path_buf() };
        up.wait_for("READY=1");
        up
    }

    fn wait_for(&self, wanted: &str) {
        let mut bytes = [0; 4096];
        loop {
            let count = self.notifications.recv(&mut bytes).unwrap_or_else(|error| {
                let log = std::fs::read_to_string(self.data.with_extension("log"));
                panic!("no {wanted}: {error}\n{}", log.unwrap_or_default())
            });
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if text.lines().any(|line| line == wanted) {
                return;
            }
        }
    }

    fn cli(&self, line: &str) -> Output {
        viaduct(&self.data).args(line.split_whitespace()).output().unwrap()
    }

    fn done(&self, line: &str) -> String {
        let output = self.cli(line);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {err}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn everything_comes_back_after_sigkill_and_a_stop_is_clean() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut up = Up::start(&data, &["--http", "off"], None);
    for line in [
        "lu create web1 --size 1G",
        "lu create fast --size 8M --backing memory",
        "client create vm1",
        "map web1 --to vm1 --via vhost-user-blk",
        "map fast --to vm1 --via vhost-user-blk",
    ] {
        up.done(line);
    }
    let before = up.done("config show");
    let socket = data.join("run/vm1-2.sock");
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    up.child.kill().unwrap();
    up.child.wait().unwrap();

    let mut up = Up::start(&data, &["--http", "off"], None);
    assert_eq!(up.done("config show"), before);
    let listed = up.done("mapping ls");
    assert_eq!(listed.matches("listening").count(), 2, "{listed}");
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());

    up.signal("TERM");
    up.wait_for("STOPPING=1");
    assert!(up.child.wait().unwrap().success());
    assert!(!socket.exists(), "a stopped node leaves no socket");
}

#[test]
fn a_second_node_on_the_directory_is_refused_and_one_beside_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    let first = Up::start(&one, &["--http", "0"], None);
    let _second = Up::start(&two, &["--http", "0"], None);
    let output = viaduct(&one).args(["up", "--http", "off", "--iscsi", "off"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(err.contains(&format!("is in use by process {}", first.child.id())), "{err}");

    let status: serde_json::Value = serde_json::from_str(&first.done("status -o json")).unwrap();
    let taken = status["http"].as_str().unwrap();
    let third = directory.path().join("three");
    for arguments in [["--http", taken, "--iscsi", "off"], ["--http", "off", "--iscsi", taken]] {
        let output = viaduct(&third).arg("up").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(4));
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(err.contains(&format!("is in use by process {}", first.child.id())), "{err}");
        let switch = if arguments[1] == taken { "--http" } else { "--iscsi" };
        assert!(err.contains(&format!("next: viaduct up {switch} ADDR:PORT")), "{err}");
    }
    let both = ["up", "--http", "off", "--iscsi", "off", "--iscsi", taken];
    let output = viaduct(&third).args(both).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// A new directory begins with a pool, one that was used before does not, and what a node made by
/// itself is no obstacle for a document.
#[test]
fn a_fresh_node_has_a_pool_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second, bare] = ["first", "second", "bare"].map(|it| directory.path().join(it));
    let up = Up::start(&first, &["--http", "off", "--default-pool", "2G"], None);
    assert_eq!(up.done("lu create web --size 20G"), "LU web: 20GiB, pool, online\n");
    assert_eq!(up.done("lu create old --size 1G --backing file"), "LU old: 1GiB, file, online\n");
    assert!(up.done("event ls").contains("pool 'default' was made, a sparse file of 2GiB"));
    let pool: serde_json::Value =
        serde_json::from_str(&up.done("pool show default -o json")).unwrap();
    assert_eq!((&pool["lus"], &pool["state"]), (&"[\"web\"]".parse().unwrap(), &"online".into()));
    let saved = directory.path().join("saved.json").display().to_string();
    up.done(&format!("config save {saved}"));
    drop(up);
    let up = Up::start(&first, &["--http", "off", "--default-pool", "4G"], None);
    assert_eq!(up.done("lu ls").matches("online").count(), 2);
    drop(up);

    // Its disk and its file come with the document, as after the loss of the node's store.
    let up = Up::start(&second, &["--http", "off", "--default-pool", "2G"], None);
    for kind in ["pools", "lus"] {
        for entry in std::fs::read_dir(first.join(kind)).unwrap() {
            let entry = entry.unwrap();
            std::fs::rename(entry.path(), second.join(kind).join(entry.file_name())).unwrap();
        }
    }
    up.done(&format!("config restore {saved}"));
    let again: serde_json::Value =
        serde_json::from_str(&up.done("pool show default -o json")).unwrap();
    assert_eq!((&again["uuid"], &again["state"]), (&pool["uuid"], &"online".into()));
    assert_eq!(up.done("lu ls").matches("online").count(), 2);
    assert_eq!(std::fs::read_dir(second.join("pools")).unwrap().count(), 1);

    let up = Up::start(&bare, &["--http", "off", "--default-pool", "off"], None);
    assert_eq!(up.done("lu create web --size 20G"), "LU web: 20GiB, file, online\n");
}

/// A file gives a list of addresses, each of which must be free.
#[test]
fn a_file_gives_several_addresses_for_iscsi() {
    let directory = tempfile::tempdir().unwrap();
    let (data, file) = (directory.path().join("data"), directory.path().join("node.toml"));
    let held = ["127.0.0.1:0", "127.0.0.2:0"].map(|any| std::net::TcpListener::bind(any).unwrap());
    let [first, second] = held.each_ref().map(|held| held.local_addr().unwrap().to_string());
    let start = |iscsi: &str| {
        std::fs::write(&file, format!("http = 'off'\niscsi = {iscsi}\n")).unwrap();
        let config = ["up", "--config", file.to_str().unwrap()];
        let output = viaduct(&data).args(config).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let [let_go, taken] = held;
    drop(let_go);
    let free = first;
    let (code, err) = start(&format!("['{free}', '{second}']"));
    let port = taken.local_addr().unwrap().port();
    assert_eq!(code, Some(4), "{err}");
    assert!(err.contains(&format!("port {port} is in use by process {}", std::process::id())));
    let (code, err) = start(&format!("'{free},{second}'"));
    assert_eq!(code, Some(4), "{err}");
    let (code, err) = start("['nowhere']");
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("node.toml:2: 'iscsi'"), "{err}");
    let (code, err) = start("[3260]");
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("a list must have strings in it"), "{err}");
}

#[test]
fn signs_of_life_come_as_often_as_expected() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(&directory.path().join("data"), &["--http", "off"], Some(400));
    for _ in 0..3 {
        up.wait_for("WATCHDOG=1");
    }
}

#[test]
fn the_log_is_json_when_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut up = Up::start(&data, &["--http", "off", "--log", "json"], None);
    up.done("client create vm1");
    up.signal("INT");
    assert!(up.child.wait().unwrap().success());
    let log = std::fs::read_to_string(data.with_extension("log")).unwrap();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let about = |line: &&serde_json::Value| line["subject"] == "client/vm1";
    let line = lines.iter().find(about).unwrap_or_else(|| panic!("{log}"));
    assert_eq!(line["kind"], "client-created");
}

#[test]
fn a_file_says_what_the_command_line_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let (data, file) = (directory.path().join("data"), directory.path().join("node.toml"));
    let text = format!(
        "data = '{}'\nhttp = 0\niscsi = 'off'\nlog = 'json'\npoll-us = 7\n",
        data.display()
    );
    std::fs::write(&file, text).unwrap();
    let shown = file.to_str().unwrap();
    let http = |up: &Up| {
        let status: serde_json::Value = serde_json::from_str(&up.done("status -o json")).unwrap();
        status["http"].clone()
    };
    let is_json = || std::fs::read_to_string(data.with_extension("log")).unwrap().starts_with('{');

    // The directory that the environment names is not the file's.
    let other = directory.path().join("other");
    let up = Up::start(&other, &["--config", shown], None);
    assert!(http(&up).is_string() && !data.exists());
    drop(up);

    let mut command = viaduct(&data);
    command.env_remove("VIADUCT_DATA");
    let up = Up::start_as(command, &data, &["--config", shown, "--http", "off"]);
    assert!(http(&up).is_null() && is_json());
    drop(up);

    let mut command = viaduct(&data);
    command
        .env_remove("VIADUCT_DATA")
        .env("VIADUCT_CONFIG", &file)
        .env("VIADUCT_LOG_FORMAT", "text");
    let up = Up::start_as(command, &data, &[]);
    assert!(http(&up).is_string() && !is_json());
    drop(up);

    let mut command = viaduct(&data);
    command.env("VIADUCT_CONFIG", directory.path().join("none.toml"));
    Up::start_as(command, &data, &["--http", "off"]);
}
