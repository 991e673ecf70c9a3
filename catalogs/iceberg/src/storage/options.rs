//! Settings of object stores, under the names that Iceberg gives them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use object_store::azure::{AzureAccessKey, AzureCredential, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::{
    BackoffConfig, ClientOptions, CredentialProvider, ObjectStore, RetryConfig, StaticCredentialProvider,
};
use tidewater_catalogs::{Error, Result};

use super::location::{Kind, ObjectLocation};
use super::vended::{Vended, VendedProvider};

/// How long one request may take, from its start to the last byte of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request that fails is tried again. What signs it may be refused after five minutes.
const RETRY_TIMEOUT: Duration = Duration::from_secs(45);

/// Names and values, as `s3.endpoint` = `http://…`.
pub type StoreOptions = BTreeMap<String, String>;

/// Every option that is understood, for checks and hints.
pub const STORE_OPTIONS: &[&str] = &[
    S3_ENDPOINT,
    S3_KEY,
    S3_SECRET,
    S3_TOKEN,
    S3_TOKEN_EXPIRES,
    S3_REGION,
    CLIENT_REGION,
    S3_PATH_STYLE,
    S3_ANONYMOUS,
    GCS_HOST,
    GCS_TOKEN,
    GCS_TOKEN_EXPIRES,
    GCS_NO_AUTH,
    GCS_CREDENTIALS,
    ADLS_CONNECTION,
    ADLS_ACCOUNT,
    ADLS_KEY,
    ADLS_SAS,
    ADLS_TENANT,
    ADLS_CLIENT,
    ADLS_CLIENT_SECRET,
    ADLS_AUTHORITY,
];

const S3_ENDPOINT: &str = "s3.endpoint";
pub(crate) const S3_KEY: &str = "s3.access-key-id";
pub(crate) const S3_SECRET: &str = "s3.secret-access-key";
pub(crate) const S3_TOKEN: &str = "s3.session-token";
pub(super) const S3_TOKEN_EXPIRES: &str = "s3.session-token-expires-at-ms";
pub(crate) const S3_REGION: &str = "s3.region";
pub(crate) const CLIENT_REGION: &str = "client.region";
const S3_PATH_STYLE: &str = "s3.path-style-access";
const S3_ANONYMOUS: &str = "s3.allow-anonymous";
const GCS_HOST: &str = "gcs.service.host";
const GCS_TOKEN: &str = "gcs.oauth2.token";
pub(super) const GCS_TOKEN_EXPIRES: &str = "gcs.oauth2.token-expires-at";
const GCS_NO_AUTH: &str = "gcs.no-auth";
const GCS_CREDENTIALS: &str = "gcs.credentials-json";
const ADLS_CONNECTION: &str = "adls.connection-string";
const ADLS_ACCOUNT: &str = "adls.account-name";
const ADLS_KEY: &str = "adls.account-key";
const ADLS_SAS: &str = "adls.sas-token";
pub(super) const ADLS_SAS_EXPIRES: &str = "adls.sas-token-expires-at-ms";
const ADLS_TENANT: &str = "adls.tenant-id";
const ADLS_CLIENT: &str = "adls.client-id";
const ADLS_CLIENT_SECRET: &str = "adls.client-secret";
const ADLS_AUTHORITY: &str = "adls.authority-host";

/// True for what proves who we are and may change while a store is open.
pub(crate) fn is_credential(name: &str) -> bool {
    matches!(name, S3_KEY | S3_SECRET | S3_TOKEN | S3_TOKEN_EXPIRES | GCS_TOKEN | GCS_TOKEN_EXPIRES)
        || name.starts_with(ADLS_SAS)
}

/// Names that belong to stores, known or not.
pub fn is_store_option(name: &str) -> bool {
    ["s3.", "gcs.", "adls.", "client."].iter().any(|prefix| name.starts_with(prefix))
}

/// What is wrong with options that a person wrote: unknown names and values that mean nothing.
pub fn check_store_options(options: &StoreOptions) -> Result<()> {
    for (name, value) in options {
        if !STORE_OPTIONS.contains(&name.as_str()) {
            return Err(Error::invalid(format!("unknown option \"{name}\" of the object store"))
                .with_hint(format!("Options are {}.", STORE_OPTIONS.join(", "))));
        }
        if matches!(name.as_str(), S3_PATH_STYLE | S3_ANONYMOUS | GCS_NO_AUTH) {
            flag(options, name)?;
        }
        if matches!(name.as_str(), S3_ENDPOINT | GCS_HOST) && url::Url::parse(value).is_err() {
            return Err(Error::invalid(format!("invalid value for option \"{name}\": \"{value}\""))
                .with_hint("Use a URL, as in https://storage.example.org:9000."));
        }
    }
    for (one, other) in [(S3_KEY, S3_SECRET), (S3_SECRET, S3_KEY), (ADLS_CLIENT, ADLS_CLIENT_SECRET)] {
        if options.contains_key(one) && !options.contains_key(other) {
            return Err(Error::invalid(format!("option \"{one}\" needs option \"{other}\"")));
        }
    }
    Ok(())
}

