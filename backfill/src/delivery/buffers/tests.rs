use super::*;
use crate::stream::Ids;
use vbstore_core::ManualClock;
use vbstore_core::lock_order::assert_none_held;

#[derive(Default)]
struct Woken(parking_lot::Mutex<Vec<ConsumerId>>);

impl RoomWaker for Woken {
    fn room(&self, consumer: ConsumerId) -> bool {
        self.0.lock().push(consumer);
        true
    }
}

struct Fixture {
    buffers: Arc<Buffers>,
    woken: Arc<Woken>,
    clock: Arc<ManualClock>,
}

impl Fixture {
    fn new(total: u64) -> Self {
        let woken = Arc::new(Woken::default());
        let weak: Weak<Woken> = Arc::downgrade(&woken);
        let clock = Arc::new(ManualClock::new());
        let shared: Arc<ManualClock> = Arc::clone(&clock);
        Self {
            buffers: Buffers::new(total, weak, shared),
            woken,
            clock,
        }
    }

    fn consumer(&self, number: u64, max: u64, drain: u8) -> ConsumerId {
        let id = Ids::test_consumer(number);
        self.buffers.add_consumer(id, max, drain, 1);
        id
    }

    fn awake(&self, number: u64, max: u64, drain: u8) -> ConsumerId {
        let id = self.consumer(number, max, drain);
        self.buffers.visit(id, true);
        self.take_woken();
        id
    }

    fn take_woken(&self) -> Vec<ConsumerId> {
        std::mem::take(&mut *self.woken.0.lock())
    }

    fn holders(&self) -> u64 {
        self.buffers.state.lock().holders
    }
}

#[test]
fn a_full_buffer_stays_full_until_a_share_is_drained() {
    let f = Fixture::new(1_000_000);
    let id = f.awake(1, 1_000, 25);
    let reserve = || f.buffers.reserve(id, 100);
    let mut charges: Vec<Charge> = (0..10).map_while(|_| reserve().ok()).collect();
    assert_eq!(
        charges.len(),
        9,
        "the last eighth is too little for a slice"
    );
    charges[0].settle(200);
    assert_eq!(reserve().unwrap_err(), ReserveError::Full);
    for _ in 0..2 {
        charges.pop();
        assert!(f.buffers.is_still_refused(id), "200 of 1,000 drained");
    }
    // One byte less than the share is drained.
    charges.last_mut().unwrap().settle(51);
    assert!(f.buffers.is_still_refused(id));
    assert!(f.take_woken().is_empty());
    charges.last_mut().unwrap().settle(50);
    assert!(!f.buffers.is_still_refused(id));
    assert_eq!(f.take_woken(), [id]);
    charges.clear();
    assert_eq!((f.buffers.used_by(id), f.buffers.used()), (0, 0));
    assert_eq!(f.holders(), 0);
}

#[test]
fn one_item_passes_whatever_its_size_and_drains_at_nothing() {
    let f = Fixture::new(10);
    let id = f.awake(7, 10, 100);
    let mut charge = f.buffers.reserve(id, 4_000).unwrap();
    assert_eq!(charge.bytes(), 10);
    charge.settle(5_000);
    assert_eq!(f.buffers.used(), 5_000);
    assert!(f.buffers.reserve(id, 1).is_err());
    drop(charge);
    assert!(!f.buffers.is_still_refused(id));
    assert_eq!((f.buffers.used(), f.holders()), (0, 0));
}

#[test]
fn until_its_reader_comes_a_consumer_asks_nobody_for_room() {
    let f = Fixture::new(1_000);
    let id = f.consumer(1, 1_000, 25);
    let first = f.buffers.reserve(id, 100).unwrap();
    f.buffers.visit(id, false);
    assert_eq!(f.take_woken(), [id]);
    f.buffers.visit(id, true);
    assert!(f.take_woken().is_empty(), "the consumer is awake already");
    let second = f.buffers.reserve(id, 800).unwrap();
    // No room is left for a second consumer that is not awake, and it does not queue for room
    // either.
    let other = f.consumer(2, 1_000, 25);
    assert_eq!(
        f.buffers.reserve(other, 100).unwrap_err(),
        ReserveError::Full
    );
    assert!(!f.buffers.is_short());
    f.buffers.visit(other, false);
    assert_eq!(f.take_woken(), [other]);
    assert_eq!(
        f.buffers.reserve(other, 100).unwrap_err(),
        ReserveError::Short
    );
    assert!(f.buffers.is_short());
    drop((first, second));
    assert_eq!(f.take_woken(), [other]);
    assert!(!f.buffers.is_short());
    assert_eq!(f.buffers.reserve(other, 5_000).unwrap().bytes(), 1_000);
}

