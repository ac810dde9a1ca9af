//! Bit-marker coding of guest memory.
