//! Backups of a pool that is open: whoever takes one has the pace.

use model::ApiError;
use uuid::Uuid;
use volume::pool::backup::Taking;

use super::Pools;

impl Pools {
    pub(in crate::plane) async fn back_up(
        &self,
        uuid: Uuid,
        mut taking: Taking,
    ) -> Result<(Taking, Option<Vec<u8>>), ApiError> {
        let open = self.pool(uuid)?;
        let mine = open.clone();
        open.at_home(async move |home| {
            let lu = |id| mine.lus().get(&Uuid::from_bytes(id)).map(|store| store.lu().clone());
            let bytes = taking.step(&home, lu).await;
            let bytes = bytes.map_err(|error| ApiError::failed(error.to_string()))?;
            Ok((taking, bytes))
        })
        .await
    }
}
