use super::*;
use crate::ids::{Cas, Seqno, VbUuid};
use crate::item::{ItemKind, ItemMeta};

const VB: VbId = VbId::new(7);

fn document() -> (ItemMeta, Vec<u8>) {
    let meta = ItemMeta {
        seqno: Seqno::new(300),
        kind: ItemKind::Mutation,
        cas: Cas::new(77),
        flags: 0xdead_beef,
        expiry: 12,
        datatype: 3,
        value_len: 5,
    };
    let head = DocumentHead {
        meta,
        is_last_of_checkpoint: true,
        prev_seqno: Seqno::new(299),
    };
    let mut out = Vec::new();
    DocumentRecord {
        head,
        key: b"key",
        value: b"value",
    }
    .encode(VB, &mut out)
    .unwrap();
    (meta, out)
}

#[test]
fn a_document_round_trips() {
    let (meta, bytes) = document();
    let back = DocumentRecord::decode(VB, Seqno::new(300), &bytes).unwrap();
    assert_eq!((back.key, back.value), (&b"key"[..], &b"value"[..]));
    assert_eq!(back.head.meta, meta);
    assert!(back.head.is_last_of_checkpoint);
    assert_eq!(back.head.prev_seqno, Seqno::new(299));
}

type Decodes = Box<dyn Fn(&[u8]) -> bool>;

#[test]
fn every_flip_and_every_cut_of_every_record_is_refused() {
    let (meta, document) = document();
    let mut index = Vec::new();
    IndexEntry(meta).encode(VB, b"key", &mut index);
    let mut state = Vec::new();
    VbState::new(VbUuid::new(9)).encode(VB, &mut state);
    let records: [(Vec<u8>, Decodes); 3] = [
        (
            document,
            Box::new(|b| DocumentRecord::decode(VB, Seqno::new(300), b).is_ok()),
        ),
        (
            index,
            Box::new(|b| IndexEntry::decode(VB, b"key", b).is_ok()),
        ),
        (state, Box::new(|b| VbState::decode(VB, b).is_ok())),
    ];

    for (record, decodes) in records {
        assert!(decodes(&record));
        for cut in 0..record.len() {
            assert!(!decodes(&record[..cut]), "cut to {cut} bytes");
        }
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!decodes(&flipped), "bit {bit} flipped");
        }
        let mut longer = record.clone();
        longer.push(0);
        assert!(!decodes(&longer));
    }
}

#[test]
fn a_record_in_another_place_is_refused() {
    let (meta, bytes) = document();
    assert!(DocumentRecord::decode(VbId::new(8), Seqno::new(300), &bytes).is_err());
    assert!(DocumentRecord::decode(VB, Seqno::new(301), &bytes).is_err());
    let mut index = Vec::new();
    IndexEntry(meta).encode(VB, b"key", &mut index);
    assert!(IndexEntry::decode(VB, b"kez", &index).is_err());
}

#[test]
fn the_state_record_is_at_most_100_bytes() {
    let mut out = Vec::new();
    VbState::new(VbUuid::new(9)).encode(VB, &mut out);
    assert!(out.len() <= 100, "{} bytes", out.len());
}

#[test]
fn a_state_that_cannot_be_is_refused() {
    let mut state = VbState::new(VbUuid::new(9));
    state.purge_seqno = Seqno::new(1);
    let mut out = Vec::new();
    state.encode(VB, &mut out);
    assert_eq!(
        VbState::decode(VB, &out),
        Err(RecordError("the purge seqno is above the high seqno"))
    );
}

proptest::proptest! {
    #[test]
    fn decoding_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
        let _ = DocumentRecord::decode(VB, Seqno::new(1), &bytes);
        let _ = IndexEntry::decode(VB, b"k", &bytes);
        let _ = VbState::decode(VB, &bytes);
        drop(crate::FailoverLog::decode(VB, &bytes));
        let _ = crate::witness::Witness::newest(&bytes);
    }

    #[test]
    fn any_document_round_trips(
        seqno in 2_u64.., prev in 0_u64..2, kind in 0_usize..3, cas: u64, flags: u32, expiry: u32,
        datatype: u8, last: bool, key in proptest::collection::vec(proptest::num::u8::ANY, 1..300),
        value in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
    ) {
        let kind = [ItemKind::Mutation, ItemKind::Deletion, ItemKind::Expiration][kind];
        let value = if kind.is_live() { value } else { Vec::new() };
        let meta = ItemMeta {
            seqno: Seqno::new(seqno), kind, cas: Cas::new(cas), flags, expiry, datatype,
            value_len: u32::try_from(value.len()).unwrap(),
        };
        let head = DocumentHead {
            meta, is_last_of_checkpoint: last, prev_seqno: Seqno::new(prev),
        };
        let mut out = Vec::new();
        DocumentRecord { head, key: &key, value: &value }.encode(VB, &mut out).unwrap();
        let back = DocumentRecord::decode(VB, Seqno::new(seqno), &out).unwrap();
        proptest::prop_assert_eq!(back, DocumentRecord { head, key: &key, value: &value });

        IndexEntry(meta).encode(VB, &key, &mut out);
        proptest::prop_assert_eq!(IndexEntry::decode(VB, &key, &out).unwrap(), IndexEntry(meta));
    }
}
