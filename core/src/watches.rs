//! Watches: the wakers that wait for changes of a vBucket.
//!
//! They are only touched under the vBucket's lock. Each write fires the watches that it fulfils, so
//! its cost must not grow with their number, whether some fire or none. So watches are sorted by
//! the seqno they wait for, for each visibility separately. If all of one visibility are fulfilled,
//! they are taken out as a whole. That is the common case: followers that are caught up wait for
//! the same seqno.

use crate::ids::Seqno;
use crate::vbucket::Visibility;
use std::collections::{BTreeMap, HashMap};
use std::task::Waker;

/// Identifies a waker. Two wakers with the same data and functions wake the same task
/// ([`Waker::will_wake`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct WakerId {
    data: usize,
    functions: usize,
}

impl WakerId {
    fn of(waker: &Waker) -> Self {
        Self {
            data: waker.data().addr(),
            functions: std::ptr::from_ref(waker.vtable()).addr(),
        }
    }
}

/// The key of a watch among those of its visibility. The watch is fulfilled by a change above the
/// seqno; the number distinguishes watches of the same seqno.
type WatchKey = (Seqno, u64);

/// The watches of one visibility.
#[derive(Debug, Default)]
struct WatchSet {
    wakers: BTreeMap<WatchKey, Waker>,
    /// The key of each waker's watch. A waker has at most one watch, the newest.
    places: HashMap<WakerId, WatchKey>,
}

/// Watches that were fulfilled together. They are taken out as a set, so that the thread that wakes
/// them walks through it without the lock.
#[derive(Debug)]
pub(crate) struct FiredWatches(BTreeMap<WatchKey, Waker>);

impl FiredWatches {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the wakers, sorted by the seqno they waited for and then by when they began to wait.
    pub(crate) fn into_wakers(self) -> impl Iterator<Item = Waker> {
        self.0.into_values()
    }
}

/// The watches of one vBucket.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    waiting: [WatchSet; Visibility::ALL.len()],
    last_number: u64,
}

