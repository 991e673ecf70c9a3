//! What no driver sends. The server says 08P01 or 54000, closes, and never panics, hangs or takes memory for it.

use super::client::{Client, Server, bind, describe, execute, frame, kinds, parse, query, startup_packet, sync};

/// The connection's task must end by itself; a panic in it fails the test.
async fn ends(mut client: Client) -> Option<String> {
    use tokio::io::AsyncWriteExt;
    let _ = client.socket.shutdown().await;
    let replies = client.until_closed().await;
    client.task.await.expect("no panic");
    replies.iter().rev().find(|r| r.kind == b'E').map(super::client::Reply::state)
}

#[tokio::test]
async fn malformed_messages_end_the_connection() {
    let server = Server::with(|c| c.max_message_bytes = 1000);
    let huge = |kind: u8, len: u32| [&[kind][..], &len.to_be_bytes()].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("unknown type", frame(b'?', b""), "08P01"),
        ("password after the sign-in", frame(b'p', b"secret\0"), "08P01"),
        ("length below 4", huge(b'Q', 3), "08P01"),
        ("length zero", huge(b'S', 0), "08P01"),
        ("length above the limit", huge(b'Q', 1001), "54000"),
        ("largest length", huge(b'Q', u32::MAX), "54000"),
        ("text without its end", frame(b'Q', b"rows 1"), "08P01"),
        ("bytes after the text", frame(b'Q', b"rows 1\0x"), "08P01"),
        ("empty query message", frame(b'Q', b""), "08P01"),
        ("types that are not there", frame(b'P', b"\0rows 1\0\xff\xff"), "08P01"),
        ("no count of types", frame(b'P', b"\0rows 1\0"), "08P01"),
        ("formats that are not there", frame(b'B', b"\0\0\xff\xff"), "08P01"),
        ("parameters that are not there", frame(b'B', b"\0\0\0\0\xff\xff"), "08P01"),
        ("a parameter of negative length", frame(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"), "08P01"),
        ("a parameter longer than its message", frame(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0"), "08P01"),
        ("unknown target", frame(b'D', b"X\0"), "08P01"),
        ("no target", frame(b'C', b""), "08P01"),
        ("no row count", frame(b'E', b"\0"), "08P01"),
        ("a sync with a body", frame(b'S', b"x"), "08P01"),
    ];
    for (what, bytes, state) in cases {
        let mut client = server.connect().await;
        client.send(&[bytes]).await;
        assert_eq!(ends(client).await.as_deref(), Some(state), "{what}");
    }
}

#[tokio::test]
async fn malformed_start_up_packets_end_the_connection() {
    let server = Server::new();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no length", vec![0, 0, 0, 0], "08P01"),
        ("too short", vec![0, 0, 0, 7, 0, 3, 0], "08P01"),
        ("too long", vec![0, 0, 0x27, 0x11], "08P01"),
        ("largest length", vec![255; 8], "08P01"),
        ("a web browser", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "08P01"),
        ("no end of the list", [&[0, 0, 0, 14, 0, 3, 0, 0][..], b"user\0t"].concat(), "08P01"),
        ("bytes after the list", [&[0, 0, 0, 10, 0, 3, 0, 0][..], b"\0x"].concat(), "08P01"),
        ("encryption asked for again and again", [8i32, 80_877_103].map(i32::to_be_bytes).concat().repeat(4), "08P01"),
        ("broken options", startup_packet(3 << 16, &[("user", "tidewater"), ("options", "-x")]), "42601"),
    ];
    for (what, bytes, state) in cases {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut client = server.open();
        client.send(&[bytes]).await;
        let _ = client.socket.shutdown().await;
        let mut answer = Vec::new();
        client.socket.read_to_end(&mut answer).await.unwrap();
        client.task.await.expect("no panic");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains(&format!("C{state}\0")), "{what}: {text:?}");
    }
}

#[tokio::test]
async fn a_connection_may_end_anywhere() {
    let server = Server::new();
    let conversation = [
        query("rows 3"),
        parse("s", "echo int4", &[23]),
        bind("p", "s", &[1], &[Some(&[0, 0, 0, 7])], &[1]),
        describe(b'P', "p"),
        execute("p", 1),
        sync(),
    ]
    .concat();
    for len in 0..conversation.len() {
        let mut client = server.connect().await;
        client.send(&[conversation[..len].to_vec()]).await;
        assert_eq!(ends(client).await, None, "cut at {len}");
    }
    let opening = startup_packet(3 << 16, &[("user", "tidewater"), ("database", "lake")]);
    for len in 0..opening.len() {
        let mut client = server.open();
        client.send(&[opening[..len].to_vec()]).await;
        assert_eq!(ends(client).await, None, "cut at {len}");
    }
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    let server = Server::new();
    let mut client = server.connect().await;
    for byte in [query("rows 1"), sync()].concat() {
        client.send(&[vec![byte]]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(kinds(&client.until_ready().await), "TDCZ");
    assert_eq!(kinds(&client.until_ready().await), "Z");
}

/// Random bytes behind valid types, lengths now right, now wrong. The seed is fixed: a failure comes back.
#[tokio::test]
async fn noise_is_survived() {
    use rand::{Rng, SeedableRng};
    let server = Server::with(|c| c.max_message_bytes = 4000);
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    for _ in 0..400 {
        let mut client = server.connect().await;
        let mut bytes = Vec::new();
        for _ in 0..random.random_range(1..6) {
            let kind = b"QPBDECHSXpdcfF\0"[random.random_range(0..15)];
            let body: Vec<u8> = (0..random.random_range(0..40))
                .map(|_| if random.random_bool(0.5) { 0 } else { random.random() })
                .collect();
            let wrong = if random.random_bool(0.2) { random.random_range(-8..8) } else { 0 };
            bytes.push(kind);
            bytes.extend((body.len() as i32 + 4 + wrong).to_be_bytes());
            bytes.extend(body);
        }
        client.send(&[bytes]).await;
        ends(client).await;
    }
    for _ in 0..100 {
        let mut client = server.open();
        let mut bytes: Vec<u8> = (0..random.random_range(0..60)).map(|_| random.random()).collect();
        if random.random_bool(0.5) && bytes.len() >= 8 {
            let len = bytes.len() as u32;
            bytes[..4].copy_from_slice(&len.to_be_bytes());
            bytes[4..8].copy_from_slice(&[0, 3, 0, 0]);
        }
        client.send(&[bytes]).await;
        ends(client).await;
    }
    server.connect().await;
}
