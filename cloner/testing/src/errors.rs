//! What an error has to say.

use std::error::Error;

use cloner::chain;

/// Asserts that the chain of an error contains all of `parts`.
#[track_caller]
pub fn assert_names(error: &dyn Error, parts: &[&str]) {
    let text = chain(error);
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}
