//! The control thread, driven by hand: changes through state, plan and engine to their answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use expect_test::{Expect, expect};
use jiff::Timestamp;
use kv::backing::MemoryBacking;
use kv::{Embedded, Kv};
use model::status::AdapterState;
use model::{ErrorKind, PvGroup};

use super::*;
use crate::engine::recorder::Recorder;
use crate::engine::{AdapterStatus, ForceDone};
use crate::records::Record;
use crate::world::Machine;

/// A world whose clock moves only when told to.
#[derive(Default)]
struct Frozen {
    now_ms: AtomicU64,
    uuids: AtomicU64,
}

impl World for Frozen {
    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn uuid(&self) -> Uuid {
        Uuid::from_u64_pair(self.uuids.fetch_add(1, Ordering::SeqCst) + 1, 0)
    }
}

struct Bench {
    control: Control,
    messages: mpsc::Receiver<Message>,
    engine: Recorder,
    world: Arc<Frozen>,
    kv: Arc<dyn Kv>,
    disk: MemoryBacking,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let disk = MemoryBacking::new();
        let clock: kv::embedded::Clock = Arc::new(|| Duration::ZERO);
        let kv: Arc<dyn Kv> = Arc::new(Embedded::create(disk.clone(), clock).unwrap());
        Bench::on(disk, kv, Recorder::new())
    }

    fn on(disk: MemoryBacking, kv: Arc<dyn Kv>, engine: Recorder) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let world = Arc::new(Frozen::default());
        let (sender, messages) = mpsc::channel();
        let control = Control::new(Parts {
            world: world.clone(),
            engine: Arc::new(engine.clone()),
            state: State::load(Arc::clone(&kv), Uuid::nil()).unwrap(),
            events: Events::open(Arc::clone(&kv), Uuid::nil()).unwrap(),
            published: Arc::default(),
            sender,
            cluster: "test".to_owned(),
            run: directory.path().join("run"),
            config_copy: directory.path().join("config.json"),
        });
        let mut bench = Bench { control, messages, engine, world, kv, disk, directory };
        bench.settle();
        bench
    }

    /// The node dies; another one starts on what is left, with an engine that runs nothing.
    fn restart(self) -> Bench {
        self.restart_with(Recorder::new())
    }

    fn restart_with(self, engine: Recorder) -> Bench {
        self.engine.files().into_iter().for_each(|uuid| engine.put_file(uuid));
        drop(self.kv);
        let disk = self.disk.after_kill();
        let clock: kv::embedded::Clock = Arc::new(|| Duration::ZERO);
        let kv: Arc<dyn Kv> = Arc::new(Embedded::open(disk.clone(), clock).unwrap());
        Bench::on(disk, kv, engine)
    }

    /// Takes turns until nothing comes back any more.
    fn settle(&mut self) {
        self.control.turn();
        while let Ok(message) = self.messages.try_recv() {
            self.control.take(message);
            self.control.turn();
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.world.now_ms.fetch_add(seconds * 1000, Ordering::SeqCst);
        self.settle();
    }

    /// Asks for a change; the answer, if there is one yet, is in the slot.
    fn ask(&mut self, change: Change) -> Arc<Mutex<Option<Result<Changed, ApiError>>>> {
        let slot = Arc::new(Mutex::new(None));
        let answer = Arc::clone(&slot);
        let reply = Box::new(move |result| *answer.lock().unwrap() = Some(result));
        self.control.take(Message::Change(change, reply));
        self.settle();
        slot
    }

    fn change(&mut self, change: Change) -> Result<Changed, ApiError> {
        self.ask(change).lock().unwrap().take().expect("the change was answered")
    }

    fn logged(&self, expected: Expect) {
        expected.assert_eq(&self.engine.log().join("\n"));
    }

    fn events(&self) -> Vec<String> {
        let events = self.control.parts.events.last(100).events;
        events.iter().map(|e| format!("{} {} {}", e.severity, e.subject, e.message)).collect()
    }

    fn published(&self) -> Arc<Published> {
        self.control.parts.published.read().unwrap().clone()
    }
}

fn create(name: &str) -> Change {
    let request = serde_json::json!({"name": name, "size": "1GiB"});
    Change::LuCreate(serde_json::from_value(request).unwrap())
}

fn client(name: &str) -> Change {
    Change::ClientCreate(serde_json::from_value(serde_json::json!({"name": name})).unwrap())
}

