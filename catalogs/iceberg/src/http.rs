use std::time::Duration;

use tidewater_catalogs::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the start of a request to the last byte of its answer. A commit that takes longer counts as unknown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// For requests to a catalog.
pub(crate) fn client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(20))
        // A commit that is sent on elsewhere would be sent twice.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("tidewater/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| Error::internal("cannot make an HTTP client").with_source(e))
}
