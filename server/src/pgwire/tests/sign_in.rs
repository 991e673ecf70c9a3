use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgwire::api::auth::sasl::scram::gen_salted_password;
use sha2::{Digest, Sha256};

use super::client::{Client, Reply, Server, frame, kinds, startup_packet};
use crate::pgwire::check_listen;

const LAKE: &[(&str, &str)] = &[("user", "tidewater"), ("database", "lake")];

async fn refusal(client: &mut Client) -> (String, String) {
    let replies = client.until_closed().await;
    let last: &Reply = replies.last().expect("an error");
    assert_eq!(last.field(b'S').unwrap(), "FATAL");
    (last.state(), last.field(b'M').unwrap())
}

#[tokio::test]
async fn encryption_is_refused_and_the_client_goes_on() {
    use tokio::io::AsyncReadExt;
    let server = Server::new();
    let mut client = server.open();
    for request in [80_877_103i32, 80_877_104] {
        client.send(&[[8, request].map(i32::to_be_bytes).concat()]).await;
        assert_eq!(client.socket.read_u8().await.unwrap(), b'N');
    }
    client.startup(LAKE).await;
    let replies = client.until_ready().await;
    assert_eq!(kinds(&replies), "RSSKZ");
    assert_eq!(client.parameters[0], ("server_version".to_owned(), "16.6".to_owned()));
}

#[tokio::test]
async fn settings_come_with_the_start_up_message() {
    let server = Server::new();
    let mut client = server.open();
    let pairs = [
        ("user", "tidewater"),
        ("database", "lake"),
        ("application_name", "psql"),
        ("options", "-c statement_timeout=5s"),
        ("TimeZone", "Europe/Rome"),
        ("replication", "false"),
    ];
    client.startup(&pairs).await;
    client.until_ready().await;
    let login = server.engine.logins.lock()[0].clone();
    assert_eq!((login.user.as_str(), login.database.as_str()), ("tidewater", "lake"));
    assert_eq!(login.application_name, "psql");
    assert_eq!(login.client_addr.as_deref(), Some("127.0.0.1"));
    for expected in [("statement_timeout", "5s"), ("TimeZone", "Europe/Rome")] {
        assert!(login.options.iter().any(|(k, v)| (k.as_str(), v.as_str()) == expected), "{login:?}");
    }
}

#[tokio::test]
async fn newer_protocols_are_talked_down_and_others_refused() {
    let server = Server::new();
    let mut client = server.open();
    client.send(&[startup_packet((3 << 16) | 2, &[LAKE, &[("_pq_.new", "1")]].concat())]).await;
    let replies = client.until_ready().await;
    assert_eq!(kinds(&replies), "vRSSKZ");
    assert_eq!(&replies[0].body[..], b"\0\x03\0\0\0\0\0\x01_pq_.new\0");
    let mut client = server.open();
    client.send(&[startup_packet(2 << 16, LAKE)]).await;
    assert_eq!(refusal(&mut client).await.0, "0A000");
}

#[tokio::test]
async fn unknown_users_and_databases() {
    let server = Server::new();
    for (pairs, state) in [
        (vec![("user", "tidewater"), ("database", "other")], "3D000"),
        (vec![("user", "tidewater")], "3D000"),
        (vec![("user", "root"), ("database", "lake")], "28000"),
        (vec![("database", "lake")], "28000"),
        (vec![("user", "tidewater"), ("database", "lake"), ("replication", "true")], "0A000"),
    ] {
        let mut client = server.open();
        client.startup(&pairs).await;
        assert_eq!(refusal(&mut client).await.0, state, "{pairs:?}");
    }
}

#[tokio::test]
async fn without_a_password_only_the_same_machine_gets_in() {
    let server = Server::new();
    for (peer, trusted) in
        [("127.0.0.1:1", true), ("[::1]:1", true), ("[::ffff:127.0.0.1]:1", true), ("10.0.0.1:1", false)]
    {
        let mut client = server.open_from(peer);
        client.startup(LAKE).await;
        if trusted {
            client.until_ready().await;
        } else {
            assert_eq!(refusal(&mut client).await.0, "28000");
        }
    }
    let listen = |addr: &str, password| check_listen(addr.parse::<SocketAddr>().unwrap(), password);
    assert!(listen("127.0.0.1:5433", false).is_ok());
    assert!(listen("[::1]:5433", false).is_ok());
    assert!(listen("0.0.0.0:5433", true).is_ok());
    for open in ["0.0.0.0:5433", "[::]:5433", "192.168.1.5:5433"] {
        assert!(listen(open, false).unwrap_err().to_string().contains("without a password"), "{open}");
    }
}

#[tokio::test]
async fn one_session_too_many_is_refused_until_one_ends() {
    let server = Server::with(|c| c.max_connections = 2);
    let first = server.connect().await;
    let _second = server.connect().await;
    let mut third = server.open();
    third.startup(LAKE).await;
    assert_eq!(refusal(&mut third).await, ("53300".to_owned(), "sorry, too many clients already".to_owned()));
    first.hang_up().await;
    server.connect().await;
}

