//! Catalogs that users define: CREATE CATALOG … WITH (type = …).

use std::sync::Arc;

use async_trait::async_trait;
use tidewater_catalogs::{CatalogConnector, CatalogSpec, Error, LakeCatalog, Result};

use crate::catalog::{IcebergLake, SNAPSHOT_RETENTION, SNAPSHOTS_KEPT, SqlLakeOptions};
use crate::glue::GlueOptions;
use crate::pointers::Database;
use crate::rest::RestOptions;
use crate::scan::MetadataCache;
use crate::storage::{
    CLIENT_REGION, S3_KEY, S3_REGION, S3_SECRET, S3_TOKEN, STORE_OPTIONS, StoreOptions, check_store_options,
    is_store_option,
};

const URI: &str = "uri";
const WAREHOUSE: &str = "warehouse";
const TOKEN: &str = "token";
const CREDENTIAL: &str = "credential";
const OAUTH2_SERVER_URI: &str = "oauth2_server_uri";
const SCOPE: &str = "scope";
const AUDIENCE: &str = "audience";
const RESOURCE: &str = "resource";
const VENDED_CREDENTIALS: &str = "vended_credentials";
const CATALOG_NAME: &str = "catalog_name";
const REGION: &str = "region";
const ENDPOINT: &str = "endpoint";
const CATALOG_ID: &str = "catalog_id";
const ACCESS_KEY_ID: &str = "access_key_id";
const SECRET_ACCESS_KEY: &str = "secret_access_key";
const SESSION_TOKEN: &str = "session_token";

/// `type = 'rest'`.
#[derive(Debug, Default)]
pub struct RestConnector;

impl RestConnector {
    fn read(spec: &CatalogSpec) -> Result<RestOptions> {
        let uri = required(spec, URI)?;
        match url::Url::parse(uri) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => {}
            _ => return Err(invalid(spec, URI).with_hint("Use a URL, as in https://catalog.example.org/api/catalog.")),
        }
        let option = |name: &str| spec.options.get(name).cloned();
        if spec.options.contains_key(TOKEN) && spec.options.contains_key(CREDENTIAL) {
            return Err(Error::invalid(format!("catalog \"{}\" has a token and a credential", spec.name))
                .with_hint("Leave one of them out."));
        }
        if let Some(uri) = spec.options.get(OAUTH2_SERVER_URI)
            && url::Url::parse(uri).is_err()
        {
            return Err(invalid(spec, OAUTH2_SERVER_URI).with_hint("Use the URL of the token endpoint."));
        }
        let vended_credentials = match spec.options.get(VENDED_CREDENTIALS).map(String::as_str) {
            None | Some("true") => true,
            Some("false") => false,
            Some(_) => return Err(invalid(spec, VENDED_CREDENTIALS).with_hint("Use true or false.")),
        };
        Ok(RestOptions {
            uri: uri.to_string(),
            warehouse: option(WAREHOUSE),
            token: option(TOKEN),
            credential: option(CREDENTIAL),
            oauth2_server_uri: option(OAUTH2_SERVER_URI),
            scope: option(SCOPE),
            audience: option(AUDIENCE),
            resource: option(RESOURCE),
            vended_credentials,
            store: store(spec)?,
        })
    }
}

#[async_trait]
impl CatalogConnector for RestConnector {
    fn kind(&self) -> &str {
        "rest"
    }

    fn options(&self) -> Vec<&'static str> {
        let own = [URI, WAREHOUSE, TOKEN, CREDENTIAL, OAUTH2_SERVER_URI, SCOPE, AUDIENCE, RESOURCE, VENDED_CREDENTIALS];
        own.into_iter().chain(STORE_OPTIONS.iter().copied()).collect()
    }

    fn check(&self, spec: &CatalogSpec) -> Result<()> {
        Self::read(spec).map(|_| ())
    }

    async fn open(&self, spec: &CatalogSpec) -> Result<Arc<dyn LakeCatalog>> {
        Ok(Arc::new(IcebergLake::open_rest(Self::read(spec)?, MetadataCache::DEFAULT_CAPACITY_BYTES)?))
    }
}

/// `type = 'sql'`.
#[derive(Debug, Default)]
pub struct SqlConnector;

impl SqlConnector {
    fn read(spec: &CatalogSpec) -> Result<SqlLakeOptions> {
        let database = Database::parse(required(spec, URI)?).map_err(|e| e.with_context("catalog", &spec.name))?;
        Ok(SqlLakeOptions {
            database,
            catalog_name: spec.options.get(CATALOG_NAME).unwrap_or(&spec.name).clone(),
            warehouse: required(spec, WAREHOUSE)?.to_string(),
            store: store(spec)?,
            metadata_cache_bytes: MetadataCache::DEFAULT_CAPACITY_BYTES,
            snapshot_retention: SNAPSHOT_RETENTION,
            snapshots_kept: SNAPSHOTS_KEPT,
        })
    }
}

