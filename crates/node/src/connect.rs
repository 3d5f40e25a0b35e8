//! What to run on the client's side, ready to paste: QEMU arguments or libvirt XML for every
//! adapter of a client, with notes on what else must be so for the connection to work.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use model::status::{ClientView, ConnectFor, Connection, ConnectionAdapter, MappingView};
use model::{ApiError, Config};

use crate::world;

/// Memory of the example guest; vhost-user needs the guest's whole memory to be shared.
const EXAMPLE_MEMORY: &str = "4G";

/// Queues worth asking for: one for each core of the node, and never more than this.
const QUEUES_MAX: u32 = 8;

/// The connection of a client. `cores` is how many cores the node serves with.
pub fn connection(
    config: &Config,
    client: &ClientView,
    wanted: ConnectFor,
    cores: u32,
) -> Result<Connection, ApiError> {
    let name = &client.client.name;
    if client.mappings.is_empty() {
        return Err(ApiError::not_found(format!("client '{name}' has no LU mapped"))
            .then(format!("viaduct map LU --to {name} --via vhost-user-blk")));
    }
    let queues = cores.clamp(1, QUEUES_MAX) as u16;
    let adapters: Vec<ConnectionAdapter> =
        client.mappings.iter().filter_map(|mapping| adapter(config, mapping, queues)).collect();
    let text = match wanted {
        ConnectFor::Qemu => qemu(&adapters),
        ConnectFor::Libvirt => libvirt(&adapters),
    };
    let notes = notes(client, wanted, &adapters);
    Ok(Connection { text, notes, adapters, iscsi: None })
}

fn adapter(config: &Config, view: &MappingView, queues: u16) -> Option<ConnectionAdapter> {
    let mapping = &view.mapping;
    let lu = config.lu(&mapping.lu)?;
    Some(ConnectionAdapter {
        adapter: mapping.adapter(),
        lu: lu.name.clone(),
        socket: view.socket.clone()?,
        queues,
        block_size: lu.block_size.bytes(),
        read_only: mapping.read_only || lu.read_only,
        serial: lu.serial.clone(),
    })
}

fn qemu(adapters: &[ConnectionAdapter]) -> String {
    let mut text = format!(
        "# the guest's whole memory is shared; size is the same as -m\n\
         -m {EXAMPLE_MEMORY}\n\
         -object memory-backend-memfd,id=viaduct-memory,size={EXAMPLE_MEMORY},share=on\n\
         -machine memory-backend=viaduct-memory\n"
    );
    for (index, adapter) in adapters.iter().enumerate() {
        let id = format!("viaduct-{}", adapter.adapter);
        // QEMU reads a doubled comma as one that is meant.
        let path = adapter.socket.replace(',', ",,");
        let boot = if index == 0 { ",bootindex=1" } else { "" };
        let _ = write!(
            text,
            "# LU {lu}, slot {slot}, serial {serial}{read_only}; reconnect-ms needs QEMU 9.2, \
             before it write reconnect=1\n\
             -chardev socket,id={id},path={path},reconnect-ms=1000\n\
             -device vhost-user-blk-pci,id={id}-disk,chardev={id},num-queues={queues}{boot}\n",
            lu = adapter.lu,
            slot = adapter.adapter.slot,
            serial = adapter.serial,
            read_only = if adapter.read_only { ", read-only" } else { "" },
            queues = adapter.queues,
        );
    }
    text
}