#[test]
fn a_consumer_is_awake_while_its_reader_waits_and_for_a_while_after_it_came() {
    let f = Fixture::new(1_000);
    let holder = f.awake(1, 1_000, 25);
    let held = f.buffers.reserve(holder, 1_000).unwrap();
    let (waits, came) = (f.awake(2, 1_000, 25), f.awake(3, 1_000, 25));
    f.buffers.visit(came, false);
    let refused = |id| f.buffers.reserve(id, 100).unwrap_err();
    assert_eq!(
        (refused(waits), refused(came)),
        (ReserveError::Short, ReserveError::Short)
    );
    f.clock.advance(AWAKE_FOR);
    assert_eq!(
        (refused(waits), refused(came)),
        (ReserveError::Short, ReserveError::Full)
    );
    // Served in order, one at a time; the next gets what one leaves.
    drop(held);
    assert_eq!(f.take_woken(), [waits]);
    let part = f.buffers.reserve(waits, 500).unwrap();
    assert_eq!(f.take_woken(), [came]);
    drop(part);
    assert!(
        f.buffers.put_to_sleep(waits).is_none(),
        "it has nothing buffered"
    );
    f.buffers.visit(waits, false);
    f.buffers.visit(came, false);
    assert_eq!(f.take_woken(), [came], "the other one was awake");
}

#[test]
fn those_that_buffer_something_have_equal_shares() {
    let f = Fixture::new(900);
    let ids: Vec<ConsumerId> = (0..3).map(|n| f.awake(n, 1_000, 25)).collect();
    let one = f.buffers.reserve(ids[0], 5_000).unwrap();
    assert_eq!(one.bytes(), 900, "no other consumer has anything buffered");
    assert_eq!(
        f.buffers.reserve(ids[1], 100).unwrap_err(),
        ReserveError::Short
    );
    drop(one);
    assert_eq!(f.take_woken(), [ids[1]]);
    let mut one = f.buffers.reserve(ids[0], 5_000).unwrap();
    one.settle(100);
    let two = f.buffers.reserve(ids[1], 5_000).unwrap();
    assert_eq!(two.bytes(), 450);
    let three = f.buffers.reserve(ids[2], 5_000).unwrap();
    assert_eq!(three.bytes(), 300);
    // The share of each of the three is 300 now.
    assert_eq!(
        f.buffers.reserve(ids[1], 1).unwrap_err(),
        ReserveError::Full
    );
    assert_eq!(f.holders(), 3);
    // A read from memory is never refused: one item is always allowed.
    assert_eq!(f.buffers.reserve_for_reader(ids[1], 100).bytes(), 1);
    drop((one, two, three));
    assert_eq!((f.buffers.used(), f.holders()), (0, 0));
}

#[test]
fn as_many_slices_as_may_be_read_at_once_have_room() {
    let f = Fixture::new(1_000_000);
    let id = Ids::test_consumer(1);
    f.buffers.add_consumer(id, 16_000, 25, 16);
    f.buffers.visit(id, true);
    let reserve = || f.buffers.reserve(id, 100_000).ok();
    // Each slice gets at least an eighth of the buffer, the least that is worth a db snapshot.
    let charges: Vec<Charge> = std::iter::from_fn(reserve).collect();
    assert_eq!(charges.len(), 8);
    assert_eq!(f.buffers.used_by(id), 16_000);
    let beside = f.buffers.beside(&charges[0]);
    assert_eq!(f.buffers.used_by(id), 16_001);
    drop((charges, beside));
    assert_eq!((f.buffers.used(), f.holders()), (0, 0));
}

#[test]
fn buffered_bytes_of_a_dropped_consumer_count_until_released() {
    let f = Fixture::new(1_000);
    let id = f.awake(1, 1_000, 25);
    let charge = f.buffers.reserve(id, 600).unwrap();
    f.buffers.remove_consumer(id);
    assert!(f.buffers.reserve(id, 1).is_err());
    assert_eq!(f.buffers.used(), 600);
    drop(charge);
    assert_eq!((f.buffers.used(), f.holders()), (0, 0));
    assert!(f.buffers.state.lock().accounts.is_empty());
    assert!(f.buffers.is_still_refused(id));
    assert_eq!(f.buffers.reserve(id, 1).unwrap_err(), ReserveError::Full);
}

