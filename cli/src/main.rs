//! The `llava` command.
fn main() {}
