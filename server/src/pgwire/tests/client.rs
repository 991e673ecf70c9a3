//! A client that speaks bytes, so that it can also say what no driver would.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::engine::FakeEngine;
use crate::pgwire::{Peer, PgConfig, Shared, converse};

pub(super) struct Server {
    pub engine: Arc<FakeEngine>,
    shared: Arc<Shared>,
    pub shutdown: CancellationToken,
}

/// What keeps a broken server from hanging the tests. Nothing measures against it.
const PATIENCE: Duration = Duration::from_secs(60);

impl Server {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut PgConfig)) -> Self {
        let mut config = PgConfig::default();
        change(&mut config);
        let shutdown = CancellationToken::new();
        Self { engine: Arc::default(), shared: Arc::new(Shared::new(config, shutdown.clone())), shutdown }
    }

    pub fn open_from(&self, peer: &str) -> Client {
        // Small, so that a server that sends without end meets a full socket soon.
        let (near, far) = tokio::io::duplex(16 * 1024);
        let (reader, writer) = tokio::io::split(far);
        let (engine, shared) = (self.engine.clone(), self.shared.clone());
        let peer = Peer { addr: Some(peer.parse().unwrap()), encrypted: false };
        let task = tokio::spawn(async move { converse(reader, writer, engine.as_ref(), &shared, peer).await });
        Client { socket: near, task, key: (0, 0), parameters: Vec::new() }
    }

    /// Not signed in.
    pub fn open(&self) -> Client {
        self.open_from("127.0.0.1:50000")
    }

    pub async fn connect(&self) -> Client {
        let mut client = self.open();
        client.startup(&[("user", "tidewater"), ("database", "lake")]).await;
        let messages = client.until_ready().await;
        assert_eq!(kinds(&messages), "RSSKZ", "{messages:?}");
        client
    }
}

pub(super) struct Client {
    pub socket: DuplexStream,
    pub task: JoinHandle<()>,
    pub key: (i32, i32),
    pub parameters: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub kind: u8,
    pub body: Bytes,
}

impl Reply {
    /// A field of an ErrorResponse or NoticeResponse.
    pub fn field(&self, field: u8) -> Option<String> {
        assert!(matches!(self.kind, b'E' | b'N'), "{self:?}");
        let parts = self.body.split(|b| *b == 0);
        parts.filter(|p| p.first() == Some(&field)).map(|p| String::from_utf8(p[1..].to_vec()).unwrap()).next()
    }

    pub fn state(&self) -> String {
        self.field(b'C').unwrap()
    }

    pub fn tag(&self) -> String {
        assert_eq!(self.kind, b'C', "{self:?}");
        String::from_utf8(self.body[..self.body.len() - 1].to_vec()).unwrap()
    }

    /// Values of a DataRow.
    pub fn values(&self) -> Vec<Option<Bytes>> {
        assert_eq!(self.kind, b'D', "{self:?}");
        let mut body = self.body.clone();
        let count = body.get_u16();
        let values = (0..count)
            .map(|_| match body.get_i32() {
                -1 => None,
                len => Some(body.split_to(len as usize)),
            })
            .collect();
        assert!(body.is_empty());
        values
    }

    pub fn texts(&self) -> Vec<String> {
        let text = |v: Bytes| String::from_utf8(v.to_vec()).unwrap();
        self.values().into_iter().map(|v| v.map_or("NULL".to_owned(), text)).collect()
    }
}

pub(super) fn kinds(replies: &[Reply]) -> String {
    replies.iter().map(|r| r.kind as char).collect()
}

pub(super) fn cstr(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

pub(super) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

pub(super) fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &cstr(sql))
}

pub(super) fn parse(name: &str, sql: &str, oids: &[u32]) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_slice(&[cstr(name), cstr(sql)].concat());
    body.put_u16(oids.len() as u16);
    oids.iter().for_each(|o| body.put_u32(*o));
    frame(b'P', &body)
}

pub(super) fn bind(
    portal: &str,
    statement: &str,
    formats: &[i16],
    values: &[Option<&[u8]>],
    results: &[i16],
) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_slice(&[cstr(portal), cstr(statement)].concat());
    body.put_u16(formats.len() as u16);
    formats.iter().for_each(|f| body.put_i16(*f));
    body.put_u16(values.len() as u16);
    for value in values {
        match value {
            Some(v) => {
                body.put_u32(v.len() as u32);
                body.put_slice(v);
            }
            None => body.put_i32(-1),
        }
    }
    body.put_u16(results.len() as u16);
    results.iter().for_each(|f| body.put_i16(*f));
    frame(b'B', &body)
}

pub(super) fn describe(target: u8, name: &str) -> Vec<u8> {
    frame(b'D', &[&[target][..], &cstr(name)].concat())
}

pub(super) fn close(target: u8, name: &str) -> Vec<u8> {
    frame(b'C', &[&[target][..], &cstr(name)].concat())
}

pub(super) fn execute(portal: &str, max_rows: i32) -> Vec<u8> {
    frame(b'E', &[&cstr(portal)[..], &max_rows.to_be_bytes()].concat())
}

pub(super) fn sync() -> Vec<u8> {
    frame(b'S', b"")
}

pub(super) fn startup_packet(version: i32, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    pairs.iter().for_each(|(k, v)| body.extend([cstr(k), cstr(v)].concat()));
    body.push(0);
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

impl Client {
    pub async fn send(&mut self, parts: &[Vec<u8>]) {
        self.socket.write_all(&parts.concat()).await.unwrap();
    }

    pub async fn startup(&mut self, pairs: &[(&str, &str)]) {
        self.send(&[startup_packet(3 << 16, pairs)]).await;
    }

    /// The next message; `None` where the server has closed.
    pub async fn next(&mut self) -> Option<Reply> {
        tokio::time::timeout(PATIENCE, async {
            let kind = self.socket.read_u8().await.ok()?;
            let len = self.socket.read_u32().await.unwrap() as usize;
            let mut body = vec![0; len - 4];
            self.socket.read_exact(&mut body).await.unwrap();
            let reply = Reply { kind, body: body.into() };
            match kind {
                b'K' => self.key = ((&reply.body[..4]).get_i32(), (&reply.body[4..]).get_i32()),
                b'S' => {
                    let mut parts = reply.body.split(|b| *b == 0).map(|p| String::from_utf8(p.to_vec()).unwrap());
                    self.parameters.push((parts.next().unwrap(), parts.next().unwrap()));
                }
                _ => {}
            }
            Some(reply)
        })
        .await
        .expect("the server answers")
    }

    pub async fn until_ready(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        loop {
            let reply = self.next().await.unwrap_or_else(|| panic!("closed after {replies:?}"));
            let ready = reply.kind == b'Z';
            replies.push(reply);
            if ready {
                return replies;
            }
        }
    }

    /// All that comes until the server closes.
    pub async fn until_closed(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        while let Some(reply) = self.next().await {
            replies.push(reply);
        }
        replies
    }

    pub async fn ask(&mut self, parts: &[Vec<u8>]) -> Vec<Reply> {
        self.send(parts).await;
        self.until_ready().await
    }

    /// Ends the connection as a client does that dies.
    pub async fn hang_up(self) {
        drop(self.socket);
        tokio::time::timeout(PATIENCE, self.task).await.expect("the connection ends").unwrap();
    }
}

/// Waits for what other tasks are about to do.
pub(super) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}
