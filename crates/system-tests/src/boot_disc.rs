//! A disc that a guest's firmware boots, as an installer is one: kernel, initramfs and isolinux.
//!
//! What boots from it is like any other guest and has the agent. Beside it lie the kernel and the
//! modules of GRUB, for a disk that is to be booted itself.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::debian::{Tree, output_of};
use crate::guest::{kernel_command_line, write_initramfs};
use crate::kernel::Kernel;
use crate::{GuestImage, Result};

const BOOT_LOADER: &str = "usr/lib/ISOLINUX/isolinux.bin";
const BOOT_LOADER_CORE: &str = "usr/lib/syslinux/modules/bios/ldlinux.c32";
const GRUB: &str = "usr/lib/grub/i386-pc";

/// Makes `NAME.iso`, whose volume is called like that too, with this image as what it boots.
pub fn make(dir: &Path, name: &str, image: &GuestImage, modules: &[&str]) -> Result<PathBuf> {
    let cache = Cache::open()?;
    let kernel = Kernel::prepare(&cache)?;
    let loader = Tree::fetch(&cache, "isolinux", &["isolinux", "syslinux-common"], None)?;
    let files = dir.join(format!("{name}.d"));
    for part in ["boot", "grub", "isolinux"] {
        fs::create_dir_all(files.join(part))?;
    }
    for (from, to) in [
        (loader.path(BOOT_LOADER)?, "isolinux/isolinux.bin"),
        (loader.path(BOOT_LOADER_CORE)?, "isolinux/ldlinux.c32"),
        (kernel.vmlinuz(), "boot/vmlinuz"),
    ] {
        fs::copy(from, files.join(to))?;
    }
    write_initramfs(&cache, &kernel, image, &files.join("boot/initramfs"))?;
    let modules: Vec<String> = modules.iter().map(|module| (*module).to_owned()).collect();
    let command_line = kernel_command_line(&modules);
    let configuration = format!(
        "DEFAULT linux\nLABEL linux\n  LINUX /boot/vmlinuz\n  INITRD /boot/initramfs\n  \
         APPEND {command_line}\n"
    );
    fs::write(files.join("isolinux/isolinux.cfg"), configuration)?;
    let grub = Tree::fetch(&cache, "grub", &["grub-pc-bin"], None)?;
    for file in fs::read_dir(grub.path(GRUB)?)? {
        let file = file?;
        fs::copy(file.path(), files.join("grub").join(file.file_name()))?;
    }

    let disc = dir.join(format!("{name}.iso"));
    let mut command = Tree::fetch(&cache, "xorriso", &["xorriso"], None)?.command("xorriso")?;
    command.args(["-as", "mkisofs", "-quiet", "-R", "-V", name]);
    command.args(["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat"]);
    // The loader is told where it lies, and four sectors of it are loaded, as it expects.
    command.args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]);
    output_of(command.arg("-o").arg(&disc).arg(&files))?;
    fs::remove_dir_all(&files)?;
    Ok(disc)
}
