//! Encrypted connections of both protocols, with the certificate of `tests/tls`.
//!
//! psql, ADBC and JDBC try the same in `e2e/tls_…`.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use arrow_flight::sql::client::FlightSqlServiceClient;
use libtest_mimic::Trial;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tidewater_tests::{Client, EmbeddedServer, connect, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::crash::failed;
use crate::e2e::parts;

const PASSWORD: &str = "swordfish";
const LIMIT: Duration = Duration::from_secs(30);
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

pub fn trials() -> Vec<Trial> {
    let e2e = |name: &str, run: fn() -> Result<()>| {
        Trial::test(format!("e2e/{name}"), move || run().map_err(failed)).with_ignored_flag(true)
    };
    vec![
        Trial::test("tls/postgres", || on_runtime(&[("tls_required", "true")], postgres).map_err(failed)),
        Trial::test("tls/required", || on_runtime(&[("tls_required", "true")], required).map_err(failed)),
        Trial::test("tls/offered", || on_runtime(&[], offered).map_err(failed)),
        Trial::test("tls/flight", || on_runtime(&[], flight).map_err(failed)),
        Trial::test("tls/broken_files", || broken_files().map_err(failed)),
        e2e("tls_psql", psql),
        e2e("tls_flight_python", flight_python),
        e2e("tls_flight_jdbc", flight_jdbc),
    ]
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tls").join(name)
}

fn path(name: &str) -> String {
    file(name).display().to_string()
}

/// Listens everywhere, so that a client can come from an address that is not this machine's own loop.
fn start(settings: &[(&str, &str)]) -> Result<EmbeddedServer> {
    let (cert, key) = (path("server.pem"), path("server.key"));
    let mut all = vec![
        ("tls_cert", cert.as_str()),
        ("tls_key", key.as_str()),
        ("pg_password", PASSWORD),
        ("pg_listen", "0.0.0.0:0"),
        ("flight_listen", "0.0.0.0:0"),
    ];
    all.extend(settings);
    EmbeddedServer::start(&all)
}

fn on_runtime(settings: &[(&str, &str)], test: impl AsyncFnOnce(&EmbeddedServer) -> Result<()>) -> Result<()> {
    let server = start(settings)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(test(&server))
}

fn local(addr: SocketAddr) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], addr.port()))
}

/// This machine as others see it. Nothing is sent.
fn from_outside(addr: SocketAddr) -> Result<SocketAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.1:9").context("this machine has no network, which the test needs")?;
    let ip: IpAddr = socket.local_addr()?.ip();
    ensure!(!ip.is_loopback(), "this machine has no address but its own, which the test needs");
    Ok(SocketAddr::new(ip, addr.port()))
}

async fn encrypted(
    addr: SocketAddr,
    authority: &str,
    name: &'static str,
    direct: bool,
) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file(authority))?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut stream = TcpStream::connect(addr).await?;
    if direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    } else {
        stream.write_all(&SSL_REQUEST).await?;
        ensure!(stream.read_u8().await? == b'S', "the server does not offer TLS");
    }
    Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name)?, stream).await?)
}

