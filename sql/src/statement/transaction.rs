//! BEGIN, COMMIT, ROLLBACK and savepoints. What a block writes is in [`crate::block`].

use sqlparser::ast::{DiscardObject, Statement, TransactionAccessMode, TransactionIsolationLevel, TransactionMode};

use crate::dialect::fold;
use crate::error::Result;
use crate::session::{Notice, Outcome, SessionState, TransactionStatus};
use crate::{SqlError, SqlState};

const MAX_SAVEPOINTS: usize = 1000;

pub(super) fn run(state: &mut SessionState<'_>, statement: &Statement) -> Result<Outcome> {
    match statement {
        Statement::StartTransaction { modes, begin, statements, has_end_keyword, exception, .. } => {
            if !statements.is_empty() || *has_end_keyword || exception.is_some() {
                return Err(SqlError::unsupported("BEGIN … END blocks are not supported"));
            }
            check_modes(modes)?;
            if state.transaction.lock().status == TransactionStatus::Idle {
                state.transaction.lock().turn(TransactionStatus::InBlock);
                state.settings.begin();
            } else {
                warn(state, SqlState::ACTIVE_TRANSACTION, "there is already a transaction in progress");
            }
            set_modes(state, modes, true)?;
            Ok(Outcome::done(if *begin { "BEGIN" } else { "START TRANSACTION" }))
        }
        Statement::Commit { chain, .. } => end(state, true, *chain),
        Statement::Rollback { chain, savepoint: None } => end(state, false, *chain),
        Statement::Rollback { savepoint: Some(name), .. } => {
            let mut transaction = state.transaction.lock();
            let at = place(&transaction, &fold(name), "ROLLBACK TO SAVEPOINT")?;
            transaction.savepoints.truncate(at + 1);
            if let Some((_, mark)) = transaction.savepoints.last() {
                transaction.block.reset(mark);
            }
            transaction.status = TransactionStatus::InBlock;
            // What still streams from behind the savepoint must not fail the block again.
            transaction.generation += 1;
            Ok(Outcome::done("ROLLBACK"))
        }
        Statement::Savepoint { name } => {
            let mut transaction = state.transaction.lock();
            if transaction.status == TransactionStatus::Idle {
                return Err(outside("SAVEPOINT"));
            }
            if transaction.savepoints.len() >= MAX_SAVEPOINTS {
                return Err(SqlError::new(SqlState::TOO_COMPLEX, "too many savepoints"));
            }
            let mark = transaction.block.mark();
            transaction.savepoints.push((fold(name), mark));
            Ok(Outcome::done("SAVEPOINT"))
        }
        Statement::ReleaseSavepoint { name } => {
            let mut transaction = state.transaction.lock();
            let at = place(&transaction, &fold(name), "RELEASE SAVEPOINT")?;
            transaction.savepoints.truncate(at);
            Ok(Outcome::done("RELEASE"))
        }
        other => Err(SqlError::internal(format!("not a transaction statement: {other}"))),
    }
}

fn place(transaction: &crate::session::Transaction, name: &str, what: &str) -> Result<usize> {
    if transaction.status == TransactionStatus::Idle {
        return Err(outside(what));
    }
    transaction
        .savepoints
        .iter()
        .rposition(|(s, _)| s == name)
        .ok_or_else(|| SqlError::new(SqlState::SAVEPOINT_EXCEPTION, format!("savepoint \"{name}\" does not exist")))
}

fn outside(what: &str) -> SqlError {
    SqlError::new(SqlState::NO_ACTIVE_TRANSACTION, format!("{what} can only be used in transaction blocks"))
}

fn end(state: &mut SessionState<'_>, commit: bool, chain: bool) -> Result<Outcome> {
    let was = {
        let mut transaction = state.transaction.lock();
        let was = transaction.status;
        if chain && was == TransactionStatus::Idle {
            return Err(outside(if commit { "COMMIT AND CHAIN" } else { "ROLLBACK AND CHAIN" }));
        }
        transaction.turn(if chain { TransactionStatus::InBlock } else { TransactionStatus::Idle });
        was
    };
    let committed = commit && was == TransactionStatus::InBlock;
    if was == TransactionStatus::Idle {
        warn(state, SqlState::NO_ACTIVE_TRANSACTION, "there is no transaction in progress");
    } else {
        state.settings.end(committed);
    }
    if chain {
        state.settings.begin();
    }
    // A failed block ends in a rollback, whatever was asked.
    Ok(Outcome::done(if commit && was != TransactionStatus::Failed { "COMMIT" } else { "ROLLBACK" }))
}

/// Ends a block whose COMMIT has failed.
pub(crate) fn abandon(state: &mut SessionState<'_>) {
    state.transaction.lock().turn(TransactionStatus::Idle);
    state.settings.end(false);
}

fn check_modes(modes: &[TransactionMode]) -> Result<()> {
    for mode in modes {
        if let TransactionMode::IsolationLevel(level) = mode
            && !matches!(level, TransactionIsolationLevel::ReadCommitted | TransactionIsolationLevel::ReadUncommitted)
        {
            return Err(SqlError::unsupported(format!("isolation level {level} is not supported"))
                .with_detail("Each statement reads its own snapshot, as READ COMMITTED does.")
                .with_hint("Use READ COMMITTED."));
        }
    }
    Ok(())
}

/// SET TRANSACTION and the modes of BEGIN; `local` false is SET SESSION CHARACTERISTICS.
pub(super) fn set_modes(state: &mut SessionState<'_>, modes: &[TransactionMode], local: bool) -> Result<()> {
    check_modes(modes)?;
    for mode in modes {
        let (name, value) = match mode {
            TransactionMode::AccessMode(TransactionAccessMode::ReadOnly) => ("read_only", "on"),
            TransactionMode::AccessMode(TransactionAccessMode::ReadWrite) => ("read_only", "off"),
            TransactionMode::IsolationLevel(_) => ("isolation", "read committed"),
        };
        if local {
            state.settings.set_local(&format!("transaction_{name}"), value)?;
        } else {
            state.settings.set(&format!("default_transaction_{name}"), value)?;
        }
    }
    Ok(())
}

/// DISCARD. Prepared statements and portals belong to the protocol, which forgets them by itself.
pub(super) fn discard(state: &mut SessionState<'_>, what: &DiscardObject) -> Result<Outcome> {
    if matches!(what, DiscardObject::ALL) {
        if state.transaction.lock().status != TransactionStatus::Idle {
            return Err(SqlError::new(
                SqlState::ACTIVE_TRANSACTION,
                "DISCARD ALL cannot run inside a transaction block",
            ));
        }
        state.settings.reset_all();
    }
    Ok(Outcome::done(format!("DISCARD {what}")))
}

fn warn(state: &SessionState<'_>, sqlstate: SqlState, message: &str) {
    state.notices.lock().push(Notice::warning(sqlstate, message));
}