#[async_trait]
impl CatalogConnector for SqlConnector {
    fn kind(&self) -> &str {
        "sql"
    }

    fn options(&self) -> Vec<&'static str> {
        [URI, WAREHOUSE, CATALOG_NAME].into_iter().chain(STORE_OPTIONS.iter().copied()).collect()
    }

    fn check(&self, spec: &CatalogSpec) -> Result<()> {
        Self::read(spec).map(|_| ())
    }

    async fn open(&self, spec: &CatalogSpec) -> Result<Arc<dyn LakeCatalog>> {
        Ok(Arc::new(IcebergLake::open_sql(Self::read(spec)?).await?))
    }
}

/// `type = 'glue'`.
#[derive(Debug, Default)]
pub struct GlueConnector;

impl GlueConnector {
    fn read(spec: &CatalogSpec) -> Result<GlueOptions> {
        let option = |name: &str| spec.options.get(name).filter(|value| !value.is_empty()).cloned();
        for (one, other) in
            [(ACCESS_KEY_ID, SECRET_ACCESS_KEY), (SECRET_ACCESS_KEY, ACCESS_KEY_ID), (SESSION_TOKEN, ACCESS_KEY_ID)]
        {
            if option(one).is_some() && option(other).is_none() {
                return Err(Error::invalid(format!(
                    "option \"{one}\" of catalog \"{}\" needs option \"{other}\"",
                    spec.name
                )));
            }
        }
        let endpoint = option(ENDPOINT);
        if let Some(endpoint) = &endpoint {
            match url::Url::parse(endpoint) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => {}
                _ => return Err(invalid(spec, ENDPOINT).with_hint("Use a URL, as in https://glue.example.org.")),
            }
        }
        let own =
            [(S3_REGION, REGION), (S3_KEY, ACCESS_KEY_ID), (S3_SECRET, SECRET_ACCESS_KEY), (S3_TOKEN, SESSION_TOKEN)];
        let own = own.into_iter().filter_map(|(name, own)| Some((name.to_owned(), option(own)?)));
        let credentials: StoreOptions = own.collect();
        // The buckets are reached as Glue is, unless they have options of their own.
        let mut store = store(spec)?;
        let has = |store: &StoreOptions, names: &[&str]| names.iter().any(|name| store.contains_key(*name));
        let (own_region, own_keys) = (has(&store, &[S3_REGION, CLIENT_REGION]), has(&store, &[S3_KEY]));
        let shared = |name: &str| if name == S3_REGION { !own_region } else { !own_keys };
        store.extend(credentials.clone().into_iter().filter(|(name, _)| shared(name)));
        Ok(GlueOptions { credentials, endpoint, catalog_id: option(CATALOG_ID), warehouse: option(WAREHOUSE), store })
    }
}

#[async_trait]
impl CatalogConnector for GlueConnector {
    fn kind(&self) -> &str {
        "glue"
    }

    fn options(&self) -> Vec<&'static str> {
        let own = [REGION, ENDPOINT, CATALOG_ID, WAREHOUSE, ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN];
        own.into_iter().chain(STORE_OPTIONS.iter().copied()).collect()
    }

    fn check(&self, spec: &CatalogSpec) -> Result<()> {
        Self::read(spec).map(|_| ())
    }

    async fn open(&self, spec: &CatalogSpec) -> Result<Arc<dyn LakeCatalog>> {
        let opened = IcebergLake::open_glue(Self::read(spec)?, MetadataCache::DEFAULT_CAPACITY_BYTES);
        Ok(Arc::new(opened.map_err(|e| e.with_context("catalog", &spec.name))?))
    }
}

fn required<'a>(spec: &'a CatalogSpec, name: &str) -> Result<&'a str> {
    spec.options.get(name).map(String::as_str).filter(|v| !v.is_empty()).ok_or_else(|| {
        Error::invalid(format!("catalog \"{}\" of type \"{}\" needs option \"{name}\"", spec.name, spec.kind))
    })
}

fn invalid(spec: &CatalogSpec, name: &str) -> Error {
    Error::invalid(format!("invalid value for option \"{name}\" of catalog \"{}\"", spec.name))
}

fn store(spec: &CatalogSpec) -> Result<StoreOptions> {
    let options: StoreOptions =
        spec.options.iter().filter(|(name, _)| is_store_option(name)).map(|(k, v)| (k.clone(), v.clone())).collect();
    check_store_options(&options)?;
    Ok(options)
}
