//! Apache Flink beside us: the same topic into an Iceberg table, by Flink SQL on a cluster of two JVMs.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tidewater_tests::{Ports, tail, wait_for};

use crate::ingest::Run;
use crate::{cpu, events};

/// A bounded job may end without its last files (Iceberg 1.11): such a run is void, and made again.
const ATTEMPTS: usize = 4;
const START_LIMIT: Duration = Duration::from_secs(120);

/// What Java's modules must let Flink do, as its own start scripts say.
const OPENED: [&str; 12] = [
    "java.lang",
    "java.net",
    "java.io",
    "java.nio",
    "sun.nio.ch",
    "java.lang.reflect",
    "java.text",
    "java.time",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "java.util.concurrent.locks",
];

/// One bounded job on a fresh cluster.
pub struct Job<'a> {
    pub brokers: &'a str,
    pub topic: &'a str,
    pub partitions: i32,
    /// Evenly spread over the partitions, from their beginning.
    pub rows: u64,
    pub long: bool,
    pub checkpoints: &'a str,
}

/// The jars, as `cargo xtask bench ingest --flink` fetches them.
pub struct Flink {
    classpath: String,
}

impl Flink {
    /// Compiles the program that submits.
    pub fn find(parts: &Path, dir: &Path) -> Result<Self> {
        let jars = parts.join("flink");
        ensure!(
            jars.join(".complete").exists(),
            "there is no Flink in {}: start with `cargo xtask bench ingest --flink`",
            jars.display()
        );
        let classes = dir.join("classes");
        let classpath = format!("{}:{}/*", classes.display(), jars.display());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("flink/Submit.java");
        let mut javac = Command::new("javac");
        javac.arg("-d").arg(&classes).args(["-cp", &classpath]).arg(source);
        let done = javac.output().context("cannot run javac")?;
        ensure!(done.status.success(), "javac failed:\n{}", String::from_utf8_lossy(&done.stderr));
        Ok(Self { classpath })
    }

    /// Runs the job until it has written every row.
    pub fn run(&self, job: &Job<'_>, dir: &Path) -> Result<Run> {
        for attempt in 0..ATTEMPTS {
            let dir = dir.join(attempt.to_string());
            std::fs::create_dir_all(&dir)?;
            let (run, rows) = self.attempt(job, &dir)?;
            if rows == job.rows {
                return Ok(run);
            }
            println!("Flink: {rows} rows of {} arrived; the run is void and made again", job.rows);
        }
        bail!("no run of Flink out of {ATTEMPTS} wrote every row")
    }

    fn attempt(&self, job: &Job<'_>, dir: &Path) -> Result<(Run, u64)> {
        let ports = Ports::free()?;
        let slots = std::thread::available_parallelism().map_or(1, usize::from);
        std::fs::write(dir.join("config.yaml"), configuration(ports, slots, job.checkpoints, dir))?;
        std::fs::write(dir.join("log4j2.properties"), LOGGING)?;
        let entry = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint";
        let job_manager = self.node("jobmanager", "-Xmx768m", entry, dir)?;
        let entry = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner";
        let task_manager = self.node("taskmanager", "-Xmx1536m", entry, dir)?;
        wait_for("Flink's nodes to meet", START_LIMIT, || {
            let log = std::fs::read_to_string(&job_manager.log)?;
            Ok(log.contains("Registering TaskManager").then_some(()))
        })
        .with_context(|| format!("{}\n{}", tail(&job_manager.log, 20), tail(&task_manager.log, 20)))?;

        let submitted = Instant::now();
        let warehouse = dir.join("warehouse");
        let output = self
            .java("-Xmx512m", dir)
            .arg("Submit")
            .arg(ports.http.to_string())
            .arg(warehouse.join("bench/kept"))
            .args(statements(job, &warehouse))
            .output()
            .context("cannot run java")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "Flink refused the job:\n{said}\n{}", tail(&task_manager.log, 40));
        let text = String::from_utf8(output.stdout)?;
        let rows = text.lines().last().unwrap_or_default().trim().parse().context("Flink did not say how many rows")?;
        let mut run = Run { cpu_seconds: 0.0, wall_seconds: submitted.elapsed().as_secs_f64(), peak_rss_mib: 0.0 };
        for node in [&job_manager, &task_manager] {
            run.cpu_seconds += cpu::seconds(&node.pid())?;
            run.peak_rss_mib += cpu::peak_rss_mib(&node.pid())?;
        }
        Ok((run, rows))
    }

    fn java(&self, heap: &str, dir: &Path) -> Command {
        let mut java = Command::new("java");
        java.arg(heap)
            .arg(format!("-Dlog4j2.configurationFile={}", dir.join("log4j2.properties").display()))
            .args(OPENED.map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED")))
            .args(["-cp", &self.classpath])
            .stdin(Stdio::null());
        java
    }

    fn node(&self, name: &str, heap: &str, class: &str, dir: &Path) -> Result<Node> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let child = self
            .java(heap, dir)
            .args([class, "--configDir"])
            .arg(dir)
            .stderr(file.try_clone()?)
            .stdout(file)
            .spawn()
            .context("cannot run java")?;
        Ok(Node { child, log })
    }
}