#[test]
fn a_consumer_that_is_gone_cannot_be_put_to_sleep() {
    let f = Fixture::new(1_000);
    let id = f.awake(1, 1_000, 25);
    let charge = f.buffers.reserve(id, 600).unwrap();
    f.buffers.remove_consumer(id);
    assert!(f.buffers.put_to_sleep(id).is_none());
    drop(charge);
    assert!(f.buffers.put_to_sleep(id).is_none());
}

#[test]
fn a_wait_that_was_abandoned_ends_when_the_consumer_is_put_to_sleep() {
    let f = Fixture::new(1_000);
    let holder = f.awake(1, 1_000, 25);
    let held = f.buffers.reserve(holder, 900).unwrap();
    // The reader waits as a future, which the program then drops without notice.
    let cancelled = f.awake(2, 1_000, 25);
    assert_eq!(
        f.buffers.reserve(cancelled, 100).unwrap_err(),
        ReserveError::Short
    );
    drop(held);
    let read = f.buffers.reserve(cancelled, 1_000).unwrap();
    assert!(f.buffers.put_to_sleep(cancelled).is_some());
    f.clock.advance(AWAKE_FOR);
    drop(read);
    let _held = f.buffers.reserve(holder, 900).unwrap();
    assert_eq!(
        f.buffers.reserve(cancelled, 100).unwrap_err(),
        ReserveError::Full,
        "its reader has not visited since"
    );
    assert!(!f.buffers.is_short());
}

/// A clock that asserts that a lock is held: here that can only be the lock of the accounts.
#[derive(Debug)]
struct UnderLock;

impl Clock for UnderLock {
    fn wall_micros(&self) -> u64 {
        0
    }

    fn monotonic(&self) -> Duration {
        let is_free = std::panic::catch_unwind(assert_none_held).is_ok();
        // Held locks are known only in builds with debug assertions.
        assert!(
            !is_free || !cfg!(debug_assertions),
            "the clock is read without the lock"
        );
        Duration::ZERO
    }
}

#[test]
fn time_is_read_under_the_lock_so_that_none_acts_on_an_older_one_later() {
    let woken = Arc::new(Woken::default());
    let weak: Weak<Woken> = Arc::downgrade(&woken);
    let buffers = Buffers::new(1_000, weak, Arc::new(UnderLock));
    let id = Ids::test_consumer(1);
    buffers.add_consumer(id, 1_000, 25, 1);
    buffers.visit(id, true);
    let charge = buffers.reserve(id, 100).unwrap();
    assert!(!buffers.is_still_refused(id));
    drop(charge);
}

#[test]
fn a_waiting_reader_is_awake_again_if_its_consumer_was_not_paused() {
    let f = Fixture::new(1_000);
    let holder = f.awake(1, 1_000, 25);
    let waits = f.awake(2, 1_000, 25);
    let _held = f.buffers.reserve(holder, 800).unwrap();
    let read = f.buffers.reserve(waits, 200).unwrap();
    f.clock.advance(AWAKE_FOR);
    let asleep = f.buffers.put_to_sleep(waits).unwrap();
    drop(read);
    // Meanwhile it is refused like a consumer without a reader, and is not in `short`.
    let _more = f.buffers.reserve(holder, 200).unwrap();
    assert_eq!(
        f.buffers.reserve(waits, 100).unwrap_err(),
        ReserveError::Full
    );
    f.take_woken();
    f.buffers.wake_again(&asleep);
    assert_eq!(f.take_woken(), [waits]);
    assert_eq!(
        f.buffers.reserve(waits, 100).unwrap_err(),
        ReserveError::Short
    );
    // The reader has visited since, which takes precedence.
    let read = f.buffers.reserve_for_reader(waits, 10);
    let asleep = f.buffers.put_to_sleep(waits).unwrap();
    f.buffers.visit(waits, false);
    f.take_woken();
    f.buffers.wake_again(&asleep);
    assert!(f.take_woken().is_empty());
    drop(read);
}
