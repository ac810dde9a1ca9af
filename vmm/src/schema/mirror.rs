//! Plain, serialisable twins of structures of the KVM ABI.

/// Declares a state struct with the fields of a KVM structure, and both conversions.
///
/// Both name every field of the KVM structure by destructuring, so that a field that the kernel adds or that was forgotten
/// here fails to compile. Fields after `pad` carry no state: they are dropped on saving and zero on restoring.
macro_rules! mirror {
    (
        $(#[$meta:meta])*
        pub struct $state:ident = $kvm:ident { $($field:ident: $type:ty),* $(,)? }
        $(pad { $($pad:ident),* $(,)? })?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(missing_docs, reason = "named and defined by the KVM ABI")]
        pub struct $state { $(pub $field: $type),* }

        impl From<&$kvm> for $state {
            fn from(kvm: &$kvm) -> Self {
                let $kvm { $($field,)* $($($pad: _),*)? } = *kvm;
                Self { $($field),* }
            }
        }

        impl From<&$state> for $kvm {
            fn from(state: &$state) -> Self {
                let $state { $($field),* } = state.clone();
                Self { $($field,)* $($($pad: Default::default()),*)? }
            }
        }
    };
}

pub(crate) use mirror;
