//! Makes the golden stores of the present format: `make-golden NAME clean|killed`.
//!
//! It is run once for each format, when the format is introduced. Never make a store again for a
//! format: later versions must open what an old version wrote.

use std::process::exit;
use vbstore::{Config, Engine};
use vbstore_tests::golden;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, name, how] = args.as_slice() else {
        eprintln!("usage: make-golden NAME clean|killed");
        exit(2);
    };
    let path = golden::directory().join(name);
    let config = Config {
        vbuckets: Some(2),
        write_buffer_bytes: Some(64 << 10),
        ..Config::default()
    };
    let engine = Engine::builder(&path).config(config).open().unwrap();
    golden::write(&engine);
    match how.as_str() {
        "clean" => engine.close().unwrap(),
        // Exits without closing, so that the changes stay in the log.
        _ => exit(0),
    }
}
