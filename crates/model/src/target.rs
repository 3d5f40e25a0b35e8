//! The name of the iSCSI target that a client sees: the naming authority, the cluster and the
//! client, so that a client finds one target of its own and names never meet those of another
//! cluster (RFC 7143 4.2.7: they are unique in the world).

use uuid::Uuid;

use crate::name::ClientName;

/// Who gives the names: a domain as it was registered in a month.
pub const NAMING_AUTHORITY: &str = "iqn.2026-11.org.viaduct";

/// Digits of a node's identity that stand for its cluster.
const CLUSTER_DIGITS: usize = 8;

/// The cluster's part in the names of a node that is in none: short, its own, and the same for the
/// life of its data directory.
pub fn cluster_of(node: Uuid) -> String {
    let mut digits = node.simple().to_string();
    digits.truncate(CLUSTER_DIGITS);
    digits
}

/// The target that a client sees. A client's name has only characters that may stand here.
pub fn target_name(cluster: &str, client: &ClientName) -> String {
    format!("{NAMING_AUTHORITY}:{cluster}:{client}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::NAME_BYTES_MAX;
    use crate::name::Iqn;

    #[test]
    fn a_target_name_is_an_iscsi_name_in_its_normal_form() {
        let cluster = cluster_of(Uuid::from_u128(0xABCD_EF01 << 96 | 7));
        assert_eq!(cluster, "abcdef01");
        let longest = "x".repeat(NAME_BYTES_MAX);
        for client in ["host1", "db-1.data", &longest] {
            let name = target_name(&cluster, &client.parse().unwrap());
            assert_eq!(name, format!("iqn.2026-11.org.viaduct:abcdef01:{client}"));
            assert_eq!(name.parse::<Iqn>().unwrap().as_str(), name);
        }
    }
}
