//! Hostile input: bytes and statements that are almost right. The server may refuse them in any way, but it must not
//! panic, hang, or stop serving others.
//!
//! `TIDEWATER_FUZZ_SECONDS` (5) is how long each trial goes on, `TIDEWATER_FUZZ_SEED` (1) where it begins.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    Any, CommandGetTables, CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, Ticket};
use libtest_mimic::Trial;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidewater_tests::{Client, EmbeddedServer, connect};

use crate::crash::failed;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("fuzz/pgwire", || pgwire().map_err(failed)),
        Trial::test("fuzz/statements", || statements().map_err(failed)),
        Trial::test("fuzz/flight", || flight().map_err(failed)),
    ]
}

/// After so long a connection that was closed from this side should be over.
const HANG: Duration = Duration::from_secs(20);

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics of all threads; a server that catches one and goes on has a bug all the same.
fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            before(info);
        }));
    });
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Feeds `attempt` until the time is up; each attempt has a seed of its own, which the error names.
fn feed(mut attempt: impl FnMut(&mut StdRng) -> Result<()>) -> Result<()> {
    count_panics();
    let end = Instant::now() + Duration::from_secs(number("TIDEWATER_FUZZ_SECONDS", 5));
    let mut seed = number("TIDEWATER_FUZZ_SEED", 1);
    while Instant::now() < end {
        let panics = PANICS.load(Ordering::SeqCst);
        attempt(&mut StdRng::seed_from_u64(seed)).with_context(|| format!("TIDEWATER_FUZZ_SEED={seed}"))?;
        ensure!(PANICS.load(Ordering::SeqCst) == panics, "something panicked: TIDEWATER_FUZZ_SEED={seed}");
        seed += 1;
    }
    Ok(())
}

/// A few small changes of the kinds that break parsers.
fn mutate(rng: &mut StdRng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    const LENGTHS: [u32; 8] = [0, 1, 3, 4, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x0100_0000];
    for _ in 0..rng.random_range(1..6) {
        if bytes.is_empty() {
            bytes.push(rng.random());
        }
        let at = rng.random_range(0..bytes.len());
        let to = rng.random_range(at..bytes.len().min(at + 64)) + 1;
        match rng.random_range(0..7) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => bytes.insert(at, rng.random()),
            3 => drop(bytes.drain(at..to)),
            4 => {
                let copy = bytes[at..to].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => {
                let length = LENGTHS[rng.random_range(0..LENGTHS.len())].to_be_bytes();
                let end = bytes.len().min(at + 4);
                bytes[at..end].copy_from_slice(&length[..end - at]);
            }
            _ => {
                let other = &corpus[rng.random_range(0..corpus.len())];
                let from = rng.random_range(0..other.len());
                bytes.splice(at..at, other[from..].iter().copied());
            }
        }
        bytes.truncate(1 << 16);
    }
}

// ---------------------------------------------------------------- Postgres protocol

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend(body);
    out
}

