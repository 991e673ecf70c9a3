//! Bytes from the client → messages. Every length and count is checked against what is there before it is used.
//!
//! The decoders of the `pgwire` crate are not used: they read counts and strings past the end of the message, into
//! the next one or into a panic, and turn text that is not UTF-8 into other text.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tidewater_sql::SqlError;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::types::error;

/// Messages of a client that has signed in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Query(String),
    Parse {
        name: String,
        sql: String,
        oids: Vec<u32>,
    },
    Bind(Bind),
    Describe {
        target: Target,
        name: String,
    },
    Execute {
        portal: String,
        max_rows: usize,
    },
    Close {
        target: Target,
        name: String,
    },
    Flush,
    Sync,
    Terminate,
    /// Copy data outside of COPY: what a client sends that has not seen yet that its COPY failed.
    CopyRest,
    FunctionCall,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bind {
    pub portal: String,
    pub statement: String,
    pub param_formats: Vec<i16>,
    pub params: Vec<Option<Bytes>>,
    pub result_formats: Vec<i16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Statement,
    Portal,
}

pub(super) fn protocol_error(message: impl Into<String>) -> SqlError {
    error("08P01", message)
}

/// Reads fields off one message. An error means that the message is not what its type says.
pub(super) struct Fields(Bytes);

type Field<T> = Result<T, SqlError>;

impl Fields {
    pub fn new(body: Bytes) -> Self {
        Self(body)
    }

    fn need(&self, bytes: usize) -> Field<()> {
        if self.0.remaining() < bytes {
            return Err(protocol_error("insufficient data left in message"));
        }
        Ok(())
    }

    fn u8(&mut self) -> Field<u8> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    fn count(&mut self, element_bytes: usize) -> Field<usize> {
        self.need(2)?;
        let count = usize::from(self.0.get_u16());
        self.need(count * element_bytes)?;
        Ok(count)
    }

    pub fn i32(&mut self) -> Field<i32> {
        self.need(4)?;
        Ok(self.0.get_i32())
    }

    pub fn bytes(&mut self, len: usize) -> Field<Bytes> {
        self.need(len)?;
        Ok(self.0.split_to(len))
    }

    pub fn rest(&mut self) -> Bytes {
        self.0.split_off(0)
    }

    /// Up to the next zero byte. 22021 where it is not UTF-8.
    pub fn string(&mut self) -> Field<String> {
        let end = self.0.iter().position(|b| *b == 0);
        let end = end.ok_or_else(|| protocol_error("invalid string in message"))?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        let text =
            std::str::from_utf8(&text).map_err(|_| error("22021", "invalid byte sequence for encoding \"UTF8\""))?;
        Ok(text.to_owned())
    }

    fn formats(&mut self) -> Field<Vec<i16>> {
        let count = self.count(2)?;
        Ok((0..count).map(|_| self.0.get_i16()).collect())
    }

    pub fn end(&self) -> Field<()> {
        if self.0.is_empty() { Ok(()) } else { Err(protocol_error("invalid message format")) }
    }
}

impl Message {
    pub fn decode(kind: u8, body: Bytes) -> Result<Self, SqlError> {
        let mut f = Fields::new(body);
        let message = match kind {
            b'Q' => Self::Query(f.string()?),
            b'P' => {
                let (name, sql) = (f.string()?, f.string()?);
                let count = f.count(4)?;
                Self::Parse { name, sql, oids: (0..count).map(|_| f.0.get_u32()).collect() }
            }
            b'B' => Self::Bind(Bind {
                portal: f.string()?,
                statement: f.string()?,
                param_formats: f.formats()?,
                params: {
                    let count = f.count(4)?;
                    let values = (0..count).map(|_| match f.i32()? {
                        -1 => Ok(None),
                        len => {
                            let len = usize::try_from(len).map_err(|_| protocol_error("invalid parameter length"))?;
                            f.bytes(len).map(Some)
                        }
                    });
                    values.collect::<Result<_, SqlError>>()?
                },
                result_formats: f.formats()?,
            }),
            b'D' => Self::Describe { target: target(f.u8()?)?, name: f.string()? },
            b'C' => Self::Close { target: target(f.u8()?)?, name: f.string()? },
            // Zero and, as PostgreSQL has it, anything below stand for all rows.
            b'E' => Self::Execute { portal: f.string()?, max_rows: usize::try_from(f.i32()?).unwrap_or(0) },
            b'H' => Self::Flush,
            b'S' => Self::Sync,
            b'X' => Self::Terminate,
            b'd' | b'c' | b'f' => {
                f.rest();
                Self::CopyRest
            }
            b'F' => {
                f.rest();
                Self::FunctionCall
            }
            other => return Err(protocol_error(format!("invalid frontend message type {other}"))),
        };
        f.end()?;
        Ok(message)
    }
}

