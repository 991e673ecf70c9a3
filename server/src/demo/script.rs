//! `demo.sql`: copied into the data directory at the first start, run statement by statement at every start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use futures::TryStreamExt;
use tidewater_catalogs::{DEFAULT_CATALOG, DefinitionKind};
use tidewater_sql::{Engine, Login, Outcome, Session, SqlError};

const SCRIPT: &str = include_str!("demo.sql");
const FILE: &str = "demo.sql";
/// The address that stands in the script; the copy has the broker's real one.
const SCRIPT_BROKER: &str = "127.0.0.1:9192";
const CONNECTION: &str = "demo";

/// The user's copy; written where there is none.
pub fn copy(data_dir: &Path, broker: SocketAddr) -> Result<PathBuf> {
    let path = data_dir.join(FILE);
    if !path.exists() {
        let text = SCRIPT.replace(SCRIPT_BROKER, &broker.to_string());
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(path)
}

pub async fn run(engine: &Arc<Engine>, path: &Path, broker: SocketAddr) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut session = login(engine)?;
    follow_broker(engine, &mut session, broker).await?;
    let in_file = |e: &SqlError| anyhow!("{}: {}", path.display(), told(e));
    for statement in session.parse(&text).map_err(|e| in_file(&e))? {
        let first = statement.text.lines().find(|l| !l.trim().is_empty() && !l.trim_start().starts_with("--"));
        let first = first.unwrap_or_default().trim().to_owned();
        let outcome = async {
            let prepared = session.prepare(&statement, &[]).await?;
            session.execute(&prepared, Vec::new()).await
        };
        match outcome.await.map_err(|e| in_file(&e).context(first.clone()))? {
            // The user may have put a query here; its errors come with its rows.
            Outcome::Rows { stream, .. } => {
                stream.try_for_each(|_| std::future::ready(Ok(()))).await.with_context(|| first.clone())?;
            }
            Outcome::Done { .. } | Outcome::Empty => {}
        }
    }
    Ok(())
}

/// A broker that was given another address since the connection was made.
async fn follow_broker(engine: &Arc<Engine>, session: &mut Session, broker: SocketAddr) -> Result<()> {
    let known = engine.metastore().get(DefinitionKind::Connection, CONNECTION).await?;
    let address = broker.to_string();
    let Some(known) = known.filter(|d| !d.sql.contains(&format!("'{address}'"))) else { return Ok(()) };
    tracing::info!(connection = %known.name, %address, "the development broker has another address now");
    let alter = format!("ALTER CONNECTION {CONNECTION} SET (brokers = '{address}')");
    for statement in session.parse(&alter).map_err(|e| anyhow!(told(&e)))? {
        let prepared = session.prepare(&statement, &[]).await.map_err(|e| anyhow!(told(&e)))?;
        session.execute(&prepared, Vec::new()).await.map_err(|e| anyhow!(told(&e)))?;
    }
    Ok(())
}

fn login(engine: &Arc<Engine>) -> Result<Session> {
    let login = Login {
        user: "tidewater".to_owned(),
        database: DEFAULT_CATALOG.to_owned(),
        application_name: "demo".to_owned(),
        ..Login::default()
    };
    engine.session(login).map_err(|e| anyhow!(told(&e)))
}

fn told(e: &SqlError) -> String {
    let mut text = e.message.clone();
    for more in [&e.detail, &e.hint].into_iter().flatten() {
        text.push_str(" — ");
        text.push_str(more);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_copy_is_the_users() {
        let dir = tempfile::tempdir().unwrap();
        let path = copy(dir.path(), "127.0.0.1:7001".parse().unwrap()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("'127.0.0.1:7001'") && !text.contains(SCRIPT_BROKER));
        std::fs::write(&path, "SELECT 1").unwrap();
        copy(dir.path(), "127.0.0.1:7001".parse().unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "SELECT 1");
    }
}
