//! Rows from the engine to the socket: pull a batch, write it into the buffer, send, again. Nothing is collected.

use std::task::Poll;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use bytes::BytesMut;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tidewater_sql::{ResultColumn, RowsTag, SqlError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Fail, cancelled, terminated};
use super::encode::{Format, RowEncoder};
use super::metrics;
use super::port::Port;

/// A result on its way. Dropping it stops the query.
pub(super) struct Cursor {
    pub columns: Vec<ResultColumn>,
    pub formats: Vec<Format>,
    stream: SendableRecordBatchStream,
    tag: RowsTag,
    /// What is left of the batch that was interrupted.
    batch: Option<RecordBatch>,
    next_row: usize,
    /// For COPY: the client knows that data comes, and a row as the other protocol has it.
    copying: Option<BytesMut>,
}

impl Cursor {
    pub fn new(
        columns: Vec<ResultColumn>,
        formats: Vec<Format>,
        stream: SendableRecordBatchStream,
        tag: RowsTag,
    ) -> Self {
        // The format of COPY is text, whatever was asked for.
        let formats = if tag == RowsTag::Copy { vec![Format::Text; columns.len()] } else { formats };
        Self { columns, formats, stream, tag, batch: None, next_row: 0, copying: None }
    }

    pub fn tag(&self) -> RowsTag {
        self.tag
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// All rows are out, and CommandComplete too.
    Complete,
    /// As many rows as were asked for.
    Suspended,
}

/// Rows that are there wait this long for company before they are sent.
const LINGER: Duration = Duration::from_millis(2);

impl<S, R, W> Connection<S, R, W>
where
    S: Port,
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub async fn pump(
        &mut self,
        cursor: &mut Cursor,
        max_rows: usize,
        token: &CancellationToken,
    ) -> Result<Pumped, Fail> {
        let mut sent = 0;
        let max_rows = if cursor.tag == RowsTag::Copy { usize::MAX } else { max_rows };
        if cursor.tag == RowsTag::Copy && cursor.copying.is_none() {
            self.out.copy_out(cursor.columns.len());
            cursor.copying = Some(BytesMut::new());
        }
        let result = self.pump_rows(cursor, max_rows, token, &mut sent).await;
        metrics::rows(sent as u64);
        let pumped = result?;
        self.put_notices();
        match &pumped {
            Pumped::Suspended => self.out.portal_suspended(),
            Pumped::Complete => self.rows_complete(cursor.tag, sent as u64),
        }
        Ok(pumped)
    }

    pub fn rows_complete(&mut self, tag: RowsTag, rows: u64) {
        match tag {
            RowsTag::Select => self.out.command_complete(&format!("SELECT {rows}")),
            RowsTag::Show => self.out.command_complete("SHOW"),
            RowsTag::Call => self.out.command_complete("CALL"),
            RowsTag::Changed(tag) => self.out.command_complete(&tag.to_string()),
            RowsTag::Explain => self.out.command_complete("EXPLAIN"),
            RowsTag::Subscribe => self.out.command_complete(&format!("SUBSCRIBE {rows}")),
            RowsTag::Copy => {
                self.out.copy_done();
                self.out.command_complete(&format!("COPY {rows}"));
            }
        }
    }

    async fn pump_rows(
        &mut self,
        cursor: &mut Cursor,
        max_rows: usize,
        token: &CancellationToken,
        sent: &mut usize,
    ) -> Result<Pumped, Fail> {
        let tz = self.time_zone();
        loop {
            let batch = match cursor.batch.take() {
                Some(batch) => batch,
                None => match self.next_batch(cursor, token).await? {
                    Some(batch) => {
                        cursor.next_row = 0;
                        batch
                    }
                    None => return Ok(Pumped::Complete),
                },
            };
            let encoder = RowEncoder::new(&batch, &cursor.columns, &cursor.formats, tz)?;
            while cursor.next_row < batch.num_rows() && *sent < max_rows {
                match &mut cursor.copying {
                    None => encoder.put_row(&mut self.out.buffer, cursor.next_row)?,
                    Some(row) => {
                        row.clear();
                        encoder.put_row(row, cursor.next_row)?;
                        self.out.copy_row(row);
                    }
                }
                cursor.next_row += 1;
                *sent += 1;
                if self.out.is_full() {
                    if token.is_cancelled() {
                        return Err(cancelled().into());
                    }
                    self.send(Some(token)).await?;
                }
            }
            drop(encoder);
            if *sent == max_rows {
                if cursor.next_row < batch.num_rows() {
                    cursor.batch = Some(batch);
                }
                return Ok(Pumped::Suspended);
            }
        }
    }

    /// The next batch that has rows. Rows in the buffer are sent when there is nothing else to do.
    async fn next_batch(
        &mut self,
        cursor: &mut Cursor,
        token: &CancellationToken,
    ) -> Result<Option<RecordBatch>, Fail> {
        loop {
            if token.is_cancelled() {
                return Err(cancelled().into());
            }
            let ready = std::future::poll_fn(|cx| match cursor.stream.poll_next_unpin(cx) {
                Poll::Ready(next) => Poll::Ready(Some(next)),
                Poll::Pending => Poll::Ready(None),
            });
            let mut next = ready.await;
            if next.is_none() && !self.out.is_empty() {
                next = tokio::time::timeout(LINGER, cursor.stream.next()).await.ok();
                if next.is_none() {
                    self.send(Some(token)).await?;
                }
            }
            let next = match next {
                Some(next) => next,
                None => {
                    let Self { inbox, shutdown, .. } = self;
                    tokio::select! {
                        biased;
                        () = token.cancelled() => return Err(cancelled().into()),
                        () = shutdown.cancelled() => return Err(Fail::Fatal(terminated())),
                        next = cursor.stream.next() => next,
                        () = inbox.closed() => return Err(Fail::Gone),
                    }
                }
            };
            match next {
                None => return Ok(None),
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                Some(Ok(batch)) => return Ok(Some(batch)),
                Some(Err(e)) => return Err(Fail::Statement(SqlError::from(e))),
            }
        }
    }
}
