//! The bit-marker coder of guest memory: encodes a chunk of up to 512 pages and decodes it again.
//!
//! [`chunk`] describes what an encoded chunk looks like, [`hot`] encodes and decodes the form that lies in RAM, and [`cold`] the
//! smaller one for files and networks. Nothing here knows KVM, files or names: an encoded chunk is one run of bytes.

pub mod chunk;
pub mod cold;
pub mod hot;

#[cfg(test)]
mod reader;
