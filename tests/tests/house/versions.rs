//! The versions that the project reports match those it uses.

use super::files::read;

#[test]
fn the_version_of_rocksdb_that_is_told_is_the_one_that_is_linked() {
    let lock = read("Cargo.lock");
    let after = lock.split("name = \"librocksdb-sys\"\n").nth(1).unwrap();
    let linked = after.split('"').nth(1).unwrap().split('+').nth(1).unwrap();
    let told = read("engine/src/samples/tables.rs");
    let wanted = format!("const ROCKSDB: &str = \"{linked}\";");
    assert!(
        told.contains(&wanted),
        "engine/src/samples/tables.rs: {wanted}"
    );
}
