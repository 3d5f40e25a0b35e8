//! Opening images: what is refused and how it says so, who waits for whom, and QEMU.

use std::cell::Cell;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use block::{Buffer, ErrorKind, Op, OpSet, Request};
use rt::{Allocate, Config, Core, FileHandle, OpenOptions};
use tempfile::TempDir;

use super::super::open::tried_alignment;
use super::super::{FileStore, OpenError, Options};
use super::{IN_MEMORY, Loop, ON_DISK, loops_work};
use crate::Store;
use crate::tests::make_image;

fn on_a_core<T: 'static, F: Future<Output = T> + 'static>(f: impl FnOnce(Core) -> F) -> T {
    Core::block_on(&Config::new("opening"), f).unwrap()
}

async fn open(core: &Core, path: &Path, options: Options) -> Result<Arc<FileStore>, OpenError> {
    FileStore::open(core, path, options, || panic!("nobody has {}", path.display())).await
}

/// The message of an image that must be refused.
fn refused(path: &Path, options: Options) -> String {
    let path = path.to_owned();
    on_a_core(|core| async move {
        match open(&core, &path, options).await {
            Ok(_) => panic!("{} was opened", path.display()),
            Err(error) => error.to_string(),
        }
    })
}

#[test]
fn what_cannot_be_served_is_refused_with_the_next_thing_to_do() {
    let dir = TempDir::new_in(ON_DISK).unwrap();
    let image = dir.path().join("image");
    std::fs::write(&image, [1; 1000]).unwrap();
    let said = refused(&image, Options::default());
    assert!(said.contains("1000 bytes") && said.contains("truncate -s %512"), "{said}");
    std::fs::write(&image, [1; 1024]).unwrap();
    let said = refused(&image, Options { block_size: 4096, ..Options::default() });
    assert!(said.contains("blocks of 4096"), "{said}");
    let said = refused(&image, Options { size: Some(4096), ..Options::default() });
    assert!(said.contains("only 1024 of the LU's 4096"), "{said}");
    let said = refused(&dir.path().join("none"), Options::default());
    assert!(said.contains("cannot open") && said.contains("none"), "{said}");
    let said = refused(Path::new("/dev/null"), Options::default());
    assert!(said.contains("neither a regular file nor a block device"), "{said}");
    refused(dir.path(), Options { read_only: true, ..Options::default() });
    assert_eq!(std::fs::read(&image).unwrap(), [1; 1024], "nothing was changed");
}

#[test]
fn the_command_in_the_message_makes_the_image_fit() {
    let dir = TempDir::new_in(ON_DISK).unwrap();
    let image = dir.path().join("image");
    std::fs::write(&image, [1; 1000]).unwrap();
    let done = Command::new("truncate").args(["-s", "%512"]).arg(&image).status().unwrap();
    assert!(done.success());
    let bytes = on_a_core(|core| async move {
        let store = open(&core, &image, Options::default()).await.unwrap();
        let device = store.device(&core);
        let buffer = Buffer::zeroed(1024);
        device.io(&Request::read(0, buffer.sgl())).await.unwrap();
        buffer.to_vec()
    });
    assert_eq!(bytes, [vec![1; 1000], vec![0; 24]].concat());
}

#[test]
fn an_lu_smaller_than_its_file_leaves_the_rest_alone() {
    let dir = TempDir::new_in(ON_DISK).unwrap();
    let image = dir.path().join("image");
    std::fs::write(&image, vec![7; 16_384]).unwrap();
    let path = image.clone();
    on_a_core(|core| async move {
        let options = Options { size: Some(4096), ..Options::default() };
        let store = open(&core, &path, options).await.unwrap();
        let device = store.clone().device(&core);
        assert_eq!((store.size(), device.geometry().size), (4096, 4096));
        let beyond = device.io(&Request::plain(Op::Discard, 4096, 4096)).await;
        assert_eq!(beyond.unwrap_err().kind(), ErrorKind::OutOfRange);
        device.io(&Request::plain(Op::Discard, 0, 4096)).await.unwrap();
        store.clone().resize(&core, 8192).await.unwrap();
    });
    let bytes = std::fs::read(&image).unwrap();
    assert_eq!(bytes, [vec![0; 4096], vec![7; 12_288]].concat());
}

#[test]
fn an_image_that_is_cut_under_us_is_a_medium_error_that_says_so() {
    let dir = TempDir::new_in(ON_DISK).unwrap();
    let image = dir.path().join("image");
    make_image(&image, 1 << 20);
    on_a_core(|core| async move {
        let store = open(&core, &image, Options::default()).await.unwrap();
        let device = store.device(&core);
        File::options().write(true).open(&image).unwrap().set_len(4096).unwrap();
        let buffer = Buffer::zeroed(8192);
        let error = device.io(&Request::read(8192, buffer.sgl())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Medium);
        assert!(error.to_string().contains("shorter than the device"), "{error}");
        let inside = device.io(&Request::read(0, buffer.sgl().slice(0, 4096))).await;
        assert_eq!(inside, Ok(4096));
    });
}

