#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::TcpListener;

use super::*;

/// Waits much longer than any test may run, so that an answer which waits for it fails the test.
fn client(kept: &Clients, brokers: &str, more: &[(&str, &str)]) -> Arc<Client> {
    let given = [("brokers", brokers), ("timeout", "10 min")];
    let options = given.iter().chain(more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let connection = ConnectionSpec { name: "k".into(), kind: "kafka".into(), options };
    kept.get(&connection, &Options::new(&connection).unwrap(), false).unwrap()
}

async fn soon<T>(question: impl Future<Output = Result<T>>) -> Error {
    let answer = tokio::time::timeout(Duration::from_secs(60), question).await;
    answer.expect("what is known at once is said at once").err().unwrap()
}

#[tokio::test]
async fn a_refused_connection_is_said_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let kept = Clients::default();
    let e = soon(client(&kept, &port, &[]).ask(Client::probe)).await;
    assert!(e.message().contains("nothing listens"), "{e:?}");
    // The second question hears the reason anew, and is not left to a client that has given up for now.
    for _ in 0..2 {
        let e = soon(client(&kept, &port, &[]).ask(|c| c.layout("t"))).await;
        assert!(e.message().contains("nothing listens") && e.is_retryable(), "{e:?}");
    }
}

#[tokio::test]
async fn a_broker_that_hangs_up_is_said_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    for security in ["plaintext", "ssl"] {
        let kept = Clients::default();
        let e = soon(client(&kept, &addr, &[("security", security)]).ask(|c| c.layout("t"))).await;
        assert!(e.is_retryable() && e.detail().is_some(), "{security}: {e:?}");
        assert!(e.message().contains("hangs up") || e.message().contains("TLS"), "{security}: {e:?}");
    }
}

#[test]
fn refusals_are_worded() {
    let e = code_error("k", RDKafkaErrorCode::LeaderNotAvailable, "read a partition");
    assert!(e.detail().is_some_and(|d| d.starts_with("The partition has no leader")), "{e:?}");
    assert!(refusal(RDKafkaErrorCode::InvalidRecord).contains("87"));
}
