//! What every store of the cluster must do, as one suite: the embedded one, etcd and the simulated
//! one run the same cases. A case gets a fresh, empty store and a way to let time pass.
//!
//! A case that fails panics with what it expected, like any test; nothing outside tests calls this.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{
    Change, Error, KEY_BYTES_MAX, Kv, LeaseId, Notify, Operation, Outcome, Page, Revision,
    TRANSACTION_OPERATIONS_MAX, Transaction, VALUE_BYTES_MAX, range_all,
};

/// An empty store, and the time that passes for it.
pub trait Fixture {
    fn kv(&self) -> &dyn Kv;
    fn pass(&self, time: Duration);
}

/// A case: its name, and what it does.
pub type Case = (&'static str, fn(&dyn Fixture));

/// Every case. A runner makes a new fixture for each.
pub const CASES: [Case; 15] = [
    ("an empty store has nothing", an_empty_store_has_nothing),
    ("what was put is there", what_was_put_is_there),
    ("a key keeps the revision that made it", a_key_keeps_the_revision_that_made_it),
    ("a range has its prefix, order and pages", a_range_has_its_prefix_order_and_pages),
    ("a transaction is all or nothing", a_transaction_is_all_or_nothing),
    ("one of two with the same base wins", one_of_two_with_the_same_base_wins),
    ("nothing to change is no revision", nothing_to_change_is_no_revision),
    ("limits are refused", limits_are_refused),
    ("a watch tells every change in order", a_watch_tells_every_change_in_order),
    ("a watch begins in the past or future", a_watch_begins_in_the_past_or_future),
    ("a watch calls when there is news", a_watch_calls_when_there_is_news),
    ("a lease takes its keys along", a_lease_takes_its_keys_along),
    ("a renewed lease stays", a_renewed_lease_stays),
    ("a key leaves its lease", a_key_leaves_its_lease),
    ("an ended lease takes no key", an_ended_lease_takes_no_key),
];

/// A lease time that is short for a test that really waits.
const TTL: Duration = Duration::from_secs(2);

fn commit(kv: &dyn Kv, transaction: &Transaction) -> Revision {
    match kv.transact(transaction).expect("the store answers") {
        Outcome::Committed { revision } => revision,
        Outcome::Refused { .. } => panic!("refused: {transaction:?}"),
    }
}

fn refuse(kv: &dyn Kv, transaction: &Transaction) -> Revision {
    match kv.transact(transaction).expect("the store answers") {
        Outcome::Refused { revision } => revision,
        Outcome::Committed { .. } => panic!("committed: {transaction:?}"),
    }
}

fn put(kv: &dyn Kv, key: &str, value: &str) -> Revision {
    commit(kv, &Transaction::new().put(key, value))
}

fn put_leased(kv: &dyn Kv, key: &str, lease: LeaseId) {
    let (key, value) = (key.to_owned(), b"leased".to_vec());
    let operations = vec![Operation::Put { key, value, lease: Some(lease) }];
    commit(kv, &Transaction { compare: Vec::new(), operations });
}

fn value(kv: &dyn Kv, key: &str) -> Option<String> {
    let entry = kv.get(key).expect("the store answers")?;
    Some(String::from_utf8(entry.value).expect("the case put a text"))
}

fn silent() -> Notify {
    Arc::new(|| {})
}

fn told(changes: &[Change]) -> Vec<(Revision, String, Option<String>)> {
    let text = |value: &Vec<u8>| String::from_utf8_lossy(value).into_owned();
    changes.iter().map(|c| (c.revision, c.key.clone(), c.value.as_ref().map(text))).collect()
}

fn an_empty_store_has_nothing(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    assert_eq!(kv.get("a").expect("the store answers"), None);
    let page = kv.range("", None, 10).expect("the store answers");
    assert_eq!((page.entries.len(), page.more), (0, false));
}

fn what_was_put_is_there(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    let first = put(kv, "a", "1");
    assert_eq!(value(kv, "a").as_deref(), Some("1"));
    let second = put(kv, "a", "2");
    assert_eq!(second, first + 1);
    assert_eq!(value(kv, "a").as_deref(), Some("2"));
    assert_eq!(commit(kv, &Transaction::new().delete("a")), second + 1);
    assert_eq!(value(kv, "a"), None);
    assert_eq!(kv.revision().expect("the store answers"), second + 1);
    put(kv, "empty", "");
    assert_eq!(value(kv, "empty").as_deref(), Some(""));
}

fn a_key_keeps_the_revision_that_made_it(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    let made = put(kv, "a", "1");
    let changed = put(kv, "a", "2");
    let entry = kv.get("a").expect("the store answers").expect("it was put");
    assert_eq!((entry.create_revision, entry.mod_revision), (made, changed));
    commit(kv, &Transaction::new().delete("a"));
    let again = put(kv, "a", "3");
    let entry = kv.get("a").expect("the store answers").expect("it was put");
    assert_eq!((entry.create_revision, entry.mod_revision), (again, again));
}

fn a_range_has_its_prefix_order_and_pages(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    for key in ["/b/2", "/a", "/b/10", "/b", "/b/1", "/c", "/b0"] {
        put(kv, key, key);
    }
    let keys =
        |page: &Page| -> Vec<String> { page.entries.iter().map(|e| e.key.clone()).collect() };
    let page = kv.range("/b/", None, 10).expect("the store answers");
    assert_eq!(keys(&page), ["/b/1", "/b/10", "/b/2"]);
    assert!(!page.more);
    let first = kv.range("/b/", None, 2).expect("the store answers");
    assert_eq!((keys(&first).len(), first.more), (2, true));
    let rest = kv.range("/b/", Some("/b/10"), 2).expect("the store answers");
    assert_eq!((keys(&rest), rest.more), (vec!["/b/2".to_owned()], false));
    assert!(kv.range("/d", None, 10).expect("the store answers").entries.is_empty());
    assert_eq!(range_all(kv, "/").expect("the store answers").len(), 7);
}

fn a_transaction_is_all_or_nothing(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    let revision = put(kv, "a", "1");
    let wrong = Transaction::new().unchanged("a", revision + 7).put("a", "2").put("b", "2");
    assert_eq!(refuse(kv, &wrong), revision);
    let wrong = Transaction::new().absent("a").delete("a").put("b", "2");
    assert_eq!(refuse(kv, &wrong), revision);
    assert_eq!((value(kv, "a").as_deref(), value(kv, "b")), (Some("1"), None));
    let right = Transaction::new().unchanged("a", revision).absent("b").delete("a").put("b", "2");
    assert_eq!(commit(kv, &right), revision + 1);
    assert_eq!((value(kv, "a"), value(kv, "b").as_deref()), (None, Some("2")));
}

fn one_of_two_with_the_same_base_wins(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    let base = put(kv, "head", "0");
    let attempt = |text: &str| Transaction::new().unchanged("head", base).put("head", text);
    commit(kv, &attempt("1"));
    refuse(kv, &attempt("2"));
    assert_eq!(value(kv, "head").as_deref(), Some("1"));
}

fn nothing_to_change_is_no_revision(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    let revision = put(kv, "a", "1");
    assert_eq!(commit(kv, &Transaction::new().unchanged("a", revision)), revision);
    assert_eq!(commit(kv, &Transaction::new().delete("b")), revision);
    assert_eq!(kv.revision().expect("the store answers"), revision);
}

fn limits_are_refused(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    let limited =
        |transaction: &Transaction| matches!(kv.transact(transaction), Err(Error::Limit { .. }));
    assert!(limited(&Transaction::new().put("k".repeat(KEY_BYTES_MAX + 1), "")));
    assert!(limited(&Transaction::new().put("k", vec![0; VALUE_BYTES_MAX + 1])));
    let many = |count: usize| {
        (0..count).fold(Transaction::new(), |txn, index| txn.put(format!("k{index}"), "v"))
    };
    assert!(limited(&many(TRANSACTION_OPERATIONS_MAX + 1)));
    commit(kv, &many(TRANSACTION_OPERATIONS_MAX));
    assert!(matches!(kv.transact(&Transaction::new().put("", "v")), Err(Error::Key(_))));
    let twice = Transaction::new().put("a", "1").delete("a");
    assert!(matches!(kv.transact(&twice), Err(Error::Twice(_))));
    assert_eq!(value(kv, "a"), None);
    commit(kv, &Transaction::new().put("k".repeat(KEY_BYTES_MAX), vec![0; VALUE_BYTES_MAX]));
}

fn a_watch_tells_every_change_in_order(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    let start = put(kv, "/a/1", "old");
    let mut watch = kv.watch("/a/", start + 1, silent()).expect("the store answers");
    assert_eq!(watch.poll().expect("the store answers"), []);
    commit(kv, &Transaction::new().put("/a/1", "x").put("/b/1", "hidden").put("/a/2", "y"));
    put(kv, "/b/2", "hidden");
    commit(kv, &Transaction::new().delete("/a/1"));
    let changes = watch.poll().expect("the store answers");
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        told(&changes),
        [
            (start + 1, "/a/1".to_owned(), text("x")),
            (start + 1, "/a/2".to_owned(), text("y")),
            (start + 3, "/a/1".to_owned(), None),
        ]
    );
    assert_eq!(watch.poll().expect("the store answers"), []);
}