fn start_up() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0tidewater\0database\0lake\0\0";
    [&(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

/// Sequences of messages that make sense.
fn conversations() -> Vec<Vec<u8>> {
    let sync = frame(b'S', b"");
    let parse = frame(b'P', b"s\0SELECT $1::int + 1, $2::text\0\0\x02\0\0\0\x17\0\0\0\x19");
    let bind = frame(b'B', b"p\0s\0\0\x02\0\x01\0\0\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x02hi\0\x01\0\x01");
    vec![
        frame(b'Q', b"SELECT 1, 'a', NULL, ARRAY[1,2]\0"),
        frame(b'Q', b"BEGIN; SELECT * FROM generate_series(1, 100); ROLLBACK\0"),
        [parse.clone(), frame(b'D', b"Ss\0"), sync.clone()].concat(),
        [parse, bind, frame(b'D', b"Pp\0"), frame(b'E', b"p\0\0\0\0\x05"), frame(b'C', b"Pp\0"), sync.clone()].concat(),
        [frame(b'P', b"\0SELECT 1\0\0\0"), frame(b'B', b"\0\0\0\0\0\0\0\0"), frame(b'E', b"\0\0\0\0\0"), sync.clone()]
            .concat(),
        [frame(b'H', b""), frame(b'd', b"data"), frame(b'c', b""), frame(b'f', b"no\0"), sync].concat(),
        [frame(b'F', b"\0\0\0\x01\0\0\0\0\0\0"), frame(b'X', b"")].concat(),
    ]
}

fn pgwire() -> Result<()> {
    let server = EmbeddedServer::start(&[("statement_timeout", "5s")])?;
    let addr = server.pg_addr();
    let corpus = conversations();
    let mut n = 0;
    feed(|rng| {
        let mut bytes = corpus[rng.random_range(0..corpus.len())].clone();
        mutate(rng, &mut bytes, &corpus);
        let mut start = start_up();
        if rng.random_range(0..8) == 0 {
            mutate(rng, &mut start, &corpus);
        }
        start.extend(bytes);
        say(addr, &start)?;
        n += 1;
        if n % 64 == 0 {
            Client::connect(addr)?.run("SELECT 1").context("the server serves nobody any more")?;
        }
        Ok(())
    })
}

/// Sends everything, hangs up, and reads until the other side has done so too.
fn say(addr: SocketAddr, bytes: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(HANG))?;
    // The server may have hung up already.
    if stream.write_all(bytes).is_err() || stream.shutdown(Shutdown::Write).is_err() {
        return Ok(());
    }
    let mut answer = [0; 8192];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => bail!("the connection hangs"),
            Err(_) => return Ok(()),
        }
    }
}

// ---------------------------------------------------------------- statements

/// The statements of all `.slt` files.
fn written_statements() -> Vec<Vec<String>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let mut out = Vec::new();
    for file in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        for record in text.split("\n\n") {
            let mut lines = record.lines().skip_while(|l| l.starts_with('#'));
            if lines.next().is_some_and(|l| l.starts_with("statement") || l.starts_with("query")) {
                let sql: Vec<&str> = lines.take_while(|l| !l.starts_with("----")).collect();
                let words = words(&sql.join("\n").replace("\\$", "$"));
                if !words.is_empty() {
                    out.push(words);
                }
            }
        }
    }
    out
}

fn words(sql: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in sql.chars() {
        let joins = |last: &String| {
            let word = |c: char| c.is_alphanumeric() || c == '_';
            last.chars().all(word) && word(c)
        };
        match words.last_mut() {
            Some(last) if joins(last) => last.push(c),
            _ => words.push(c.to_string()),
        }
    }
    words
}

/// Half of them are planned and run, half only planned; an error is an answer, unless it says that we have a bug.
fn statements() -> Result<()> {
    const STRANGE: [&str; 14] = [
        "NULL",
        "''",
        "-1",
        "9223372036854775807",
        "1e308",
        "'NaN'",
        "'infinity'",
        "()",
        "(",
        "ARRAY[]",
        "$1",
        "*",
        "::text",
        "é",
    ];
    let server = EmbeddedServer::start(&[("statement_timeout", "2s")])?;
    let corpus = written_statements();
    ensure!(corpus.len() > 100, "{} statements were found", corpus.len());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(connect(server.pg_addr()))?;
    feed(|rng| {
        let mut words = corpus[rng.random_range(0..corpus.len())].clone();
        for _ in 0..rng.random_range(1..5) {
            let at = rng.random_range(0..words.len());
            match rng.random_range(0..5) {
                0 if words.len() > 1 => drop(words.remove(at)),
                1 => words.insert(at, STRANGE[rng.random_range(0..STRANGE.len())].to_owned()),
                2 => words[at] = STRANGE[rng.random_range(0..STRANGE.len())].to_owned(),
                3 => {
                    let other = rng.random_range(0..words.len());
                    words.swap(at, other);
                }
                _ => {
                    let other = &corpus[rng.random_range(0..corpus.len())];
                    let from = rng.random_range(0..other.len());
                    let to = (from + rng.random_range(1..12)).min(other.len());
                    words.splice(at..at, other[from..to].iter().cloned());
                }
            }
        }
        let sql = words.concat();
        let reads = ["select", "with", "values", "explain", "show"].iter().any(|w| words[0].eq_ignore_ascii_case(w));
        let run = reads && !sql.to_lowercase().contains("sleep") && rng.random_range(0..2) == 0;
        let outcome = runtime.block_on(async {
            let answer = async {
                if run { client.simple_query(&sql).await.map(drop) } else { client.prepare(&sql).await.map(drop) }
            };
            tokio::time::timeout(HANG, answer).await
        });
        match outcome {
            Err(_) => bail!("hangs: {sql}"),
            Ok(Err(e)) if client.is_closed() => bail!("the connection broke ({e}): {sql}"),
            Ok(Err(e)) if e.as_db_error().is_some_and(|e| e.message().contains("met a bug")) => bail!("a bug: {sql}"),
            Ok(_) => Ok(()),
        }
    })
}

