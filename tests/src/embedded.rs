//! A whole server with a development broker, in this process, on free ports and a directory of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use tempfile::TempDir;
use tidewater_devbroker::{DevBroker, DevBrokerConfig};
use tidewater_server::config::{Config, Values};
use tidewater_server::process::Server;

pub struct EmbeddedServer {
    server: Option<Server>,
    broker: DevBroker,
    // Removed last.
    dir: TempDir,
}

impl EmbeddedServer {
    /// `overrides` are settings by name.
    pub fn start(overrides: &[(&str, &str)]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut values: Values = BTreeMap::new();
        for (name, value) in [
            ("data_dir", dir.path().join("data").to_str().unwrap()),
            ("pg_listen", "127.0.0.1:0"),
            ("flight_listen", "127.0.0.1:0"),
            ("http_listen", "127.0.0.1:0"),
            ("commit_interval", "200ms"),
        ]
        .iter()
        .chain(overrides)
        {
            values.insert((*name).to_owned(), (*value).to_owned());
        }
        let config = Config::load(&values, &Values::new(), None)?;
        let server = Server::start(config)?;
        let broker = DevBroker::start(DevBrokerConfig::new(dir.path().join("broker")))?;
        Ok(Self { server: Some(server), broker, dir })
    }

    pub fn pg_addr(&self) -> SocketAddr {
        self.server.as_ref().unwrap().pg_addr()
    }
    pub fn flight_addr(&self) -> SocketAddr {
        self.server.as_ref().unwrap().flight_addr()
    }
    pub fn http_addr(&self) -> SocketAddr {
        self.server.as_ref().unwrap().http_addr()
    }
    pub fn broker_addr(&self) -> SocketAddr {
        self.broker.addr()
    }
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}
