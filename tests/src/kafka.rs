//! A real Apache Kafka: one KRaft node on free ports.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{Proxy, tail, wait_for};

/// Stopped when dropped.
pub struct Kafka {
    child: Option<Child>,
    dir: PathBuf,
    libs: PathBuf,
    port: u16,
    sasl_port: u16,
}

impl Kafka {
    /// `libs` holds the jars that `cargo xtask e2e` fetches; the log goes to `dir`.
    pub fn start(libs: &Path, dir: &Path) -> Result<Self> {
        let sasl_port = free_port()?;
        Self::start_with(libs, dir, sasl_port, sasl_port)
    }

    /// Clients that sign in reach the broker through the proxy, as it tells them to; others reach it directly.
    pub fn start_behind_proxy(libs: &Path, dir: &Path) -> Result<(Self, Proxy)> {
        let (sasl_port, front) = (free_port()?, TcpListener::bind("127.0.0.1:0")?);
        let advertised = front.local_addr()?.port();
        let proxy = Proxy::listen(front, SocketAddr::from(([127, 0, 0, 1], sasl_port)))?;
        Ok((Self::start_with(libs, dir, sasl_port, advertised)?, proxy))
    }

    fn start_with(libs: &Path, dir: &Path, sasl_port: u16, advertised: u16) -> Result<Self> {
        let (port, controller) = (free_port()?, free_port()?);
        fs::create_dir_all(dir)?;
        fs::write(dir.join("log4j2.properties"), LOGGING)?;
        fs::write(dir.join("server.properties"), properties(dir, port, (sasl_port, advertised), controller))?;
        let mut kafka = Self { child: None, dir: dir.to_path_buf(), libs: libs.to_path_buf(), port, sasl_port };
        let id = kafka.tool(&["kafka.tools.StorageTool", "random-uuid"])?;
        let config = dir.join("server.properties");
        let config = config.to_str().context("path is not UTF-8")?;
        let bob = "SCRAM-SHA-256=[name=bob,password=bob-secret]";
        kafka.tool(&["kafka.tools.StorageTool", "format", "-t", id.trim(), "-c", config, "--add-scram", bob])?;
        kafka.resume()?;
        Ok(kafka)
    }

    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Here user `bob` signs in with SCRAM-SHA-256 and the password `bob-secret`.
    pub fn sasl_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.sasl_port)
    }

    /// Starts the node again on its old log.
    pub fn resume(&mut self) -> Result<()> {
        let log = self.dir.join("kafka.log");
        let file = fs::File::create(&log)?;
        let child = self
            .java("512m")
            .arg("kafka.Kafka")
            .arg(self.dir.join("server.properties"))
            .stdin(Stdio::null())
            .stderr(file.try_clone()?)
            .stdout(file)
            .spawn()
            .context("cannot run java")?;
        let child = self.child.insert(child);
        wait_for("Kafka to start", Duration::from_secs(60), || {
            if let Some(status) = child.try_wait()? {
                bail!("Kafka ended with {status}:\n{}", tail(&log, 20));
            }
            Ok(fs::read_to_string(&log)?.contains("Kafka Server started").then_some(()))
        })
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn java(&self, heap: &str) -> Command {
        let mut java = Command::new("java");
        java.arg(format!("-Xmx{heap}"))
            .arg(format!("-Dlog4j2.configurationFile={}", self.dir.join("log4j2.properties").display()))
            .arg("-cp")
            .arg(format!("{}/*", self.libs.display()));
        java
    }

    /// Runs one of Kafka's own command-line tools; returns what it printed.
    pub fn tool(&self, args: &[&str]) -> Result<String> {
        let output = self.java("256m").args(args).output().context("cannot run java")?;
        if !output.status.success() {
            bail!("{args:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8(output.stdout)?;
        // Log lines may precede the answer.
        Ok(text.lines().last().unwrap_or_default().to_owned())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

const LOGGING: &str = "\
status=error
appender.c.type=Console
appender.c.name=C
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=info
rootLogger.appenderRef.c.ref=C
";

/// One node needs one replica everywhere; few internal partitions and no rebalance delay make it quick.
fn properties(dir: &Path, port: u16, (sasl, advertised): (u16, u16), controller: u16) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{advertised}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
log.dirs={}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=500
",
        dir.join("kafka-logs").display()
    )
}
