use super::client::{Server, bind, close, describe, execute, frame, kinds, parse, query, sync};

const TEXT: &[i16] = &[];

#[tokio::test]
async fn parse_bind_describe_execute() {
    let server = Server::new();
    let mut client = server.connect().await;
    let replies = client
        .ask(&[
            parse("s", "rows 2", &[]),
            describe(b'S', "s"),
            bind("", "s", &[], &[], &[1, 0]),
            describe(b'P', ""),
            execute("", 0),
            sync(),
        ])
        .await;
    assert_eq!(kinds(&replies), "1tT2TDDCZ");
    assert_eq!(&replies[1].body[..], b"\0\0");
    assert_eq!(replies[2].body[20..22], [0, 0], "text until Bind says otherwise");
    assert_eq!(replies[4].body[20..22], [0, 1]);
    assert_eq!(&replies[6].values()[0].as_ref().unwrap()[..], 1i32.to_be_bytes());
    assert_eq!(&replies[6].values()[1].as_ref().unwrap()[..], b"row 1");
    assert_eq!(replies[7].tag(), "SELECT 2");
}

#[tokio::test]
async fn statements_without_rows() {
    let server = Server::new();
    let mut client = server.connect().await;
    let replies = client
        .ask(&[parse("", "do UPDATE 3", &[]), bind("", "", &[], &[], &[1]), describe(b'P', ""), execute("", 0), sync()])
        .await;
    assert_eq!(kinds(&replies), "12nCZ");
    assert_eq!(replies[3].tag(), "UPDATE 3");
    let replies = client.ask(&[parse("", "", &[]), bind("", "", &[], &[], TEXT), execute("", 0), sync()]).await;
    assert_eq!(kinds(&replies), "12IZ");
    // An effect happens once per Bind.
    let replies = client
        .ask(&[parse("", "do X", &[]), bind("", "", &[], &[], TEXT), execute("", 0), execute("", 0), sync()])
        .await;
    assert_eq!(kinds(&replies), "12CEZ");
    assert_eq!(replies[3].state(), "55000");
}

#[tokio::test]
async fn a_portal_goes_on_where_it_was_suspended() {
    let server = Server::new();
    let mut client = server.connect().await;
    client.ask(&[query("begin")]).await;
    client.ask(&[parse("s", "rows 25", &[]), bind("p", "s", &[], &[], TEXT), sync()]).await;
    let mut seen = Vec::new();
    for (rows, end) in [(7, "s"), (7, "s"), (7, "s"), (4, "C")] {
        let replies = client.ask(&[execute("p", 7), sync()]).await;
        assert_eq!(kinds(&replies), format!("{}{end}Z", "D".repeat(rows)));
        seen.extend(replies.iter().filter(|r| r.kind == b'D').map(|r| r.texts()[0].parse::<usize>().unwrap()));
    }
    assert_eq!(seen, (0..25).collect::<Vec<_>>());
    assert_eq!(client.ask(&[execute("p", 7), sync()]).await[0].tag(), "SELECT 0");
    // Exactly as many rows as there are: the client asks once more to learn that it was all.
    client.ask(&[bind("q", "s", &[], &[], TEXT), sync()]).await;
    assert_eq!(kinds(&client.ask(&[execute("q", 25), sync()]).await), format!("{}sZ", "D".repeat(25)));
    let replies = client.ask(&[execute("q", 25), sync()]).await;
    assert_eq!(replies[0].tag(), "SELECT 0");
    // Two portals at once do not disturb each other, and a portal outlives its statement.
    client.ask(&[bind("a", "s", &[], &[], TEXT), bind("b", "s", &[], &[], TEXT), close(b'S', "s"), sync()]).await;
    let replies = client.ask(&[execute("a", 2), execute("b", 1), execute("a", 1), sync()]).await;
    let rows: Vec<String> = replies.iter().filter(|r| r.kind == b'D').map(|r| r.texts()[0].clone()).collect();
    assert_eq!(rows, ["0", "1", "0", "2"]);
}

#[tokio::test]
async fn portals_end_with_their_transaction() {
    let server = Server::new();
    let mut client = server.connect().await;
    let parts = [parse("s", "rows 9", &[]), bind("p", "s", &[], &[], TEXT), execute("p", 1), sync()];
    assert_eq!(kinds(&client.ask(&parts).await), "12DsZ");
    let replies = client.ask(&[execute("p", 1), sync()]).await;
    assert_eq!(replies[0].state(), "34000");
}

#[tokio::test]
async fn after_an_error_all_is_skipped_until_sync() {
    let server = Server::new();
    let mut client = server.connect().await;
    let replies = client
        .ask(&[
            parse("", "nonsense", &[]),
            bind("", "", &[], &[], TEXT),
            execute("", 0),
            query("rows 1"),
            frame(b'H', b""),
            sync(),
        ])
        .await;
    assert_eq!(kinds(&replies), "EZ");
    let replies = client.ask(&[parse("", "rows 1", &[]), bind("", "", &[], &[], TEXT), execute("", 0), sync()]).await;
    assert_eq!(kinds(&replies), "12DCZ");
}

