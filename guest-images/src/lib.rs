//! Guests to test and demonstrate with.