/// A JVM, killed when dropped.
struct Node {
    child: Child,
    log: PathBuf,
}

impl Node {
    fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LOGGING: &str = "\
status=error
appender.c.type=Console
appender.c.name=C
appender.c.target=SYSTEM_ERR
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=info
rootLogger.appenderRef.c.ref=C
";

/// Its scripts would work the sizes of memory out; here they are said.
fn configuration(ports: Ports, slots: usize, checkpoints: &str, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {}
jobmanager.bind-host: 127.0.0.1
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: {}
rest.bind-port: {}
parallelism.default: {slots}
taskmanager.numberOfTaskSlots: {slots}
taskmanager.cpu.cores: {slots}.0
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: 1408m
taskmanager.memory.task.off-heap.size: 0m
taskmanager.memory.network.min: 128m
taskmanager.memory.network.max: 128m
taskmanager.memory.managed.size: 128m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
execution.checkpointing.interval: {checkpoints}
execution.checkpointing.dir: file://{dir}/checkpoints
io.tmp.dirs: {dir}/tmp
",
        ports.pg, ports.http, ports.http
    )
}

fn statements(job: &Job<'_>, warehouse: &Path) -> [String; 5] {
    let columns = if job.long { events::LONG_COLUMNS } else { events::SHORT_COLUMNS };
    let columns = columns
        .replace("DOUBLE PRECISION", "DOUBLE")
        .replace("TIMESTAMPTZ", "TIMESTAMP_LTZ(6)")
        .replace("TEXT", "STRING")
        .replace("STRUCT<", "ROW<");
    let each = job.rows / u64::from(job.partitions.unsigned_abs().max(1));
    let mut ends = String::new();
    for partition in 0..job.partitions {
        let _ = write!(ends, "partition:{partition},offset:{each};");
    }
    let (brokers, topic, warehouse) = (job.brokers, job.topic, warehouse.display());
    [
        format!(
            "CREATE TABLE bench ({columns}) WITH ('connector' = 'kafka', 'topic' = '{topic}', \
             'properties.bootstrap.servers' = '{brokers}', 'properties.group.id' = 'flink', 'format' = 'json', \
             'json.timestamp-format.standard' = 'ISO-8601', 'scan.startup.mode' = 'earliest-offset', \
             'scan.bounded.mode' = 'specific-offsets', 'scan.bounded.specific-offsets' = '{}')",
            ends.trim_end_matches(';')
        ),
        format!(
            "CREATE CATALOG lake WITH ('type' = 'iceberg', 'catalog-type' = 'hadoop', 'warehouse' = 'file://{warehouse}')"
        ),
        "CREATE DATABASE lake.bench".to_owned(),
        format!(
            "CREATE TABLE lake.bench.kept ({columns}) WITH ('format-version' = '2', \
             'write.parquet.compression-codec' = 'zstd', 'write.parquet.compression-level' = '1')"
        ),
        "INSERT INTO lake.bench.kept SELECT * FROM bench".to_owned(),
    ]
}
