//! What is saved comes back.

use guest_images::pulse::{Params, Work};
use vmm::VmState;

use crate::MIB;
use crate::support::json::leaves;
use crate::support::{Guest, Studio, guest, room_for, note};

fn differences(before: &VmState, after: &VmState) -> Vec<String> {
    let (before, after) = (leaves(before.get()), leaves(after.get()));
    let mut out = vec![];
    for (p, v) in &before { if after.get(p) != Some(v) { out.push(format!("{p}: {v} -> {:?}", after.get(p))); } }
    out
}

#[test]
fn pulse() {
    let Some(_room) = room_for(2) else { return };
    for cpus in [1, 4] { for work in [Work::Idle, Work::SelfTest] {
        let studio = Studio::new(16 * MIB);
        let source = Guest::boot(&guest::pulse(&Params { work, ..Params::new(7, MIB)}, 4 * MIB, cpus));
        source.line("pulse: ready");
        source.beat();
        let snapshot = studio.snapshot(&source, "a");
        let target = Guest::restore(snapshot.state(), studio.memory(&snapshot));
        let again = target.pause().save().unwrap();
        for d in differences(snapshot.state(), &again) { note(format_args!("{cpus} {work:?} {}", &d[..d.len().min(300)])); }
        if cpus == 1 { std::fs::write("/tmp/tests-state.json", serde_json::to_string_pretty(snapshot.state().get()).unwrap()).unwrap(); }
    }}
}
