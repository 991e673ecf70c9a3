//! The definition that is stored counts, not the one that a keeper has in memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewater_catalogs::{Definition, Error, FlowState, Result};

use super::fakes::{Crash, World, WorldFactory, env, until};
use crate::{FlowFactory, FlowSpec, Supervisor};

#[derive(Debug)]
struct Stored {
    world: WorldFactory,
    definition: Mutex<Option<Definition>>,
}

#[async_trait]
impl FlowFactory for Stored {
    async fn build(&self, flow: &Definition) -> Result<FlowSpec> {
        self.world.build(flow).await
    }

    async fn current(&self, _: &Definition) -> Result<Definition> {
        self.definition.lock().clone().ok_or_else(|| Error::not_found("dropped"))
    }
}

/// Two servers on one metastore: the one paused or dropped a flow, and the other one's ran on at its next start as if
/// nothing had been said.
#[tokio::test]
async fn a_flow_that_another_server_paused_or_dropped_does_not_run() {
    let world = World::new(1);
    world.topic.push_mixed(0, 20);
    let mut paused = world.definition();
    paused.properties.insert("paused".to_owned(), "true".to_owned());
    let factory = Arc::new(Stored { world: WorldFactory(Arc::clone(&world)), definition: Mutex::new(Some(paused)) });
    let supervisor =
        Supervisor::new(tokio::runtime::Handle::current(), factory.clone(), env(Arc::new(Crash::default()), 1));
    supervisor.start(world.definition()).unwrap();
    let state = || supervisor.status(world.id).unwrap();
    until("the flow to rest", || state().state == FlowState::Paused).await;
    assert!(state().error.is_none());
    assert!(world.target.ids().is_empty());

    *factory.definition.lock() = None;
    supervisor.resume(world.id).await.unwrap();
    until("the flow to fail", || state().state == FlowState::Failed).await;
    assert_eq!(state().error.unwrap().code, "NOT_FOUND");

    *factory.definition.lock() = Some(world.definition());
    supervisor.resume(world.id).await.unwrap();
    until("rows", || world.rows_complete() && world.letters_complete()).await;
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
}