/// Opens the store that holds `location`. Options win over the process's environment (`AWS_…`, `GOOGLE_…`, `AZURE_…`),
/// which object_store reads and refreshes by itself. Nothing is asked of the store here.
pub(super) fn build(
    location: &ObjectLocation<'_>,
    options: &StoreOptions,
    vended: Option<&Arc<Vended>>,
) -> Result<Arc<dyn ObjectStore>> {
    let built = match location.kind {
        Kind::S3 => s3(location.authority, options, vended)?.build().map(|s| Arc::new(s) as Arc<dyn ObjectStore>),
        Kind::Gcs => gcs(location.authority, options, vended)?.build().map(|s| Arc::new(s) as _),
        Kind::Azure => azure(location.authority, options, vended)?.build().map(|s| Arc::new(s) as _),
    };
    built.map_err(|e| {
        Error::invalid("the object store cannot be opened").with_context("bucket", location.authority).with_source(e)
    })
}

fn client(http: bool) -> ClientOptions {
    ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT).with_allow_http(http)
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: 20,
        retry_timeout: RETRY_TIMEOUT,
    }
}

fn flag(options: &StoreOptions, name: &str) -> Result<Option<bool>> {
    match options.get(name) {
        None => Ok(None),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some(other) => {
            Err(Error::invalid(format!("invalid value for option \"{name}\": \"{other}\""))
                .with_hint("Use true or false."))
        }
    }
}

/// Credentials that a catalog handed out change under the open store; those of a person do not.
fn provider<C: std::fmt::Debug + Send + Sync + 'static>(
    options: &StoreOptions,
    vended: Option<&Arc<Vended>>,
    read: fn(&StoreOptions) -> Option<C>,
) -> Option<Arc<dyn CredentialProvider<Credential = C>>> {
    let now = read(options)?;
    Some(match vended {
        Some(vended) => Arc::new(VendedProvider::new(Arc::clone(vended), read)),
        None => Arc::new(StaticCredentialProvider::new(now)),
    })
}

fn s3(bucket: &str, options: &StoreOptions, vended: Option<&Arc<Vended>>) -> Result<AmazonS3Builder> {
    let environment = |name: &str| std::env::var(name).ok();
    let endpoint = options
        .get(S3_ENDPOINT)
        .cloned()
        .or_else(|| environment("AWS_ENDPOINT_URL_S3"))
        .or_else(|| environment("AWS_ENDPOINT_URL"));
    let http = endpoint.as_ref().is_some_and(|e| e.starts_with("http://"));
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client(http))
        .with_allow_http(http)
        .with_retry(retry());
    if let Some(region) = options.get(S3_REGION).or_else(|| options.get(CLIENT_REGION)) {
        builder = builder.with_region(region);
    }
    let virtual_hosted = flag(options, S3_PATH_STYLE)? == Some(false);
    if let Some(endpoint) = endpoint {
        // object_store takes an endpoint that names the bucket already where the bucket is part of the host's name.
        let endpoint = match endpoint.split_once("://") {
            Some((scheme, host)) if virtual_hosted => format!("{scheme}://{bucket}.{host}"),
            _ => endpoint,
        };
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    builder = builder.with_virtual_hosted_style_request(virtual_hosted);
    if flag(options, S3_ANONYMOUS)? == Some(true) {
        builder = builder.with_skip_signature(true);
    }
    if let Some(credentials) = provider(options, vended, aws_credential) {
        builder = builder.with_credentials(credentials);
    }
    Ok(builder)
}

fn aws_credential(options: &StoreOptions) -> Option<AwsCredential> {
    Some(AwsCredential {
        key_id: options.get(S3_KEY)?.clone(),
        secret_key: options.get(S3_SECRET)?.clone(),
        token: options.get(S3_TOKEN).cloned(),
    })
}

/// Who we are to AWS, by the options, else by the environment, and the region where one is named.
pub(crate) fn aws_credentials(options: &StoreOptions) -> Result<(AwsCredentialProvider, Option<String>)> {
    // A store has both; this one is never asked.
    let builder = s3("none", options, None)?;
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
    let store = builder.build().map_err(|e| Error::invalid("the credentials for AWS cannot be read").with_source(e))?;
    Ok((Arc::clone(store.credentials()), region))
}

fn gcs(bucket: &str, options: &StoreOptions, vended: Option<&Arc<Vended>>) -> Result<GoogleCloudStorageBuilder> {
    let host = options.get(GCS_HOST);
    let http = host.is_some_and(|h| h.starts_with("http://"));
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client(http))
        .with_retry(retry());
    if let Some(host) = host {
        builder = builder.with_base_url(host.trim_end_matches('/'));
    }
    if flag(options, GCS_NO_AUTH)? == Some(true) {
        // Without a credential of some kind object_store asks the machine it runs on for one.
        let none = GcpCredential { bearer: String::new() };
        builder = builder.with_skip_signature(true).with_credentials(Arc::new(StaticCredentialProvider::new(none)));
    } else if let Some(credentials) = provider(options, vended, gcp_credential) {
        builder = builder.with_credentials(credentials);
    } else if let Some(json) = options.get(GCS_CREDENTIALS) {
        builder = builder.with_service_account_key(json);
    }
    Ok(builder)
}

