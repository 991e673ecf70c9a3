//! Nothing but a list of dependencies: see the comment in `Cargo.toml`.
