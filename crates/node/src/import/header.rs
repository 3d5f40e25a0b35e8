//! What an image must not say of itself: that more belongs to it than the one file.
//!
//! A backing file, an external data file or an extent in a file of its own is a name that a
//! stranger wrote. Whoever follows it gives the content of any file of this machine to a guest. So
//! these are refused from the header alone, before any program that would follow them is run.
//! Layouts: QEMU's docs/interop/qcow2.txt; VMware's Virtual Disk Format 5.0.

use model::ApiError;

/// Bytes from the start of an image that [`check`] wants to see.
pub const BYTES: usize = 64 << 10;

/// Formats that an import reads, as [`model::image`] and as QEMU call them.
const FORMATS: [(&str, &str, Check); 3] =
    [("qcow2", "qcow2", qcow2), ("VMDK", "vmdk", vmdk), ("VHDX", "vhdx", |_| Ok(()))];

type Check = fn(&[u8]) -> Result<(), String>;

/// The name that QEMU has for a format, where its images are taken.
pub fn driver(format: &str) -> Option<&'static str> {
    FORMATS.iter().find(|(name, ..)| *name == format).map(|(_, driver, _)| *driver)
}

/// Refuses an image of this format that wants other files, or a secret.
pub fn check(path: &str, format: &str, head: &[u8]) -> Result<(), ApiError> {
    let check = FORMATS.iter().find(|(name, ..)| *name == format).map(|(.., check)| check);
    let Some(check) = check else {
        return Err(ApiError::usage(format!("{path} is a {format} image, which is not imported"))
            .then(format!("qemu-img convert -O qcow2 {path} NEW, then import NEW")));
    };
    check(head).map_err(|why| {
        ApiError::usage(format!("{path} is a {format} image that {why}")).then(format!(
            "if you trust it: qemu-img convert -O qcow2 {path} NEW, where what it needs is; then \
             import NEW"
        ))
    })
}

fn be(head: &[u8], at: usize, len: usize) -> u64 {
    let bytes = head.get(at..at + len).unwrap_or_default();
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn le(head: &[u8], at: usize, len: usize) -> u64 {
    let bytes = head.get(at..at + len).unwrap_or_default();
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn qcow2(head: &[u8]) -> Result<(), String> {
    const EXTERNAL_DATA: u64 = 1 << 2;
    let (version, backing_at, backing_len) = (be(head, 4, 4), be(head, 8, 8), be(head, 16, 4));
    if !(2..=3).contains(&version) {
        return Err(format!("has version {version}, not 2 or 3"));
    }
    if backing_at != 0 {
        let name = usize::try_from(backing_at).ok().and_then(|at| {
            let end = at.checked_add(backing_len.min(1023) as usize)?;
            head.get(at..end)
        });
        let name = name.map(String::from_utf8_lossy).unwrap_or_default();
        return Err(format!("needs the backing file {:?}", name.as_ref()));
    }
    if be(head, 32, 4) != 0 {
        return Err("is encrypted".to_owned());
    }
    if version == 3 && be(head, 72, 8) & EXTERNAL_DATA != 0 {
        return Err("keeps its data in another file".to_owned());
    }
    Ok(())
}

/// A sparse extent with its descriptor inside. Everything else names files.
fn vmdk(head: &[u8]) -> Result<(), String> {
    const SECTOR: u64 = 512;
    const SINGLE: [&str; 2] = ["monolithicSparse", "streamOptimized"];
    if !head.starts_with(b"KDMV") {
        return Err("names the files that it consists of".to_owned());
    }
    let (capacity, at, sectors) = (le(head, 12, 8), le(head, 28, 8), le(head, 36, 8));
    let begin = at.checked_mul(SECTOR).and_then(|at| usize::try_from(at).ok());
    let end = sectors
        .checked_mul(SECTOR)
        .and_then(|len| usize::try_from(len).ok())
        .zip(begin)
        .and_then(|(len, begin)| begin.checked_add(len));
    let descriptor = begin.zip(end).and_then(|(begin, end)| head.get(begin..end));
    let (Some(descriptor), 1..) = (descriptor, capacity) else {
        return Err("has no descriptor of its own".to_owned());
    };
    let text = String::from_utf8_lossy(descriptor);
    let text = text.split('\0').next().unwrap_or_default();
    let value = |wanted: &str| {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let mut values = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case(wanted));
        values.next().map(|(_, value)| value.trim().trim_matches('"').to_owned())
    };
    if value("parentFileNameHint").is_some()
        || value("parentCID").is_some_and(|parent| !parent.eq_ignore_ascii_case("ffffffff"))
    {
        return Err("needs a parent image".to_owned());
    }
    match value("createType") {
        Some(kind) if SINGLE.contains(&kind.as_str()) => Ok(()),
        kind => Err(format!("consists of several files ({})", kind.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qcow2_head(change: impl Fn(&mut [u8])) -> Result<(), String> {
        let mut head = vec![0; 512];
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        change(&mut head);
        qcow2(&head)
    }

    #[test]
    fn a_qcow2_image_is_one_file_without_a_secret() {
        assert_eq!(qcow2_head(|_| ()), Ok(()));
        let backing = qcow2_head(|head| {
            head[15] = 200;
            head[19] = 11;
            head[200..211].copy_from_slice(b"/etc/shadow");
        });
        assert_eq!(backing, Err("needs the backing file \"/etc/shadow\"".to_owned()));
        // Its name may lie wherever it likes.
        assert!(qcow2_head(|head| head[8..20].fill(0xff)).is_err());
        assert!(qcow2_head(|head| head[35] = 1).is_err(), "encrypted");
        assert!(qcow2_head(|head| head[79] = 4).is_err(), "another file has the data");
        assert!(qcow2_head(|head| head[7] = 4).is_err(), "a version that is not known");
    }

    fn vmdk_head(descriptor: &str) -> Result<(), String> {
        let mut head = vec![0; 4096];
        head[..4].copy_from_slice(b"KDMV");
        (head[13], head[28], head[36]) = (8, 1, 4);
        head[512..512 + descriptor.len()].copy_from_slice(descriptor.as_bytes());
        vmdk(&head)
    }

    #[test]
    fn a_vmdk_image_is_one_sparse_extent() {
        let plain = "# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n";
        assert_eq!(vmdk_head(plain), Ok(()));
        assert!(vmdk_head(&plain.replace("ffffffff", "12345678")).is_err());
        assert!(vmdk_head(&plain.replace("Sparse", "Flat")).is_err());
        assert!(vmdk_head(&format!("{plain}parentFileNameHint=\"/etc/shadow\"\n")).is_err());
        assert!(vmdk_head("").is_err());
        assert!(vmdk(b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0\n").is_err());
        assert!(vmdk(b"KDMV").is_err());
        let mut far = vec![0xff; 512];
        far[..4].copy_from_slice(b"KDMV");
        assert!(vmdk(&far).is_err());
    }

    #[test]
    fn what_is_not_imported_says_what_to_do() {
        let error = check("/a.vhd", "VHD", &[]).unwrap_err();
        assert!(error.next.unwrap().contains("qemu-img convert"));
        assert_eq!((driver("VMDK"), driver("VHD")), (Some("vmdk"), None));
    }
}
