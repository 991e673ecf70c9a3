//! A TCP proxy that can lose an answer: the request goes through, and the connection ends before anything comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    lose: Arc<Lose>,
}

#[derive(Default)]
struct Lose {
    /// Raised by each call of `lose`: what was sent before it is of no matter.
    round: AtomicUsize,
    /// Requests whose answer is lost from now on.
    left: AtomicUsize,
    /// A piece of the request that tells it from others.
    marker: parking_lot::Mutex<Vec<u8>>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { addr: listener.local_addr().unwrap(), lose: Arc::default() };
        let lose = Arc::clone(&proxy.lose);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let lose = Arc::clone(&lose);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(target).await {
                        let _ = pass(client, server, &lose).await;
                    }
                });
            }
        });
        proxy
    }

    /// Loses the answers to the next requests that hold `marker`.
    pub(crate) fn lose(&self, count: usize, marker: &str) {
        *self.lose.marker.lock() = marker.as_bytes().to_vec();
        self.lose.round.fetch_add(1, Ordering::SeqCst);
        self.lose.left.store(count, Ordering::SeqCst);
    }

    pub(crate) fn lost_all(&self) -> bool {
        self.lose.left.load(Ordering::SeqCst) == 0
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, lose: &Lose) -> std::io::Result<()> {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut marked = false;
    // The end of the last piece, as a marker may lie across two.
    let mut tail: Vec<u8> = Vec::new();
    let mut round = 0;
    loop {
        tokio::select! {
            n = client.read(&mut up) => {
                let n = n?;
                if n == 0 {
                    return Ok(());
                }
                if round != lose.round.load(Ordering::SeqCst) {
                    round = lose.round.load(Ordering::SeqCst);
                    tail.clear();
                }
                tail.extend_from_slice(&up[..n]);
                let marker = lose.marker.lock().clone();
                marked |= !marker.is_empty()
                    && lose.left.load(Ordering::SeqCst) > 0
                    && tail.windows(marker.len()).any(|w| w == marker);
                let keep = tail.len().saturating_sub(256);
                tail.drain(..keep);
                server.write_all(&up[..n]).await?;
            }
            n = server.read(&mut down) => {
                let n = n?;
                if n == 0 {
                    return Ok(());
                }
                // The server has answered, so it has done what it was asked to.
                if marked && lose.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
                    return Ok(());
                }
                client.write_all(&down[..n]).await?;
            }
        }
    }
}
