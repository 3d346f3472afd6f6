//! Cuts RocksDB's log at every byte of its end.

use super::specimen::{Specimen, Verdict, cut};
use std::sync::atomic::{AtomicUsize, Ordering};
use vbstore::Error;

const TAIL: u64 = 4_096;

#[test]
fn the_log_cut_at_every_byte_of_its_last_4_kib() {
    let specimen = Specimen::make(2_000, false);
    let log = specimen.logs().pop().unwrap();
    let len = specimen
        .path()
        .join("db")
        .join(&log)
        .metadata()
        .unwrap()
        .len();
    assert!(len > TAIL, "the last log file has only {len} bytes");
    let (refused, whole, partly) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );

    let check = |at: u64| {
        let (verdict, logged) = specimen.try_open(|path| cut(&path.join("db").join(&log), at));
        match verdict {
            // The log ends below the synced sequence that the witness records.
            Verdict::Refused(Error::DataLoss { expected, found }) => {
                assert!(found < expected);
                refused.fetch_add(1, Ordering::Relaxed);
            }
            Verdict::Whole if logged == specimen.logged.len() => {
                whole.fetch_add(1, Ordering::Relaxed);
            }
            Verdict::Whole => {
                partly.fetch_add(1, Ordering::Relaxed);
            }
            other => panic!("cut at {at} of {len}: {other:?}"),
        }
    };
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let step = next.fetch_add(1, Ordering::Relaxed) as u64;
                    if step > TAIL {
                        return;
                    }
                    check(len - step);
                }
            });
        }
    });
    let counts = [&refused, &whole, &partly].map(|count| count.load(Ordering::Relaxed));
    println!(
        "refused {}, whole {}, without some unsynced writes {}",
        counts[0], counts[1], counts[2]
    );
    assert_eq!(counts.iter().sum::<usize>() as u64, TAIL + 1);
    // Asserts that cuts on both sides of the recorded sequence were tried, and that the uncut log
    // is whole.
    assert!(
        counts[0] > 1_000 && counts[1] >= 1 && counts[2] > 1_000,
        "{counts:?}"
    );
}
