//! SYNCHRONIZE CACHE and PRE-FETCH, (10) and (16) (SBC-3 5.28, 5.12). The device flushes as a whole,
//! and knows best what to read ahead.

use block::Request;

use super::super::context::{Context, byte_range};
use super::super::row::Boxed;
use super::super::sense::Sense;

/// GOOD, because not all of the range may find room in a cache (SBC-3 5.12).
pub fn pre_fetch(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    context.range()?;
    Ok(Vec::new())
}

/// With IMMED too the answer comes when the data is safe: sooner is worth nothing to a client that
/// would have to ask again.
pub fn synchronize<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        byte_range(context.unit, context.parsed.lba, context.parsed.count)?;
        context.io(Request::flush()).await?;
        Ok(Vec::new())
    })
}
