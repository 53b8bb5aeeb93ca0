//! One section of the configuration, each field beside its default.

/// Declares a section: a struct whose fields carry their documentation and default in one place.
///
/// A key that the section does not have is refused on the way in, and none may be missing: the layers
/// start from the full defaults.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

pub(super) use section;

use crate::units::Rate;

/// A rate written in this folder.
#[allow(
    clippy::expect_used,
    reason = "every call is a literal of a default, and the tests build all defaults"
)]
pub(super) fn rate(per_second: u32) -> Rate {
    Rate::per_second(f64::from(per_second)).expect("a default rate is above 0")
}
