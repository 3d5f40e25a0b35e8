//! Where `unsafe` may stand, and what may not be called outside `rt`: clock, threads, sockets,
//! files, processes, randomness.
//!
//! Paths are read through the file's own `use` declarations, so a name imported under another name
//! is seen, inside macros too. A method on a value that someone handed over is not seen: what
//! matters is that nobody can make such a value.

use std::collections::BTreeMap;

use super::Finding;
use super::source::Source;

/// Files whose path begins so may contain `unsafe`: the three places of the house, then the clients
/// over the `blkio` crate, whose interface is unsafe, in tests and in the benchmark.
const UNSAFE_ALLOWED: [&str; 6] = [
    "crates/block/src/mem.rs",
    "crates/block/src/mem/",
    "crates/rt/",
    "crates/front/src/vhost_user/ring",
    "crates/front/tests/blkio",
    "xtask/src/bench/",
];

/// Crates that touch the world only through `rt`.
const PURE: [&str; 12] = [
    "wire", "block", "model", "proto", "target", "cluster", "vnet", "volume", "store", "front",
    "kv", "node",
];

/// What they may not name, and what to do instead.
const BANNED: [(&str, &str); 27] = [
    ("std::time::Instant", CLOCK),
    ("std::time::SystemTime", CLOCK),
    ("std::time::UNIX_EPOCH", CLOCK),
    ("jiff::Timestamp::now", CLOCK),
    ("jiff::Zoned::now", CLOCK),
    ("std::thread", "spawn on a core, or use a blocking worker of `rt`"),
    ("std::net", SOCKET),
    ("std::os::unix::net", SOCKET),
    ("std::fs", FILE),
    ("std::os::unix::fs", FILE),
    ("std::io::stdin", FILE),
    ("std::io::stdout", FILE),
    ("std::process", "processes belong to `rt` and the binary"),
    ("tokio", RUNTIME),
    ("async_std", RUNTIME),
    ("smol", RUNTIME),
    ("mio", RUNTIME),
    ("io_uring", RUNTIME),
    ("rand", RANDOM),
    ("getrandom", RANDOM),
    ("fastrand", RANDOM),
    ("uuid::Uuid::new_v4", RANDOM),
    ("uuid::Uuid::now_v7", RANDOM),
    ("libc", SYSTEM),
    ("nix", SYSTEM),
    ("rustix", SYSTEM),
    ("memmap2", SYSTEM),
];

const CLOCK: &str = "take `now` as an argument, or ask `rt` for it";
const SOCKET: &str = "open sockets through `rt`";
const FILE: &str = "open files through `rt`";
const RUNTIME: &str = "the data path runs on `rt`; tokio only in `kv::etcd` and `node::api`";
const RANDOM: &str = "ask `rt`, or take the number as an argument";
const SYSTEM: &str = "system calls and mmap only in `rt` and the ring module";

/// Below a banned path, yet only data.
const DATA: [&str; 9] = [
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
    "std::net::SocketAddrV4",
    "std::net::SocketAddrV6",
    "std::net::AddrParseError",
    "std::process::ExitCode",
    "std::thread::panicking",
];

/// Places that may name something all the same.
const EXCEPTIONS: [(&str, &str); 5] = [
    ("crates/node/src/api", "tokio"),
    ("crates/node/src/api", "std::thread"),
    ("crates/kv/src/etcd", "tokio"),
    ("crates/kv/src/etcd", "std::thread"),
    ("crates/front/src/vhost_user/ring", "libc"),
];

pub fn unsafe_code(source: &Source, findings: &mut Vec<Finding>) {
    if UNSAFE_ALLOWED.iter().any(|place| source.path.starts_with(place)) {
        return;
    }
    for token in source.tokens.iter().filter(|token| token.is_ident("unsafe")) {
        let advice = "move it to `block::mem`, `rt` or the ring module of `front::vhost_user`";
        findings.push(Finding {
            file: source.path.clone(),
            line: token.line,
            rule: "unsafe",
            advice: advice.into(),
        });
    }
}

