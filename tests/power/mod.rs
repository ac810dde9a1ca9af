//! What must survive a failure of the mains: a process killed at any moment, a UPS on its battery, the program as a user runs it.

mod kill;
mod nut;
mod program;
mod snapshots;
