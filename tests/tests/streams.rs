//! Streams: what a consumer receives, from disk and from memory.

mod streams {
    mod asynchronous;
    mod basics;
    mod batches;
    mod branches;
    mod catalogue;
    mod cursors;
    mod damage;
    mod ends;
    mod failures;
    mod finals;
    mod flow;
    mod forked;
    mod frozen;
    mod groups;
    mod histories;
    mod places;
    mod readers;
    mod requests;
    mod slow;
    mod waiting;
    mod wakers;
}
