//! A whole node with its sockets, and an engine that only takes notes: what goes over the wire, who
//! may do what, and that two nodes live side by side while one directory has one node.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::Size;
use model::status::AdapterState;
use node::engine::recorder::Recorder;
use node::engine::{AdapterStatus, Engine};
use node::engine::{DeviceStatus, Health, Trouble};
use node::run::Told;
use node::world::Machine;
use node::{DefaultPool, Node, Options};
use serde_json::{Value, json};

/// Long enough for a loaded machine; nothing here waits that long when all is well.
const PATIENCE: Duration = Duration::from_secs(30);

fn start(data: &Path, http: bool) -> (Node, Recorder) {
    let engine = Recorder::new();
    let node = try_start(data, http, engine.clone()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(node.wait(PATIENCE), Some(Told::Running));
    (node, engine)
}

fn try_start(data: &Path, http: bool, engine: Recorder) -> Result<Node, model::ApiError> {
    let http = http.then(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let (data, iscsi) = (data.to_path_buf(), Vec::new());
    let (cores, default_pool) = (Vec::new(), DefaultPool::Off);
    let map_memory = Size::mib(1);
    let options = Options { data, http, iscsi, cores, map_memory, default_pool };
    let engine: Arc<dyn Engine> = Arc::new(engine);
    Node::start(options, Arc::new(Machine), |_| Ok(engine))
}

/// One request and its answer: status and body.
fn exchange(mut stream: impl Read + Write, method: &str, path: &str, body: &str) -> (u16, String) {
    send(&mut stream, method, path, body);
    receive(stream)
}

fn send(stream: &mut impl Write, method: &str, path: &str, body: &str) {
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
}

fn receive(mut stream: impl Read) -> (u16, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

fn unix(node: &Node, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let stream = UnixStream::connect(node.data().join("run/api.sock")).unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, text) = exchange(stream, method, path, &body);
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn ok(node: &Node, method: &str, path: &str, body: &Value) -> Value {
    let (status, value) = unix(node, method, path, body);
    assert_eq!(status, 200, "{method} {path}: {value}");
    value
}

fn furnish(node: &Node) {
    ok(node, "POST", "/v1/lus", &json!({"name": "web1", "size": "10G"}));
    ok(node, "POST", "/v1/clients", &json!({"name": "vm1"}));
    let map = json!({"lu": "web1", "client": "vm1", "via": "vhost-user-blk"});
    ok(node, "POST", "/v1/mappings", &map);
}

#[test]
fn a_disk_over_the_wire() {
    let directory = tempfile::tempdir().unwrap();
    let (node, engine) = start(directory.path(), false);
    furnish(&node);
    let lu = ok(&node, "GET", "/v1/lus/web1", &Value::Null);
    assert_eq!((&lu["size"], &lu["state"]), (&json!(10_737_418_240_u64), &json!("online")));
    assert_eq!(lu["mapped_to"], json!([{"client": "vm1", "slot": 2}]));
    let mapping = &ok(&node, "GET", "/v1/mappings", &Value::Null)[0];
    assert_eq!((&mapping["slot"], &mapping["state"]), (&json!(2), &json!("listening")));
    assert!(mapping["socket"].as_str().unwrap().ends_with("/run/vm1-2.sock"));
    let connection = ok(&node, "GET", "/v1/clients/vm1/connection?for=qemu", &Value::Null);
    assert!(connection["text"].as_str().unwrap().contains("-device vhost-user-blk-pci"));
    let status = ok(&node, "GET", "/v1/status", &Value::Null);
    assert_eq!((&status["lus"], &status["phase"]), (&json!(1), &json!("running")));
    assert_eq!(status["problems"], json!([]));

    let id = model::AdapterId { client: "vm1".parse().unwrap(), slot: 2.try_into().unwrap() };
    let (state, sessions) = (AdapterState::Running, Vec::new());
    let running = AdapterStatus { state, session: None, sessions, problem: None };
    engine.set_adapter(&id, running);
    let unmap = "/v1/mappings?lu=web1&client=vm1";
    let (status, error) = unix(&node, "DELETE", unmap, &Value::Null);
    assert_eq!((status, &error["kind"]), (409, &json!("conflict")));
    ok(&node, "DELETE", &format!("{unmap}&force=true"), &Value::Null);
    ok(&node, "DELETE", "/v1/lus/web1", &Value::Null);
    assert_eq!(ok(&node, "GET", "/v1/lus", &Value::Null), json!([]));
    assert!(node.stop());
}

#[test]
fn the_state_of_an_lu_follows_its_store() {
    let directory = tempfile::tempdir().unwrap();
    let (node, engine) = start(directory.path(), false);
    furnish(&node);
    let lu = || ok(&node, "GET", "/v1/lus/web1", &Value::Null);
    let uuid = lu()["uuid"].as_str().unwrap().parse().unwrap();
    let set = |health, message: Option<&str>| {
        let problem = message.map(|message| Trouble {
            message: message.to_owned(),
            next: Some("look below".to_owned()),
        });
        engine.set_device(uuid, DeviceStatus { health, problem, ..DeviceStatus::default() });
    };
    let online = || {
        let (status, text) = unix(&node, "GET", "/metrics", &Value::Null);
        assert_eq!(status, 200, "{text}");
        text.to_string().contains("viaduct_lus_online 1")
    };
    assert_eq!((&lu()["state"], lu()["problem"].is_null()), (&json!("online"), true));
    let why = "write requests of clients fail: no space";
    for (health, state) in [(Health::Degraded, "degraded"), (Health::Failed, "failed")] {
        set(health, Some(why));
        let problem = json!({"subject": "lu/web1", "message": why, "next": "look below"});
        assert_eq!((&lu()["state"], &lu()["problem"]), (&json!(state), &problem));
        let listed = ok(&node, "GET", "/v1/lus", &Value::Null);
        assert_eq!(listed[0]["state"], json!(state));
        assert_eq!(ok(&node, "GET", "/v1/status", &Value::Null)["problems"], json!([problem]));
        assert!(!online());
    }
    set(Health::Works, None);
    assert_eq!((&lu()["state"], lu()["problem"].is_null()), (&json!("online"), true));
    assert!(online());
    assert!(node.stop());
}

#[test]
fn everything_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _) = start(directory.path(), false);
    furnish(&node);
    let before = ok(&node, "GET", "/v1/config", &Value::Null);
    assert!(node.stop());
    let copy = std::fs::read_to_string(directory.path().join("config.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&copy).unwrap(), before);

    let (node, engine) = start(directory.path(), false);
    assert_eq!(ok(&node, "GET", "/v1/config", &Value::Null), before);
    assert_eq!(
        engine.log(),
        ["open device web1 (file)", "open vhost-user-blk mapping vm1-2 of web1"]
    );
    let events = ok(&node, "GET", "/v1/events", &Value::Null);
    assert!(events["events"][0]["id"].as_u64().unwrap() > 1000, "ids go on: {events}");
    assert!(node.stop());
}

#[test]
fn errors_have_one_form() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _) = start(directory.path(), false);
    let cases = [
        ("GET", "/v1/lus/none", Value::Null, 404, "not-found"),
        ("GET", "/v1/lus/no%20name", Value::Null, 400, "usage"),
        ("GET", "/v2/lus", Value::Null, 404, "not-found"),
        ("PUT", "/v1/lus", Value::Null, 400, "usage"),
        ("POST", "/v1/lus", json!({"name": "a"}), 400, "usage"),
        ("POST", "/v1/lus", json!({"name": "a", "size": "10GB"}), 400, "usage"),
        ("POST", "/v1/lus", json!({"name": "a", "size": "1G", "colour": 1}), 400, "usage"),
        ("POST", "/v1/lus", Value::Null, 400, "usage"),
        ("GET", "/v1/events?since=1", Value::Null, 400, "usage"),
        ("GET", "/v1/clients/x/connection?for=bochs", Value::Null, 400, "usage"),
        ("POST", "/v1/adopt", json!({"path": "/does/not/exist"}), 404, "not-found"),
        ("POST", "/v1/adopt", json!({"path": "relative"}), 400, "usage"),
        ("PUT", "/v1/config", json!({"config": {"version": 7}}), 400, "usage"),
    ];
    for (method, path, body, status, kind) in cases {
        let (found, error) = unix(&node, method, path, &body);
        assert_eq!((found, &error["kind"]), (status, &json!(kind)), "{method} {path}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| text.len() > 10), "{error}");
    }
    let inside = directory.path().join("config.json");
    let (status, error) = unix(&node, "POST", "/v1/adopt", &json!({"path": inside}));
    assert_eq!(status, 400);
    assert!(error["message"].as_str().unwrap().contains("own data directory"), "{error}");
    assert!(node.stop());
}

#[test]
fn tcp_serves_reading_only() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _) = start(directory.path(), true);
    furnish(&node);
    let address = node.http().unwrap();
    let tcp = |method: &str, path: &str, body: &str| {
        exchange(TcpStream::connect(address).unwrap(), method, path, body)
    };
    let (status, metrics) = tcp("GET", "/metrics", "");
    assert_eq!(status, 200);
    assert!(metrics.contains("viaduct_lus_online 1\n"), "{metrics}");
    assert_eq!(tcp("GET", "/v1/lus", "").0, 200);
    for (method, path) in [("POST", "/v1/clients"), ("DELETE", "/v1/lus/web1"), ("PUT", "/v1/x")] {
        let (status, error) = tcp(method, path, r#"{"name": "vm2"}"#);
        assert_eq!(status, 403, "{method} {path}: {error}");
        assert!(error.contains("Unix socket only"), "{error}");
    }
    assert_eq!(ok(&node, "GET", "/v1/clients", &Value::Null).as_array().unwrap().len(), 1);
    assert!(node.stop());
}

#[test]
fn secrets_are_told_on_the_socket_to_who_asks_and_never_over_tcp() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _engine) = start(directory.path(), true);
    let client = json!({"name": "host1", "iqns": ["iqn.1994-05.com.redhat:abc"]});
    ok(&node, "POST", "/v1/clients", &client);
    let chap = json!({"secret": "correct horse battery", "mutual_secret": "staple and the rest"});
    let view = ok(&node, "PUT", "/v1/clients/host1/chap", &chap);
    assert_eq!(view["chap"], json!({"name": "host1", "mutual_name": "viaduct"}));
    let asked = ok(&node, "GET", "/v1/config/secrets", &Value::Null);
    assert_eq!(asked["secrets"]["host1"], chap);

    // What is wrong with a secret is said without it.
    let wrongs = [
        json!("correct horse battery"),
        json!({"secret": "horse"}),
        json!({"secret": ["horse horse horse"]}),
        json!({"secret": "correct horse battery", "horse": 1}),
        json!({"secret": "correct horse battery", "mutual_secret": {"horse": 1}}),
    ];
    for wrong in wrongs {
        let (status, error) = unix(&node, "PUT", "/v1/clients/host1/chap", &wrong);
        assert_eq!(status, 400, "{error}");
        assert!(!error.to_string().contains("horse"), "{error}");
    }
    let body = json!({"config": {"version": 1, "secrets": {"host1": {"secret": 4711}}}});
    let (status, error) = unix(&node, "PUT", "/v1/config", &body);
    assert!(status == 400 && !error.to_string().contains("4711"), "{error}");

    for path in ["/v1/config/secrets", "/v1/config", "/v1/clients", "/v1/events", "/metrics"] {
        let stream = TcpStream::connect(node.http().unwrap()).unwrap();
        let (status, text) = exchange(stream, "GET", path, "");
        assert_eq!(status, if path.ends_with("secrets") { 404 } else { 200 }, "{path}: {text}");
        assert!(!text.contains("horse") && !text.contains("staple"), "{path}: {text}");
    }
    assert!(node.stop());
}

