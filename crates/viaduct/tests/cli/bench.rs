//! The real binary against a node in this process whose engine only takes notes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use expect_test::Expect;
use model::Size;
use node::engine::Engine;
use node::engine::recorder::Recorder;
use node::run::Told;
use node::world::Machine;
use node::{DefaultPool, Node, Options};

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Bench {
    pub node: Node,
    pub engine: Recorder,
    pub directory: tempfile::TempDir,
}

/// What a command left behind.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Bench {
    pub fn new() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let engine = Recorder::new();
        let shared: Arc<dyn Engine> = Arc::new(engine.clone());
        let data = directory.path().join("data");
        let options = options(data);
        let node = Node::start(options, Arc::new(Machine), |_| Ok(shared)).unwrap();
        assert_eq!(node.wait(PATIENCE), Some(Told::Running));
        Bench { node, engine, directory }
    }

    pub fn furnished() -> Bench {
        let bench = Bench::new();
        for line in [
            "lu create web1 --size 10G --serial web1",
            "lu create scratch --size 512M --backing memory --serial scratch --shareable",
            "client create vm1 --socket-owner root:root",
            "client create vm2",
            "map web1 --to vm1 --via vhost-user-blk",
            "map scratch --to vm1 --via vhost-user-blk --read-only",
            "map scratch --to vm2 --via vhost-user-blk --slot 7",
        ] {
            let ran = bench.run(line);
            assert_eq!(ran.code, 0, "{line}: {}", ran.err);
        }
        bench
    }

    pub fn run(&self, line: &str) -> Ran {
        run(self.node.data(), self.directory.path(), line)
    }

    /// A command that is done, and its output.
    pub fn done(&self, line: &str, expected: Expect) {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "{line}: {}", ran.err);
        expected.assert_eq(&self.plain(&ran.out));
    }

    /// A command that is refused, with its exit code.
    pub fn refused(&self, line: &str, code: i32, expected: Expect) {
        let ran = self.run(line);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{line}: {}", ran.err);
        expected.assert_eq(&self.plain(&ran.err));
    }

    /// The text without what differs from run to run.
    pub fn plain(&self, text: &str) -> String {
        plain(self.directory.path(), text)
    }
}

fn plain(directory: &Path, text: &str) -> String {
    let text = text.replace(directory.to_str().unwrap(), "/DIR");
    let forms = [
        "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
        "dddd-dd-ddTdd:dd:dd",
        ":xxxxxxxx:",
        "WWID xxxxxxxxxxxxxxxxx:",
    ];
    forms.iter().fold(text, |text, form| masked(&text, form))
}

/// A node with its real data plane, which can be stopped, and what is said with it and without.
pub struct Real {
    node: Option<Node>,
    pub directory: tempfile::TempDir,
}

/// Of a node on a directory of its own.
fn options(data: PathBuf) -> Options {
    let (http, iscsi, cores) = (None, Vec::new(), Vec::new());
    Options { data, http, iscsi, cores, map_memory: Size::mib(48), default_pool: DefaultPool::Off }
}

impl Real {
    pub fn new() -> Real {
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path().join("data"));
        let node = Node::start_on_machine(options, Duration::ZERO).unwrap();
        assert_eq!(node.wait(PATIENCE), Some(Told::Running));
        Real { node: Some(node), directory }
    }

    pub fn stop(&mut self) {
        assert!(self.node.take().unwrap().stop());
    }

    pub fn run(&self, line: &str) -> Ran {
        run(&self.directory.path().join("data"), self.directory.path(), line)
    }

    /// How a command ends, and what it says.
    pub fn says(&self, line: &str, code: i32, expected: Expect) {
        let ran = self.run(line);
        assert_eq!(ran.code, code, "{line}: {}", ran.err);
        expected.assert_eq(&plain(self.directory.path(), &(ran.out + &ran.err)));
    }
}

pub fn run(data: &Path, home: &Path, line: &str) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_viaduct"))
        .args(line.split_whitespace())
        .env_clear()
        .env("VIADUCT_DATA", data)
        .env("HOME", home)
        .current_dir(home)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Puts the form itself where text has that form: x is a hexadecimal digit, d a decimal one.
fn masked(text: &str, form: &str) -> String {
    let fits = |part: &str| {
        let mut pairs = part.chars().zip(form.chars());
        part.len() == form.len()
            && pairs.all(|(c, f)| match f {
                'x' => c.is_ascii_hexdigit(),
                'd' => c.is_ascii_digit(),
                f => c == f,
            })
    };
    let (mut masked, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        if rest.get(..form.len()).is_some_and(fits) {
            masked.push_str(form);
            rest = &rest[form.len()..];
        } else {
            masked.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    masked
}
