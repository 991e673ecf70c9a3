//! The protocol loop, driven through an in-memory socket with a fake engine behind it.
