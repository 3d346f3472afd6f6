//! Streams: what a consumer is told, from disk and from memory.

mod streams {
    mod asynchronous;
    mod basics;
    mod branches;
    mod catalogue;
    mod cursors;
    mod damage;
    mod failures;
    mod flow;
    mod frozen;
    mod histories;
    mod readers;
    mod waiting;
}
