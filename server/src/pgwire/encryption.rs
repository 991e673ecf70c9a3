//! TLS before the protocol begins: after an SSLRequest, or from the first byte (`sslnegotiation=direct`).

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(super) enum Opened {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// First byte of a TLS handshake record, RFC 8446 §5.1.
const TLS_HANDSHAKE: u8 = 0x16;

/// Looks at the first bytes and leaves them where they are unless they ask for TLS.
pub(super) async fn open(mut stream: TcpStream, tls: &Arc<ServerConfig>) -> io::Result<Opened> {
    let mut first = [0; 8];
    let direct = loop {
        let n = stream.peek(&mut first).await?;
        if n == 0 || first[..n] != SSL_REQUEST[..n] {
            if first[0] == TLS_HANDSHAKE && n > 0 {
                break true;
            }
            return Ok(Opened::Plain(stream));
        }
        if n == first.len() {
            break false;
        }
        // A few bytes of the request: the rest is on its way.
        stream.readable().await?;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    if !direct {
        stream.read_exact(&mut first).await?;
        stream.write_all(b"S").await?;
    }
    Ok(Opened::Encrypted(Box::new(TlsAcceptor::from(Arc::clone(tls)).accept(stream).await?)))
}
