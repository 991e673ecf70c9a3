use std::sync::atomic::Ordering;

use super::client::{Client, Server, bind, eventually, execute, kinds, parse, query, sync};

async fn cancel(server: &Server, key: (i32, i32)) {
    let mut other = server.open();
    let packet = [16i32, 80_877_102, key.0, key.1].map(i32::to_be_bytes).concat();
    other.send(&[packet]).await;
    assert_eq!(other.until_closed().await, []);
}

async fn runs(server: &Server) {
    eventually("the statement runs", || server.engine.alive.load(Ordering::SeqCst) > 0).await;
}

async fn stopped(server: &Server) {
    eventually("the statement stops", || server.engine.alive.load(Ordering::SeqCst) == 0).await;
}

async fn is_usable(client: &mut Client) {
    assert_eq!(kinds(&client.ask(&[query("rows 1")]).await), "TDCZ");
}

#[tokio::test]
async fn a_cancel_request_stops_rows_effects_and_waiting() {
    let server = Server::new();
    let mut client = server.connect().await;
    for statement in ["silent", "hang"] {
        client.send(&[query(statement)]).await;
        runs(&server).await;
        cancel(&server, client.key).await;
        let replies = client.until_ready().await;
        let error = replies.iter().find(|r| r.kind == b'E').unwrap();
        assert_eq!(error.state(), "57014");
        stopped(&server).await;
        is_usable(&mut client).await;
    }
}

#[tokio::test]
async fn a_cancel_request_stops_a_result_that_nobody_reads() {
    let server = Server::new();
    let mut client = server.connect().await;
    client.send(&[query("endless; rows 1")]).await;
    runs(&server).await;
    cancel(&server, client.key).await;
    // The query is gone before the client reads what was on its way.
    stopped(&server).await;
    let replies = client.until_ready().await;
    assert_eq!(replies[replies.len() - 2].state(), "57014");
    // All that came before is whole: no row is torn.
    for (n, row) in replies.iter().filter(|r| r.kind == b'D').enumerate() {
        assert_eq!(row.texts(), [n.to_string(), format!("row {n}")]);
    }
    is_usable(&mut client).await;
}

#[tokio::test]
async fn a_cancel_request_stops_a_portal() {
    let server = Server::new();
    let mut client = server.connect().await;
    client.send(&[parse("", "silent", &[]), bind("", "", &[], &[], &[]), execute("", 0), sync()]).await;
    runs(&server).await;
    cancel(&server, client.key).await;
    let replies = client.until_ready().await;
    assert_eq!(kinds(&replies), "12EZ");
    stopped(&server).await;
}

#[tokio::test]
async fn a_wrong_secret_or_an_idle_session_is_left_alone() {
    let server = Server::new();
    let mut client = server.connect().await;
    // Between statements there is nothing to cancel, and the next one is not hit.
    cancel(&server, client.key).await;
    is_usable(&mut client).await;
    client.send(&[query("hang")]).await;
    runs(&server).await;
    cancel(&server, (client.key.0, client.key.1 ^ 1)).await;
    cancel(&server, (client.key.0 + 1, client.key.1)).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.engine.alive.load(Ordering::SeqCst), 1);
    cancel(&server, client.key).await;
    assert_eq!(client.until_ready().await[0].state(), "57014");
}

#[tokio::test]
async fn a_client_that_vanishes_takes_its_statement_along() {
    let server = Server::new();
    for statement in ["silent", "hang", "endless"] {
        let mut client = server.connect().await;
        client.send(&[query(statement)]).await;
        runs(&server).await;
        client.hang_up().await;
        stopped(&server).await;
    }
}

#[tokio::test]
async fn messages_sent_ahead_wait_for_the_statement() {
    let server = Server::new();
    let mut client = server.connect().await;
    client.send(&[query("hang"), query("rows 1"), query("rows 2")]).await;
    runs(&server).await;
    cancel(&server, client.key).await;
    assert_eq!(client.until_ready().await[0].state(), "57014");
    assert_eq!(kinds(&client.until_ready().await), "TDCZ");
    assert_eq!(kinds(&client.until_ready().await), "TDDCZ");
}

#[tokio::test]
async fn the_end_of_the_server_is_told() {
    for statement in ["", "silent", "hang"] {
        let server = Server::new();
        let mut client = server.connect().await;
        if !statement.is_empty() {
            client.send(&[query(statement)]).await;
            runs(&server).await;
        }
        server.shutdown.cancel();
        let replies = client.until_closed().await;
        let last = replies.last().unwrap();
        assert_eq!((last.state().as_str(), last.field(b'S').unwrap().as_str()), ("57P01", "FATAL"));
        stopped(&server).await;
    }
}

#[tokio::test]
async fn a_session_may_be_idle_for_so_long_only() {
    let server = Server::with(|c| c.idle_timeout = Some(std::time::Duration::from_millis(30)));
    let mut client = server.connect().await;
    let replies = client.until_closed().await;
    assert_eq!(replies[0].state(), "57P05");
}
