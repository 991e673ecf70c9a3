//! A server in a process of its own, to be killed.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{Client, wait_for};

/// First argument that makes the test binary run as the server: `main` hands the rest to the command line.
pub const SERVE_CHILD: &str = "--serve-child";

/// `tidewater serve`, run by re-executing the current binary.
pub struct ChildServer {
    child: Child,
    addr: SocketAddr,
}

impl ChildServer {
    /// `log` receives standard error. The ports are chosen here, so that a restart listens where it did before.
    pub fn start(data_dir: &Path, ports: Ports, log: &Path, settings: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        let log_file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(std::env::current_exe()?);
        // Variables of the tests are none of the server's, which refuses those that it does not know.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|n| n.starts_with("TIDEWATER_")) {
                command.env_remove(name);
            }
        }
        let child = command
            .arg(SERVE_CHILD)
            .arg("serve")
            .args(["--data-dir", data_dir.to_str().context("path is not UTF-8")?])
            .args(["--pg-listen", &format!("127.0.0.1:{}", ports.pg)])
            .args(["--flight-listen", &format!("127.0.0.1:{}", ports.flight)])
            .args(["--http-listen", &format!("127.0.0.1:{}", ports.http)])
            .args(settings)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn()?;
        Ok(Self { child, addr: SocketAddr::from(([127, 0, 0, 1], ports.pg)) })
    }

    /// Waits until it answers a query. `None` where the process ended before that.
    pub fn client(&mut self, limit: Duration) -> Result<Client> {
        let addr = self.addr;
        wait_for("the server to answer", limit, || {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the server ended with {status}");
            }
            let client = Client::connect(addr)?;
            client.run("SELECT 1")?;
            Ok(Some(client))
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// SIGKILL: no handler runs.
    pub fn kill(&mut self) -> Result<()> {
        let _ = self.child.kill();
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self, limit: Duration) -> Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        wait_for("the server to end", limit, || Ok(self.child.try_wait()?.map(|_| ())))
    }
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub pg: u16,
    pub flight: u16,
    pub http: u16,
}

impl Ports {
    /// Ports that were free a moment ago.
    pub fn free() -> Result<Self> {
        let listen = || TcpListener::bind("127.0.0.1:0");
        // All at once, so that they differ.
        let (a, b, c) = (listen()?, listen()?, listen()?);
        Ok(Self { pg: a.local_addr()?.port(), flight: b.local_addr()?.port(), http: c.local_addr()?.port() })
    }
}

/// The end of a log file, for the message of a failed test.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Kept out of the temporary directory so that it can be looked at after a failure.
pub fn log_path(dir: &Path) -> PathBuf {
    dir.join("server.log")
}
