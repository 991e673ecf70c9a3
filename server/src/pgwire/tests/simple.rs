use std::sync::atomic::Ordering;

use super::client::{Server, eventually, frame, kinds, query};

#[tokio::test]
async fn statements_are_answered_in_order() {
    let server = Server::new();
    let mut client = server.connect().await;
    let replies = client.ask(&[query("rows 2; do INSERT 0 7; rows 0")]).await;
    assert_eq!(kinds(&replies), "TDDCCTCZ");
    assert_eq!(replies[1].texts(), ["0", "row 0"]);
    assert_eq!(replies[2].texts(), ["1", "row 1"]);
    assert_eq!(replies[3].tag(), "SELECT 2");
    assert_eq!(replies[4].tag(), "INSERT 0 7");
    assert_eq!(replies[6].tag(), "SELECT 0");
    assert_eq!(&replies[7].body[..], b"I");
    // name, table, column, int4, 4 bytes, no typmod, text
    let expected = [&b"\0\x02n\0"[..], &[0; 6], &[0, 0, 0, 23, 0, 4], &[255; 4], &[0, 0]].concat();
    assert_eq!(replies[0].body[..expected.len()], expected);
}

#[tokio::test]
async fn an_empty_text_has_an_answer_of_its_own() {
    let server = Server::new();
    let mut client = server.connect().await;
    assert_eq!(kinds(&client.ask(&[query("")]).await), "IZ");
    assert_eq!(kinds(&client.ask(&[query(" ; ;")]).await), "IZ");
}

#[tokio::test]
async fn an_error_ends_the_text_and_says_all_it_knows() {
    let server = Server::new();
    let mut client = server.connect().await;
    let replies = client.ask(&[query("rows 1; nonsense; rows 1")]).await;
    assert_eq!(kinds(&replies), "TDCEZ");
    let error = &replies[3];
    assert_eq!(error.state(), "42P01");
    assert_eq!((error.field(b'S').unwrap(), error.field(b'V').unwrap()), ("ERROR".to_owned(), "ERROR".to_owned()));
    assert_eq!(error.field(b'M').unwrap(), "table \"nonsense\" does not exist");
    assert_eq!(error.field(b'P'), None);

    // A syntax error is found before anything runs.
    let replies = client.ask(&[query("rows 1; syntax")]).await;
    assert_eq!(kinds(&replies), "EZ");
    assert_eq!(replies[0].field(b'P').unwrap(), "9");
    assert_eq!(replies[0].field(b'H').unwrap(), "Do not.");

    // Rows that were there before an error are sent, and no end of the command.
    let replies = client.ask(&[query("failing 3")]).await;
    assert_eq!(kinds(&replies), "TDDDEZ");
    // The session goes on.
    assert_eq!(kinds(&client.ask(&[query("rows 1")]).await), "TDCZ");
}

#[tokio::test]
async fn parameters_have_no_place_in_the_simple_protocol() {
    let server = Server::new();
    let mut client = server.connect().await;
    let replies = client.ask(&[query("echo int4")]).await;
    assert_eq!(replies[0].state(), "42P02");
}

#[tokio::test]
async fn notices_settings_and_transaction_states_are_told() {
    let server = Server::new();
    let mut client = server.connect().await;
    let replies = client.ask(&[query("notice")]).await;
    assert_eq!(kinds(&replies), "NCZ");
    assert_eq!(replies[0].field(b'M').unwrap(), "look here");
    assert_eq!(replies[0].field(b'S').unwrap(), "NOTICE");
    let replies = client.ask(&[query("zone Asia/Kolkata")]).await;
    assert_eq!(kinds(&replies), "CSZ");
    assert_eq!(client.parameters.last().unwrap().1, "Asia/Kolkata");
    assert_eq!(&client.ask(&[query("begin")]).await[1].body[..], b"T");
    assert_eq!(&client.ask(&[query("failing 1")]).await.last().unwrap().body[..], b"E");
    assert_eq!(client.ask(&[query("commit")]).await[0].tag(), "ROLLBACK");
}

#[tokio::test]
async fn copy_data_is_passed_over_and_function_calls_are_refused() {
    let server = Server::new();
    let mut client = server.connect().await;
    let rest = [frame(b'd', b"1\t2\n"), frame(b'c', b""), frame(b'f', b"no\0")];
    client.send(&rest).await;
    assert_eq!(kinds(&client.ask(&[query("rows 1")]).await), "TDCZ");
    let replies = client.ask(&[frame(b'F', &[0; 10])]).await;
    assert_eq!(kinds(&replies), "EZ");
    assert_eq!(replies[0].state(), "0A000");
}

#[tokio::test]
async fn text_that_is_not_utf8_fails_the_statement_alone() {
    let server = Server::new();
    let mut client = server.connect().await;
    let replies = client.ask(&[frame(b'Q', b"rows \xff\0")]).await;
    assert_eq!(kinds(&replies), "EZ");
    assert_eq!(replies[0].state(), "22021");
    assert_eq!(kinds(&client.ask(&[query("rows 1")]).await), "TDCZ");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_query_back() {
    let server = Server::new();
    let mut client = server.connect().await;
    client.send(&[query("endless")]).await;
    // Buffer and socket are full after a few batches of a thousand rows; then nothing is pulled any more.
    eventually("rows flow", || server.engine.pulled.load(Ordering::SeqCst) > 0).await;
    let mut last = 0;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let pulled = server.engine.pulled.load(Ordering::SeqCst);
        assert!(pulled < 50, "{pulled} batches pulled for a client that reads nothing");
        if pulled == last {
            break;
        }
        last = pulled;
    }
    assert_eq!(client.next().await.unwrap().kind, b'T');
    client.hang_up().await;
    eventually("the stream is dropped", || server.engine.alive.load(Ordering::SeqCst) == 0).await;
}