#[tokio::test]
async fn names_are_kept_apart_and_bounded() {
    let server = Server::with(|c| c.max_prepared_statements = 3);
    let mut client = server.connect().await;
    let first = |replies: Vec<super::client::Reply>| match replies[0].kind {
        b'E' => replies[0].state(),
        kind => (kind as char).to_string(),
    };
    assert_eq!(first(client.ask(&[parse("a", "rows 1", &[]), sync()]).await), "1");
    assert_eq!(first(client.ask(&[parse("a", "rows 2", &[]), sync()]).await), "42P05");
    assert_eq!(first(client.ask(&[parse("", "rows 2", &[]), sync()]).await), "1");
    assert_eq!(first(client.ask(&[parse("", "rows 3", &[]), sync()]).await), "1");
    assert_eq!(first(client.ask(&[parse("b", "rows 1", &[]), sync()]).await), "1");
    assert_eq!(first(client.ask(&[parse("c", "rows 1", &[]), sync()]).await), "53400");
    assert_eq!(first(client.ask(&[close(b'S', "a"), sync()]).await), "3");
    assert_eq!(first(client.ask(&[close(b'S', "not there"), sync()]).await), "3");
    assert_eq!(first(client.ask(&[parse("c", "rows 1", &[]), sync()]).await), "1");
    assert_eq!(first(client.ask(&[bind("", "zzz", &[], &[], TEXT), sync()]).await), "26000");
    assert_eq!(first(client.ask(&[describe(b'P', "zzz"), sync()]).await), "34000");
    assert_eq!(first(client.ask(&[parse("", "rows 1; rows 1", &[]), sync()]).await), "42601");
    let twice = [bind("p", "c", &[], &[], TEXT), bind("p", "c", &[], &[], TEXT), sync()];
    assert_eq!(kinds(&client.ask(&twice).await), "2EZ");
    client.ask(&[parse("b2", "rows 1", &[]), sync()]).await;
    assert_eq!(first(client.ask(&[query("do DEALLOCATE b")]).await), "C");
    assert_eq!(first(client.ask(&[query("do DEALLOCATE b")]).await), "26000");
    assert_eq!(client.ask(&[query("do DEALLOCATE ALL")]).await[0].tag(), "DEALLOCATE ALL");
    assert_eq!(first(client.ask(&[describe(b'S', "c"), sync()]).await), "26000");
    assert_eq!(first(client.ask(&[parse("c", "rows 1", &[]), sync()]).await), "1");
    client.ask(&[query("do DISCARD ALL")]).await;
    assert_eq!(first(client.ask(&[describe(b'S', "c"), sync()]).await), "26000");
}

#[tokio::test]
async fn texts_and_parameters_that_are_kept_are_bounded_together() {
    let server = Server::with(|c| c.max_message_bytes = 1000);
    let mut client = server.connect().await;
    let long = "x".repeat(600);
    client.ask(&[parse("s", "echo text", &[]), sync()]).await;
    let portal = |name: &str| bind(name, "s", &[], &[Some(long.as_bytes())], TEXT);
    let replies = client.ask(&[portal("a"), portal("b"), sync()]).await;
    assert_eq!(kinds(&replies), "2EZ");
    assert_eq!(replies[1].state(), "53400");
    let statement = |name: &str| parse(name, &format!("do {long}"), &[]);
    let replies = client.ask(&[statement("a"), statement("b"), sync()]).await;
    assert_eq!(kinds(&replies), "1EZ");
    assert_eq!(replies[1].state(), "53400");
}

#[tokio::test]
async fn a_result_of_another_type_than_announced_is_an_error() {
    let server = Server::new();
    let mut client = server.connect().await;
    let parts = [parse("", "wrong", &[]), bind("", "", &[], &[], TEXT), execute("", 0), sync()];
    let replies = client.ask(&parts).await;
    assert_eq!(kinds(&replies), "12EZ");
    assert_eq!(replies[2].state(), "0A000");
}

#[tokio::test]
async fn wrong_counts_and_codes_are_refused() {
    let server = Server::new();
    let mut client = server.connect().await;
    for (bound, state) in [
        (bind("", "s", &[], &[], TEXT), "08P01"),
        (bind("", "s", &[0, 0], &[Some(b"1")], TEXT), "08P01"),
        (bind("", "s", &[2], &[Some(b"1")], TEXT), "22023"),
        (bind("", "s", &[], &[Some(b"1")], &[0, 0, 0]), "08P01"),
        (bind("", "s", &[1], &[Some(b"1")], TEXT), "22P03"),
        (bind("", "s", &[], &[Some(b"one")], TEXT), "22P02"),
    ] {
        client.ask(&[parse("s", "echo int4", &[]), sync()]).await;
        let replies = client.ask(&[bound, execute("", 0), sync()]).await;
        assert_eq!(kinds(&replies), "EZ");
        assert_eq!(replies[0].state(), state);
    }
}

#[tokio::test]
async fn flush_sends_what_there_is() {
    let server = Server::new();
    let mut client = server.connect().await;
    client.send(&[parse("", "rows 1", &[]), describe(b'S', ""), frame(b'H', b"")]).await;
    for kind in [b'1', b't', b'T'] {
        assert_eq!(client.next().await.unwrap().kind, kind);
    }
    // A function call in between belongs to neither protocol and is told apart.
    let replies = client.ask(&[bind("", "", &[], &[], TEXT), execute("", 0), sync()]).await;
    assert_eq!(kinds(&replies), "2DCZ");
}
