//! The server's certificate, for both protocols.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Where the certificate is, as settings name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM, the server's own certificate first, then those that signed it.
    pub cert: PathBuf,
    /// PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// The certificate as each front end wants it.
#[derive(Clone)]
pub struct Tls {
    pub pg: Arc<ServerConfig>,
    pub flight: tonic::transport::ServerTlsConfig,
}

/// ALPN of a client that speaks TLS from its first byte, PostgreSQL manual, "SSL Session Encryption".
const PG_ALPN: &[u8] = b"postgresql";

impl Tls {
    /// Reads both files. TLS 1.2 and 1.3 are spoken.
    pub fn load(files: &TlsFiles) -> Result<Self> {
        let (cert, key) = (read(&files.cert)?, read(&files.key)?);
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&cert)
            .collect::<Result<_, _>>()
            .with_context(|| format!("{} is no certificate in PEM form", files.cert.display()))?;
        ensure!(!chain.is_empty(), "there is no certificate in {}", files.cert.display());
        let private = PrivateKeyDer::from_pem_slice(&key)
            .with_context(|| format!("{} is no private key in PEM form", files.key.display()))?;
        let mut pg = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .with_context(|| format!("{} and {} do not belong together", files.cert.display(), files.key.display()))?;
        pg.alpn_protocols = vec![PG_ALPN.to_vec()];
        let identity = tonic::transport::Identity::from_pem(cert, key);
        Ok(Self { pg: Arc::new(pg), flight: tonic::transport::ServerTlsConfig::new().identity(identity) })
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
