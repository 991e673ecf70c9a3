//! Real stores, catalogs and databases on free ports: what `cargo xtask e2e` fetched, stopped when dropped.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{Proxy, tail, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// A program that runs until it is dropped.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = fs::File::create(&log)?;
        let child = command.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
        let child = child.spawn().with_context(|| format!("cannot run {:?}", command.get_program()))?;
        Ok(Self { child, log })
    }

    /// Waits until `ready` says so.
    fn wait(&mut self, what: &str, ready: impl Fn() -> Result<bool>) -> Result<()> {
        let (child, log) = (&mut self.child, &self.log);
        let waited = wait_for(what, LIMIT, || {
            if let Some(status) = child.try_wait()? {
                bail!("it ended with {status}");
            }
            Ok(ready()?.then_some(()))
        });
        waited.with_context(|| format!("end of its log:\n{}", tail(log, 20)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn behind_proxy(port: &mut u16) -> Result<Proxy> {
    let proxy = Proxy::to(([127, 0, 0, 1], *port).into())?;
    *port = proxy.addr().port();
    Ok(proxy)
}

fn answers(port: u16, path: &str) -> Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(head.ends_with(b" 200"))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("path is not UTF-8")
}

/// versitygw: the S3 protocol over a directory. Signatures are checked, conditional writes are right.
pub struct S3 {
    process: Running,
    pub port: u16,
}

impl S3 {
    pub const BUCKET: &str = "lake";
    pub const KEY: &str = "testkey";
    pub const SECRET: &str = "testsecret";

    pub fn start(parts: &Path, dir: &Path) -> Result<Self> {
        let port = free_port()?;
        let root = dir.join("s3");
        fs::create_dir_all(root.join(Self::BUCKET))?;
        fs::create_dir_all(dir.join("iam"))?;
        let mut command = Command::new(parts.join("bin/versitygw"));
        command
            .args(["--port", &format!("127.0.0.1:{port}"), "--health", "/health", "--quiet"])
            .args(["--iam-dir", text(&dir.join("iam"))?, "posix", text(&root)?])
            .env("ROOT_ACCESS_KEY", Self::KEY)
            .env("ROOT_SECRET_KEY", Self::SECRET);
        let mut process = Running::start(&mut command, dir.join("s3.log"))?;
        process.wait("versitygw to start", || answers(port, "/health"))?;
        Ok(Self { process, port })
    }

    /// From now on everyone who asks for the endpoint is told the proxy's.
    pub fn behind_proxy(&mut self) -> Result<Proxy> {
        behind_proxy(&mut self.port)
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Names and values as Iceberg has them.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("s3.endpoint", self.endpoint()),
            ("s3.region", "us-east-1".to_owned()),
            ("s3.access-key-id", Self::KEY.to_owned()),
            ("s3.secret-access-key", Self::SECRET.to_owned()),
            ("s3.path-style-access", "true".to_owned()),
        ]
    }

    pub fn log(&self) -> &Path {
        &self.process.log
    }
}

/// fake-gcs-server: Google Cloud Storage, with what it lacks of uploads put before it.
pub struct Google {
    _processes: [Running; 2],
    port: u16,
}

impl Google {
    pub fn start(parts: &Path, dir: &Path) -> Result<Self> {
        let (port, inner) = (free_port()?, free_port()?);
        let host = format!("127.0.0.1:{inner}");
        let mut command = Command::new(parts.join("bin/fake-gcs-server"));
        command.args(["-scheme", "http", "-host", "127.0.0.1", "-port", &inner.to_string()]).args([
            "-backend",
            "memory",
            "-public-host",
            &host,
        ]);
        let mut server = Running::start(&mut command, dir.join("google.log"))?;
        server.wait("fake-gcs-server to start", || Ok(TcpStream::connect(&host).is_ok()))?;
        let mut command = Command::new("python3");
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/gcs_uploads.py"))
            .args([port.to_string(), inner.to_string()]);
        let mut uploads = Running::start(&mut command, dir.join("google-uploads.log"))?;
        uploads.wait("uploads to be taken", || Ok(TcpStream::connect(("127.0.0.1", port)).is_ok()))?;
        let bucket = r#"{"name":"lake"}"#;
        let mut stream = TcpStream::connect(&host)?;
        write!(
            stream,
            "POST /storage/v1/b HTTP/1.0\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{bucket}",
            bucket.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.split_whitespace().nth(1) == Some("200"), "no bucket was made: {answer}");
        Ok(Self { _processes: [uploads, server], port })
    }

    /// Names and values as Iceberg has them.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        vec![("gcs.service.host", format!("http://127.0.0.1:{}", self.port)), ("gcs.no-auth", "true".to_owned())]
    }
}

/// Azurite: Azure's blob protocol.
pub struct Azure {
    _process: Running,
    port: u16,
}

