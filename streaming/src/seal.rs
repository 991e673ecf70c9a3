//! Closes the files of cut triggers, in order, while the next one is read.

use tidewater_catalogs::{Error, Result, StagedFiles};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::checkpoint::RowCounts;
use crate::env::Env;
use crate::failure::FlowResult;
use crate::trigger::{CountedWriter, CutTrigger, SealedTrigger};

pub(crate) async fn seal_all(
    mut cut: mpsc::Receiver<CutTrigger>,
    sealed: mpsc::Sender<SealedTrigger>,
    env: &Env,
) -> FlowResult<()> {
    while let Some(trigger) = cut.recv().await {
        env.failpoints.reach("seal.before").await;
        let trigger = seal(trigger).await?;
        env.failpoints.reach("seal.after").await;
        if sealed.send(trigger).await.is_err() {
            return Err(Error::internal("the committing stage of a flow ended early").into());
        }
    }
    Ok(())
}

async fn seal(trigger: CutTrigger) -> Result<SealedTrigger> {
    let mut data = Vec::new();
    let mut letters = Vec::new();
    let mut moves = Vec::new();
    let mut gaps = Vec::new();
    let mut rows = RowCounts::default();
    let mut replay = None;
    let mut max_timestamp_ms = 0;
    for lane in trigger.lanes {
        // Encoding what is left is work for a core, so each file gets a task.
        data.extend(lane.writer.map(close));
        letters.extend(lane.dead.map(close));
        moves.extend(lane.moves);
        gaps.extend(lane.gaps);
        rows.add(&lane.rows);
        // One lane at most has any.
        replay = replay.or(lane.replay);
        max_timestamp_ms = max_timestamp_ms.max(lane.max_timestamp_ms);
    }
    moves.sort_by_key(|m| m.partition);
    Ok(SealedTrigger {
        open: trigger.open,
        files: gather(data).await?,
        dead: gather(letters).await?,
        moves,
        gaps,
        rows,
        replay,
        max_timestamp_ms,
        cut_at_ms: trigger.cut_at_ms,
        began: trigger.began,
        permit: trigger.permit,
    })
}

fn close(writer: CountedWriter) -> AbortOnDropHandle<Result<StagedFiles>> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let rows = writer.rows();
        let files = writer.finish().await?;
        if files.rows() != rows {
            return Err(Error::internal("closed files do not hold what was written to them")
                .with_context("written", rows)
                .with_context("stored", files.rows()));
        }
        Ok(files)
    }))
}

async fn gather(closing: Vec<AbortOnDropHandle<Result<StagedFiles>>>) -> Result<StagedFiles> {
    let mut all = StagedFiles::default();
    for files in closing {
        let files = files.await.map_err(|e| Error::internal("closing files panicked").with_source(e))??;
        all.files.extend(files.files);
    }
    Ok(all)
}
