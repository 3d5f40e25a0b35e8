//! A guest boots a disc from the virtual drive, installs a system on a SCSI disk, and boots that:
//! what an administrator does first with a new virtual machine. Drive and disk are those of two
//! vhost-user-scsi hosts, the firmware is QEMU's own, and no kernel comes from outside.
//!
//! The disk is booted by GRUB, because an emulated processor does not notice that somebody else
//! writes over code that it has run (see docs/vhost-user.md): a boot record that loads another one
//! into its own place, as others do, is run twice.

use std::time::Duration;

use serde_json::json;
use system_tests::guest::{GuestBuilder, kernel_command_line};
use system_tests::{Context, Guest, GuestImage, Node, Result, disc};

/// Slots of the client: a SCSI host with the drive, one with the disk.
const DRIVE_SLOT: u32 = 2;
const DISK_SLOT: u32 = 3;
const MODULES: [&str; 4] = ["virtio_pci", "virtio_scsi", "sd_mod", "ext4"];
const MODULES_OF_DISC: [&str; 2] = ["sr_mod", "isofs"];
const INSTALL_TIMEOUT: Duration = Duration::from_secs(180);

/// As installers do: a partition, a file system, a system, its own initramfs, a boot loader.
const INSTALL: &str = r#"
set -e -o pipefail
mkdir /cdrom
mount -t iso9660 -o ro /dev/sr0 /cdrom
echo ',,L,*' | sfdisk -q /dev/sda
mkfs.ext4 -q -b 4096 -L installed /dev/sda1
mount /dev/sda1 /mnt

cd /mnt
mkdir boot dev etc opt proc root run sbin sys tmp
cp -a /bin /lib .
cp -a /opt/guest-agent opt
cp /tmp/init sbin
chmod 755 sbin/init
cp /cdrom/boot/vmlinuz boot
dd if=/dev/urandom of=root/witness bs=64k count=16
sha256sum < root/witness

cd /
all=lib/modules/$(uname -r)
modules=$(for name in $(cat /tmp/modules) crc32c_generic crc32c-intel; do
    for module in $(grep "/$name.ko:" $all/modules.dep | tr -d :); do echo $all/$module; done
done)
for file in init bin/busybox bin/sh sbin usr $all/modules.* $modules; do
    mkdir -p /tmp/initramfs/$(dirname $file)
    cp -a $file /tmp/initramfs/$(dirname $file)
done
cd /tmp/initramfs
mkdir dev etc proc run sys tmp
find . | cpio -o -H newc > /mnt/boot/initramfs

cd /
mkdir /mnt/boot/grub
cp /tmp/grub.cfg /mnt/boot/grub
grub-install --target=i386-pc --directory=/cdrom/grub --boot-directory=/mnt/boot \
    --install-modules='biosdisk part_msdos ext2 linux normal' /dev/sda
umount /mnt /cdrom
sync
"#;

/// `/sbin/init` of what is installed.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
stty -F /dev/ttyS1 raw -echo
guest-agent </dev/ttyS1 >/dev/ttyS1
poweroff -f
"#;

/// A machine without a system: it boots from the drive, or else from the disk.
fn machine(node: &Node) -> GuestBuilder {
    let mut builder = Guest::builder().from_disks();
    for (order, slot) in [DRIVE_SLOT, DISK_SLOT].into_iter().enumerate() {
        let socket = node.socket("vm", slot);
        let chardev = format!("socket,id=slot{slot},path={},reconnect-ms=100", socket.display());
        let device = format!("vhost-user-scsi-pci,chardev=slot{slot},bootindex={order}");
        builder = builder.arguments(&["-chardev", &chardev, "-device", &device]);
    }
    builder
}

/// Installs; the checksum of a file that is on the disk only.
fn install(guest: &Guest) -> Result<String> {
    let command_line = kernel_command_line(&MODULES.map(String::from));
    let grub = format!(
        "linux /boot/vmlinuz {command_line} root=LABEL=installed\ninitrd /boot/initramfs\nboot\n"
    );
    for (path, content) in [
        ("/tmp/grub.cfg", grub.as_str()),
        ("/tmp/init", INIT),
        ("/tmp/modules", &MODULES.join("\n")),
        ("/tmp/install", INSTALL),
    ] {
        guest.put(path, content.as_bytes())?;
    }
    let output = guest.run_for("sh /tmp/install", INSTALL_TIMEOUT)?;
    assert_eq!(output.status, 0, "{}\n{}", output.text(), output.error_text());
    Ok(output.text())
}

#[test]
fn a_guest_installs_from_a_disc_and_boots_the_disk() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::on(&dir.path().join("node")).start()?;
    let packages = ["e2fsprogs", "fdisk", "grub2-common", "eject"];
    let image = packages.into_iter().fold(GuestImage::new(), GuestImage::with_package);
    let modules = [&MODULES[..], &MODULES_OF_DISC].concat();
    let image = disc::bootable(dir.path(), "INSTALL", &image, &modules)?;
    let image = image.to_str().context(|| "a path that is no text".into())?;
    let medium = node.cli(&["media", "add", image, "--name", "install"])?;
    assert_eq!((&medium["label"], &medium["boots"]), (&json!("INSTALL"), &json!(["bios"])));
    node.cli(&["lu", "create", "disk", "--size", "256M"])?;
    node.cli(&["drive", "create", "dvd", "--medium", "install"])?;
    node.cli(&["client", "create", "vm"])?;
    for (name, slot) in [("dvd", DRIVE_SLOT), ("disk", DISK_SLOT)] {
        let slot = slot.to_string();
        node.cli(&["map", name, "--to", "vm", "--via", "vhost-user-scsi", "--slot", &slot])?;
    }

    let installer = machine(&node).boot()?;
    assert!(installer.console().contains("ISOLINUX"), "{}", installer.console());
    let witness = install(&installer)?;
    // So that it is not booted again.
    installer.ok("eject /dev/sr0")?;
    assert_eq!(node.cli(&["drive", "show", "dvd"])?["tray"], "open");
    installer.quit()?;

    let installed = machine(&node).boot()?;
    assert!(installed.ok("cat /proc/cmdline")?.contains("root=LABEL=installed"));
    assert!(installed.ok("cat /proc/mounts")?.contains("/dev/sda1 / ext4 rw"));
    assert_eq!(installed.ok("sha256sum < /root/witness")?, witness);
    installed.quit()?;
    Ok(())
}