fn map(lu: &str, client: &str) -> Change {
    let request = serde_json::json!({"lu": lu, "client": client, "via": "vhost-user-blk"});
    Change::Map(serde_json::from_value(request).unwrap())
}

fn unmap(lu: &str, client: &str) -> Change {
    Change::Unmap(lu.parse().unwrap(), client.parse().unwrap(), None)
}

fn furnished() -> Bench {
    let mut bench = Bench::new();
    for change in [create("web1"), client("vm1"), map("web1", "vm1")] {
        bench.change(change).unwrap();
    }
    bench
}

#[test]
fn a_disk_from_its_making_to_its_end() {
    let mut bench = furnished();
    bench.logged(expect![[r#"
        make the file of web1 (1GiB)
        open device web1 (file)
        open vhost-user-blk mapping vm1-2 of web1"#]]);
    let adapter = bench.control.config.mappings[0].adapter();
    let socket = bench.engine.socket(&adapter).unwrap();
    assert_eq!(socket.path, bench.directory.path().join("run/vm1-2.sock"));
    assert_eq!(socket.mode, 0o660);

    let resize = model::LuResize { size: Some(model::Size::gib(2)), shrink: false };
    bench.change(Change::LuResize("web1".parse().unwrap(), resize, None)).unwrap();
    bench.change(unmap("web1", "vm1")).unwrap();
    bench.change(Change::LuRemove("web1".parse().unwrap())).unwrap();
    bench.logged(expect![[r#"
        resize device web1 from 1GiB to 2GiB
        close mapping vm1-2
        close device web1
        delete the file of removed 00000000-0000-0001-0000-000000000000"#]]);
    assert!(bench.engine.files().is_empty());
    assert!(bench.control.parts.state.made().is_empty());
    expect![[r#"
        info lu/web1 LU 'web1' was made, 1GiB
        info client/vm1 client 'vm1' was made
        info adapter/vm1-2 LU 'web1' was mapped to client 'vm1' at slot 2 via vhost-user-blk
        info lu/web1 LU 'web1' was resized to 2GiB
        info adapter/vm1-2 LU 'web1' was unmapped from client 'vm1'
        info lu/web1 LU 'web1' was removed"#]]
    .assert_eq(&bench.events().join("\n"));
}

fn create_pool() -> Change {
    let request = serde_json::json!({"name": "fast", "size": "1GiB"});
    Change::Pool(PoolChange::Create(serde_json::from_value(request).unwrap(), Vec::new()))
}

fn create_in_pool(name: &str) -> Change {
    let request = serde_json::json!({"name": name, "size": "1GiB", "pool": "fast"});
    Change::LuCreate(serde_json::from_value(request).unwrap())
}

#[test]
fn a_pool_from_its_making_to_its_end() {
    let mut bench = Bench::new();
    bench.change(create_pool()).unwrap();
    bench.change(create_in_pool("web1")).unwrap();
    bench.logged(expect![[r#"
        make pool fast
        open pool fast
        make web1 in its pool (1GiB)
        open device web1 (pool fast)"#]]);
    assert!(bench.control.parts.state.making().is_empty());
    // After death nothing is made again.
    let mut bench = bench.restart();
    bench.logged(expect![[r#"
        open pool fast
        open device web1 (pool fast)"#]]);
    let name = || "fast".parse().unwrap();
    let error = bench.change(Change::Pool(PoolChange::Remove(name()))).unwrap_err();
    assert_eq!(error.message, "pool 'fast' has LUs: web1");
    bench.change(Change::LuRemove("web1".parse().unwrap())).unwrap();
    bench.change(Change::Pool(PoolChange::Remove(name()))).unwrap();
    bench.logged(expect![[r#"
        close device web1
        give the slabs of removed 00000000-0000-0003-0000-000000000000 back
        close pool fast
        take the disks out of pool fast"#]]);
    assert!(bench.engine.files().is_empty());
    assert!(bench.control.parts.state.made().is_empty());
    expect![[r#"
        info lu/web1 LU 'web1' was removed
        info pool/fast pool 'fast' was removed"#]]
    .assert_eq(&bench.events().join("\n"));
}

#[test]
fn a_disk_of_a_pool_from_its_joining_to_its_end() {
    let mut bench = Bench::new();
    bench.change(create_pool()).unwrap();
    bench.logged(expect![[r#"
        make pool fast
        open pool fast"#]]);
    let file = |pool: &Config| pool.pools[0].pvs.last().unwrap().clone();
    let add = || {
        let request = model::PvAdd { size: Some(model::Size::gib(1)), ..model::PvAdd::default() };
        Change::Pool(PoolChange::AddPvs("fast".parse().unwrap(), request, Vec::new(), None))
    };
    // It dies before the disk is there, and does it then.
    bench.engine.hold("add disk");
    bench.ask(add());
    bench.logged(expect!["add disk 00000000-0000-0003-0000-000000000000.img to pool fast"]);
    let mut bench = bench.restart();
    bench.logged(expect![[r#"
        open pool fast
        add disk 00000000-0000-0003-0000-000000000000.img to pool fast"#]]);
    let new = file(bench.control.parts.state.config());
    assert!(new.standing.is_member());
    assert!(bench.control.parts.state.making().is_empty());

    let load = pool_pvs::Load { used: 1, used_by_others: 0, free: 9 };
    let remove = |wish| {
        let (name, which) = ("fast".parse().unwrap(), new.uuid.to_string());
        Change::Pool(PoolChange::RemovePv(name, which, wish))
    };
    bench.engine.hold("take disk");
    bench.change(remove(pool_pvs::Wish::Leave(Some(load)))).unwrap();
    // Who starts does not wait until a disk is empty.
    let engine = Recorder::new();
    engine.hold("take disk");
    let mut bench = Bench::on(bench.disk, bench.kv, engine);
    assert_eq!(bench.published().phase, Phase::Running);
    bench.logged(expect![[r#"
        open pool fast
        take disk 00000000-0000-0003-0000-000000000000.img out of pool fast"#]]);
    bench.change(remove(pool_pvs::Wish::Stay)).unwrap();
    bench.logged(expect!["keep disk 00000000-0000-0003-0000-000000000000.img in pool fast"]);
    // It had left all the same, and joins again.
    bench.engine.release();
    bench.settle();
    bench.logged(expect!["add disk 00000000-0000-0003-0000-000000000000.img to pool fast"]);
    assert!(file(bench.control.parts.state.config()).standing.is_member());

    bench.engine.hold("take the label off");
    bench.change(remove(pool_pvs::Wish::Leave(Some(load)))).unwrap();
    bench.logged(expect![[r#"
        take disk 00000000-0000-0003-0000-000000000000.img out of pool fast
        take the label off disk 00000000-0000-0003-0000-000000000000.img"#]]);
    assert_eq!(bench.published().left.len(), 1);
    let bench = bench.restart();
    bench.logged(expect![[r#"
        take the label off disk 00000000-0000-0003-0000-000000000000.img
        open pool fast"#]]);
    assert!(bench.published().left.is_empty());
    assert_eq!(bench.control.parts.state.config().pools[0].pvs.len(), 1);
    assert!(bench.control.parts.state.leftovers().is_empty());
    assert!(bench.events().is_empty());
}

#[test]
fn what_is_in_a_pool_waits_for_it_and_says_why() {
    let mut bench = Bench::new();
    bench.change(create_pool()).unwrap();
    let engine = Recorder::new();
    engine.fail("open pool", ApiError::failed("a disk is missing"));
    let mut bench = Bench::on(bench.disk, bench.kv, engine);
    // This world gives no UUID that the one before has given.
    bench.world.uuids.store(10, Ordering::SeqCst);
    let error = bench.change(create_in_pool("web1")).unwrap_err();
    assert!(error.message.ends_with("not in effect: a disk is missing"), "{error}");
    bench.engine.heal();
    bench.engine.log();
    bench.pass(100);
    bench.logged(expect![[r#"
        open pool fast
        make web1 in its pool (1GiB)
        open device web1 (pool fast)"#]]);
}

#[test]
fn that_a_pool_was_forced_is_told_and_then_forgotten_also_after_a_death() {
    let mut bench = Bench::new();
    bench.engine.fail("open pool fast", ApiError::failed("it lacks something"));
    bench.change(create_pool()).unwrap_err();
    let fast: PoolName = "fast".parse().unwrap();
    let pool = bench.published().config.pool(&fast).unwrap().uuid;
    let force = || Change::Pool(PoolChange::Force(fast.clone(), PvGroup::default()));
    bench.change(force()).unwrap_err();
    let is_told = |bench: &Bench| bench.events().iter().any(|it| it.contains("goes on with what"));
    let is_wished =
        |bench: &Bench| bench.kv.get(&crate::records::key(Record::Force(pool))).unwrap().is_some();
    assert!(is_wished(&bench) && !is_told(&bench), "{:?}", bench.events());

    let engine = Recorder::new();
    engine.set_force_done(pool, ForceDone { group: 0, is_forced: true });
    let mut bench = bench.restart_with(engine.clone());
    assert!(!is_wished(&bench) && is_told(&bench), "{:?}", bench.events());
    let error = bench.change(force()).unwrap_err();
    assert!(error.message.contains("pool 'fast' is open"), "{error}");
    assert!(!is_wished(&bench));

    // Others came back before: nothing is told, and nothing is kept for the next time.
    let again = Recorder::new();
    again.fail("open pool fast", ApiError::failed("it lacks something"));
    let mut bench = bench.restart_with(again.clone());
    bench.change(force()).unwrap_err();
    again.heal();
    again.set_force_done(pool, ForceDone { group: 0, is_forced: false });
    bench.pass(100);
    assert!(!is_wished(&bench) && !is_told(&bench), "{:?}", bench.events());
}

#[test]
fn every_device_comes_back_after_death_and_no_file_is_made_again() {
    let mut bench = furnished().restart();
    bench.logged(expect![[r#"
        open device web1 (file)
        open vhost-user-blk mapping vm1-2 of web1"#]]);
    assert_eq!(bench.published().phase, Phase::Running);
    // And nothing more is done for nothing.
    bench.pass(1000);
    bench.logged(expect![""]);
}

#[test]
fn an_answer_waits_until_the_change_is_in_effect() {
    let mut bench = Bench::new();
    bench.engine.hold("web1");
    let answer = bench.ask(create("web1"));
    assert!(answer.lock().unwrap().is_none());
    assert_eq!(bench.published().steps_pending, 2);
    bench.engine.release();
    bench.settle();
    let changed = answer.lock().unwrap().take().unwrap().unwrap();
    assert_eq!(changed.lu.unwrap().as_str(), "web1");
    assert_eq!(bench.published().steps_pending, 0);
}

#[test]
fn one_that_hangs_keeps_nobody_else_waiting() {
    let mut bench = Bench::new();
    bench.engine.hold("slow");
    let hanging = bench.ask(create("slow"));
    for change in [create("web1"), client("vm1"), map("web1", "vm1")] {
        bench.change(change).unwrap();
    }
    assert!(hanging.lock().unwrap().is_none());
    let behind = bench.ask(map("slow", "vm1"));
    bench.engine.release();
    bench.settle();
    assert!(hanging.lock().unwrap().take().unwrap().is_ok());
    assert!(behind.lock().unwrap().take().unwrap().is_ok());
}

#[test]
fn a_failure_is_answered_shown_and_tried_again() {
    let mut bench = Bench::new();
    bench.engine.fail("open device", ApiError::failed("disk full").then("make room"));
    let error = bench.change(create("web1")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Failed);
    expect![[r#"
        lu/web1 is in the configuration but not in effect: disk full
          next: make room"#]]
    .assert_eq(&error.to_string());
    let published = bench.published();
    let failure = published.failures.values().next().unwrap();
    assert_eq!((failure.error.message.as_str(), failure.attempts), ("disk full", 1));
    bench.pass(1);
    bench.pass(2);
    assert_eq!(bench.published().failures.values().next().unwrap().attempts, 3);
    bench.engine.heal();
    bench.pass(4);
    assert!(bench.published().failures.is_empty());
    expect![[r#"
        info lu/web1 LU 'web1' was made, 1GiB
        error lu/web1 cannot open device web1 (file): disk full
        info lu/web1 open device web1 (file): done at last"#]]
    .assert_eq(&bench.events().join("\n"));
}

#[test]
fn a_file_that_was_there_is_kept_and_told() {
    let mut bench = Bench::new();
    bench.engine.put_file(Uuid::from_u64_pair(1, 0));
    bench.change(create("web1")).unwrap();
    assert!(bench.events().iter().any(|event| event.contains("found its file where it was")));
}

#[test]
fn a_socket_owner_must_exist() {
    let mut bench = Bench::new();
    let request = serde_json::json!({"name": "vm1", "socket_owner": "nobody-of-this-name"});
    let change = Change::ClientCreate(serde_json::from_value(request).unwrap());
    let error = bench.change(change).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Usage);
    assert!(bench.control.config.clients.is_empty());
}

#[test]
fn the_copy_for_people_follows_every_change() {
    let bench = furnished();
    let text = std::fs::read_to_string(bench.directory.path().join("config.json")).unwrap();
    let copy: Config = serde_json::from_str(&text).unwrap();
    assert_eq!(copy, *bench.control.config);
    assert_eq!(copy.mappings.len(), 1);
}

#[test]
fn a_stopping_node_takes_no_change_and_ends_when_the_engine_has() {
    let mut bench = furnished();
    let stopped = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&stopped);
    let is_last = bench.control.take(Message::Stop(Box::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    })));
    assert!(!is_last);
    assert_eq!(
        bench.ask(create("late")).lock().unwrap().take(),
        None.or_else(|| {
            Some(Err(ApiError::not_now("the node is stopping and takes no changes")
                .then("run the command again when it is back")))
        })
    );
    assert_eq!(stopped.load(Ordering::SeqCst), 1);
    assert_eq!(bench.published().phase, Phase::Stopping);
    assert_eq!(bench.engine.log().last().map(String::as_str), Some("stop"));
}

#[test]
fn a_restored_document_is_carried_out_as_a_whole() {
    let mut bench = furnished();
    bench.engine.log();
    let mut config = Config::clone(&bench.control.config);
    config.clients[0].socket_owner = Some("root:root".parse().unwrap());
    let restore = ConfigRestore { config: config.clone(), prune: false };
    let changed = bench.change(Change::Restore(restore)).unwrap();
    assert_eq!(changed.restored.unwrap().changed, 1);
    bench.logged(expect![[r#"
        close mapping vm1-2
        open vhost-user-blk mapping vm1-2 of web1"#]]);
    let empty = ConfigRestore { config: Config::default(), prune: true };
    bench.change(Change::Restore(empty)).unwrap();
    bench.logged(expect![[r#"
        close mapping vm1-2
        close device web1
        delete the file of removed 00000000-0000-0001-0000-000000000000"#]]);
}

#[test]
fn a_client_that_comes_again_and_again_does_not_fill_the_events() {
    let mut bench = furnished();
    let count = |bench: &Bench| {
        let events = bench.control.parts.events.after(0, usize::MAX).events;
        events.iter().filter(|event| event.kind == "client-refused").count()
    };
    assert_eq!(bench.control.wake_at(), None);
    for n in 0..500 {
        bench.world.now_ms.store(n * 100, Ordering::SeqCst);
        let is_last = bench.control.take(Message::Report(Report {
            severity: Severity::Warning,
            subject: Subject::Node,
            kind: "client-refused",
            message: "process 7 tried".to_owned(),
            next: None,
        }));
        assert!(!is_last);
        bench.control.turn();
    }
    assert_eq!(count(&bench), 5);
    let wake = bench.control.wake_at().unwrap();
    bench.world.now_ms.store(wake.as_millis() as u64, Ordering::SeqCst);
    bench.control.turn();
    assert_eq!(count(&bench), 6);
    assert_eq!(bench.control.wake_at(), None);
}

fn host(iqn: &str) -> Change {
    let client = serde_json::json!({"name": "host1", "iqns": [iqn]});
    Change::ClientCreate(serde_json::from_value(client).unwrap())
}

fn map_iscsi(lu: &str) -> Change {
    let request = serde_json::json!({"lu": lu, "client": "host1", "via": "iscsi"});
    Change::Map(serde_json::from_value(request).unwrap())
}

fn chap(request: &str) -> Change {
    let client: ClientName = "host1".parse().unwrap();
    let request: model::chap::ChapRequest = serde_json::from_str(request).unwrap();
    let chap = request.parts(&client).unwrap();
    Change::ClientChap(client, Some(chap))
}

#[test]
fn a_target_opens_anew_when_its_client_changes_and_tells_no_secret() {
    let mut bench = Bench::new();
    let iqn = "iqn.1994-05.com.redhat:abc";
    for change in [create("web1"), create("web2"), host(iqn), map_iscsi("web1"), map_iscsi("web2")]
    {
        bench.change(change).unwrap();
    }
    bench.engine.log();
    bench.change(chap(r#"{"secret":"correct horse battery"}"#)).unwrap();
    bench.logged(expect![[r#"
        close mapping host1-2
        close mapping host1-2.1
        open iscsi mapping host1-2 of web1
        open iscsi mapping host1-2.1 of web2"#]]);
    let id = bench.control.config.mappings[1].id();
    let spec = bench.engine.mapping(&id).unwrap().iscsi.unwrap();
    assert_eq!(spec.target, "iqn.2026-11.org.viaduct:test:host1");
    let secret = &spec.chap.unwrap().initiator.secret;
    assert_eq!(secret.bytes(), b"correct horse battery");
    assert_eq!(bench.engine.socket(&id.adapter), None);

    let add = model::ClientChange {
        add_iqns: vec!["iqn.1994-05.com.redhat:0".parse().unwrap()],
        ..Default::default()
    };
    bench.change(Change::ClientChange("host1".parse().unwrap(), add)).unwrap();
    let spec = bench.engine.mapping(&id).unwrap().iscsi.unwrap();
    assert_eq!(spec.initiators[0].as_str(), "iqn.1994-05.com.redhat:0");
    let events = bench.events().join("\n");
    assert!(
        events.contains("host1 client 'host1' proves itself with CHAP: name host1"),
        "{events}"
    );
    let copy = std::fs::read_to_string(bench.directory.path().join("config.json")).unwrap();
    assert!(!events.contains("horse") && !copy.contains("horse"));
    assert!(!format!("{:?}", bench.published()).contains("horse"));

    // And it is there after a restart.
    let bench = bench.restart();
    let spec = bench.engine.mapping(&id).unwrap().iscsi.unwrap();
    assert!(spec.chap.is_some() && !spec.lacks_secret);
}

#[test]
fn a_target_whose_secret_is_missing_is_not_opened_before_it_is_there() {
    let mut bench = Bench::new();
    for change in [create("web1"), host("iqn.1994-05.com.redhat:abc"), map_iscsi("web1")] {
        bench.change(change).unwrap();
    }
    let mut config = Config::clone(&bench.control.config);
    config.clients[0].chap = Some(Chap { name: "host1".to_owned(), mutual_name: None });
    bench.engine.log();
    let error = bench.change(Change::Restore(ConfigRestore { config, prune: false })).unwrap_err();
    expect![[r#"
        the configuration is kept, but not all is in effect: client 'host1' shall prove itself with CHAP, and its secret is not here
          next: viaduct client chap host1 --secret-file FILE, or --off"#]]
    .assert_eq(&error.to_string());
    bench.logged(expect!["close mapping host1-2"]);
    bench.change(chap(r#"{"secret":"correct horse battery"}"#)).unwrap();
    bench.logged(expect!["open iscsi mapping host1-2 of web1"]);
}

#[test]
fn the_thread_runs_and_ends_by_itself() {
    let bench = furnished();
    let Bench { control, messages, engine, .. } = bench;
    let sender = control.parts.sender.clone();
    let thread = world::spawn("test-control", move || control.run(&messages)).unwrap();
    let (done, is_done) = mpsc::channel();
    sender.send(Message::Stop(Box::new(move || done.send(()).unwrap()))).unwrap();
    is_done.recv().unwrap();
    thread.join().unwrap();
    assert!(engine.log().contains(&"stop".to_owned()));
    assert_ne!(Machine.uuid(), Machine.uuid());
}

#[test]
fn a_session_shows_in_the_picture() {
    let bench = furnished();
    let adapter = bench.control.config.mappings[0].adapter();
    let (state, sessions) = (AdapterState::Running, Vec::new());
    let running = AdapterStatus { state, session: None, sessions, problem: None };
    bench.engine.set_adapter(&adapter, running);
    let (sender, snapshots) = mpsc::channel();
    let done = Done::new(move |snapshot| sender.send(snapshot).unwrap());
    bench.engine.snapshot(done);
    let snapshot = snapshots.recv().unwrap().unwrap();
    let published = bench.published();
    let path = bench.directory.path();
    let picture = crate::view::Picture {
        published: &published,
        snapshot: &snapshot,
        lus: path,
        pools: path,
        run: path,
    };
    assert_eq!(picture.sessions(), 1);
    let view = picture.mapping(&published.config.mappings[0]);
    assert_eq!(view.state, AdapterState::Running);
    let lu = picture.lu(&published.config.lus[0]);
    assert_eq!(lu.mapped_to, [published.config.mappings[0].id()]);
    assert_eq!(lu.state, model::status::LuState::Online);
}
