//! A TCP proxy that misbehaves on order.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Takes connections and says nothing on them, nor on those that are open: what a lost network looks like.
    Silent,
    /// Each piece of an answer comes so much later.
    Slow(Duration),
    /// Takes connections and hangs up.
    HangUp,
    /// Answers one connection in so many with this HTTP status and passes the others.
    Refuse {
        one_in: u64,
        status: &'static str,
    },
    /// One answer in so many is lost: what was asked for is done, and the connection ends before anything comes back.
    LoseAnswers(u64),
}

/// Ends with the process.
#[derive(Clone)]
pub struct Proxy {
    addr: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    /// Connections of an earlier generation are cut.
    generation: Arc<AtomicU64>,
    answers: Arc<AtomicU64>,
}

/// How often a connection looks whether the mode has changed.
const LOOK: Duration = Duration::from_millis(20);

impl Proxy {
    /// Listens on a free port.
    pub fn to(target: SocketAddr) -> Result<Self> {
        Self::listen(TcpListener::bind("127.0.0.1:0")?, target)
    }

    pub fn listen(listener: TcpListener, target: SocketAddr) -> Result<Self> {
        let proxy = Self {
            addr: listener.local_addr()?,
            mode: Arc::new(Mutex::new(Mode::Pass)),
            generation: Arc::default(),
            answers: Arc::default(),
        };
        let shared = proxy.clone();
        std::thread::spawn(move || {
            for (n, client) in (1_u64..).zip(listener.incoming()) {
                let (Ok(client), shared) = (client, shared.clone()) else { continue };
                std::thread::spawn(move || drop(shared.serve(client, target, n)));
            }
        });
        Ok(proxy)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
    }

    /// Ends every connection that is open now.
    pub fn cut(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    fn serve(&self, mut client: TcpStream, target: SocketAddr, n: u64) -> std::io::Result<()> {
        let generation = self.generation.load(Ordering::SeqCst);
        match *self.mode.lock() {
            Mode::HangUp => return client.shutdown(Shutdown::Both),
            Mode::Refuse { one_in, status } if n.is_multiple_of(one_in) => {
                // Read something first, or the client sees a cut connection and no answer.
                let _ = client.read(&mut [0; 4096])?;
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                client.write_all(answer.as_bytes())?;
                return client.shutdown(Shutdown::Both);
            }
            _ => {}
        }
        let server = TcpStream::connect(target)?;
        let (client_copy, server_copy) = (client.try_clone()?, server.try_clone()?);
        let up = {
            let proxy = self.clone();
            std::thread::spawn(move || drop(proxy.copy(client_copy, server_copy, generation, false)))
        };
        let down = self.copy(server, client, generation, true);
        let _ = up.join();
        down
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, generation: u64, answers: bool) -> std::io::Result<()> {
        from.set_read_timeout(Some(LOOK))?;
        let mut buffer = vec![0; 64 << 10];
        let end = |from: &TcpStream, to: &TcpStream| {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        };
        loop {
            if self.generation.load(Ordering::SeqCst) != generation {
                end(&from, &to);
                return Ok(());
            }
            let mode = *self.mode.lock();
            if mode == Mode::Silent {
                std::thread::sleep(LOOK);
                continue;
            }
            match from.read(&mut buffer) {
                Ok(0) => {
                    end(&from, &to);
                    return Ok(());
                }
                Ok(n) => {
                    match mode {
                        Mode::Slow(pause) if answers => std::thread::sleep(pause),
                        Mode::LoseAnswers(one_in)
                            if answers && self.answers.fetch_add(1, Ordering::SeqCst).is_multiple_of(one_in) =>
                        {
                            end(&from, &to);
                            return Ok(());
                        }
                        _ => {}
                    }
                    to.write_all(&buffer[..n])?;
                }
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                Err(e) => {
                    end(&from, &to);
                    return Err(e);
                }
            }
        }
    }
}
