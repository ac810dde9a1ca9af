//! Saved state of all devices: a map from the id of each to the version and content of its state.
//!
//! ```json
//! { "serial": { "version": 1, "content": { … } } }
//! ```
//!
//! Every device has a version of its own, so that one can change without the others. The map holds the devices of this build, no more
//! and no fewer: a guest does not survive the loss of a device it uses. A device without state, such as the debug port, is not in it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::serial::state::SerialStateV1;

/// Saved state of one device: what it is filed under.
pub trait DeviceState {
    /// The device's id, unique among the devices of a machine.
    const ID: &'static str;
    /// Version of the content, as its type's name has it.
    const VERSION: u32;
}

impl DeviceState for SerialStateV1 {
    const ID: &'static str = "serial";
    const VERSION: u32 = 1;
}

/// Saved state of every device that has any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStates {
    /// The console.
    pub serial: SerialStateV1,
}

impl Serialize for DeviceStates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { serial } = self;
        let mut devices = serializer.serialize_map(Some(1))?;
        write(&mut devices, serial)?;
        devices.end()
    }
}

impl<'de> Deserialize<'de> for DeviceStates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ById)
    }
}

struct ById;

impl<'de> Visitor<'de> for ById {
    type Value = DeviceStates;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of devices by id")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut devices: A) -> Result<DeviceStates, A::Error> {
        let mut serial = None;
        while let Some(id) = devices.next_key::<String>()? {
            match id.as_str() {
                SerialStateV1::ID => read(&mut devices, &mut serial)?,
                _ => {
                    let known = SerialStateV1::ID;
                    return Err(A::Error::custom(format_args!(
                        "unknown device {id:?}: the devices of this build are {known:?}"
                    )));
                }
            }
        }
        Ok(DeviceStates { serial: present(serial)? })
    }
}

fn write<T: DeviceState + Serialize, M: SerializeMap>(devices: &mut M, state: &T) -> Result<(), M::Error> {
    devices.serialize_entry(T::ID, &Versioned { version: Version(PhantomData::<T>), content: state })
}

/// Reads the value that belongs to the id `T::ID`. Whatever is wrong in it, the error names the device.
fn read<'de, T, A>(devices: &mut A, state: &mut Option<T>) -> Result<(), A::Error>
where
    T: DeviceState + Deserialize<'de>,
    A: MapAccess<'de>,
{
    let id = T::ID;
    if state.is_some() {
        return Err(A::Error::custom(format_args!("device {id:?} is listed twice")));
    }
    let versioned: Versioned<T, T> =
        devices.next_value().map_err(|error| A::Error::custom(format_args!("device {id:?}: {error}")))?;
    *state = Some(versioned.content);
    Ok(())
}

fn present<T: DeviceState, E: Error>(state: Option<T>) -> Result<T, E> {
    state.ok_or_else(|| E::custom(format_args!("missing device {:?}", T::ID)))
}

/// The version comes first: where the text has the same order, a content of another version is named as such, and not for the first
/// of its fields that is different.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound(serialize = "T: DeviceState, C: Serialize"))]
#[serde(bound(deserialize = "T: DeviceState, C: Deserialize<'de>"))]
struct Versioned<T, C> {
    version: Version<T>,
    content: C,
}

/// The number `T::VERSION`, and no other.
struct Version<T>(PhantomData<T>);

impl<T: DeviceState> Serialize for Version<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(T::VERSION)
    }
}

impl<'de, T: DeviceState> Deserialize<'de> for Version<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = u32::deserialize(deserializer)?;
        let known = T::VERSION;
        if found != known {
            return Err(D::Error::custom(format_args!(
                "state of version {found}, this build reads version {known}"
            )));
        }
        Ok(Self(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIAL: &str = r#"{"baud_divisor_low":12,"baud_divisor_high":0,"interrupt_enable":0,"interrupt_identification":1,"line_control":3,"line_status":96,"modem_control":8,"modem_status":176,"scratch":0,"receive_fifo":"0d"}"#;

    #[track_caller]
    fn refused(text: &str, reason: &str) {
        let error = serde_json::from_str::<DeviceStates>(text).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{error}");
    }

    #[test]
    fn devices_are_read_and_written_again_by_id() {
        let text = format!(r#"{{"serial":{{"version":1,"content":{SERIAL}}}}}"#);
        let states: DeviceStates = serde_json::from_str(&text).unwrap();
        assert_eq!(states.serial.receive_fifo, [b'\r']);
        assert_eq!(serde_json::to_string(&states).unwrap(), text);
    }

    #[test]
    fn a_device_that_is_unknown_missing_or_there_twice_is_named() {
        let serial = format!(r#""serial":{{"version":1,"content":{SERIAL}}}"#);
        refused("{}", r#"missing device "serial""#);
        refused(&format!("{{{serial},{serial}}}"), r#"device "serial" is listed twice"#);
        for others in [format!(r#"{serial},"floppy":0"#), format!(r#""floppy":0,{serial}"#)] {
            let reason = r#"unknown device "floppy": the devices of this build are "serial""#;
            refused(&format!("{{{others}}}"), reason);
        }
        refused(r#"{"a\u0000\n":0}"#, r#"unknown device "a\0\n": "#);
        refused("[]", "invalid type: sequence, expected a map of devices by id");
    }

    #[test]
    fn a_device_of_another_version_is_named_whatever_its_content_is() {
        for version in [0, 2, u32::MAX] {
            for content in [SERIAL, "0", r#"{"new":[1]}"#] {
                refused(
                    &format!(r#"{{"serial":{{"version":{version},"content":{content}}}}}"#),
                    &format!(r#"device "serial": state of version {version}, this build reads version 1"#),
                );
            }
        }
        refused(
            &format!(r#"{{"serial":{{"content":{SERIAL}}}}}"#),
            r#"device "serial": missing field `version`"#,
        );
        refused(r#"{"serial":{"version":1}}"#, r#"device "serial": missing field `content`"#);
        refused(r#"{"serial":{"version":1,"new":0}}"#, r#"device "serial": unknown field `new`"#);
    }
}