async fn sign_in(
    stream: TlsStream<TcpStream>,
    password: &str,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    // What is below is encrypted already.
    config.user("tidewater").password(password).dbname("lake").ssl_mode(tokio_postgres::config::SslMode::Disable);
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn postgres(server: &EmbeddedServer) -> Result<()> {
    let addr = from_outside(server.pg_addr())?;
    for direct in [false, true] {
        let client = sign_in(encrypted(addr, "ca.pem", "localhost", direct).await?, PASSWORD).await?;
        let rows = client.query("SELECT n, repeat('x', 1000) FROM generate_series(1, 50000) n", &[]).await?;
        ensure!(rows.len() == 50_000, "{} rows came", rows.len());
        let Err(e) = sign_in(encrypted(addr, "ca.pem", "localhost", direct).await?, "wrong").await else {
            bail!("a wrong password was taken")
        };
        ensure!(e.code().is_some_and(|c| c.code() == "28P01"), "{e}");
    }
    // The certificate is what it says: another name or another authority does not pass.
    ensure!(encrypted(addr, "ca.pem", "example.com", false).await.is_err());
    ensure!(encrypted(addr, "other.pem", "localhost", false).await.is_err());

    // A statement is cancelled through an encrypted connection as well.
    let client = sign_in(encrypted(addr, "ca.pem", "localhost", false).await?, PASSWORD).await?;
    let token = client.cancel_token();
    let sleeping = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(600)").await });
    let begun = std::time::Instant::now();
    while !sleeping.is_finished() {
        ensure!(begun.elapsed() < LIMIT, "the statement is not cancelled");
        token.cancel_query_raw(encrypted(addr, "ca.pem", "localhost", false).await?, NoTls).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let Err(e) = sleeping.await? else { bail!("the statement ended well") };
    ensure!(e.code().is_some_and(|c| c.code() == "57014"), "{e}");

    // Bytes that are no handshake end their connection alone.
    let mut broken = TcpStream::connect(addr).await?;
    broken.write_all(&SSL_REQUEST).await?;
    ensure!(broken.read_u8().await? == b'S');
    broken.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(LIMIT, broken.read_to_end(&mut rest)).await.context("the connection stays open")?;
    sign_in(encrypted(addr, "ca.pem", "localhost", false).await?, PASSWORD).await?;
    Ok(())
}

async fn plain(addr: SocketAddr) -> Result<(), tokio_postgres::Error> {
    let config = format!("host={} port={} user=tidewater password={PASSWORD} dbname=lake", addr.ip(), addr.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("SELECT 1").await
}

/// Who comes from elsewhere must encrypt, who comes from here may.
async fn required(server: &EmbeddedServer) -> Result<()> {
    let Err(e) = plain(from_outside(server.pg_addr())?).await else { bail!("a plain connection was let in") };
    let db = e.as_db_error().with_context(|| e.to_string())?;
    ensure!(db.code().code() == "28000" && db.hint().is_some_and(|h| h.contains("sslmode=require")), "{db:?}");
    plain(local(server.pg_addr())).await?;
    Ok(())
}

/// Where it is not required, who comes from elsewhere needs the password alone.
async fn offered(server: &EmbeddedServer) -> Result<()> {
    plain(from_outside(server.pg_addr())?).await?;
    ensure!(connect(local(server.pg_addr())).await.is_err(), "no password was asked for");
    Ok(())
}

async fn flight(server: &EmbeddedServer) -> Result<()> {
    let channel = async |authority: &str, name: &str| -> Result<Channel> {
        let ca = Certificate::from_pem(std::fs::read(file(authority))?);
        let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name(name);
        let uri = format!("https://{}", from_outside(server.flight_addr())?);
        Ok(Endpoint::new(uri)?.tls_config(tls)?.connect().await?)
    };
    let mut client = FlightSqlServiceClient::new(channel("ca.pem", "localhost").await?);
    client.handshake("tidewater", PASSWORD).await?;
    ensure!(client.execute_update("CREATE TABLE t (a INT)".to_owned(), None).await? <= 0);
    ensure!(client.execute_update("INSERT INTO t VALUES (1), (2)".to_owned(), None).await? == 2);
    let mut other = FlightSqlServiceClient::new(channel("ca.pem", "localhost").await?);
    ensure!(other.handshake("tidewater", "wrong").await.is_err(), "a wrong password was taken");
    ensure!(channel("other.pem", "localhost").await.is_err(), "another authority's certificate was taken");
    ensure!(channel("ca.pem", "example.com").await.is_err(), "another host's certificate was taken");
    // Once there is a certificate, nothing is said in plain text, not even to this machine.
    let plain = Endpoint::new(format!("http://{}", local(server.flight_addr())))?.connect().await;
    if let Ok(channel) = plain {
        ensure!(FlightSqlServiceClient::new(channel).handshake("tidewater", PASSWORD).await.is_err());
    }
    Ok(())
}

/// Files that do not fit are told when the server starts, by name.
fn broken_files() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let empty = dir.path().join("empty.pem").display().to_string();
    std::fs::write(&empty, "")?;
    let (cert, key, other, gone) = (path("server.pem"), path("server.key"), path("other.pem"), path("gone.pem"));
    for (settings, said) in [
        (vec![("tls_cert", cert.as_str())], "set both or none"),
        (vec![("tls_cert", gone.as_str()), ("tls_key", key.as_str())], "gone.pem"),
        (vec![("tls_cert", empty.as_str()), ("tls_key", key.as_str())], "empty.pem"),
        (vec![("tls_cert", cert.as_str()), ("tls_key", cert.as_str())], "no private key"),
        (vec![("tls_cert", other.as_str()), ("tls_key", key.as_str())], "do not belong together"),
        (vec![("tls_required", "true")], "needs tls_cert"),
    ] {
        let Err(e) = EmbeddedServer::start(&settings) else { bail!("it started with {settings:?}") };
        ensure!(format!("{e:#}").contains(said), "{settings:?}: {e:#}");
    }
    Ok(())
}

/// libpq, with everything that it can check.
fn psql() -> Result<()> {
    let server = start(&[("tls_required", "true")])?;
    let addr = server.pg_addr();
    let outside = from_outside(addr)?;
    let psql = |host: &str, more: &str, password: &str| -> Result<Output> {
        let conninfo = format!("host={host} port={} user=tidewater dbname=lake connect_timeout=20 {more}", addr.port());
        Ok(Command::new("psql")
            .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", &conninfo])
            .args(["-c", "\\conninfo", "-c", "SELECT count(*) FROM generate_series(1, 100000)"])
            .env("PGPASSWORD", password)
            .output()?)
    };
    let full = format!("sslmode=verify-full sslrootcert={}", path("ca.pem"));
    for host in ["localhost", "127.0.0.1"] {
        let output = psql(host, &full, PASSWORD)?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && said.contains("SSL connection (protocol: TLSv1.3") && said.contains("100000"),
            "{said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let other = format!("sslmode=verify-full sslrootcert={}", path("other.pem"));
    let old = format!("{full} ssl_max_protocol_version=TLSv1.2");
    ensure!(psql("localhost", &old, PASSWORD)?.status.success(), "TLS 1.2 is not spoken");
    let outside = outside.ip().to_string();
    for (host, more, password, said) in [
        ("localhost", full.as_str(), "wrong", "password authentication failed"),
        ("localhost", &other, PASSWORD, "certificate verify failed"),
        // The certificate is not for this address.
        (&outside, &full, PASSWORD, "does not match host name"),
        (&outside, "sslmode=disable", PASSWORD, "connections from other machines must be encrypted"),
    ] {
        let output = psql(host, more, password)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && errors.contains(said), "{host} {more}: {errors}");
    }
    ensure!(psql(&outside, "sslmode=require", PASSWORD)?.status.success());
    ensure!(psql("localhost", "sslmode=disable", PASSWORD)?.status.success());
    Ok(())
}

fn flight_python() -> Result<()> {
    let server = start(&[])?;
    let output = Command::new(parts()?.join("python/bin/python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/flight_tls.py"))
        .args([server.flight_addr().port().to_string(), PASSWORD.to_owned(), path("ca.pem"), path("other.pem")])
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn flight_jdbc() -> Result<()> {
    let server = start(&[])?;
    let addr = format!("localhost:{}", server.flight_addr().port());
    let encrypted = |authority: &str| format!("useEncryption=true&tlsRootCerts={}", path(authority));
    crate::e2e::run_flight_jdbc(&addr, &format!("{}&user=tidewater&password={PASSWORD}", encrypted("ca.pem")))?;
    for wrong in [
        format!("{}&user=tidewater&password=wrong", encrypted("ca.pem")),
        format!("{}&user=tidewater&password={PASSWORD}", encrypted("other.pem")),
    ] {
        ensure!(crate::e2e::run_flight_jdbc(&addr, &wrong).is_err(), "it connected with {wrong}");
    }
    // What was made above is there.
    wait_for("the table", LIMIT, || {
        let client = Client::connect_with_password(local(server.pg_addr()), PASSWORD)?;
        Ok((client.value("SELECT count(*) FROM jdbc_t")? == "2").then_some(()))
    })
}