fn gcp_credential(options: &StoreOptions) -> Option<GcpCredential> {
    Some(GcpCredential { bearer: options.get(GCS_TOKEN)?.clone() })
}

fn azure(authority: &str, options: &StoreOptions, vended: Option<&Arc<Vended>>) -> Result<MicrosoftAzureBuilder> {
    let (container, host) = authority.split_once('@').unwrap_or((authority, ""));
    let connection = options.get(ADLS_CONNECTION).map(|text| connection_string(text)).unwrap_or_default();
    let endpoint = connection.get("blobendpoint");
    let http = endpoint.is_some_and(|e| e.starts_with("http://"));
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_client_options(client(http))
        .with_allow_http(http)
        .with_retry(retry());
    let account = host.split('.').next().filter(|a| !a.is_empty());
    let named = account.or_else(|| options.get(ADLS_ACCOUNT).map(String::as_str));
    if let Some(account) = named.or_else(|| connection.get("accountname").map(String::as_str)) {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_string());
    }
    if let Some(authority) = options.get(ADLS_AUTHORITY) {
        builder = builder.with_authority_host(authority);
    }
    let sas = format!("{ADLS_SAS}.{host}");
    if (vended.is_some() || options.contains_key(ADLS_SAS) || options.contains_key(&sas))
        && let Some(credentials) = provider(options, vended, sas_credential)
    {
        return Ok(builder.with_credentials(credentials));
    }
    if let Some(key) = options.get(ADLS_KEY).or_else(|| connection.get("accountkey")) {
        let key = AzureAccessKey::try_new(key)
            .map_err(|e| Error::invalid(format!("invalid value for option \"{ADLS_KEY}\"")).with_source(e))?;
        let credential = AzureCredential::AccessKey(key);
        return Ok(builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential))));
    }
    if let Some(sas) = connection.get("sharedaccesssignature") {
        let credential = AzureCredential::SASToken(sas_pairs(sas));
        return Ok(builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential))));
    }
    if let Some(tenant) = options.get(ADLS_TENANT) {
        builder = builder.with_tenant_id(tenant);
    }
    if let (Some(id), Some(secret)) = (options.get(ADLS_CLIENT), options.get(ADLS_CLIENT_SECRET)) {
        builder = builder.with_client_id(id).with_client_secret(secret);
    }
    Ok(builder)
}

/// The token for all accounts, or the only one for a single account.
fn sas_credential(options: &StoreOptions) -> Option<AzureCredential> {
    let (_, token) = options
        .range(ADLS_SAS.to_string()..)
        .take_while(|(name, _)| name.starts_with(ADLS_SAS))
        .find(|(name, _)| *name == ADLS_SAS || name.strip_prefix(ADLS_SAS).is_some_and(|rest| rest.starts_with('.')))?;
    Some(AzureCredential::SASToken(sas_pairs(token)))
}

fn sas_pairs(token: &str) -> Vec<(String, String)> {
    let pairs = url::form_urlencoded::parse(token.trim_start_matches('?').as_bytes());
    pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// `AccountName=…;AccountKey=…;BlobEndpoint=…`, with names in lower case.
fn connection_string(text: &str) -> BTreeMap<String, String> {
    let parts = text.split(';').filter_map(|part| part.split_once('='));
    parts.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_string())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> StoreOptions {
        pairs.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect()
    }

    #[test]
    fn options_are_checked() {
        check_store_options(&options(&[(S3_ENDPOINT, "http://127.0.0.1:9000"), (S3_PATH_STYLE, "true")])).unwrap();
        for bad in [
            options(&[("s3.endpont", "x")]),
            options(&[(S3_PATH_STYLE, "yes")]),
            options(&[(S3_ENDPOINT, "somewhere")]),
            options(&[(S3_KEY, "only")]),
        ] {
            assert!(check_store_options(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn stores_are_built_from_options() {
        let connection = "AccountName=acc;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/acc;";
        for (location, with) in [
            ("s3://b/x", options(&[(S3_ENDPOINT, "http://h:1"), (S3_KEY, "k"), (S3_SECRET, "s")])),
            ("s3://b/x", options(&[(S3_ENDPOINT, "http://h:1"), (S3_PATH_STYLE, "false")])),
            ("gs://b/x", options(&[(GCS_HOST, "http://h:1"), (GCS_NO_AUTH, "true")])),
            ("az://c/x", options(&[(ADLS_CONNECTION, connection)])),
            ("abfss://c@acc.dfs.core.windows.net/x", options(&[(ADLS_SAS, "sv=1&sig=a%2Bb")])),
        ] {
            let parsed = ObjectLocation::parse(location).unwrap().unwrap();
            build(&parsed, &with, None).unwrap_or_else(|e| panic!("{location}: {e}"));
        }
        assert_eq!(sas_pairs("?sv=1&sig=a%2Bb"), [("sv".into(), "1".into()), ("sig".into(), "a+b".into())]);
    }
}
