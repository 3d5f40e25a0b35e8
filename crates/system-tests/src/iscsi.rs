//! A node that serves iSCSI on a port of its own, as initiators on this machine and in guests see
//! it.

use std::path::Path;

use serde_json::Value;

use crate::cache::Cache;
use crate::libiscsi::TOOL;
use crate::qemu::Qemu;
use crate::{Context, Error, Node, Result};

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

/// Maps these LUs to client `tool`, each at the LUN that is its place in the list.
pub fn map_to_tool(node: &Node, lus: &[&str]) -> Result<()> {
    node.cli(&["client", "create", "tool", "--iqn", TOOL])?;
    for lu in lus {
        node.cli(&["map", lu, "--to", "tool", "--via", "iscsi"])?;
    }
    Ok(())
}

/// Runs `qemu-img` with an LU of client `tool` as its last image.
pub fn qemu_img(node: &Node, lun: usize, arguments: &[&str]) -> Result<()> {
    let options = unit(node, lun)?;
    run_qemu_img(&[arguments, &[&options]].concat())
}

/// What an LU holds, as a raw image.
pub fn copy_of(node: &Node, lun: usize, image: &str) -> Result<()> {
    let options = unit(node, lun)?;
    run_qemu_img(&["convert", "--image-opts", "-O", "raw", &options, image])
}

/// An LU of client `tool`, as `qemu-img` knows it.
fn unit(node: &Node, lun: usize) -> Result<String> {
    let (portal, target) = (portal_of(node)?, target_of(node, "tool")?);
    Ok(format!(
        "driver=iscsi,transport=tcp,portal={portal},target={target},lun={lun},initiator-name={TOOL}"
    ))
}

/// Runs `qemu-img` with images that are all named.
pub fn run_qemu_img(arguments: &[&str]) -> Result<()> {
    let mut command = Qemu::V10.tool(&Cache::open()?, "qemu-img")?;
    let output = command.args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::new(format!("qemu-img {arguments:?}: {said}"))),
    }
}

/// Whether an LU holds what an image does.
pub fn holds(node: &Node, lun: usize, image: &str) -> Result<()> {
    qemu_img(node, lun, &["compare", "--image-opts", &format!("driver=file,filename={image}")])
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
