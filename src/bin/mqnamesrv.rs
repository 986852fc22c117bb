//! mqnamesrv
fn main() {}
