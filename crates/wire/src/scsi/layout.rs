//! `layouts!`: structs that are their own bytes.
//!
//! SCSI has some sixty of them and each needs the same nine derives; a macro says it once. Every
//! field is a byte, an array of bytes or a big-endian integer, so that none has padding.

/// Declares fixed layouts with what zerocopy needs to read them from bytes and to write them.
macro_rules! layouts {
    ($(
        $(#[$meta:meta])*
        pub struct $Type:ident {
            $( $(#[$field_meta:meta])* pub $field:ident: $Field:ty, )+
        }
    )+) => {$(
        $(#[$meta])*
        #[derive(
            Clone,
            Copy,
            Debug,
            PartialEq,
            Eq,
            zerocopy::FromBytes,
            zerocopy::IntoBytes,
            zerocopy::Immutable,
            zerocopy::KnownLayout,
            zerocopy::Unaligned,
        )]
        #[repr(C)]
        pub struct $Type {
            $( $(#[$field_meta])* pub $field: $Field, )+
        }

        impl Default for $Type {
            fn default() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        }
    )+};
}

pub(crate) use layouts;
