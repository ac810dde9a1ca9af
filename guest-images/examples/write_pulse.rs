//! Writes the built-in bare-metal guest to a file, for programs that boot a flat image: `write_pulse FILE`.

use std::env;
use std::error::Error;
use std::fs;

use guest_images::pulse::{self, Params};

fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args_os().nth(1).ok_or("usage: write_pulse FILE")?;
    let params = Params { beat_ms: 100, ..Params::new(0x0123_4567_89ab_cdef, 8 << 20) };
    fs::write(file, pulse::image(&params)?)?;
    Ok(())
}