fn libvirt(adapters: &[ConnectionAdapter]) -> String {
    let mut text = "<!-- inside <domain>: the guest's whole memory is shared -->\n\
                    <memoryBacking>\n  \
                      <source type='memfd'/>\n  \
                      <access mode='shared'/>\n\
                    </memoryBacking>\n"
        .to_owned();
    for (index, adapter) in adapters.iter().enumerate() {
        let boot = if index == 0 { "  <boot order='1'/>\n" } else { "" };
        let _ = write!(
            text,
            "<!-- inside <devices>: LU {lu}, slot {slot}, serial {serial}{read_only} -->\n\
             <disk type='vhostuser' device='disk'>\n  \
               <driver name='qemu' type='raw' queues='{queues}'/>\n  \
               <source type='unix' path='{path}'>\n    \
                 <reconnect enabled='yes' timeout='1'/>\n  \
               </source>\n  \
               <target dev='{target}' bus='virtio'/>\n\
             {boot}\
             </disk>\n",
            lu = adapter.lu,
            slot = adapter.adapter.slot,
            serial = adapter.serial,
            read_only = if adapter.read_only { ", read-only" } else { "" },
            queues = adapter.queues,
            path = xml(&adapter.socket),
            target = disk_name(index),
        );
    }
    text
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

/// vda to vdz, then vdaa.
fn disk_name(index: usize) -> String {
    let letter = |index: usize| char::from(b'a' + (index % 26) as u8);
    match index / 26 {
        0 => format!("vd{}", letter(index)),
        more => format!("vd{}{}", letter(more - 1), letter(index)),
    }
}

fn notes(client: &ClientView, wanted: ConnectFor, adapters: &[ConnectionAdapter]) -> Vec<String> {
    let mut notes = vec![
        "Ask for no more queues than the guest has CPUs. bootindex (libvirt: boot order) makes the \
         first disk the one to boot from; leave it out if the guest boots from another."
            .to_owned(),
    ];
    let Some(run) = adapters.first().and_then(|a| Path::new(&a.socket).parent()) else {
        return notes;
    };
    let owner = client.client.socket_owner.as_ref();
    notes.push(match owner {
        Some(owner) => format!("The sockets belong to {owner}, mode 0660: run QEMU as that user."),
        None => format!(
            "The sockets have mode 0660 and group kvm where there is one: run QEMU as root or as a \
             member of that group, or make the client anew with --socket-owner USER:GROUP \
             (libvirt on Debian: libvirt-qemu:kvm, on Fedora: qemu:qemu). Client: {}.",
            client.client.name
        ),
    });
    if let Some(closed) = closed_ancestor(run) {
        notes.push(format!(
            "{} cannot be traversed by other users: a QEMU that runs as another user does not \
             reach the sockets. chmod o+x {0}, or start the node with a data directory elsewhere.",
            closed.display()
        ));
    }
    if wanted == ConnectFor::Libvirt {
        notes.push(format!(
            "AppArmor (Debian, Ubuntu): put the line '{run}/*.sock rw,' into \
             /etc/apparmor.d/local/abstractions/libvirt-qemu and start the guest anew.",
            run = run.display()
        ));
        notes.push(format!(
            "SELinux (Fedora, RHEL): semanage fcontext -a -t svirt_image_t '{run}(/.*)?' && \
             restorecon -R {run}; if the guest is still denied, ausearch -m avc -ts recent names \
             the rule that is missing.",
            run = run.display()
        ));
    }
    notes
}

/// The first directory on the way that others may not pass through.
fn closed_ancestor(path: &Path) -> Option<PathBuf> {
    const OTHERS_EXECUTE: u32 = 0o001;
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    let is_closed = |path: &&&Path| {
        world::access_of(path).is_ok_and(|access| access.mode & OTHERS_EXECUTE == 0)
    };
    ancestors.iter().find(is_closed).map(|path| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use model::status::AdapterState;
    use model::{Lu, Mapping};

    use super::*;

    fn given(sockets: &[&str]) -> (Config, ClientView) {
        let mut config = Config::default();
        let mut mappings = Vec::new();
        for (index, socket) in sockets.iter().enumerate() {
            let lu: Lu = serde_json::from_value(serde_json::json!({
                "name": format!("web{index}"), "uuid": uuid::Uuid::from_u128(index as u128),
                "size": "10GiB", "serial": format!("serial{index}"), "backing": {"kind": "file"},
            }))
            .unwrap();
            let mapping: Mapping = serde_json::from_value(serde_json::json!({
                "lu": lu.name, "client": "vm1", "via": "vhost-user-blk", "slot": index + 2,
                "read_only": index == 1,
            }))
            .unwrap();
            config.lus.push(lu);
            mappings.push(MappingView {
                mapping,
                state: AdapterState::Listening,
                socket: Some((*socket).to_owned()),
                target: None,
                session: None,
                problem: None,
            });
        }
        let client = serde_json::from_str(r#"{"name":"vm1"}"#).unwrap();
        (config, ClientView { client, iscsi: None, mappings })
    }

    #[test]
    fn qemu_arguments() {
        let (config, client) = given(&["/run/v/vm1-2.sock", "/odd,dir/vm1-3.sock"]);
        let connection = connection(&config, &client, ConnectFor::Qemu, 2).unwrap();
        expect![[r#"
            # the guest's whole memory is shared; size is the same as -m
            -m 4G
            -object memory-backend-memfd,id=viaduct-memory,size=4G,share=on
            -machine memory-backend=viaduct-memory
            # LU web0, slot 2, serial serial0; reconnect-ms needs QEMU 9.2, before it write reconnect=1
            -chardev socket,id=viaduct-vm1-2,path=/run/v/vm1-2.sock,reconnect-ms=1000
            -device vhost-user-blk-pci,id=viaduct-vm1-2-disk,chardev=viaduct-vm1-2,num-queues=2,bootindex=1
            # LU web1, slot 3, serial serial1, read-only; reconnect-ms needs QEMU 9.2, before it write reconnect=1
            -chardev socket,id=viaduct-vm1-3,path=/odd,,dir/vm1-3.sock,reconnect-ms=1000
            -device vhost-user-blk-pci,id=viaduct-vm1-3-disk,chardev=viaduct-vm1-3,num-queues=2
        "#]]
        .assert_eq(&connection.text);
        assert_eq!(connection.adapters.len(), 2);
    }

    #[test]
    fn libvirt_xml() {
        let (config, client) = given(&["/run/v&w/vm1-2.sock"]);
        let connection = connection(&config, &client, ConnectFor::Libvirt, 100).unwrap();
        expect![[r#"
            <!-- inside <domain>: the guest's whole memory is shared -->
            <memoryBacking>
              <source type='memfd'/>
              <access mode='shared'/>
            </memoryBacking>
            <!-- inside <devices>: LU web0, slot 2, serial serial0 -->
            <disk type='vhostuser' device='disk'>
              <driver name='qemu' type='raw' queues='8'/>
              <source type='unix' path='/run/v&amp;w/vm1-2.sock'>
                <reconnect enabled='yes' timeout='1'/>
              </source>
              <target dev='vda' bus='virtio'/>
              <boot order='1'/>
            </disk>
        "#]]
        .assert_eq(&connection.text);
        assert!(connection.notes.iter().any(|note| note.contains("'/run/v&w/*.sock rw,'")));
    }

    #[test]
    fn a_client_without_disks_is_told_what_to_do() {
        let (config, client) = given(&[]);
        let error = connection(&config, &client, ConnectFor::Qemu, 1).unwrap_err();
        assert_eq!(error.kind, model::ErrorKind::NotFound);
        assert!(error.next.unwrap().starts_with("viaduct map"));
    }

    #[test]
    fn a_directory_that_others_cannot_pass_is_noticed() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("data/run");
        std::fs::create_dir_all(&run).unwrap();
        let set =
            |mode| std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(mode));
        set(0o755).unwrap();
        assert_eq!(closed_ancestor(&run), None);
        set(0o700).unwrap();
        assert_eq!(closed_ancestor(&run).as_deref(), Some(directory.path()));
    }

    #[test]
    fn disks_beyond_the_alphabet_have_names() {
        assert_eq!([0, 25, 26, 253].map(disk_name), ["vda", "vdz", "vdaa", "vdit"]);
    }
}
