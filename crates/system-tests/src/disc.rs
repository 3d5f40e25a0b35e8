//! Discs as images: with a file to look at, or one that a guest's firmware boots, as installers'
//! are, with kernel, initramfs and isolinux.
//!
//! What boots from such a disc is like any other guest and has the agent. Beside it lie the kernel
//! and the modules of GRUB, for a disk that is to be booted itself.

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

/// Makes `LABEL.iso`, a volume of that name with one file, `/content`.
pub fn with_content(dir: &Path, label: &str, content: &[u8]) -> Result<PathBuf> {
    let files = dir.join(format!("{label}.d"));
    fs::create_dir(&files)?;
    fs::write(files.join("content"), content)?;
    image_of(&files, label, &[])
}

/// Makes `LABEL.iso`, a volume of that name that boots this image.
pub fn bootable(dir: &Path, label: &str, image: &GuestImage, modules: &[&str]) -> Result<PathBuf> {
    let cache = Cache::open()?;
    let kernel = Kernel::prepare(&cache)?;
    let loader = Tree::fetch(&cache, "isolinux", &["isolinux", "syslinux-common"], None)?;
    let files = dir.join(format!("{label}.d"));
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

    // The loader is told where it lies, and four sectors of it are loaded, as it expects.
    let boots = [
        ["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat"],
        ["-no-emul-boot", "-boot-info-table", "-boot-load-size", "4"],
    ];
    image_of(&files, label, boots.as_flattened())
}

/// The image of a directory, which goes away.
fn image_of(files: &Path, label: &str, options: &[&str]) -> Result<PathBuf> {
    let image = files.with_extension("iso");
    let tree = Tree::fetch(&Cache::open()?, "xorriso", &["xorriso"], None)?;
    let mut command = tree.command("xorriso")?;
    command.args(["-as", "mkisofs", "-quiet", "-R", "-V", label]).args(options);
    output_of(command.arg("-o").arg(&image).arg(files))?;
    fs::remove_dir_all(files)?;
    Ok(image)
}

/// Bytes that do not repeat.
pub fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}
