//! Credentials that a catalog hands out for one table, and renews.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use object_store::CredentialProvider;
use parking_lot::RwLock;
use tidewater_catalogs::Result;

use super::options::{ADLS_SAS_EXPIRES, GCS_TOKEN_EXPIRES, S3_TOKEN_EXPIRES, StoreOptions};

/// How long before their end credentials are renewed: longer than a request may be retried.
const RENEW_BEFORE: Duration = Duration::from_secs(120);

/// How long credentials that are still good are used after a renewal that failed, before the next: the catalog may be
/// slow to say nothing, and whoever reads files would wait each time.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Asks whoever handed credentials out for new ones.
#[async_trait]
pub(crate) trait Renew: Send + Sync + std::fmt::Debug {
    async fn renew(&self) -> Result<StoreOptions>;
}

/// The newest credentials of one table. Open stores take theirs from here at each request.
pub(crate) struct Vended {
    options: RwLock<Arc<StoreOptions>>,
    renew: Box<dyn Renew>,
    /// One renewal at a time; whoever waited finds its outcome. The last one that failed.
    renewing: tokio::sync::Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Vended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vended").field("renew", &self.renew).finish_non_exhaustive()
    }
}

impl Vended {
    pub(crate) fn new(options: StoreOptions, renew: Box<dyn Renew>) -> Self {
        Self { options: RwLock::new(Arc::new(options)), renew, renewing: tokio::sync::Mutex::new(None) }
    }

    pub(crate) fn replace(&self, options: StoreOptions) {
        *self.options.write() = Arc::new(options);
    }

    fn now(&self) -> Arc<StoreOptions> {
        Arc::clone(&self.options.read())
    }

    async fn fresh(&self) -> Result<Arc<StoreOptions>> {
        let options = self.now();
        if !ends_within(&options, RENEW_BEFORE) {
            return Ok(options);
        }
        let mut failed = self.renewing.lock().await;
        let options = self.now();
        if !ends_within(&options, RENEW_BEFORE) {
            return Ok(options);
        }
        let lately = failed.is_some_and(|at| at.elapsed() < PAUSE_AFTER_FAILURE);
        if lately && !ends_within(&options, PAUSE_AFTER_FAILURE) {
            return Ok(options);
        }
        match self.renew.renew().await {
            Ok(options) => {
                *failed = None;
                self.replace(options);
                Ok(self.now())
            }
            // They may still be good for a while; if not, the store says so.
            Err(e) => {
                tracing::warn!(error = %e, "credentials of a table could not be renewed");
                *failed = Some(Instant::now());
                Ok(options)
            }
        }
    }
}

fn ends_within(options: &StoreOptions, time: Duration) -> bool {
    let ends = [S3_TOKEN_EXPIRES, GCS_TOKEN_EXPIRES, ADLS_SAS_EXPIRES];
    let earliest = ends.iter().filter_map(|name| {
        let of_account = |n: &String| n.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        options.iter().filter(|(n, _)| of_account(n)).filter_map(|(_, v)| v.parse::<u64>().ok()).min()
    });
    let Some(end_ms) = earliest.min() else { return false };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now + time >= Duration::from_millis(end_ms)
}

/// What object_store asks before each request.
pub(super) struct VendedProvider<C> {
    vended: Arc<Vended>,
    read: fn(&StoreOptions) -> Option<C>,
}

impl<C> VendedProvider<C> {
    pub(super) fn new(vended: Arc<Vended>, read: fn(&StoreOptions) -> Option<C>) -> Self {
        Self { vended, read }
    }
}

impl<C> std::fmt::Debug for VendedProvider<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VendedProvider").finish_non_exhaustive()
    }
}

#[async_trait]
impl<C: std::fmt::Debug + Send + Sync + 'static> CredentialProvider for VendedProvider<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        let options = self
            .vended
            .fresh()
            .await
            .map_err(|e| object_store::Error::Generic { store: "catalog", source: e.to_string().into() })?;
        let credential = (self.read)(&options).ok_or_else(|| object_store::Error::Generic {
            store: "catalog",
            source: "the catalog gives no credentials for the table any more".into(),
        })?;
        Ok(Arc::new(credential))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Debug)]
    struct Counting(Arc<AtomicU32>, u64);

    #[async_trait]
    impl Renew for Counting {
        async fn renew(&self) -> Result<StoreOptions> {
            let n = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            Ok(options(&format!("key {n}"), Some(self.1)))
        }
    }

    fn options(key: &str, ends: Option<u64>) -> StoreOptions {
        let mut all = StoreOptions::from([("s3.access-key-id".to_string(), key.to_string())]);
        if let Some(ends) = ends {
            all.insert(S3_TOKEN_EXPIRES.to_string(), ends.to_string());
        }
        all
    }

    fn in_ms(ms: u64) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 + ms
    }

    #[derive(Debug)]
    struct Failing(Arc<AtomicU32>);

    #[async_trait]
    impl Renew for Failing {
        async fn renew(&self) -> Result<StoreOptions> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Err(tidewater_catalogs::Error::unavailable("the catalog is down"))
        }
    }

    #[tokio::test]
    async fn a_catalog_that_is_down_is_not_asked_for_each_request() {
        let read: fn(&StoreOptions) -> Option<String> = |o| o.get("s3.access-key-id").cloned();
        for (left_ms, times) in [(60_000, 1), (1_000, 5)] {
            let asked = Arc::new(AtomicU32::new(0));
            let vended = Vended::new(options("first", Some(in_ms(left_ms))), Box::new(Failing(Arc::clone(&asked))));
            let provider = VendedProvider::new(Arc::new(vended), read);
            for _ in 0..5 {
                assert_eq!(*provider.get_credential().await.unwrap(), "first");
            }
            assert_eq!(asked.load(Ordering::SeqCst), times);
        }
    }

    #[tokio::test]
    async fn credentials_are_renewed_before_they_end_and_only_then() {
        let asked = Arc::new(AtomicU32::new(0));
        let read: fn(&StoreOptions) -> Option<String> = |o| o.get("s3.access-key-id").cloned();
        let vended = |first| Arc::new(Vended::new(first, Box::new(Counting(Arc::clone(&asked), in_ms(3_600_000)))));

        let lasting = VendedProvider::new(vended(options("first", None)), read);
        assert_eq!(*lasting.get_credential().await.unwrap(), "first");
        let young = VendedProvider::new(vended(options("first", Some(in_ms(3_600_000)))), read);
        assert_eq!(*young.get_credential().await.unwrap(), "first");
        assert_eq!(asked.load(Ordering::SeqCst), 0);

        let old = VendedProvider::new(vended(options("first", Some(in_ms(10_000)))), read);
        assert_eq!(*old.get_credential().await.unwrap(), "key 1");
        assert_eq!(*old.get_credential().await.unwrap(), "key 1");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
