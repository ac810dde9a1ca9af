//! Runs tests that count what their process holds in a process of their own.

use std::env;
use std::process::Command;

use crate::note;

const ALONE: &str = "CLONER_TEST_ALONE";

/// Runs `body` in a process that runs nothing else: this binary again, with only the calling test, whose name is `test`.
pub fn alone(test: &str, body: impl FnOnce()) {
    if env::var_os(ALONE).is_some() {
        return body();
    }
    let output = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // A misspelt name would run no test and succeed.
    let ran = stdout.contains("test result: ok. 1 passed");
    assert!(
        output.status.success() && ran,
        "{test} in a process of its own: {}\n{stdout}\n{stderr}",
        output.status
    );
    for line in stderr.lines() {
        note(format_args!("{line}"));
    }
}
