//! Arrows between crates: who may depend on whom, and why each foreign crate is here.

use cargo_metadata::{DependencyKind, Metadata};

use super::Finding;

/// The crates in the order of the house, from the top, and what each may depend on.
const HOUSE: [(&str, &[&str]); 17] = [
    ("wire", &[]),
    ("block", &[]),
    ("model", &[]),
    ("proto", &["wire"]),
    ("target", &["wire", "block"]),
    ("cluster", &["model"]),
    ("vnet", &["wire"]),
    ("rt", &["block"]),
    ("volume", &["block", "model", "rt"]),
    ("store", &["wire", "block", "model", "proto", "rt"]),
    ("front", &["wire", "block", "model", "proto", "target", "rt"]),
    ("kv", &["model", "rt"]),
    ("node", &ABOVE_NODE),
    ("viaduct", &["node", "model"]),
    ("sim", &["node", "rt"]),
    // Its vhost-user client speaks the protocol as the product's own front end does.
    ("system-tests", &["wire", "proto"]),
    // Its benchmarks drive any part of the product by itself.
    ("xtask", &ABOVE_XTASK),
];

const ABOVE_NODE: [&str; 12] = [
    "wire", "block", "model", "proto", "target", "cluster", "vnet", "rt", "volume", "store",
    "front", "kv",
];

const ABOVE_XTASK: [&str; 13] = [
    "wire",
    "block",
    "model",
    "proto",
    "target",
    "cluster",
    "vnet",
    "rt",
    "volume",
    "store",
    "front",
    "kv",
    "system-tests",
];

/// A crate of the workspace, as far as arrows care.
#[derive(Clone, Debug)]
pub struct Package {
    pub name: String,
    pub manifest: String,
    pub features: Vec<String>,
    pub dependencies: Vec<Dependency>,
}

#[derive(Clone, Debug)]
pub struct Dependency {
    pub name: String,
    pub is_ours: bool,
    pub is_for_tests: bool,
}

/// The packages of the workspace, by the names of their folders.
pub fn packages_of(metadata: &Metadata) -> Vec<Package> {
    let root = metadata.workspace_root.as_str();
    let package = |package: &cargo_metadata::Package| Package {
        name: short(&package.name),
        manifest: package.manifest_path.as_str().trim_start_matches(root)[1..].to_owned(),
        features: package.features.keys().cloned().collect(),
        dependencies: package.dependencies.iter().map(dependency).collect(),
    };
    metadata.workspace_packages().into_iter().map(package).collect()
}

fn dependency(dependency: &cargo_metadata::Dependency) -> Dependency {
    let is_ours = dependency.path.is_some();
    Dependency {
        name: if is_ours { short(&dependency.name) } else { dependency.name.clone() },
        is_ours,
        is_for_tests: dependency.kind == DependencyKind::Development,
    }
}

fn short(name: &str) -> String {
    name.strip_prefix("viaduct-").unwrap_or(name).to_owned()
}

pub fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        if package.features.iter().any(|feature| feature.contains("sim")) {
            let advice = "choose os or sim by a value when the core is made, not by a feature";
            findings.push(finding(package, "sim by cfg", advice.into()));
        }
        let Some(row) = HOUSE.iter().position(|(name, _)| *name == package.name) else {
            let advice = format!("{} is no room of the house: see DESIGN §2", package.name);
            findings.push(finding(package, "arrow", advice));
            continue;
        };
        for to in package.dependencies.iter().filter(|dependency| dependency.is_ours) {
            if !is_allowed(row, to) {
                let advice = format!("{} may not depend on {}", package.name, to.name);
                findings.push(finding(package, "arrow", advice));
            }
        }
    }
    findings
}

/// Tests may use whatever stands at their own height or above.
fn is_allowed(row: usize, to: &Dependency) -> bool {
    let (_, allowed) = HOUSE[row];
    let is_above = || HOUSE[..=row].iter().any(|(name, _)| *name == to.name);
    allowed.contains(&to.name.as_str()) || (to.is_for_tests && is_above())
}

/// Every foreign crate is named in ARCHITECTURE.md, with its reason.
pub fn reasons(packages: &[Package], architecture: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        for to in package.dependencies.iter().filter(|dependency| !dependency.is_ours) {
            if !architecture.contains(&format!("`{}`", to.name)) {
                let advice = format!("give the reason for `{}` in ARCHITECTURE.md", to.name);
                findings.push(finding(package, "dependency", advice));
            }
        }
    }
    findings
}

fn finding(package: &Package, rule: &'static str, advice: String) -> Finding {
    Finding { file: package.manifest.clone(), line: 1, rule, advice }
}