#[test]
fn nodes_keep_each_other_away_unless_both_share() {
    let dir = TempDir::new_in(ON_DISK).unwrap();
    let image = dir.path().join("image");
    make_image(&image, 1 << 20);
    on_a_core(|core| async move {
        let alone = |node| Options { node, ..Options::default() };
        let shared = |node| Options { shareable: true, ..alone(node) };
        let reading = |node| Options { read_only: true, ..alone(node) };
        let open = |options| open(&core, &image, options);
        let refuses = async |options| {
            let error = open(options).await.err().expect("refused").to_string();
            assert!(error.contains("served by another viaduct node:"), "{error}");
        };

        let first = open(alone(70_000)).await.unwrap();
        refuses(alone(2)).await;
        refuses(shared(2)).await;
        refuses(reading(2)).await;
        drop(first);
        let sharing = [open(shared(u32::MAX)).await.unwrap(), open(shared(0)).await.unwrap()];
        refuses(alone(5)).await;
        drop(sharing);
        let reading = [open(reading(3)).await.unwrap(), open(reading(4)).await.unwrap()];
        refuses(alone(5)).await;
        drop(reading);
        open(alone(5)).await.unwrap();
    });
}

#[test]
fn a_node_waits_for_its_former_process() {
    let dir = TempDir::new_in(ON_DISK).unwrap();
    let image = dir.path().join("image");
    make_image(&image, 1 << 20);
    for read_only in [false, true] {
        let image = image.clone();
        on_a_core(|core| async move {
            let options = Options { read_only, node: 9, ..Options::default() };
            let former = Cell::new(Some(open(&core, &image, options).await.unwrap()));
            // Nothing else happens until it is told that somebody waits; then the former one goes.
            let told = Rc::new(Cell::new(0));
            let tell = told.clone();
            let waiting = move || {
                tell.set(tell.get() + 1);
                drop(former.take());
            };
            FileStore::open(&core, &image, options, waiting).await.unwrap();
            assert_eq!(told.get(), 1, "read-only: {read_only}");
        });
    }
}

#[test]
fn a_device_in_use_is_refused_and_one_that_we_serve_cannot_be_mounted() {
    if !loops_work(512) {
        return;
    }
    let dir = TempDir::new_in(ON_DISK).unwrap();
    let file = dir.path().join("image");
    make_image(&file, 1 << 20);
    let device = Loop::attach(&file, 512).unwrap();
    on_a_core(|core| async move {
        // What a mount does.
        let claim =
            || FileHandle::open(&device.device, OpenOptions { claim: true, ..OpenOptions::read() });
        let mounted = claim().unwrap();
        let error = open(&core, &device.device, Options::default()).await.err().unwrap();
        assert!(error.to_string().contains("mounted"), "{error}");
        drop(mounted);
        let store = open(&core, &device.device, Options::default()).await.unwrap();
        assert_eq!(claim().unwrap_err().kind(), std::io::ErrorKind::ResourceBusy);
        let error = store.clone().resize(&core, 2 << 20).await.unwrap_err();
        assert!(error.to_string().contains("only 1048576 bytes"), "{error}");
        assert_eq!(store.size(), 1 << 20);
    });
}

#[test]
fn zeroes_are_written_where_nothing_else_is_offered() {
    let dir = TempDir::new_in(ON_DISK).unwrap();
    let image = dir.path().join("image");
    std::fs::write(&image, vec![7; 3 << 20]).unwrap();
    on_a_core(|core| async move {
        let store = open(&core, &image, Options::default()).await.unwrap();
        for how in [Allocate::PunchHole, Allocate::ZeroRange] {
            store.lacks.of(how).store(true, Ordering::Relaxed);
        }
        let device = store.clone().device(&core);
        let before = store.handle.info().unwrap().allocated;
        let zeroes = Op::WriteZeroes { unmap: false, fua: true };
        device.io(&Request::plain(Op::Discard, 512, 1024)).await.unwrap();
        device.io(&Request::plain(zeroes, 8192, (2 << 20) + 512)).await.unwrap();
        let bytes = std::fs::read(&image).unwrap();
        let end = 8192 + (2 << 20) + 512;
        assert!(bytes[512..1536].iter().chain(&bytes[8192..end]).all(|byte| *byte == 0));
        assert!(bytes[..512].iter().chain(&bytes[end..]).all(|byte| *byte == 7));
        assert_eq!(store.handle.info().unwrap().allocated, before, "no hole was punched");
    });
}

#[test]
fn a_trial_read_finds_the_alignment_that_the_kernel_names() {
    for place in [ON_DISK, IN_MEMORY] {
        let dir = TempDir::new_in(place).unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, vec![7; 8192]).unwrap();
        let direct = OpenOptions { direct: true, ..OpenOptions::read() };
        let Ok(file) = FileHandle::open(&image, direct) else {
            println!("skipped: no direct I/O in {place}");
            continue;
        };
        let found = tried_alignment(&file).map(|alignment| alignment.unit);
        match file.info().unwrap().direct_offset_align {
            0 => println!("{place}: the kernel names no alignment; a trial finds {found:?}"),
            named => assert_eq!(found, Some(u64::from(named))),
        }
    }
}

