//! Limits that the control groups of this process set, for both versions of control groups.
//!
//! A group's limit binds everything below it, so all groups from this process's own up to the top are read, and the one
//! that leaves the least room counts. Source: `cgroups(7)`, `Documentation/admin-guide/cgroup-v2.rst`.

use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use serde::Serialize;

use super::text;

/// Version 1 writes "no limit" as the largest number of whole pages; anything near that number means "no limit".
const UNLIMITED: u64 = 1 << 62;

/// The limit that leaves the least room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupLimit {
    /// The most that may be used: bytes, or a number of processes.
    pub limit: u64,
    /// How much is used, in the same unit.
    pub used: u64,
    /// How much of that the kernel takes back when memory is short: cached files.
    pub reclaimable: u64,
    /// Path of the file that holds the limit.
    pub setting: String,
}

impl CgroupLimit {
    /// How much is left, counting what can be reclaimed as free.
    #[must_use]
    pub const fn room(&self) -> u64 {
        self.limit.saturating_sub(self.used.saturating_sub(self.reclaimable))
    }
}

/// The limits that bind this process. `None` where no group sets one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Cgroups {
    /// Memory, in bytes.
    pub memory_bytes: Option<CgroupLimit>,
    /// Reserved huge pages of 2 MiB, in bytes.
    pub huge_pages_bytes: Option<CgroupLimit>,
    /// Number of processes and threads.
    pub processes: Option<CgroupLimit>,
}

/// The files of one limit: in version 2, and in version 1 together with the controller they belong to. Each pair is the limit and
/// what is used of it.
struct Files {
    controller: &'static str,
    v2: [&'static str; 2],
    v1: [&'static str; 2],
    /// Name of the line of `memory.stat` that says how much can be taken back, in version 2 and in version 1.
    reclaimable: Option<[&'static str; 2]>,
}

const MEMORY: Files = Files {
    controller: "memory",
    v2: ["memory.max", "memory.current"],
    v1: ["memory.limit_in_bytes", "memory.usage_in_bytes"],
    reclaimable: Some(["inactive_file", "total_inactive_file"]),
};
const HUGE_PAGES: Files = Files {
    controller: "hugetlb",
    v2: ["hugetlb.2MB.max", "hugetlb.2MB.current"],
    v1: ["hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.usage_in_bytes"],
    reclaimable: None,
};
const PROCESSES: Files = Files {
    controller: "pids",
    v2: ["pids.max", "pids.current"],
    v1: ["pids.max", "pids.current"],
    reclaimable: None,
};

impl Cgroups {
    /// Reads the limits from the mounted hierarchies.
    #[must_use]
    pub fn read() -> Self {
        let groups = text::of("/proc/self/cgroup").unwrap_or_default();
        let mounts = text::of("/proc/self/mountinfo").unwrap_or_default();
        Self::find(&groups, &mounts)
    }

    fn find(groups: &str, mounts: &str) -> Self {
        Self {
            memory_bytes: MEMORY.limit(groups, mounts),
            huge_pages_bytes: HUGE_PAGES.limit(groups, mounts),
            processes: PROCESSES.limit(groups, mounts),
        }
    }
}

/// The limit of this process's memory alone, for callers that ask at every branch. `None` where no group sets one.
///
/// Where the hierarchies are mounted is looked up once: reading that file takes longer than all others together.
pub(super) fn memory_limit() -> Option<CgroupLimit> {
    static MOUNTS: OnceLock<String> = OnceLock::new();
    let mounts = MOUNTS.get_or_init(|| text::of("/proc/self/mountinfo").unwrap_or_default());
    MEMORY.limit(&text::of("/proc/self/cgroup")?, mounts)
}

impl Files {
    /// The limit that leaves the least room, among the groups of this process.
    fn limit(&self, groups: &str, mounts: &str) -> Option<CgroupLimit> {
        let both = [folders(groups, mounts, None), folders(groups, mounts, Some(self.controller))];
        let [v2, v1] = both.map(Option::unwrap_or_default);
        let stat = |version: usize| self.reclaimable.map(|names| names[version]);
        let v2 = v2.iter().filter_map(|folder| limit_in(folder, self.v2, stat(0)));
        let v1 = v1.iter().filter_map(|folder| limit_in(folder, self.v1, stat(1)));
        v2.chain(v1).min_by_key(CgroupLimit::room)
    }
}

/// The folders of this process's group and of the groups above it, as far as they are mounted here: in version 2, or in the
/// hierarchy of version 1 that has `controller`.
fn folders(groups: &str, mounts: &str, controller: Option<&str>) -> Option<Vec<PathBuf>> {
    // `number:controller,controller:path`; version 2 has neither.
    let path = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let matches = match controller {
            None => controllers.is_empty(),
            Some(name) => controllers.split(',').any(|listed| listed == name),
        };
        matches.then_some(path)
    })?;
    let (root, mounted) = mounts.lines().find_map(|line| mounted_at(line, controller))?;
    // A container may see only a part of the hierarchy. For a group outside that part, the limits at its top count.
    let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
    let is_plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    let below = if is_plain { below } else { Path::new("") };
    Some(below.ancestors().map(|above| mounted.join(above)).collect())
}

/// Root and mount point, from `id parent major:minor root point options… - type source options`.
fn mounted_at<'m>(line: &'m str, controller: Option<&str>) -> Option<(&'m str, PathBuf)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let (name, options) = (kind.next()?, kind.nth(1)?);
    let matches = match controller {
        None => name == "cgroup2",
        Some(controller) => name == "cgroup" && options.split(',').any(|option| option == controller),
    };
    matches.then(|| (root, PathBuf::from(point)))
}

