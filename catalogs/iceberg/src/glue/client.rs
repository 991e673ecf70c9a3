//! HTTP: one signed request, one answer (AWS JSON 1.1). Throttled requests are sent again, as nothing was done; what
//! else may be tried again is decided by those who ask.

use std::time::Duration;

use bytes::BytesMut;
use object_store::aws::{AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::{HttpRequest, HttpRequestBody};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tidewater_catalogs::{Error, ErrorKind, Result};

use super::GlueOptions;
use crate::http;
use crate::storage::aws_credentials;

const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer: a page of tables with very many columns.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// How often a request is sent at most while it is throttled, and the waits in between.
const THROTTLED_ATTEMPTS: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often a request that changes nothing is sent, where there is no answer or one of 5xx.
const ATTEMPTS: u32 = 3;

/// Why there is no answer to use.
#[derive(Debug)]
pub(super) enum Failed {
    /// The request has not left for certain, or was turned away unread.
    NotSent(Error),
    /// Glue said no; nothing was done.
    Said(Said),
    /// It may have been served.
    Lost(Error),
}

/// An exception of Glue's.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) kind: String,
    status: StatusCode,
    message: String,
}

impl Failed {
    pub(super) fn is(&self, kind: &str) -> bool {
        matches!(self, Self::Said(said) if said.kind == kind)
    }

    pub(super) fn error(self, what: &str) -> Error {
        match self {
            Self::NotSent(e) | Self::Lost(e) => e,
            Self::Said(said) => said.error(what),
        }
    }
}

impl Said {
    fn error(self, what: &str) -> Error {
        const NO_RIGHTS: [&str; 9] = [
            "AccessDeniedException",
            "ExpiredTokenException",
            "IncompleteSignature",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "MissingAuthenticationTokenException",
            "NotAuthorized",
            "OptInRequired",
            "UnrecognizedClientException",
        ];
        let kind = match self.kind.as_str() {
            kind if NO_RIGHTS.contains(&kind) || matches!(self.status.as_u16(), 401 | 403) => {
                ErrorKind::PermissionDenied
            }
            "EntityNotFoundException" => ErrorKind::NotFound,
            "AlreadyExistsException" => ErrorKind::AlreadyExists,
            "ConcurrentModificationException" => ErrorKind::Conflict,
            "ResourceNumberLimitExceededException" => ErrorKind::ResourcesExhausted,
            _ if self.status.is_client_error() => ErrorKind::InvalidInput,
            _ => ErrorKind::Unavailable,
        };
        let message = self.message.lines().next().unwrap_or_default();
        let detail = match message {
            "" => format!("Glue answers {} ({}).", self.kind, self.status.as_u16()),
            message => format!("Glue answers {}: {message}", self.kind),
        };
        let error = Error::new(kind, format!("cannot {what}")).with_detail(detail);
        if kind != ErrorKind::PermissionDenied {
            return error;
        }
        error.with_hint("Look at the options \"access_key_id\" and \"secret_access_key\" of the catalog, or at the credentials in the server's environment, and at their rights in Glue.")
    }
}

