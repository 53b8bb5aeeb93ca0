//! The `floodline` command.

fn main() {}