fn limit_in(folder: &Path, [limit, used]: [&str; 2], reclaimable: Option<&str>) -> Option<CgroupLimit> {
    let setting = folder.join(limit);
    // Version 2 writes "no limit" as `max`, which is not a number either.
    let limit = text::number(&setting).filter(|&limit: &u64| limit < UNLIMITED)?;
    let stat = || {
        let name = reclaimable?;
        let text = text::of(folder.join("memory.stat"))?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    };
    Some(CgroupLimit {
        limit,
        used: text::number(folder.join(used)).unwrap_or(0),
        reclaimable: stat().unwrap_or(0),
        setting: setting.display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A made-up `/sys/fs/cgroup`, removed when dropped.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("vmm-cgroup-{name}-{}", std::process::id()));
            for (path, content) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, format!("{content}\n")).unwrap();
            }
            Self(root)
        }

        fn mount(&self, root: &str, kind: &str, options: &str) -> String {
            format!(
                "31 23 0:28 {root} {} rw,relatime shared:1 - {kind} none rw,{options}\n",
                self.0.display()
            )
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_tightest_group_of_version_2_counts() {
        let tree = Tree::new(
            "v2",
            &[
                ("memory.max", "max"),
                ("a/memory.max", "1000"),
                ("a/memory.current", "900"),
                ("a/memory.stat", "anon 1\ninactive_file 50\nfile 7"),
                ("a/b/memory.max", "500"),
                ("a/b/memory.current", "100"),
                ("a/b/pids.max", "30"),
                ("a/b/pids.current", "4"),
            ],
        );
        let found = Cgroups::find("0::/a/b\n", &tree.mount("/", "cgroup2", "nsdelegate"));
        let memory = found.memory_bytes.unwrap();
        assert_eq!((memory.limit, memory.room()), (1000, 150), "the one above is fuller");
        assert!(memory.setting.ends_with("a/memory.max"), "{memory:?}");
        assert_eq!(found.processes.unwrap().room(), 26);
        assert_eq!(found.huge_pages_bytes, None);
    }

    #[test]
    fn version_1_is_found_by_its_controller_and_its_part_of_the_hierarchy() {
        let tree = Tree::new(
            "v1",
            &[
                ("memory.limit_in_bytes", "9223372036854771712"),
                ("job/memory.limit_in_bytes", "4096"),
                ("job/memory.usage_in_bytes", "8192"),
                ("job/memory.stat", "inactive_file 1\ntotal_inactive_file 4096"),
            ],
        );
        let groups = "4:cpu:/\n3:memory:/docker/x/job\n0::/\n";
        let found = Cgroups::find(groups, &tree.mount("/docker/x", "cgroup", "memory"));
        let memory = found.memory_bytes.unwrap();
        assert_eq!((memory.limit, memory.used, memory.room()), (4096, 8192, 0));
        // Groups that this process cannot see, and hierarchies that are not there.
        let outside = "3:memory:/../elsewhere\n";
        assert_eq!(Cgroups::find(outside, &tree.mount("/", "cgroup", "memory")), Cgroups::default());
        assert_eq!(Cgroups::find(groups, &tree.mount("/", "cgroup", "cpu,cpuacct")), Cgroups::default());
        assert_eq!(Cgroups::find("", ""), Cgroups::default());
        assert_eq!(Cgroups::find("nonsense\n3\n::\n", "nonsense - \n"), Cgroups::default());
    }
}
