//! `open_enum!`: a set of named codes over an integer that keeps values without a name.
//!
//! A Rust `enum` would force a decision about unknown values at the place where bytes are read; on
//! the wire an unknown code is normal (a newer peer) and belongs in the error message as it came.

/// Declares a transparent newtype with one associated constant per named code, `name` to look the
/// name up, and `Debug` and `Display` that print the name or, without one, the number.
macro_rules! open_enum {
    (
        $(#[$meta:meta])*
        $vis:vis enum $Type:ident: $repr:ty {
            $( $(#[$variant_meta:meta])* $NAME:ident = $value:expr, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        $vis struct $Type(pub $repr);

        impl $Type {
            $( $(#[$variant_meta])* pub const $NAME: Self = Self($value); )+

            /// Every code that has a name.
            pub const ALL: &'static [Self] = &[$(Self::$NAME),+];

            /// The standard's name of this code, if this crate knows one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $value => Some(stringify!($NAME)), )+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $Type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }

        impl std::fmt::Debug for $Type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
    };
}

pub(crate) use open_enum;

#[cfg(test)]
mod tests {
    open_enum! {
        /// Two codes with a gap.
        pub enum Sample: u8 {
            FIRST = 1,
            THIRD = 3,
        }
    }

    #[test]
    fn known_values_have_names_and_unknown_values_survive() {
        assert_eq!(Sample(3), Sample::THIRD);
        assert_eq!(Sample::FIRST.to_string(), "FIRST");
        assert_eq!(Sample(2).0, 2);
        assert_eq!(format!("{} {:?}", Sample(2), Sample(2)), "2 2");
        assert_eq!(Sample::ALL.len(), 2);
    }
}
