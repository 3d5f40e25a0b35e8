//! Files become media as they are, or not at all.

use std::cell::RefCell;

use model::ErrorKind;

use super::*;

fn library() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn uuid() -> Uuid {
    Uuid::from_u128(7)
}

/// A file that begins as an ISO 9660 image of so many bytes does.
fn image(directory: &Path, volume_bytes: u64, bytes: usize) -> PathBuf {
    let mut content = vec![0; bytes];
    let descriptor = 16 * BLOCK;
    content[descriptor..descriptor + 7].copy_from_slice(b"\x01CD001\x01");
    content[descriptor + 40..descriptor + 72].copy_from_slice(b"TEST                            ");
    let blocks = (volume_bytes / BLOCK as u64) as u32;
    content[descriptor + 80..descriptor + 84].copy_from_slice(&blocks.to_le_bytes());
    content[descriptor + 128..descriptor + 130].copy_from_slice(&2048u16.to_le_bytes());
    content[bytes - 1] = 9;
    let path = directory.join("test.iso");
    std::fs::write(&path, content).unwrap();
    path
}

fn copy(path: &Path, media: &Path, tell: Tell<'_>) -> Result<Medium, ApiError> {
    Source::open(path, false)?.copy(media, ("test".parse().unwrap(), uuid()), tell)
}

#[test]
fn a_file_is_copied_padded_and_verified() {
    let (library, files) = (library(), library());
    let path = image(files.path(), 20 * 2048, (3 << 20) + 100);
    let told = RefCell::new(Vec::new());
    let medium = copy(&path, library.path(), &|line| {
        told.borrow_mut().push(line);
        true
    });
    let medium = medium.unwrap();
    assert_eq!((medium.size, medium.padding), (Size((3 << 20) + 2048), 1948));
    assert_eq!(medium.label.as_deref(), Some("TEST"));
    let source = std::fs::read(&path).unwrap();
    let sum: String = Sha256::digest(&source).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(medium.sha256, sum);
    let of = source.len() as u64;
    let at = |line: u64| Progress { bytes: line << 20, of };
    let expected: Vec<MediumTold> = (0..4)
        .map(|line| MediumTold::Copying(at(line)))
        .chain((0..4).map(|line| MediumTold::Verifying(at(line))))
        .collect();
    assert_eq!(told.take(), expected);

    let file = super::path(library.path(), uuid());
    assert!(!file.exists(), "it has no name before it is known");
    place(library.path(), uuid()).unwrap();
    let mut padded = source;
    padded.resize((3 << 20) + 2048, 0);
    assert!(std::fs::read(&file).unwrap() == padded);
    let allocated = FileHandle::open(&file, OpenOptions::read()).unwrap().info().unwrap().allocated;
    assert!(allocated <= 256 << 10, "{allocated} bytes of mostly zeroes");
    remove(library.path(), uuid()).unwrap();
    assert_eq!(world::names_in(library.path()).unwrap(), [""; 0]);
}

#[test]
fn who_hangs_up_leaves_nothing() {
    let (library, files) = (library(), library());
    let path = image(files.path(), 20 * 2048, 3 << 20);
    for wanted in [0, 2, 4] {
        let left = RefCell::new(wanted);
        let error = copy(&path, library.path(), &|_| {
            let mut left = left.borrow_mut();
            *left -= 1;
            *left >= 0
        });
        assert_eq!(error.unwrap_err().kind, ErrorKind::NotNow);
        assert_eq!(world::names_in(library.path()).unwrap(), [""; 0]);
    }
}

#[test]
fn what_is_no_whole_disc_is_refused_unless_forced() {
    let files = library();
    let refusal = |path: &Path| Source::open(path, false).unwrap_err().message;
    let path = files.path().join("text");
    std::fs::write(&path, "hello").unwrap();
    assert!(refusal(&path).contains("neither an ISO 9660 nor a UDF volume"));
    assert_eq!(Source::open(&path, true).unwrap().bytes, 5);
    std::fs::write(&path, "").unwrap();
    assert!(Source::open(&path, true).unwrap_err().message.contains("has 0 bytes"));
    std::fs::write(&path, b"QFI\xfb and so on").unwrap();
    assert!(Source::open(&path, true).unwrap_err().message.contains("qcow2"));
    assert!(refusal(files.path()).contains("neither a regular file"));
    assert_eq!(
        Source::open(&files.path().join("none"), true).unwrap_err().kind,
        ErrorKind::NotFound
    );
    let short = image(files.path(), 2 << 20, 1 << 20);
    assert!(refusal(&short).contains("was cut off: it has 1048576 bytes, and its volume 2097152"));
    assert!(Source::open(&short, true).is_ok());
}

#[test]
fn what_a_killed_node_leaves_is_finished_or_goes() {
    let library = library();
    let (known, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for uuid in [known, other] {
        let new = world::new_name(&path(library.path(), uuid));
        std::fs::write(new, "copy").unwrap();
    }
    std::fs::write(library.path().join("letter.txt"), "not ours").unwrap();
    tidy(library.path(), &[known].into()).unwrap();
    let mut names = world::names_in(library.path()).unwrap();
    names.sort();
    assert_eq!(names, [format!("{known}.iso"), "letter.txt".to_owned()]);
    tidy(library.path(), &[known].into()).unwrap();
    assert_eq!(world::names_in(library.path()).unwrap().len(), 2);
}