#[tokio::test]
async fn a_client_that_does_not_sign_in_is_disconnected() {
    let server = Server::with(|c| c.startup_timeout = Duration::from_millis(30));
    let mut client = server.open();
    client.send(&[vec![0, 0]]).await;
    assert_eq!(client.until_closed().await, []);
}

/// RFC 2104, for keys up to the block size.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let padded = |with: u8| -> Vec<u8> { (0..64).map(|i| key.get(i).copied().unwrap_or(0) ^ with).collect() };
    let inner = Sha256::digest([&padded(0x36), message].concat());
    Sha256::digest([&padded(0x5c)[..], &inner].concat()).to_vec()
}

/// A client's half of SCRAM-SHA-256, as RFC 5802 has it.
async fn scram_login(server: &Server, user: &str, password: &str) -> Vec<Reply> {
    let mut client = server.open_from("10.0.0.7:1");
    client.startup(&[("user", user), ("database", "lake")]).await;
    let offer = client.next().await.unwrap();
    assert_eq!(&offer.body[..], b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let first_bare = "n=,r=rOprNGfwEbeRWgbNEkqO";
    let first = format!("n,,{first_bare}");
    let body = [b"SCRAM-SHA-256\0", &(first.len() as u32).to_be_bytes()[..], first.as_bytes()].concat();
    client.send(&[frame(b'p', &body)]).await;
    let reply = client.next().await.unwrap();
    let server_first = String::from_utf8(reply.body[4..].to_vec()).unwrap();
    let part = |key: &str| server_first.split(',').find_map(|p| p.strip_prefix(key)).unwrap().to_owned();
    let (nonce, salt, iterations) = (part("r="), STANDARD.decode(part("s=")).unwrap(), part("i=").parse().unwrap());
    assert!(nonce.starts_with("rOprNGfwEbeRWgbNEkqO") && nonce.len() > 30);
    let without_proof = format!("c=biws,r={nonce}");
    let auth_message = format!("{first_bare},{server_first},{without_proof}");
    let salted = gen_salted_password(password, &salt, iterations);
    let client_key = hmac(&salted, b"Client Key");
    let signature = hmac(&Sha256::digest(&client_key), auth_message.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    client.send(&[frame(b'p', format!("{without_proof},p={}", STANDARD.encode(&proof)).as_bytes())]).await;
    let reply = client.next().await.unwrap();
    if reply.kind == b'E' {
        return vec![reply];
    }
    // The server proves that it knows the password too.
    let server_key = hmac(&salted, b"Server Key");
    let expected = format!("v={}", STANDARD.encode(hmac(&server_key, auth_message.as_bytes())));
    assert_eq!(&reply.body[4..], expected.as_bytes());
    client.until_ready().await
}

#[tokio::test]
async fn a_password_is_checked_without_being_sent() {
    let server = Server::with(|c| c.password = Some("pencil".to_owned()));
    assert_eq!(kinds(&scram_login(&server, "tidewater", "pencil").await), "RSSKZ");
    for (user, password) in [("tidewater", "Pencil"), ("tidewater", ""), ("nobody", "pencil")] {
        let replies = scram_login(&server, user, password).await;
        assert_eq!(replies[0].state(), "28P01");
        let message = format!("password authentication failed for user \"{user}\"");
        assert_eq!(replies[0].field(b'M').unwrap(), message);
    }
}

#[tokio::test]
async fn what_is_no_scram_message_ends_the_connection() {
    let server = Server::with(|c| c.password = Some("pencil".to_owned()));
    let initial = |mechanism: &str, len: i32, data: &str| {
        frame(b'p', &[mechanism.as_bytes(), &[0], &len.to_be_bytes(), data.as_bytes()].concat())
    };
    for message in [
        frame(b'Q', b"rows 1\0"),
        frame(b'p', b"pencil\0"),
        frame(b'p', b""),
        initial("SCRAM-SHA-256-PLUS", 3, "n,,"),
        initial("SCRAM-SHA-256", -1, ""),
        initial("SCRAM-SHA-256", 1000, "n,,"),
        initial("SCRAM-SHA-256", 3, "n,,"),
        initial("SCRAM-SHA-256", 5, "n,,n="),
        initial("SCRAM-SHA-256", 4, "\u{ff}\u{ff}"),
        initial("SCRAM-SHA-256", 14, "p=tls,,n=,r=ab"),
        [&b"p"[..], &20_000u32.to_be_bytes()].concat(),
        [&b"p"[..], &2u32.to_be_bytes()].concat(),
    ] {
        let mut client = server.open();
        client.startup(LAKE).await;
        assert_eq!(client.next().await.unwrap().kind, b'R');
        client.send(std::slice::from_ref(&message)).await;
        let state = refusal(&mut client).await.0;
        assert!(state == "08P01" || state == "54000", "{state} for {message:?}");
    }
}