fn a_watch_begins_in_the_past_or_future(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    let first = put(kv, "a", "1");
    put(kv, "a", "2");
    let mut past = kv.watch("a", first, silent()).expect("the store answers");
    assert_eq!(past.poll().expect("the store answers").len(), 2);
    let mut future = kv.watch("a", first + 3, silent()).expect("the store answers");
    put(kv, "a", "3");
    assert_eq!(future.poll().expect("the store answers"), []);
    let last = put(kv, "a", "4");
    assert_eq!(last, first + 3);
    assert_eq!(told(&future.poll().expect("the store answers")).len(), 1);
}

fn a_watch_calls_when_there_is_news(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let notify: Notify = Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let watch = kv.watch("a", 1, notify).expect("the store answers");
    put(kv, "a", "1");
    fixture.pass(Duration::from_millis(1));
    let heard = calls.load(Ordering::SeqCst);
    assert!(heard >= 1, "the watch was not called");
    drop(watch);
    put(kv, "a", "2");
    assert_eq!(calls.load(Ordering::SeqCst), heard, "a dropped watch was called");
}

fn a_lease_takes_its_keys_along(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    let lease = kv.lease_grant(TTL).expect("the store answers");
    put_leased(kv, "a", lease);
    put_leased(kv, "b", lease);
    put(kv, "c", "stays");
    let entry = kv.get("a").expect("the store answers").expect("it was put");
    assert_eq!(entry.lease, Some(lease));
    let from = kv.revision().expect("the store answers") + 1;
    let mut watch = kv.watch("", from, silent()).expect("the store answers");
    fixture.pass(TTL * 2);
    assert_eq!((value(kv, "a"), value(kv, "b")), (None, None));
    assert_eq!(value(kv, "c").as_deref(), Some("stays"));
    let changes = told(&watch.poll().expect("the store answers"));
    let mut keys: Vec<&str> = changes.iter().map(|(_, key, _)| key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["a", "b"]);
}