impl Watches {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.iter().all(|of| of.wakers.is_empty())
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.iter().map(|of| of.wakers.len()).sum()
    }

    /// Adds a watch. Returns the waker it replaces, which the caller drops after releasing the
    /// lock.
    pub(crate) fn add(
        &mut self,
        visibility: Visibility,
        above: Seqno,
        waker: Waker,
    ) -> Option<Waker> {
        let replaced = self.remove(&waker);
        self.last_number += 1;
        let place = (above, self.last_number);
        if let Some(of) = self.waiting.get_mut(visibility.index()) {
            of.places.insert(WakerId::of(&waker), place);
            of.wakers.insert(place, waker);
        }
        replaced
    }

    /// Removes the watch of `waker`. Returns the waker that was stored, which the caller drops
    /// after releasing the lock.
    pub(crate) fn remove(&mut self, waker: &Waker) -> Option<Waker> {
        let id = WakerId::of(waker);
        let mut all = self.waiting.iter_mut();
        all.find_map(|of| {
            let place = of.places.remove(&id)?;
            let waker = of.wakers.remove(&place);
            assert!(waker.is_some(), "a watch has a place but no waker");
            waker
        })
    }

    pub(crate) fn take_all(&mut self) -> Vec<FiredWatches> {
        let taken = std::mem::take(&mut self.waiting);
        taken
            .into_iter()
            .map(|of| FiredWatches(of.wakers))
            .filter(|fired| fired.len() > 0)
            .collect()
    }

    /// Takes out the watches that are fulfilled when changes up to `visible` may be delivered.
    /// `visible` has one seqno for each visibility, in the order of [`Visibility::ALL`].
    pub(crate) fn take_fulfilled(
        &mut self,
        visible: &[Seqno; Visibility::ALL.len()],
    ) -> Vec<FiredWatches> {
        let mut fired = Vec::new();
        for (of, visible) in self.waiting.iter_mut().zip(visible) {
            let is_fulfilled =
                |place: Option<&WatchKey>| place.is_some_and(|(above, _)| above < visible);
            let first = of.wakers.first_key_value().map(|(place, _)| place);
            if !is_fulfilled(first) {
                continue;
            }
            let last = of.wakers.last_key_value().map(|(place, _)| place);
            // The last one waits for the highest seqno, so all are fulfilled: taking the whole map
            // is cheap.
            if is_fulfilled(last) {
                fired.push(FiredWatches(std::mem::take(of).wakers));
                continue;
            }
            // Watches at the visible seqno or above stay; 0 is below every number in use.
            let rest = of.wakers.split_off(&(*visible, 0));
            let taken = std::mem::replace(&mut of.wakers, rest);
            for waker in taken.values() {
                of.places.remove(&WakerId::of(waker));
            }
            fired.push(FiredWatches(taken));
        }
        fired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Flag(AtomicUsize);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn flags(count: usize) -> (Vec<Arc<Flag>>, Vec<Waker>) {
        let flags: Vec<Arc<Flag>> = (0..count).map(|_| Arc::default()).collect();
        let wakers = flags.iter().cloned().map(Waker::from).collect();
        (flags, wakers)
    }

    fn woken(flags: &[Arc<Flag>]) -> Vec<usize> {
        flags
            .iter()
            .map(|flag| flag.0.load(Ordering::SeqCst))
            .collect()
    }

    fn fire(watches: &mut Watches, visible: [u64; 3]) {
        let visible = visible.map(Seqno::new);
        for fired in watches.take_fulfilled(&visible) {
            fired.into_wakers().for_each(Waker::wake);
        }
    }

    #[test]
    fn a_watch_fires_once_its_visibility_has_passed_its_seqno() {
        let mut watches = Watches::default();
        let (flags, wakers) = flags(4);
        let places = [
            (Visibility::Synced, 5),
            (Visibility::Synced, 7),
            (Visibility::Persisted, 5),
            (Visibility::Memory, 9),
        ];
        for ((visibility, above), waker) in places.into_iter().zip(wakers) {
            assert!(watches.add(visibility, Seqno::new(above), waker).is_none());
        }
        fire(&mut watches, [5, 5, 9]);
        assert_eq!(woken(&flags), [0, 0, 0, 0]);
        fire(&mut watches, [6, 6, 9]);
        assert_eq!(woken(&flags), [1, 0, 1, 0]);
        assert_eq!(watches.len(), 2);
        fire(&mut watches, [8, 8, 10]);
        assert_eq!(woken(&flags), [1, 1, 1, 1]);
        assert!(watches.is_empty());
    }

    #[test]
    fn a_waker_has_one_watch_wherever_it_was() {
        let mut watches = Watches::default();
        let (flags, wakers) = flags(1);
        let waker = wakers.first().unwrap();
        watches.add(Visibility::Synced, Seqno::new(5), waker.clone());
        let replaced = watches.add(Visibility::Memory, Seqno::new(3), waker.clone());
        assert!(replaced.is_some());
        assert_eq!(watches.len(), 1);
        fire(&mut watches, [9, 9, 3]);
        assert_eq!(woken(&flags), [0]);
        assert!(watches.remove(waker).is_some());
        assert!(watches.remove(waker).is_none());
        // Fired watches leave no place behind, whether some or all of a visibility fire.
        for others in [0, 1] {
            let (_, other) = self::flags(others);
            watches.add(Visibility::Synced, Seqno::new(1), waker.clone());
            for waker in other {
                watches.add(Visibility::Synced, Seqno::new(100), waker);
            }
            fire(&mut watches, [2, 0, 0]);
            assert!(watches.remove(waker).is_none());
            assert!(
                watches
                    .waiting
                    .iter()
                    .all(|of| of.places.len() == of.wakers.len())
            );
        }
    }
}
