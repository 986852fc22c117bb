//! mqadmin
fn main() {}
