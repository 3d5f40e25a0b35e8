//! The OpenAPI document, generated from the handlers. A copy is checked in as `docs/openapi.json`,
//! so that a change of the API shows in review; a test compares the two.

use utoipa::OpenApi;

use super::{
    adding, backups, clients, force, importing, optical, pool_import, pools, pvs, reservations,
    routes, scrubs, snapshots,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Viaduct",
        description = "The REST API of a Viaduct node. Everything is served on the Unix socket \
                       DIR/run/api.sock to root and the node's own user; over TCP only reading.",
        license(name = "MIT OR Apache-2.0"),
        version = "1"
    ),
    components(schemas(model::status::ConnectFor)),
    paths(
        routes::status,
        routes::lu_list,
        routes::lu_show,
        routes::lu_create,
        routes::lu_adopt,
        routes::lu_resize,
        routes::lu_limits,
        routes::lu_migrate,
        routes::lu_migrate_cancel,
        importing::lu_import,
        snapshots::snapshot_list,
        snapshots::snapshot_create,
        snapshots::snapshot_remove,
        snapshots::snapshot_rollback,
        snapshots::clone_create,
        pools::pool_list,
        pools::pool_show,
        pools::pool_create,
        pools::pool_set,
        pools::pool_remove,
        pools::pool_pv_add,
        pools::pool_pv_remove,
        pools::pool_split,
        force::lu_copies,
        force::lu_force,
        force::pool_remains,
        force::pool_force,
        scrubs::scrub_begin,
        scrubs::scrub_cancel,
        scrubs::pool_check,
        backups::pool_backup,
        pool_import::pool_search,
        pool_import::pool_import,
        pool_import::pool_import_remains,
        pvs::pv_list,
        routes::lu_remove,
        adding::medium_add_file,
        optical::medium_list,
        optical::medium_show,
        optical::medium_remove,
        optical::drive_list,
        optical::drive_show,
        optical::drive_create,
        optical::drive_remove,
        optical::drive_load,
        optical::drive_eject,
        clients::client_list,
        clients::client_show,
        clients::client_create,
        clients::client_change,
        clients::client_remove,
        clients::client_chap_set,
        clients::client_chap_off,
        clients::client_redirect_set,
        clients::client_redirect_off,
        clients::connection,
        routes::mapping_list,
        routes::map,
        routes::unmap,
        reservations::reservation_list,
        reservations::reservation_clear,
        routes::events,
        routes::config_show,
        routes::config_with_secrets,
        routes::config_restore,
        routes::openapi,
        routes::prometheus,
    )
)]
struct Document;

/// The document as JSON.
pub fn text() -> String {
    let mut text = Document::openapi().to_pretty_json().unwrap_or_else(|error| error.to_string());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    /// UPDATE_EXPECT=1 writes the document anew.
    #[test]
    fn the_copy_that_is_checked_in_is_the_same() {
        expect_file!["../../../../docs/openapi.json"].assert_eq(&text());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let text = text();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        for rest in text.split("\"#/components/schemas/").skip(1) {
            let name = rest.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