pub fn banned_calls(source: &Source, findings: &mut Vec<Finding>) {
    if !PURE.contains(&source.crate_name()) {
        return;
    }
    let (imports, mut paths) = paths_of(source);
    paths.extend(imports.values().cloned());
    paths.sort();
    paths.dedup();
    for (path, line) in paths {
        if source.is_test_line(line) {
            continue;
        }
        if let Some((_, advice)) = banned(&source.path, &path) {
            findings.push(Finding {
                file: source.path.clone(),
                line,
                rule: "banned call",
                advice: format!("`{path}`: {advice}"),
            });
        }
    }
}

fn banned(file: &str, path: &str) -> Option<&'static (&'static str, &'static str)> {
    if DATA.iter().any(|data| is_below(path, data)) {
        return None;
    }
    let entry = BANNED.iter().find(|(banned, _)| is_below(path, banned))?;
    let is_allowed = |(place, what): &(&str, &str)| file.starts_with(place) && *what == entry.0;
    (!EXCEPTIONS.iter().any(is_allowed)).then_some(entry)
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

type PathAtLine = (String, usize);

/// What the file imports, by the name it has here, and every path it writes out.
fn paths_of(source: &Source) -> (BTreeMap<String, PathAtLine>, Vec<PathAtLine>) {
    let mut imports = Imports { source, found: BTreeMap::new(), unnamed: Vec::new() };
    let mut rest = Vec::new();
    let mut at = 0;
    while at < source.tokens.len() {
        if source.tokens[at].is_ident("use") {
            at = imports.tree(at + 1, String::new());
            continue;
        }
        match path_at(source, at) {
            Some((path, next)) => {
                rest.push((path, source.tokens[at].line));
                at = next;
            }
            None => at += 1,
        }
    }
    let Imports { found, unnamed, .. } = imports;
    let expand = |(path, line): PathAtLine| {
        let (first, tail) = path.split_once("::").unwrap_or((&path, ""));
        let expanded = found.get(first).map_or(path.clone(), |(full, _)| match tail {
            "" => full.clone(),
            _ => format!("{full}::{tail}"),
        });
        (expanded, line)
    };
    let mut paths: Vec<PathAtLine> = rest.into_iter().map(expand).collect();
    paths.extend(unnamed);
    (found, paths)
}

/// A path of at least two names that begins at this token, and the index after it.
fn path_at(source: &Source, at: usize) -> Option<(String, usize)> {
    let mut path = source.tokens.get(at)?.ident()?.to_owned();
    let mut next = at + 1;
    while let [first, second, name] = source.tokens.get(next..next + 3)? {
        let (true, Some(name)) = (first.is(':') && second.is(':'), name.ident()) else { break };
        path = format!("{path}::{name}");
        next += 3;
    }
    (next > at + 1).then_some((path, next))
}

struct Imports<'a> {
    source: &'a Source,
    found: BTreeMap<String, PathAtLine>,
    /// Imported whole (`*`) or without a name (`as _`).
    unnamed: Vec<PathAtLine>,
}

impl Imports<'_> {
    /// Reads one tree of a `use` declaration; the index after it.
    fn tree(&mut self, mut at: usize, prefix: String) -> usize {
        let mut path = prefix;
        let mut name = None;
        while let Some(token) = self.source.tokens.get(at) {
            if token.opens('{') {
                let close = token.mate;
                at += 1;
                while at < close {
                    at = self.tree(at, path.clone());
                }
                at = close + 1;
                path.clear();
            } else if token.is('*') {
                self.unnamed.push((path.clone(), token.line));
                path.clear();
                at += 1;
            } else if token.is_ident("as") {
                name = self.source.tokens.get(at + 1).and_then(|it| it.ident()).map(String::from);
                at += 2;
            } else if let Some(part) = token.ident() {
                if part != "self" {
                    path = if path.is_empty() { part.into() } else { format!("{path}::{part}") };
                }
                at += 1;
            } else if token.is(',') || token.is(';') {
                at += 1;
                break;
            } else if token.is(':') {
                at += 1;
            } else {
                break;
            }
        }
        self.add(path, name, at);
        at
    }

    fn add(&mut self, path: String, name: Option<String>, at: usize) {
        if path.is_empty() {
            return;
        }
        let line = self.source.tokens[at - 1].line;
        let last = path.rsplit("::").next().unwrap_or(&path).to_owned();
        match name.unwrap_or(last) {
            name if name == "_" => self.unnamed.push((path, line)),
            name => drop(self.found.insert(name, (path, line))),
        }
    }
}