impl Azure {
    /// Account and key that Azurite is made with.
    const ACCOUNT: &str = "devstoreaccount1";
    const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    pub fn start(parts: &Path, dir: &Path) -> Result<Self> {
        let port = free_port()?;
        let root = dir.join("azure");
        fs::create_dir_all(&root)?;
        let mut command = Command::new(parts.join("azurite/node_modules/.bin/azurite-blob"));
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "-l", text(&root)?]).args([
            "--skipApiVersionCheck",
            "--silent",
            "--disableTelemetry",
        ]);
        let mut process = Running::start(&mut command, dir.join("azure.log"))?;
        process.wait("azurite to start", || Ok(TcpStream::connect(("127.0.0.1", port)).is_ok()))?;
        let made = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/azure_container.py"))
            .args([&port.to_string(), Self::ACCOUNT, Self::KEY, "lake"])
            .output()?;
        ensure!(made.status.success(), "azure_container.py: {}", String::from_utf8_lossy(&made.stderr));
        Ok(Self { _process: process, port })
    }

    pub fn options(&self) -> Vec<(&'static str, String)> {
        let (account, key, port) = (Self::ACCOUNT, Self::KEY, self.port);
        let connection =
            format!("AccountName={account};AccountKey={key};BlobEndpoint=http://127.0.0.1:{port}/{account};");
        vec![("adls.connection-string", connection)]
    }
}

/// Apache Iceberg's own REST catalog, over a bucket of [`S3`], whose keys it hands out with each table.
pub struct RestCatalog {
    _process: Running,
    port: u16,
}

impl RestCatalog {
    pub fn start(parts: &Path, dir: &Path, s3: &S3) -> Result<Self> {
        let port = free_port()?;
        fs::create_dir_all(dir)?;
        let mut command = Command::new("java");
        command
            .args(["-Xmx256m", "-cp", &format!("{}/*", parts.join("iceberg-rest").display())])
            .arg("org.apache.iceberg.rest.RESTCatalogServer")
            .env("CATALOG_REST_PORT", port.to_string())
            .env("CATALOG_URI", format!("jdbc:sqlite:file:{}", dir.join("rest.db").display()))
            .env("CATALOG_JDBC_USER", "user")
            .env("CATALOG_JDBC_PASSWORD", "password")
            // Without it tables are made in schemas that are not there.
            .env("CATALOG_JDBC_STRICT__MODE", "true")
            .env("CATALOG_WAREHOUSE", format!("s3://{}/rest", S3::BUCKET))
            .env("CATALOG_IO__IMPL", "org.apache.iceberg.aws.s3.S3FileIO")
            .env("CATALOG_S3_ENDPOINT", s3.endpoint())
            .env("CATALOG_S3_PATH__STYLE__ACCESS", "true")
            .env("CATALOG_S3_ACCESS__KEY__ID", S3::KEY)
            .env("CATALOG_S3_SECRET__ACCESS__KEY", S3::SECRET)
            .env("CATALOG_CLIENT_REGION", "us-east-1")
            .env("CATALOG_INCLUDE__CREDENTIALS", "true")
            .env("AWS_REGION", "us-east-1");
        let mut process = Running::start(&mut command, dir.join("rest.log"))?;
        process.wait("the REST catalog to start", || answers(port, "/v1/config"))?;
        Ok(Self { _process: process, port })
    }

    /// As [`S3::behind_proxy`].
    pub fn behind_proxy(&mut self) -> Result<Proxy> {
        behind_proxy(&mut self.port)
    }

    pub fn uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// For `CREATE CATALOG`; keys come with each table.
    pub fn sql_options(&self, s3: &S3) -> String {
        format!(
            "type = 'rest', uri = '{}', \"s3.endpoint\" = '{}', \"s3.region\" = 'us-east-1',
             \"s3.path-style-access\" = 'true'",
            self.uri(),
            s3.endpoint()
        )
    }
}

/// A PostgreSQL with an empty database `lake`.
pub struct Postgres {
    process: Running,
    dir: PathBuf,
    port: u16,
}

impl Postgres {
    pub fn start() -> Result<Self> {
        let port = free_port()?;
        // It refuses to run as root, and the directories of tests are their owner's alone.
        let dir = std::env::temp_dir().join(format!("tidewater-postgres-{}-{port}", std::process::id()));
        let root = Command::new("id").arg("-u").output()?.stdout == b"0\n";
        let mut made = Command::new("install");
        made.arg("-d").args(if root { ["-o", "postgres"].as_slice() } else { &[] }).arg(&dir);
        ensure!(made.status()?.success(), "cannot make {}", dir.display());
        let program = |name: &str| {
            let path = postgres_bin(name);
            if !root {
                return Command::new(path);
            }
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(path);
            command.current_dir("/");
            command
        };
        let data = dir.join("data");
        let initdb = program("initdb")
            .args(["--auth=trust", "--username=postgres", "--no-sync", "--pgdata"])
            .arg(&data)
            .stdout(Stdio::null())
            .output()?;
        ensure!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        let mut command = program("postgres");
        command
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="]);
        let log = std::env::temp_dir().join(format!("tidewater-postgres-{port}.log"));
        let process = Running::start(&mut command, log)?;
        let mut this = Self { process, dir, port };
        let make = ["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres", "-qc", "CREATE DATABASE lake"]
            .map(str::to_owned);
        this.process.wait("PostgreSQL to start", || {
            Ok(Command::new("psql").args(&make).stderr(Stdio::null()).status()?.success())
        })?;
        Ok(this)
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/lake?sslmode=disable", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.process.child.kill();
        let _ = self.process.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_file(&self.process.log);
    }
}

/// Debian keeps the server's programs off the PATH.
fn postgres_bin(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|v| v.path().join("bin").join(name)).filter(|p| p.exists()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(name))
}
