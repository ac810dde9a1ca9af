//! JSON values as the set of their leaves, each named by its JSON pointer (RFC 6901).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// Pointer and value of everything that is neither an object nor a list.
pub fn leaves(value: &impl Serialize) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    collect(String::new(), serde_json::to_value(value).unwrap(), &mut leaves);
    leaves
}

fn collect(pointer: String, value: Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                collect(format!("{pointer}/{name}"), field, leaves);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.into_iter().enumerate() {
                collect(format!("{pointer}/{index}"), item, leaves);
            }
        }
        leaf => drop(leaves.insert(pointer, leaf)),
    }
}

/// Replaces every index in a pointer by `*`.
pub fn any_index(pointer: &str) -> String {
    let part = |part: &str| {
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            "*".to_owned()
        } else {
            part.to_owned()
        }
    };
    pointer.split('/').map(part).collect::<Vec<_>>().join("/")
}