fn a_renewed_lease_stays(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    let lease = kv.lease_grant(TTL).expect("the store answers");
    put_leased(kv, "a", lease);
    for _ in 0..4 {
        fixture.pass(TTL / 2);
        kv.lease_renew(lease).expect("it has not ended");
    }
    assert_eq!(value(kv, "a").as_deref(), Some("leased"));
    kv.lease_revoke(lease).expect("it has not ended");
    assert_eq!(value(kv, "a"), None);
    assert!(matches!(kv.lease_renew(lease), Err(Error::LeaseEnded { .. })));
    assert!(matches!(kv.lease_revoke(lease), Err(Error::LeaseEnded { .. })));
}

fn a_key_leaves_its_lease(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    let lease = kv.lease_grant(TTL).expect("the store answers");
    for key in ["a", "b", "c"] {
        put_leased(kv, key, lease);
    }
    put(kv, "a", "free");
    commit(kv, &Transaction::new().delete("b"));
    put(kv, "b", "free");
    kv.lease_revoke(lease).expect("it has not ended");
    assert_eq!(value(kv, "a").as_deref(), Some("free"));
    assert_eq!(value(kv, "b").as_deref(), Some("free"));
    assert_eq!(value(kv, "c"), None);
}

fn an_ended_lease_takes_no_key(fixture: &dyn Fixture) {
    let kv = fixture.kv();
    let lease = kv.lease_grant(TTL).expect("the store answers");
    fixture.pass(TTL * 2);
    let (key, value) = ("a".to_owned(), Vec::new());
    let operations = vec![Operation::Put { key, value, lease: Some(lease) }];
    let transaction = Transaction { compare: Vec::new(), operations };
    assert!(matches!(kv.transact(&transaction), Err(Error::LeaseEnded { .. })));
    assert_eq!(kv.get("a").expect("the store answers"), None);
    let next = kv.lease_grant(TTL).expect("the store answers");
    assert_ne!(next, lease, "a lease id was used twice");
}
