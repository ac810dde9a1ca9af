//! Checks the processors that encode and decode.

use super::super::facts::HostFacts;
use super::{Check, Subject, counted};

const GROUP: &str = "Processors";

const COUNT: Subject = Subject::new(GROUP, "processors", "encoding and decoding on all of them at once");
const CODER: Subject = Subject::new(GROUP, "coder", "the speed of encoding and decoding");

pub(super) fn judge(facts: &HostFacts) -> Vec<Check> {
    vec![count(facts), coder(facts)]
}

fn count(facts: &HostFacts) -> Check {
    let usable = facts.processor.usable.unwrap_or(1);
    let online = facts.processor.online.unwrap_or(usable);
    let value = format!("{usable} of {} usable", counted(online as u64, "processor"));
    if usable > 1 {
        return COUNT.ok(value);
    }
    let remedy = if online > usable {
        format!("taskset -p -c 0-{} $$ # or a larger CPU quota", online - 1)
    } else {
        String::from("give this machine a second processor")
    };
    COUNT.slower(value, remedy)
}

fn coder(facts: &HostFacts) -> Check {
    match facts.coder {
        "avx512" => CODER.ok("AVX-512"),
        "avx2" => CODER.ok("AVX2"),
        _ if cfg!(feature = "portable") => {
            CODER.slower("built without SIMD", "cargo build --release # without --features portable")
        }
        _ if facts.processor.is_virtual => CODER.slower(
            "this machine's processor shows no AVX2",
            "give this machine its host's processor model (QEMU: -cpu host)",
        ),
        _ => CODER.slower("the processor has no AVX2", "use a processor with AVX2"),
    }
}
