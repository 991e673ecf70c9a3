#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

fn queue(limit: usize) -> Arc<Queue> {
    Arc::new(Queue { state: Mutex::default(), room: Condvar::new(), arrived: Notify::new(), limit })
}

fn batch(from: i64, to: i64) -> ReadBatch {
    ReadBatch {
        partition: 0,
        from,
        to,
        rows: RecordBatch::new_empty(Arc::new(Schema::empty())),
        dead_letters: None,
        records: 0,
        skipped: 0,
        source_bytes: 0,
        max_timestamp_ms: 0,
    }
}

#[tokio::test]
async fn a_dropped_call_loses_nothing() {
    let reader = Reader { queue: queue(1 << 20) };
    for round in 0..100 {
        let mut waiting = Box::pin(reader.next());
        // Polled once, so that it is registered, and dropped with the batch already on its way.
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        assert!(reader.queue.push(Ok(batch(round, round + 1))));
        drop(waiting);
        let got = reader.next().await.unwrap().unwrap();
        assert_eq!((got.from, got.to), (round, round + 1));
    }
}

#[tokio::test]
async fn the_last_word_is_repeated() {
    let queue = queue(1 << 20);
    let reader = Reader { queue: queue.clone() };
    assert!(queue.push(Ok(batch(0, 1))));
    queue.fail(Error::new(ErrorKind::DataLoss, "gone").with_context("partition", 3));
    drop(Producer(queue));
    assert_eq!(reader.next().await.unwrap().unwrap().to, 1);
    for _ in 0..3 {
        let e = reader.next().await.unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::DataLoss, "gone (partition: 3)"));
    }
}

#[tokio::test]
async fn a_panic_reaches_the_reader() {
    let queue = queue(1 << 20);
    let reader = Reader { queue: queue.clone() };
    let thread = std::thread::spawn(move || {
        let _guard = Producer(queue);
        panic!("on purpose");
    });
    assert_eq!(reader.next().await.unwrap_err().kind(), ErrorKind::Internal);
    assert!(thread.join().is_err());
}

#[test]
fn a_full_queue_waits_until_there_is_room_or_nobody_listens() {
    let queue = queue(1);
    let reader = Reader { queue: queue.clone() };
    let full = || {
        let mut b = batch(0, 1);
        let column: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![1; 100]));
        b.rows = RecordBatch::try_from_iter([("a", column)]).unwrap();
        Ok(b)
    };
    // Larger than the limit, but alone.
    assert!(queue.push(full()));
    let (started, begun) = std::sync::mpsc::channel();
    let thread = {
        let queue = queue.clone();
        std::thread::spawn(move || {
            started.send(()).unwrap();
            let second = queue.push(full());
            let third = queue.push(full());
            (second, third)
        })
    };
    begun.recv().unwrap();
    assert_eq!(queue.state.lock().items.len(), 1);
    assert!(matches!(queue.pop(), Some(Ok(Some(_)))));
    // The second goes in now, and the third waits until the reader is gone.
    while queue.state.lock().items.is_empty() {
        std::thread::yield_now();
    }
    drop(reader);
    assert_eq!(thread.join().unwrap(), (true, false));
}

#[test]
fn errors_do_not_fill_the_queue() {
    let queue = queue(1 << 20);
    for _ in 0..1000 {
        assert!(queue.push(Err(Error::unavailable("away"))));
    }
    assert_eq!(queue.state.lock().items.len(), 1);
}

#[test]
fn data_loss_names_the_range() {
    let e = lost(5, Some((9, 20)));
    assert_eq!((e.kind(), e.message()), (ErrorKind::DataLoss, "kafka no longer holds offsets 5 to 8"));
    let e = lost(25, Some((9, 20)));
    assert_eq!(e.message(), "the partition ends at offset 20, before 25");
    assert_eq!(lost(25, None).kind(), ErrorKind::DataLoss);
}
