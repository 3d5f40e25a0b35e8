//! A node that serves iSCSI on a port of its own, as initiators on this machine and in guests see
//! it.

use std::path::Path;

use serde_json::Value;

use crate::{Context, Node, Result};

/// This machine's loopback, from inside of a guest.
pub const HOST: &str = "10.0.2.2";

/// Starts a node, and where it serves. With port 0 the kernel chooses one.
pub fn node(data: &Path, port: u16) -> Result<(Node, String)> {
    let address = format!("127.0.0.1:{port}");
    let node = Node::on(data).arguments(&["--iscsi", &address]).start()?;
    let portal = portal_of(&node)?;
    Ok((node, portal))
}

pub fn portal_of(node: &Node) -> Result<String> {
    let status = node.cli(&["status"])?;
    let portal = status["iscsi"][0].as_str().context(|| format!("no portal in {status}"))?;
    Ok(portal.to_owned())
}

/// The port of a portal.
pub fn port_of(portal: &str) -> Result<u16> {
    let port = portal.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.context(|| format!("no port in {portal}"))
}

/// What a client of that name sees as its target.
pub fn target_of(node: &Node, client: &str) -> Result<String> {
    let shown = node.cli(&["client", "show", client])?;
    let target = find(&shown, "target").context(|| format!("no target in {shown}"))?;
    Ok(target.to_owned())
}

/// The first text under this key, however deep.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    match value {
        Value::Object(map) => map
            .get(key)
            .and_then(|it| it.as_str())
            .or_else(|| map.values().find_map(|it| find(it, key))),
        Value::Array(list) => list.iter().find_map(|it| find(it, key)),
        _ => None,
    }
}
