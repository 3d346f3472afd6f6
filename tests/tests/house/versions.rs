//! The versions that the project reports match those it uses.

use super::files::read;

#[test]
fn the_reported_version_of_rocksdb_is_the_linked_one() {
    let lock = read("Cargo.lock");
    let after = lock.split("name = \"librocksdb-sys\"\n").nth(1).unwrap();
    let linked = after.split('"').nth(1).unwrap().split('+').nth(1).unwrap();
    let source = read("engine/src/samples/tables.rs");
    let wanted = format!("const ROCKSDB: &str = \"{linked}\";");
    assert!(
        source.contains(&wanted),
        "engine/src/samples/tables.rs: {wanted}"
    );
}