fn target(kind: u8) -> Result<Target, SqlError> {
    match kind {
        b'S' => Ok(Target::Statement),
        b'P' => Ok(Target::Portal),
        other => Err(protocol_error(format!("invalid describe or close target {other}"))),
    }
}

/// The receiving half of a connection.
#[derive(Debug)]
pub(super) struct Inbox<R> {
    reader: R,
    buffer: BytesMut,
    max_message_bytes: usize,
    ended: bool,
}

/// Messages that a client sends ahead while a statement runs are held up to here; then TCP holds it back.
const READ_AHEAD_BYTES: usize = 64 * 1024;
const READ_BYTES: usize = 8 * 1024;

/// What [`Inbox::frame`] can fail with.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The client is gone, in the middle of a message or not.
    Ended,
    Protocol(SqlError),
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> Self {
        Self::Ended
    }
}

impl<R: AsyncRead + Unpin> Inbox<R> {
    pub fn new(reader: R, max_message_bytes: usize) -> Self {
        Self { reader, buffer: BytesMut::new(), max_message_bytes, ended: false }
    }

    /// Reads what is there. Cancel-safe. The buffer grows with what has come, never with what was announced.
    async fn fill(&mut self) -> Result<(), ReadError> {
        if self.ended {
            return Err(ReadError::Ended);
        }
        self.buffer.reserve(READ_BYTES);
        match self.reader.read_buf(&mut self.buffer).await {
            Ok(n) if n > 0 => Ok(()),
            _ => {
                self.ended = true;
                Err(ReadError::Ended)
            }
        }
    }

    /// Returns once the client has gone. For use beside a running statement; pipelined messages wait in the buffer.
    pub async fn closed(&mut self) {
        while self.buffer.len() < READ_AHEAD_BYTES {
            if self.fill().await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    /// The start-up packet, which has no type: its body after the length.
    pub async fn startup_packet(&mut self, max: usize) -> Result<Bytes, ReadError> {
        while self.buffer.len() < 4 {
            self.fill().await?;
        }
        let len = (&self.buffer[..4]).get_u32() as usize;
        if !(8..=max).contains(&len) {
            return Err(ReadError::Protocol(protocol_error("invalid length of startup packet")));
        }
        while self.buffer.len() < len {
            self.fill().await?;
        }
        self.buffer.advance(4);
        Ok(self.buffer.split_to(len - 4).freeze())
    }

    /// Length of the body of the first message; `None` while the header is not complete.
    fn announced(&self) -> Result<Option<usize>, SqlError> {
        let Some(header) = self.buffer.get(1..5) else { return Ok(None) };
        let len = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if len < 4 {
            return Err(protocol_error("invalid message length"));
        }
        if len > self.max_message_bytes {
            return Err(error(
                "54000",
                format!("message of {len} bytes exceeds the limit of {} bytes", self.max_message_bytes),
            ));
        }
        Ok(Some(len - 4))
    }

    /// Whether a whole message waits already.
    pub fn has_frame(&self) -> bool {
        matches!(self.announced(), Ok(Some(len)) if self.buffer.len() >= len + 5)
    }

    /// Type and body of the next message. Cancel-safe.
    pub async fn frame(&mut self) -> Result<(u8, Bytes), ReadError> {
        loop {
            if let Some(len) = self.announced().map_err(ReadError::Protocol)?
                && self.buffer.len() >= len + 5
            {
                let kind = self.buffer[0];
                self.buffer.advance(5);
                return Ok((kind, self.buffer.split_to(len).freeze()));
            }
            self.fill().await?;
        }
    }

    /// Until the client has signed in, messages are small.
    pub fn set_max_message_bytes(&mut self, max: usize) {
        self.max_message_bytes = max;
    }
}
