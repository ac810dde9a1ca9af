//! Devices that this build does not have, or has in another version.

use cloner_testing::{assert_names, room_for};
use serde_json::{Value, json};
use vmm::schema::envelope::Error as EnvelopeError;
use vmm::state::DecodeError;

use super::{from_json, from_text, real};

/// The error of a state whose devices were changed.
fn refused(state: &Value, change: impl FnOnce(&mut Value)) -> DecodeError {
    let mut state = state.clone();
    change(&mut state["devices"]);
    let error = from_json(&state).unwrap_err();
    assert!(matches!(error, DecodeError::Envelope(EnvelopeError::Schema(_))), "{error:?}");
    error
}

#[test]
fn devices_that_are_unknown_missing_or_there_twice() {
    let Some(_room) = room_for(1) else { return };
    let state = serde_json::to_value(real(1).get()).unwrap();
    // Sorted by id, it comes before or after those that are known.
    for id in ["disk-0", "zip-drive", "Serial", ""] {
        let error = refused(&state, |devices| devices[id] = devices["serial"].clone());
        assert_names(&error, &["unknown device", &format!("{id:?}"), "\"serial\""]);
        let error = refused(&state, |devices| *devices = json!({ id: devices["serial"] }));
        assert_names(&error, &["unknown device", &format!("{id:?}")]);
    }
    assert_names(&refused(&state, |devices| *devices = json!({})), &["missing device \"serial\""]);
    for wrong in [json!(null), json!([]), json!([0]), json!("serial"), json!(1)] {
        refused(&state, |devices| *devices = wrong);
    }

    let text = serde_json::to_string(&state).unwrap();
    let serial = format!("\"serial\":{}", state["devices"]["serial"]);
    let twice = text.replacen(&serial, &format!("{serial},{serial}"), 1);
    assert_names(&from_text(twice.as_bytes()).unwrap_err(), &["device \"serial\" is listed twice"]);
}

#[test]
fn devices_of_another_version() {
    let Some(_room) = room_for(1) else { return };
    let state = serde_json::to_value(real(1).get()).unwrap();
    assert_eq!(state["devices"]["serial"]["version"], json!(1));
    for version in [0, 2, u32::MAX] {
        let error = refused(&state, |devices| devices["serial"]["version"] = json!(version));
        assert_names(&error, &["device \"serial\"", &format!("version {version}"), "reads version 1"]);
    }

    // As a later build would write it: the version first, then a content that this one cannot know.
    let text = serde_json::to_string(&state).unwrap();
    let serial = state["devices"]["serial"].to_string();
    let later = text.replacen(&serial, "{\"version\":2,\"content\":{\"lines\":[]}}", 1);
    assert_names(
        &from_text(later.as_bytes()).unwrap_err(),
        &["device \"serial\"", "version 2", "reads version 1"],
    );
}

/// What is wrong within a device is said with its id.
#[test]
fn the_content_of_a_device() {
    let Some(_room) = room_for(1) else { return };
    let state = serde_json::to_value(real(1).get()).unwrap();
    let error = refused(&state, |devices| devices["serial"]["content"]["scratch"] = json!(256));
    assert_names(&error, &["device \"serial\"", "256"]);
    let error = refused(&state, |devices| devices["serial"]["content"]["scratched"] = json!(0));
    assert_names(&error, &["device \"serial\"", "unknown field", "scratched"]);
    let error = refused(&state, |devices| devices["serial"] = json!(0));
    assert_names(&error, &["device \"serial\""]);
}
