//! What do hostile peers achieve?
