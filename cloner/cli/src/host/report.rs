//! Prints the checks as a table of 80 columns, or as JSON.

use std::fmt;

use serde::Serialize;

use super::checks::{Check, Verdict};
use super::facts::HostFacts;

/// Width of the table in columns. Commands are never broken, and may be wider.
const WIDTH: usize = 80;
/// Column at which the text of a check begins.
const INDENT: usize = 33;

/// Everything that is printed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Whether guests can be booted and cloned.
    usable: bool,
    ok: usize,
    works_slower: usize,
    missing: usize,
    checks: Vec<Check>,
    facts: HostFacts,
}

impl Report {
    pub(super) fn new(checks: Vec<Check>, facts: HostFacts) -> Self {
        let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
        Self {
            usable: !checks.iter().any(Check::is_fatal),
            ok: count(Verdict::Ok),
            works_slower: count(Verdict::Slower),
            missing: count(Verdict::Missing),
            checks,
            facts,
        }
    }

    pub(super) const fn is_usable(&self) -> bool {
        self.usable
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain structs of numbers and texts")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostFacts { kernel, processor, user, .. } = &self.facts;
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| String::from("unknown"));
        writeln!(
            f,
            "Linux {} on {} ({})",
            kernel.release,
            known(&processor.model_name),
            known(&processor.vendor)
        )?;
        let name = user.name.as_ref().map_or(String::new(), |name| format!(" ({name})"));
        writeln!(f, "as user {}{name}", user.id)?;
        let mut group = "";
        for check in &self.checks {
            if check.subject.group != group {
                group = check.subject.group;
                writeln!(f, "\n{group}")?;
            }
            row(f, check)?;
        }
        let Self { ok, works_slower, missing, .. } = self;
        writeln!(f, "\n{ok} ok, {works_slower} slower, {missing} missing")?;
        let fatal: Vec<&str> = self.checks.iter().filter(|c| c.is_fatal()).map(|c| c.subject.id).collect();
        if fatal.is_empty() {
            writeln!(f, "This host boots and clones guests.")
        } else {
            writeln!(f, "This host CANNOT boot and clone guests, for want of: {}", fatal.join(", "))
        }
    }
}

fn row(f: &mut fmt::Formatter<'_>, check: &Check) -> fmt::Result {
    let Check { subject, verdict, value, remedy } = check;
    let purpose = format!("for {}", subject.purpose);
    let texts = [value, &purpose].map(|text| wrapped(text, WIDTH - INDENT));
    for (i, line) in texts.iter().flatten().enumerate() {
        let (verdict, id) = if i == 0 { (verdict.text(), subject.id) } else { ("", "") };
        writeln!(f, "{}", format!("  {verdict:<13}  {id:<14}  {line}").trim_end())?;
    }
    // The remedy gets a line of its own, so that a command can be printed as it has to be typed.
    remedy.as_ref().map_or(Ok(()), |remedy| writeln!(f, "      => {remedy}"))
}

/// Breaks a text into lines of at most `width` characters, except where a single word is longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrapped("longer than", 3), ["longer", "than"]);
        assert_eq!(wrapped("", 3), [""]);
        assert_eq!(wrapped("né né", 5), ["né né"], "characters, not bytes");
    }
}
