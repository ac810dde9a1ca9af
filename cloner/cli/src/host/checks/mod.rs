//! Judges facts: takes them and returns checks. Nothing here asks the host for anything.

mod clock;
mod limits;
mod memory;
mod processors;
#[cfg(test)]
mod tests;
mod virtualization;

use serde::Serialize;

use super::facts::HostFacts;

/// The verdict on one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Verdict {
    #[serde(rename = "ok")]
    Ok,
    /// It works, but more slowly, or with less of it, than elsewhere.
    #[serde(rename = "works, slower")]
    Slower,
    #[serde(rename = "missing")]
    Missing,
}

impl Verdict {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Slower => "works, slower",
            Self::Missing => "missing",
        }
    }
}

/// What is checked, and what it is needed for.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Subject {
    pub(super) group: &'static str,
    pub(super) id: &'static str,
    #[serde(rename = "for")]
    pub(super) purpose: &'static str,
    /// Whether guests cannot be booted and cloned at all without it.
    pub(super) required: bool,
}

/// A subject and its verdict.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    #[serde(flatten)]
    pub(super) subject: Subject,
    pub(super) verdict: Verdict,
    /// What was found on this host.
    pub(super) value: String,
    /// One line that helps: a command, or what to do where no command can. Always present unless the verdict is ok.
    pub(super) remedy: Option<String>,
}

impl Subject {
    const fn new(group: &'static str, id: &'static str, purpose: &'static str) -> Self {
        Self { group, id, purpose, required: false }
    }

    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    fn ok(self, value: impl Into<String>) -> Check {
        Check { subject: self, verdict: Verdict::Ok, value: value.into(), remedy: None }
    }

    fn slower(self, value: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { subject: self, verdict: Verdict::Slower, value: value.into(), remedy: Some(remedy.into()) }
    }

    fn missing(self, value: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { subject: self, verdict: Verdict::Missing, value: value.into(), remedy: Some(remedy.into()) }
    }
}

impl Check {
    /// Whether guests cannot be booted and cloned because of this check.
    pub(super) fn is_fatal(&self) -> bool {
        self.subject.required && self.verdict == Verdict::Missing
    }
}

/// Judges everything. If `/dev/kvm` does not open, whatever needs it open is left out.
pub(super) fn judge(facts: &HostFacts) -> Vec<Check> {
    let mut checks = virtualization::judge(facts);
    checks.extend(clock::judge(facts));
    checks.extend(memory::judge(facts));
    checks.extend(processors::judge(facts));
    checks.extend(limits::judge(facts));
    checks
}

/// A count with its noun in the singular or plural, for people.
fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}
