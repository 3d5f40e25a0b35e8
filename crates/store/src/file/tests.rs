//! Files of every kind under the conformance suite, and what the suite cannot know: locks, formats,
//! images that change under us.

mod exclusion;
mod opening;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use block::conformance::{Report, Shape};
use rt::Core;
use tempfile::TempDir;

use super::{FileStore, Options};
use crate::Store;
use crate::tests::{conformance, make_image};

/// A filesystem that keeps things on a disk, on most machines.
const ON_DISK: &str = "/var/tmp";
/// tmpfs, on every Linux.
const IN_MEMORY: &str = "/dev/shm";

/// Runs the suite over files in a directory.
fn suite_over_files(parent: &str, page_cache: bool, direct: bool) -> Report {
    let dir = Rc::new(TempDir::new_in(parent).unwrap());
    let next = Rc::new(std::cell::Cell::new(0));
    conformance(true, move |core, shape| {
        let path = dir.path().join(format!("image-{}", next.replace(next.get() + 1)));
        Box::pin(async move {
            let store = fresh(&core, &path, shape, page_cache).await;
            assert_eq!(store.is_direct(), direct, "in this filesystem");
            Some(store as Arc<dyn Store>)
        })
    })
}

async fn fresh(core: &Core, path: &Path, shape: Shape, page_cache: bool) -> Arc<FileStore> {
    make_image(path, shape.size);
    let Shape { block_size, read_only, .. } = shape;
    let options = Options { block_size, read_only, page_cache, ..Options::default() };
    FileStore::open(core, path, options, || panic!("nobody else has it")).await.unwrap()
}

#[test]
fn direct_files_conform() {
    suite_over_files(ON_DISK, false, true).expect(&["copy", "power_cut"]);
}

#[test]
fn cached_files_conform() {
    suite_over_files(ON_DISK, true, false).expect(&["copy", "power_cut"]);
}

#[test]
fn cached_files_in_memory_conform() {
    suite_over_files(IN_MEMORY, true, false).expect(&["copy", "power_cut"]);
}

/// A loop device over a file; detached when the last user closes it after [`Loop::let_go`].
struct Loop {
    device: PathBuf,
}

impl Loop {
    fn attach(file: &Path, sector: u32) -> Result<Self, String> {
        let out = Command::new("losetup")
            .args(["--show", "--find", "--sector-size", &sector.to_string()])
            .arg(file)
            .output()
            .map_err(|error| format!("losetup: {error}"))?;
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        Ok(Self { device: String::from_utf8_lossy(&out.stdout).trim().into() })
    }

    fn let_go(&self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// None, and why on the output: this machine has no loop devices for us.
fn loops_work(sector: u32) -> bool {
    let file = tempfile::NamedTempFile::new_in(ON_DISK).unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    match Loop::attach(file.path(), sector) {
        Ok(_) => true,
        Err(why) => {
            println!("skipped: no loop device with sectors of {sector}: {why}");
            false
        }
    }
}

fn suite_over_loops(sector: u32, page_cache: bool) -> Report {
    let dir = Rc::new(TempDir::new_in(ON_DISK).unwrap());
    let next = Rc::new(std::cell::Cell::new(0));
    conformance(false, move |core, shape| {
        let path = dir.path().join(format!("image-{}", next.replace(next.get() + 1)));
        make_image(&path, shape.size);
        let device = Loop::attach(&path, sector).unwrap();
        std::fs::remove_file(&path).unwrap();
        Box::pin(async move {
            let Shape { block_size, read_only, .. } = shape;
            let options = Options { block_size, read_only, page_cache, ..Options::default() };
            let open = FileStore::open(&core, &device.device, options, || panic!("in use"));
            let store = open.await.unwrap();
            assert_eq!(store.is_direct(), !page_cache);
            Some(store as Arc<dyn Store>)
        })
    })
}

/// A device has one size, as far as we go.
const SKIPPED_ON_DEVICES: [&str; 5] =
    ["copy", "power_cut", "resize", "resize_elsewhere", "resize_under_load"];

#[test]
fn block_devices_conform() {
    if loops_work(512) {
        suite_over_loops(512, false).expect(&SKIPPED_ON_DEVICES);
    }
}

/// Blocks of the LU are smaller than what the device can write.
#[test]
fn block_devices_of_larger_blocks_conform() {
    if loops_work(4096) {
        suite_over_loops(4096, false).expect(&SKIPPED_ON_DEVICES);
    }
}

#[test]
fn cached_block_devices_conform() {
    if loops_work(4096) {
        suite_over_loops(4096, true).expect(&SKIPPED_ON_DEVICES);
    }
}
