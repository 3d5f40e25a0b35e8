//! QEMU's programs for images, in a directory of their own with everything that they load: the node
//! lets them read nothing beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::cache::Cache;
use crate::{Context, Qemu, Result};

/// Puts `qemu-nbd` and `qemu-img` into a directory, which is to be on the node's `PATH`.
pub fn install(into: &Path) -> Result<()> {
    let tree = Qemu::V10.tree(&Cache::open()?)?;
    fs::create_dir_all(into)?;
    fs::copy(tree.loader()?, into.join("loader"))?;
    fs::set_permissions(into.join("loader"), fs::Permissions::from_mode(0o755))?;
    let here = into.display();
    for name in ["qemu-nbd", "qemu-img"] {
        let program = tree.program(name)?;
        for (name, library) in tree.libraries_of(&program)? {
            fs::copy(&library, into.join(&name)).context(|| format!("copy {name}"))?;
        }
        fs::copy(&program, into.join(format!("{name}.program")))?;
        let run = format!("{here}/loader --library-path {here} {here}/{name}.program");
        let wrapper = into.join(name);
        fs::write(&wrapper, format!("#!/bin/sh\nexec {run} \"$@\"\n"))?;
        for file in [wrapper, into.join(format!("{name}.program"))] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}
