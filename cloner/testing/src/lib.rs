//! What the tests of several packages share, compiled once. The product never depends on it.
//!
//! A test that runs machines begins with [`room_for`], which waits until the host has room for them, skips the test loudly where
//! `/dev/kvm` cannot be used, and fails it there if `CLONER_REQUIRE_KVM=1`. [`huge_pages`] and [`can_restore_lazily`] ask in the
//! same way for what else a test may need.
//!
//! * **Guests.** A [`Guest`] is a machine in this process and its [`console`]; a [`process::Process`] is one in a process of its
//!   own. [`guest`] configures and checks `pulse`, [`mod@linux`] boots the Linux that the tests of one process share, and [`stock`]
//!   boots Debian's kernels. [`elf`] makes kernels that a loader must refuse.
//! * **Clones.** A [`Studio`] is a pool with the tools around it. [`modes`] lists the ways to take a snapshot and to build a clone.
//! * **Programs.** An [`Executable`] is the program under test, whose path only the test itself knows. [`program`] runs it as a
//!   user does, [`terminal`] on a terminal, and [`own_dev`] as another user on a host with other devices.
//! * **The host.** [`room`] says what this host and user can do, [`host`] what this process holds. [`alone`](alone()) runs a test
//!   in a process of its own, and [`folder`] keeps its files.
//! * **Data.** [`image`] makes up memory, and [`json`] takes saved state apart.
//!
//! What is not here: the disk that forgets (`cloner::flush::files::faulty`) belongs to unit tests of `cloner`, which a package
//! that depends on `cloner` cannot serve, and simulated power (`cloner::battery`) is part of the library, because the demo uses it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]
#![expect(
    clippy::new_without_default,
    reason = "`new` makes a folder or a terminal, which nothing has by default"
)]

mod alone;
pub mod console;
pub mod elf;
mod errors;
pub mod folder;
pub mod guest;
pub mod host;
mod image;
pub mod json;
pub mod linux;
pub mod modes;
mod note;
pub mod own_dev;
pub mod process;
pub mod program;
pub mod room;
pub mod stock;
pub mod studio;
pub mod terminal;

pub use alone::alone;
pub use console::value;
pub use errors::assert_names;
pub use guest::Guest;
pub use image::image;
pub use note::{note, skip};
pub use program::Executable;
pub use room::{can_restore_lazily, can_restore_lazily_too, huge_pages, room_for};
pub use studio::Studio;

const MIB: u64 = 1 << 20;
