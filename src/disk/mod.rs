//! How do bytes get onto the disk, and stay there?
//!
//! Every function says what has been reached when it returns: handed to the kernel, or on the disk. Files are
//! readable by their owner only.

pub mod append;
pub mod directory;
pub mod replace;
pub mod socket;
