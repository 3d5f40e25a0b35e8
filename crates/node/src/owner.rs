//! Users and groups of this machine, from `/etc/passwd` and `/etc/group`. A user that another
//! service knows (LDAP, systemd's dynamic users) is given by number; that is the price of not
//! linking the C library's name service into the server.

use std::path::Path;

use model::{ApiError, SocketOwner};

use crate::world;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// The group whose members may use virtual machines, on every distribution that has one.
const KVM: &str = "kvm";

/// Who shall own a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ownership {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// It was asked for: not being able to set it is a failure.
    pub required: bool,
}

/// The numbers of an owner; group `kvm`, where there is one, unless another is given.
pub fn resolve(owner: Option<&SocketOwner>) -> Result<Ownership, ApiError> {
    let kvm = || number(GROUP, KVM);
    let Some(owner) = owner else {
        return Ok(Ownership { uid: None, gid: kvm(), required: false });
    };
    let uid = owner.user.as_deref().map(|user| find(PASSWD, "user", user)).transpose()?;
    let gid = match owner.group.as_deref() {
        Some(group) => Some(find(GROUP, "group", group)?),
        None => kvm(),
    };
    Ok(Ownership { uid, gid, required: true })
}

fn find(file: &str, kind: &str, name: &str) -> Result<u32, ApiError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    number(file, name).ok_or_else(|| {
        ApiError::usage(format!("there is no {kind} '{name}' in {file} on this machine"))
            .then(format!("name a {kind} that exists, or give its number"))
    })
}

fn number(file: &str, name: &str) -> Option<u32> {
    let text = world::read_text(Path::new(file)).ok()??;
    number_in(&text, name)
}

/// Both files have the name first and the number third.
fn number_in(text: &str, name: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_their_whole_name() {
        let text = "root:x:0:\nkvm2:x:7:\nkvm:x:108:qemu,libvirt\nbad:x:y:\n";
        assert_eq!(number_in(text, "kvm"), Some(108));
        assert_eq!(number_in(text, "kv"), None);
        assert_eq!(number_in(text, "bad"), None);
    }

    #[test]
    fn owners_are_resolved_by_name_and_number() {
        let owner = |text: &str| text.parse::<SocketOwner>().unwrap();
        let root = resolve(Some(&owner("root:root"))).unwrap();
        assert_eq!(root, Ownership { uid: Some(0), gid: Some(0), required: true });
        let numbers = resolve(Some(&owner("4711:4712"))).unwrap();
        assert_eq!((numbers.uid, numbers.gid), (Some(4711), Some(4712)));
        let error = resolve(Some(&owner("nobody-has-this-name"))).unwrap_err();
        assert!(error.message.contains("nobody-has-this-name"), "{error}");
        assert!(!resolve(None).unwrap().required);
    }
}
