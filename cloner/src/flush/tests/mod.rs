//! Tests the way to the disk and back, on a disk that fails in every way.

mod crash;
mod disk;
mod flips;
mod forged;
mod forged_files;
mod real;
mod scene;