// ---------------------------------------------------------------- Flight SQL

fn flight() -> Result<()> {
    let server = EmbeddedServer::start(&[("statement_timeout", "2s")])?;
    let any = |any: Any| any.encode_to_vec();
    let corpus = vec![
        any(CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None }.as_any()),
        any(CommandPreparedStatementQuery { prepared_statement_handle: vec![7; 16].into() }.as_any()),
        any(TicketStatementQuery { statement_handle: vec![9; 16].into() }.as_any()),
        any(CommandGetTables { include_schema: true, ..CommandGetTables::default() }.as_any()),
    ];
    const ACTIONS: [&str; 8] = [
        "CreatePreparedStatement",
        "ClosePreparedStatement",
        "CancelQuery",
        "CancelFlightInfo",
        "SetSessionOptions",
        "GetSessionOptions",
        "CloseSession",
        "BeginTransaction",
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let channel = tonic::transport::Endpoint::new(format!("http://{}", server.flight_addr()))?;
    let mut client = FlightServiceClient::new(runtime.block_on(channel.connect())?);
    feed(|rng| {
        let mut bytes = corpus[rng.random_range(0..corpus.len())].clone();
        if rng.random_range(0..10) > 0 {
            mutate(rng, &mut bytes, &corpus);
        }
        let kind = rng.random_range(0..5);
        let action = ACTIONS[rng.random_range(0..ACTIONS.len())];
        runtime.block_on(async {
            let call = async {
                match kind {
                    0 => drop(client.get_flight_info(FlightDescriptor::new_cmd(bytes)).await),
                    1 => drop(client.get_schema(FlightDescriptor::new_cmd(bytes)).await),
                    2 => {
                        if let Ok(stream) = client.do_get(Ticket::new(bytes)).await {
                            let mut stream = stream.into_inner();
                            while let Ok(Some(_)) = stream.message().await {}
                        }
                    }
                    3 => drop(client.do_action(Action::new(action, bytes)).await),
                    _ => {
                        let descriptor = FlightDescriptor::new_cmd(bytes.clone());
                        let data = FlightData {
                            data_header: bytes.clone().into(),
                            data_body: bytes.into(),
                            ..FlightData::default()
                        };
                        let first = FlightData { flight_descriptor: Some(descriptor), ..data.clone() };
                        drop(client.do_put(futures::stream::iter([first, data])).await);
                    }
                }
            };
            ensure!(tokio::time::timeout(HANG, call).await.is_ok(), "a call hangs");
            let query = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None }.as_any();
            let alive = client.get_flight_info(FlightDescriptor::new_cmd(query.encode_to_vec())).await;
            alive.map(drop).context("the server serves nobody any more")
        })
    })
}
