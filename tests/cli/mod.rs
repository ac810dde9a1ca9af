//! The `cloner` program: what it prints, how it ends, and what it leaves behind.

mod bad_input;
mod clone;
mod demo;
mod host;
mod host_report;
mod interrupt;
mod ordinary_user;
mod run;