pub(super) struct Client {
    http: reqwest::Client,
    credentials: AwsCredentialProvider,
    region: String,
    endpoint: url::Url,
    catalog_id: Option<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(options: &GlueOptions) -> Result<Self> {
        let (credentials, region) = aws_credentials(&options.credentials)?;
        let region = region.filter(|region| !region.is_empty()).ok_or_else(|| {
            Error::invalid("the region of the catalog is not known")
                .with_hint("Give it the option \"region\", as in 'eu-central-1', or set AWS_REGION for the server.")
        })?;
        if !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(Error::invalid(format!("\"{region}\" is no region of AWS")));
        }
        let endpoint = match &options.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("https://glue.{region}.{}", domain(&region)),
        };
        let endpoint = url::Url::parse(&endpoint)
            .map_err(|e| Error::invalid("the endpoint of the catalog cannot be read").with_source(e))?;
        Ok(Self { http: http::client()?, credentials, region, endpoint, catalog_id: options.catalog_id.clone() })
    }

    /// Sends a request that changes nothing, again where there is no answer.
    pub(super) async fn ask(&self, action: &str, body: Value, what: &str) -> Result<Value, Failed> {
        let mut wait = FIRST_WAIT;
        for _ in 1..ATTEMPTS {
            match self.send(action, body.clone(), what).await {
                Err(Failed::Lost(_)) => {}
                Err(Failed::NotSent(e)) if e.is_retryable() => {}
                other => return other,
            }
            tokio::time::sleep(wait).await;
            wait *= 4;
        }
        self.send(action, body, what).await
    }

    /// Sends a request until it is let in.
    pub(super) async fn send(&self, action: &str, mut body: Value, what: &str) -> Result<Value, Failed> {
        if let Some(id) = &self.catalog_id {
            body["CatalogId"] = json!(id);
        }
        let body = serde_json::to_vec(&body)
            .map_err(|e| Failed::NotSent(Error::internal("cannot write a request to Glue").with_source(e)))?;
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            match self.once(action, body.clone(), what).await {
                Err(Failed::Said(said)) if is_throttled(&said) => {
                    if attempt == THROTTLED_ATTEMPTS {
                        let e = Error::unavailable(format!("cannot {what}: Glue takes no more requests for now"))
                            .with_detail(format!("It answered {} each of {attempt} times.", said.kind));
                        return Err(Failed::NotSent(e));
                    }
                    // Between half of the wait and all of it, so that those who were turned away together come apart.
                    let part = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
                    tokio::time::sleep(wait / 2 + wait / 512 * part).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                other => return other,
            }
        }
        Err(Failed::NotSent(Error::internal("a request to Glue was not sent")))
    }

    async fn once(&self, action: &str, body: Vec<u8>, what: &str) -> Result<Value, Failed> {
        let request = self.signed(action, &body).await.map_err(Failed::NotSent)?;
        let failed = |e: reqwest::Error| {
            Error::unavailable(format!("cannot {what}: Glue does not answer"))
                .with_context("endpoint", &self.endpoint)
                .with_source(e.without_url())
        };
        let sent = self.http.post(self.endpoint.clone()).headers(request.headers().clone()).body(body).send().await;
        let mut response = sent.map_err(|e| {
            // Without a connection nothing was sent; after that, nobody knows.
            if e.is_connect() || e.is_builder() { Failed::NotSent(failed(e)) } else { Failed::Lost(failed(e)) }
        })?;
        let status = response.status();
        let named = response.headers().get("x-amzn-errortype").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut answer = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| Failed::Lost(failed(e)))? {
            if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
                let limit = MAX_ANSWER_BYTES >> 20;
                let e = Error::new(ErrorKind::ResourcesExhausted, format!("cannot {what}: the answer is too large"))
                    .with_detail(format!("The limit is {limit} MiB."));
                return Err(Failed::Lost(e));
            }
            answer.extend_from_slice(&chunk);
        }
        if status == StatusCode::OK {
            // Some actions answer with nothing at all.
            let text: &[u8] = if answer.is_empty() { b"{}" } else { &answer };
            return serde_json::from_slice(text).map_err(|e| {
                let e = Error::new(ErrorKind::DataCorrupt, format!("cannot {what}: Glue's answer cannot be read"))
                    .with_source(e);
                Failed::Lost(e)
            });
        }
        let said = said(status, named, &answer);
        if status.is_client_error() && !is_late(&said.kind) {
            return Err(Failed::Said(said));
        }
        Err(Failed::Lost(said.error(what)))
    }

    /// The headers of a request; its body is not in it.
    async fn signed(&self, action: &str, body: &[u8]) -> Result<HttpRequest> {
        let asked = tokio::time::timeout(CREDENTIALS_TIMEOUT, self.credentials.get_credential()).await;
        let no_credentials = || {
            Error::new(ErrorKind::PermissionDenied, "no credentials for Glue were found")
                .with_hint("Give the catalog the options \"access_key_id\" and \"secret_access_key\", or the server credentials in its environment.")
        };
        let credential = match asked {
            Ok(Ok(credential)) => credential,
            Ok(Err(e)) => return Err(no_credentials().with_source(e)),
            Err(_) => return Err(no_credentials().with_detail("Nobody answered who was asked for them.")),
        };
        sendable(&credential)?;
        let mut request = HttpRequest::new(HttpRequestBody::from(body.to_vec()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() =
            self.endpoint.as_str().parse().map_err(|_| Error::invalid("the endpoint of the catalog cannot be read"))?;
        let target = HeaderValue::from_str(&format!("AWSGlue.{action}"))
            .map_err(|e| Error::internal("no action of Glue's").with_source(e))?;
        request.headers_mut().insert("x-amz-target", target);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        AwsAuthorizer::new(&credential, "glue", &self.region).authorize(&mut request, None);
        Ok(request)
    }
}

/// What goes into headers.
fn sendable(credential: &AwsCredential) -> Result<()> {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    if plain(&credential.key_id) && credential.token.as_deref().is_none_or(plain) {
        return Ok(());
    }
    Err(Error::invalid("the credentials for Glue hold characters that no credentials have"))
}

fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

fn said(status: StatusCode, header: Option<String>, body: &[u8]) -> Said {
    #[derive(Default, Deserialize)]
    struct Text {
        #[serde(rename = "__type")]
        kind: Option<String>,
        #[serde(alias = "Message")]
        message: Option<String>,
    }
    let text: Text = serde_json::from_slice(body).unwrap_or_default();
    let named = header.or(text.kind).unwrap_or_default();
    // As in `com.amazonaws.glue#EntityNotFoundException:http://…`.
    let kind = named.split(':').next().unwrap_or_default().rsplit('#').next().unwrap_or_default();
    let kind = if kind.is_empty() { status.to_string() } else { kind.to_owned() };
    Said { kind, status, message: text.message.unwrap_or_default() }
}

fn is_throttled(said: &Said) -> bool {
    const NAMES: [&str; 7] = [
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    ];
    said.status == StatusCode::TOO_MANY_REQUESTS || NAMES.contains(&said.kind.as_str())
}

/// Answers of 4xx that do not say that nothing was done.
fn is_late(kind: &str) -> bool {
    const NAMES: [&str; 5] = [
        "OperationTimeoutException",
        "RequestTimeout",
        "RequestTimeoutException",
        "FederationSourceException",
        "FederationSourceRetryableException",
    ];
    NAMES.contains(&kind)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn exceptions_are_told_by_header_or_body() {
        let status = StatusCode::BAD_REQUEST;
        let of = |header: Option<&str>, body: &str| said(status, header.map(str::to_owned), body.as_bytes());
        let long = of(Some("com.amazonaws.glue#EntityNotFoundException:http://x"), "");
        assert_eq!(long.kind, "EntityNotFoundException");
        let body = of(None, r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#);
        assert_eq!((body.kind.as_str(), body.message.as_str()), ("ThrottlingException", "Rate exceeded"));
        assert!(is_throttled(&body) && !is_throttled(&long));
        assert_eq!(of(None, "<html>").kind, "400 Bad Request");
    }
}
