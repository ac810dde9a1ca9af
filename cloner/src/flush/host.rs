//! Which host this is, so that a flush folder can tell whether it is its own.

use crate::snapshot::parse_id;

use super::error::{Error, MACHINE_ID_FILE};

/// The host name in a folder that may be opened on any host, because it was exported.
pub const ANY_HOST: &str = "any";

/// Name of this host: the id in `/etc/machine-id`, which systemd and dbus keep.
///
/// # Errors
/// [`Error::File`] if the file cannot be read, [`Error::Host`] if it does not hold an id. Hosts without an id could not be told apart,
/// and each would take the folders of the others for its own.
pub fn this_host() -> Result<String, Error> {
    let text = std::fs::read_to_string(MACHINE_ID_FILE).map_err(Error::file(
        MACHINE_ID_FILE,
        "read it to learn which host this is (`systemd-machine-id-setup` makes it)",
    ))?;
    host_in(&text)
}

fn host_in(machine_id: &str) -> Result<String, Error> {
    let id = machine_id.trim();
    parse_id(id).map_err(|source| Error::Host { source })?;
    Ok(id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain;

    #[test]
    fn a_host_has_an_id_or_is_refused() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(host_in(&format!("{id}\n")).unwrap(), id);
        for wrong in ["", "\n", "uninitialized\n", "0123456789ABCDEF0123456789ABCDEF", &id[1..]] {
            let error = host_in(wrong).unwrap_err();
            let told = format!("{:?} is not an id", wrong.trim());
            assert!(matches!(error, Error::Host { .. }) && chain(&error).contains(&told), "{error:?}");
        }
    }
}
