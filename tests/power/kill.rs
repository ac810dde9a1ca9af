//! A process that flushes is killed by SIGKILL at any moment, and another one recovers what it left.
//!
//! This shows what the process leaves, not what a disk without power does: that is `cloner::flush::tests::crash`.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cloner::progress::Watch;
use cloner_testing::folder::Folder as Temporary;
use cloner_testing::note;

use super::snapshots::{assert_is, fill, flusher, folder, pool, recover};

const WORK_IN: &str = "CLONER_TEST_FLUSH_IN";
const START: &str = "CLONER_TEST_FLUSH_START";
const KILLS: u64 = 120;

/// Puts, flushes and removes snapshots until it is killed, and prints what is certain as soon as it is.
#[test]
fn works_until_it_is_killed() {
    // Only the test below runs this for its effect.
    let Some(path) = env::var_os(WORK_IN) else { return };
    let start: u64 = env::var(START).unwrap().parse().unwrap();
    let say = |line: String| {
        let mut out = std::io::stderr().lock();
        out.write_all(format!("{line}\n").as_bytes()).unwrap();
    };
    let pool = pool();
    let folder = Arc::new(folder(path.as_ref()));
    recover(&folder, &pool);
    let flusher = flusher(&pool, &folder);
    for number in start.. {
        let name = format!("n{number}");
        let stored = fill(pool.reserve(&name).unwrap(), number);
        say(format!("maybe {number}"));
        flusher.flush_snapshot(&stored, Watch::default()).unwrap();
        say(format!("safe {number}"));
        let all = pool.list();
        if all.len() > 6 {
            let name = &all[usize::try_from(number % 7).unwrap()].name;
            say(format!("maybe {}", &name[1..]));
            pool.remove(name).unwrap();
            folder.remove(name).unwrap();
            say(format!("removed {}", &name[1..]));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Safe,
    Removed,
    /// The snapshot was being flushed or removed.
    Maybe,
}

#[test]
fn a_process_killed_at_random_points_loses_nothing_that_was_safe() {
    let temporary = Temporary::new();
    let mut known: BTreeMap<u64, Known> = BTreeMap::new();
    let (mut recovered, mut unfinished, mut seed) = (0, 0, 1_u64);
    let started = Instant::now();
    for kill in 0..KILLS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["power::kill::works_until_it_is_killed", "--exact", "--nocapture", "--test-threads=1"])
            .env(WORK_IN, temporary.path())
            .env(START, (kill * 100_000).to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // Kill it only once it works, however busy the machine is; then at any moment.
        let first = lines.next().unwrap().unwrap();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_micros((seed >> 33) % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in [first].into_iter().chain(lines.map_while(Result::ok)) {
            let Some((what, number)) = line.split_once(' ') else { continue };
            let Ok(number) = number.parse() else { panic!("the child failed: {line}") };
            let what = match what {
                "safe" => Known::Safe,
                "removed" => Known::Removed,
                "maybe" => Known::Maybe,
                _ => panic!("the child failed: {line}"),
            };
            known.insert(number, what);
        }
        let (pool, folder) = (pool(), folder(temporary.path()));
        let report = recover(&folder, &pool);
        unfinished += report.dropped.len();
        for dropped in &report.dropped {
            assert!(
                matches!(dropped.why, cloner::flush::Error::Unfinished { .. }),
                "kill {kill}: {dropped:?}"
            );
        }
        for (number, what) in &mut known {
            let found = pool.get(&format!("n{number}"));
            match (*what, found) {
                (Known::Safe | Known::Maybe, Ok(stored)) => {
                    assert_is(&stored, *number);
                    *what = Known::Safe;
                    recovered += 1;
                }
                (Known::Removed | Known::Maybe, Err(_)) => *what = Known::Removed,
                (what, found) => panic!("kill {kill}: snapshot {number} is {what:?}, found {found:?}"),
            }
        }
    }
    assert!(unfinished > 0 && recovered > 100);
    let seconds = started.elapsed().as_secs_f64();
    note(format_args!(
        "kill -9: {KILLS} kills in {seconds:.1} s, {recovered} snapshots recovered, {unfinished} unfinished flushes named, \
         {} snapshots in all",
        known.len()
    ));
}