/// Whether qemu-img did it, and what it said. None: it is not there.
fn qemu_img(arguments: &[&str], image: &Path) -> Option<(bool, String)> {
    let image = image.to_str().unwrap();
    let arguments = arguments.iter().map(|argument| argument.replace("IMAGE", image));
    let out = match Command::new("qemu-img").args(arguments).output() {
        Ok(out) => out,
        Err(error) => {
            println!("skipped: qemu-img: {error}");
            return None;
        }
    };
    Some((out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned()))
}

#[test]
fn qemu_refuses_an_image_that_we_serve() {
    const WRITE: &[&str] = &["bench", "-c", "1", "-w", "-f", "raw", "IMAGE"];
    const RESIZE: &[&str] = &["resize", "-f", "raw", "IMAGE", "2M"];
    let dir = TempDir::new_in(ON_DISK).unwrap();
    let image = dir.path().join("image");
    make_image(&image, 1 << 20);
    on_a_core(|core| async move {
        // Who shares an image lets others write, but not change its size.
        let cases: [(bool, &[_]); 2] = [(false, &[WRITE, RESIZE]), (true, &[RESIZE])];
        for (shareable, refused) in cases {
            let options = Options { shareable, ..Options::default() };
            let store = open(&core, &image, options).await.unwrap();
            for arguments in refused {
                let Some((worked, said)) = qemu_img(arguments, &image) else { return };
                assert!(!worked && said.contains("lock"), "{arguments:?}, {shareable}: {said}");
            }
            drop(store);
            let (worked, said) = qemu_img(WRITE, &image).unwrap();
            assert!(worked, "after we have let go: {said}");
        }
        let reading = Options { read_only: true, ..Options::default() };
        let _reader = open(&core, &image, reading).await.unwrap();
        let (worked, said) = qemu_img(WRITE, &image).unwrap();
        assert!(!worked && said.contains("lock"), "under a reader: {said}");
    });
}

/// A process that ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn we_refuse_an_image_that_a_qemu_holds() {
    let dir = TempDir::new_in(ON_DISK).unwrap();
    let image = dir.path().join("image");
    make_image(&image, 1 << 20);
    let ready = dir.path().join("pid");
    let qemu = Command::new("qemu-storage-daemon")
        .arg("--blockdev")
        .arg(format!("driver=file,node-name=a,filename={}", image.display()))
        .arg("--nbd-server")
        .arg(format!("addr.type=unix,addr.path={}", dir.path().join("nbd").display()))
        .args(["--export", "type=nbd,id=b,node-name=a,writable=on"])
        .arg("--pidfile")
        .arg(&ready)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut qemu = match qemu {
        Ok(qemu) => Running(qemu),
        Err(error) => return println!("skipped: qemu-storage-daemon: {error}"),
    };
    on_a_core(|core| async move {
        // It writes the file once it has everything.
        while std::fs::read_to_string(&ready).map_or(true, |pid| pid.is_empty()) {
            assert!(qemu.0.try_wait().unwrap().is_none(), "qemu-storage-daemon has ended");
            core.sleep(std::time::Duration::from_millis(1)).await;
        }
        for options in [Options::default(), Options { read_only: true, ..Options::default() }] {
            let error = open(&core, &image, options).await.err().expect("refused").to_string();
            assert!(error.contains("in use by a QEMU"), "{error}");
        }
        // It lets others write, and so do we when we are told to share.
        let shared = Options { shareable: true, ..Options::default() };
        drop(open(&core, &image, shared).await.unwrap());
        drop(qemu);
        open(&core, &image, Options::default()).await.unwrap();
    });
}

#[test]
fn what_nodes_cannot_share_is_not_offered_to_them() {
    let dir = TempDir::new_in(ON_DISK).unwrap();
    let file = dir.path().join("image");
    make_image(&file, 1 << 20);
    let shared = Options { shareable: true, ..Options::default() };
    let path = file.clone();
    on_a_core(|core| async move {
        let offers = async |options| {
            // The one before may still be about to leave.
            let store = FileStore::open(&core, &path, options, || {}).await.unwrap();
            let ops = store.device(&core).geometry().ops;
            [OpSet::COMPARE_AND_WRITE, OpSet::OR_WRITE].map(|step| ops.contains(step))
        };
        assert_eq!(offers(shared).await, [false; 2]);
        assert_eq!(offers(Options::default()).await, [true; 2]);
    });
    if !loops_work(4096) {
        return;
    }
    let device = Loop::attach(&file, 4096).unwrap();
    let said = refused(&device.device, shared);
    assert!(said.contains("block size of 4096"), "{said}");
    let fits = Options { block_size: 4096, ..shared };
    on_a_core(|core| async move { drop(open(&core, &device.device, fits).await.unwrap()) });
}
