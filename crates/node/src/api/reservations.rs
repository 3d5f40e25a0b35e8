//! Reservations: what clients reserved of LUs, and the operator's way to end it.

use axum::Json;
use axum::extract::{Path, State};
use model::reservation::{ReservationView, Reservations};
use model::{ApiError, LuName, Severity, Subject};

use super::Api;
use super::routes::{Answer, named};
use crate::engine::Report;
use crate::state::ops::no_lu;

/// All LUs of which something is reserved.
#[utoipa::path(get, path = "/v1/reservations", tag = "reservation", responses(
    (status = 200, body = Vec<ReservationView>), (status = "default", body = ApiError)))]
pub async fn reservation_list(State(api): State<Api>) -> Answer<Vec<ReservationView>> {
    let (published, mut reserved) = (api.published(), api.reservations().await?);
    let view = |lu: &model::Lu| {
        let reservations = reserved.remove(&lu.uuid).filter(|it| !it.is_empty())?;
        Some(ReservationView { lu: lu.name.clone(), reservations })
    };
    Ok(Json(published.config.lus.iter().filter_map(view).collect()))
}

/// Ends all reservations and registrations of an LU, and says which there were.
#[utoipa::path(delete, path = "/v1/lus/{name}/reservations", tag = "reservation",
    params(("name" = String, Path)),
    responses((status = 200, body = ReservationView), (status = "default", body = ApiError)))]
pub async fn reservation_clear(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Answer<ReservationView> {
    let name: LuName = named(&name)?;
    let published = api.published();
    let uuid = published.config.lu(&name).ok_or_else(|| no_lu(&name))?.uuid;
    let before: Reservations = api.reservations().await?.remove(&uuid).unwrap_or_default();
    if !before.is_empty() {
        api.clear_reservations(uuid).await?;
        let (severity, kind) = (Severity::Warning, "reservations-cleared");
        let message = format!(
            "the reservations of LU '{name}' were cleared; {} registrants lost theirs",
            before.registrants.len()
        );
        let subject = Subject::Lu(name.clone());
        let report = Report { severity, subject, kind, message, next: None };
        api.events.record(api.world.wall(), report);
    }
    Ok(Json(ReservationView { lu: name, reservations: before }))
}
