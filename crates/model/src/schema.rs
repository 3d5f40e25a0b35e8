//! Gives a type that is written as another one (a text, a number) that one's OpenAPI schema; the
//! derive can do this for newtypes only.

macro_rules! schema_as {
    ($type:ty, $written_as:ty) => {
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                <$written_as as utoipa::PartialSchema>::schema()
            }
        }
        impl utoipa::ToSchema for $type {}
    };
}

pub(crate) use schema_as;
