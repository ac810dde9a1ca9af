//! The user that runs this process, according to the local files that name users and groups. Other directories (LDAP, `sssd`) are
//! not asked.

use rustix::process::{getegid, geteuid, getgroups};
use serde::Serialize;

use super::text;

/// Bit of `CapEff` for looking into other processes, and for serving page faults inside the kernel.
const CAP_SYS_PTRACE: u32 = 19;

/// The user of this process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct User {
    /// Effective user id.
    pub id: u32,
    /// Name according to `/etc/passwd`.
    pub name: Option<String>,
    /// Effective and supplementary group ids.
    pub groups: Vec<u32>,
    /// Whether the process has `CAP_SYS_PTRACE`.
    pub sys_ptrace: bool,
}

impl User {
    /// Reads the ids from the kernel and the name from `/etc/passwd`.
    #[must_use]
    pub fn current() -> Self {
        let id = geteuid().as_raw();
        let mut groups = vec![getegid().as_raw()];
        groups.extend(getgroups().unwrap_or_default().iter().map(|group| group.as_raw()));
        groups.sort_unstable();
        groups.dedup();
        let capabilities = text::of("/proc/self/status")
            .and_then(|status| u64::from_str_radix(text::field(&status, "CapEff")?, 16).ok());
        let name = text::of("/etc/passwd").and_then(|passwd| name_of(&passwd, id));
        Self { id, name, groups, sys_ptrace: capabilities.unwrap_or(0) >> CAP_SYS_PTRACE & 1 == 1 }
    }

    /// Whether this is root.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.id == 0
    }
}

/// A group of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Group id.
    pub id: u32,
    /// Name of the group.
    pub name: String,
    /// Names of the users listed as members. A user newly added is a member from the next login on.
    pub members: Vec<String>,
}

impl Group {
    /// The group with this id, if `/etc/group` has one.
    #[must_use]
    pub fn with_id(id: u32) -> Option<Self> {
        groups().into_iter().find(|group| group.id == id)
    }

    /// The group with this name, if `/etc/group` has one.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        groups().into_iter().find(|group| group.name == name)
    }
}

fn groups() -> Vec<Group> {
    text::of("/etc/group").unwrap_or_default().lines().filter_map(group_of).collect()
}

/// Parses a line of the form `name:password:id:member,member`.
fn group_of(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
    let members = fields.next().unwrap_or_default().split(',').filter(|name| !name.is_empty());
    Some(Group { id, name: name.to_owned(), members: members.map(str::to_owned).collect() })
}

/// Finds the name for `id` in lines of the form `name:password:id:…`. Names that a shell would not take literally do not count.
fn name_of(passwd: &str, id: u32) -> Option<String> {
    let is_plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && is_plain(name))?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\n$(x):x:7:7::/:\njo.doe:x:1000:1000::/:\n";
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("jo.doe"));
        assert_eq!(name_of(passwd, 7), None, "not to be put into a command");
        assert_eq!(name_of(passwd, 1), None);
        let group = group_of("kvm:x:108:jo,ann").unwrap();
        assert_eq!((group.id, group.name.as_str(), group.members.len()), (108, "kvm", 2));
        assert_eq!(group_of("kvm:x:108:").unwrap().members, Vec::<String>::new());
        assert_eq!(group_of("kvm:x:many:"), None);
        assert_eq!(group_of(""), None);
    }

    #[test]
    fn this_process_has_a_user_in_a_group() {
        let user = User::current();
        assert_eq!(user.is_root(), user.id == 0);
        assert!(!user.groups.is_empty());
    }
}
