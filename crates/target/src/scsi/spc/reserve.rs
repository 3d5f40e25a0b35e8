//! RESERVE and RELEASE, (6) and (10), as SPC-2 5.5 had them: the whole unit, for this nexus. The
//! rules are `lun`'s.

use super::super::context::Context;
use super::super::row::Boxed;
use crate::lun::Change;
use crate::lun::reservation::Action;

pub fn reserve<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(apply(context, Action::ReserveUnit))
}

pub fn release<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(apply(context, Action::ReleaseUnit))
}

async fn apply(
    context: &Context<'_>,
    action: Action,
) -> Result<Vec<u8>, super::super::answer::Answer> {
    context.change(Change::Reserve { nexus: context.nexus.id().clone(), action }).await?;
    Ok(Vec::new())
}