#[test]
fn every_path_of_the_document_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _) = start(directory.path(), false);
    let document = ok(&node, "GET", "/v1/openapi.json", &Value::Null);
    let mut count = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace("{name}", "x");
            let (status, answer) = unix(&node, &method.to_uppercase(), &path, &Value::Null);
            let is_missing = answer["message"]
                .as_str()
                .is_some_and(|m| m.contains("nothing at") || m.contains("is not possible"));
            assert!(!is_missing, "{method} {path}: {status} {answer}");
            count += 1;
        }
    }
    assert_eq!(count, 67);
    assert!(node.stop());
}

#[test]
fn who_waits_for_events_hears_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _) = start(directory.path(), false);
    let last = ok(&node, "GET", "/v1/events", &Value::Null)["last"].as_u64().unwrap();
    let socket = node.data().join("run/api.sock");
    let wait = |path: String| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        send(&mut stream, "GET", &path, "");
        stream
    };
    let waiting = wait(format!("/v1/events?after={last}&wait_s=30"));
    ok(&node, "POST", "/v1/clients", &json!({"name": "vm1"}));
    let (status, text) = receive(waiting);
    let page: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 200);
    assert_eq!(page["events"][0]["kind"], json!("client-created"));
    // One who waits does not keep the node from stopping.
    let mut waiting = wait(format!("/v1/events?after={}&wait_s=60", page["last"]));
    ok(&node, "GET", "/v1/status", &Value::Null);
    let before = std::time::Instant::now();
    assert!(node.stop());
    assert!(before.elapsed() < PATIENCE);
    waiting.read_to_string(&mut String::new()).unwrap();
}

#[test]
fn two_nodes_side_by_side_and_one_per_directory() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, _) = start(one.path(), true);
    let (second, _) = start(two.path(), true);
    furnish(&first);
    assert_eq!(ok(&second, "GET", "/v1/lus", &Value::Null), json!([]));
    let Err(error) = try_start(one.path(), false, Recorder::new()) else {
        panic!("one directory has two nodes")
    };
    assert!(error.message.contains("is in use by process"), "{error}");
    assert!(first.is_alive(PATIENCE));
    assert!(first.stop());
    assert!(second.stop());
    let (again, _) = start(one.path(), true);
    assert!(again.stop());
}
