//! HTTP: sign-in, one request, one answer. What may be tried again is decided by those who ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use tidewater_catalogs::{Error, ErrorKind, Result};
use tokio::sync::{Mutex, OnceCell};

use super::RestOptions;
use super::api::{Config, ErrorAnswer, Properties, Token, segment};
use crate::http;

/// Largest answer: the metadata of a table with very many snapshots.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// How long before its end a token is replaced; short-lived ones at the half of their life.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);
/// The protocol's own code for a token that has run out.
const TOKEN_EXPIRED: u16 = 419;

const TRANSACTION_ENDPOINT: &str = "POST /v1/{prefix}/transactions/commit";

pub(super) struct Request<'a> {
    pub method: Method,
    /// Below the prefix of the catalog, without a slash in front.
    pub path: String,
    pub query: Vec<(&'static str, String)>,
    pub body: Option<Vec<u8>>,
    /// What is done, as a fragment for errors: "load table \"t\"".
    pub what: &'a str,
}

pub(super) struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Why there is no answer.
pub(super) enum NoAnswer {
    /// The request has not left for certain.
    NotSent(Error),
    /// It may have been served.
    Lost(Error),
}

impl NoAnswer {
    pub(super) fn error(self) -> Error {
        match self {
            Self::NotSent(e) | Self::Lost(e) => e,
        }
    }
}

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    options: RestOptions,
    session: OnceCell<Arc<Session>>,
    token: Mutex<Option<Fetched>>,
}

/// What the catalog says about itself, asked once.
#[derive(Debug)]
pub(super) struct Session {
    base: String,
    /// Between the levels of a namespace in a path, encoded.
    separator: String,
    /// Defaults, our options, overrides.
    pub properties: Properties,
    /// Of several tables at once.
    pub commits_together: bool,
}

#[derive(Debug)]
struct Fetched {
    token: String,
    renew_at: Option<Instant>,
}

impl Session {
    pub(super) fn namespace(&self, levels: &[String]) -> String {
        levels.iter().map(|level| segment(level)).collect::<Vec<_>>().join(&self.separator)
    }
}

impl Client {
    pub(super) fn new(options: RestOptions) -> Result<Self> {
        Ok(Self { http: http::client()?, options, session: OnceCell::new(), token: Mutex::new(None) })
    }

    pub(super) async fn session(&self) -> Result<Arc<Session>> {
        self.session.get_or_try_init(|| self.ask_session()).await.cloned()
    }

    async fn ask_session(&self) -> Result<Arc<Session>> {
        let what = "read the configuration of the catalog";
        let root = self.options.uri.trim_end_matches('/');
        let query = self.options.warehouse.iter().map(|w| ("warehouse", w.clone())).collect();
        let request = Request { method: Method::GET, path: "v1/config".to_string(), query, body: None, what };
        let answer = self.exchange(root, &request).await.map_err(NoAnswer::error)?;
        if answer.status != StatusCode::OK {
            return Err(refusal(what, &answer));
        }
        let config: Config = parse(what, &answer)?;
        let mut properties = config.defaults;
        properties.extend(self.options.store.clone());
        properties.extend(config.overrides);
        let root = properties.get("uri").map_or(root, |uri| uri.trim_end_matches('/'));
        let base = match properties.get("prefix").map(|p| p.trim_matches('/')).filter(|p| !p.is_empty()) {
            Some(prefix) => format!("{root}/v1/{prefix}"),
            None => format!("{root}/v1"),
        };
        let separator = properties.get("namespace-separator").cloned().unwrap_or_else(|| "%1F".to_string());
        // A server that does not say serves what the protocol had before servers could say, which this is part of.
        let together = |all: Vec<String>| all.iter().any(|e| e.trim() == TRANSACTION_ENDPOINT);
        let commits_together = config.endpoints.is_none_or(together);
        Ok(Arc::new(Session { base, separator, properties, commits_together }))
    }

    /// One request, once. Where the catalog does not know who asks (any more), a new token is got and the request
    /// sent again: such an answer says that nothing was done.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Answer, NoAnswer> {
        let session = self.session().await.map_err(NoAnswer::NotSent)?;
        self.exchange(&session.base, request).await
    }

    async fn exchange(&self, base: &str, request: &Request<'_>) -> Result<Answer, NoAnswer> {
        let token = self.token(None).await.map_err(NoAnswer::NotSent)?;
        let answer = self.once(base, request, token.as_deref()).await?;
        let unknown_token = matches!(answer.status.as_u16(), 401 | TOKEN_EXPIRED);
        if !unknown_token || self.options.credential.is_none() {
            return Ok(answer);
        }
        let token = self.token(token.as_deref()).await.map_err(NoAnswer::NotSent)?;
        self.once(base, request, token.as_deref()).await
    }

    async fn once(&self, base: &str, request: &Request<'_>, token: Option<&str>) -> Result<Answer, NoAnswer> {
        let mut url = url::Url::parse(&format!("{base}/{}", request.path))
            .map_err(|e| NoAnswer::NotSent(Error::invalid("the URI of the catalog cannot be read").with_source(e)))?;
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let mut builder = self
            .http
            .request(request.method.clone(), url)
            .header(ACCEPT, "application/json")
            // What a proxy keeps is no answer to what became of a commit.
            .header(CACHE_CONTROL, "no-cache");
        if let Some(token) = token {
            builder = builder.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if self.options.vended_credentials {
            builder = builder.header("X-Iceberg-Access-Delegation", "vended-credentials");
        }
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        self.answer(builder, request.what).await
    }

    async fn answer(&self, builder: reqwest::RequestBuilder, what: &str) -> Result<Answer, NoAnswer> {
        let failed = |e: reqwest::Error| {
            Error::unavailable(format!("cannot {what}: the catalog does not answer"))
                .with_context("uri", &self.options.uri)
                // Its text may hold a query with what is secret.
                .with_source(chain(&e.without_url()))
        };
        let mut response = builder.send().await.map_err(|e| {
            // Without a connection nothing was sent; after that, nobody knows.
            if e.is_connect() || e.is_builder() { NoAnswer::NotSent(failed(e)) } else { NoAnswer::Lost(failed(e)) }
        })?;
        let status = response.status();
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| NoAnswer::Lost(failed(e)))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                let limit = MAX_ANSWER_BYTES >> 20;
                let e = Error::new(ErrorKind::ResourcesExhausted, format!("cannot {what}: the answer is too large"))
                    .with_detail(format!("The limit is {limit} MiB."));
                return Err(NoAnswer::Lost(e));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body: body.freeze() })
    }

    /// The token to send; another one than `refused`.
    async fn token(&self, refused: Option<&str>) -> Result<Option<String>> {
        let Some(credential) = &self.options.credential else { return Ok(self.options.token.clone()) };
        let mut held = self.token.lock().await;
        if let Some(fetched) = held.as_ref()
            && refused != Some(fetched.token.as_str())
            && fetched.renew_at.is_none_or(|at| Instant::now() < at)
        {
            return Ok(Some(fetched.token.clone()));
        }
        let fetched = self.fetch_token(credential).await?;
        let token = fetched.token.clone();
        *held = Some(fetched);
        Ok(Some(token))
    }

    /// OAuth2 client credentials.
    async fn fetch_token(&self, credential: &str) -> Result<Fetched> {
        let what = "sign in to the catalog";
        let options = &self.options;
        let root = options.uri.trim_end_matches('/');
        let uri = options.oauth2_server_uri.clone().unwrap_or_else(|| format!("{root}/v1/oauth/tokens"));
        let (id, secret) = credential.split_once(':').unwrap_or(("", credential));
        let scope = options.scope.as_deref().unwrap_or("catalog");
        let form = {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "client_credentials").append_pair("scope", scope);
            if !id.is_empty() {
                form.append_pair("client_id", id);
            }
            form.append_pair("client_secret", secret);
            for (name, value) in [("audience", &options.audience), ("resource", &options.resource)] {
                if let Some(value) = value {
                    form.append_pair(name, value);
                }
            }
            form.finish()
        };
        let builder = self
            .http
            .post(uri)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        let asked = Instant::now();
        let answer = self.answer(builder, what).await.map_err(NoAnswer::error)?;
        if answer.status.is_server_error() {
            return Err(Error::unavailable(format!("cannot {what}: it answers {}", answer.status)));
        }
        if answer.status != StatusCode::OK {
            return Err(Error::new(ErrorKind::PermissionDenied, format!("cannot {what}"))
                .with_detail(format!("The sign-in answers {}.", answer.status))
                .with_hint("Look at the option \"credential\" (CLIENT_ID:CLIENT_SECRET) and at \"scope\"."));
        }
        let token: Token = parse(what, &answer)?;
        let life = token.expires_in.map(Duration::from_secs);
        let renew_at = life.map(|life| asked + life.saturating_sub(TOKEN_MARGIN).max(life / 2));
        Ok(Fetched { token: token.access_token, renew_at })
    }
}

/// All causes in one line: reqwest's own text says little.
fn chain(e: &(dyn std::error::Error + 'static)) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

pub(super) fn parse<T: DeserializeOwned>(what: &str, answer: &Answer) -> Result<T> {
    serde_json::from_slice(&answer.body).map_err(|e| {
        Error::new(ErrorKind::DataCorrupt, format!("cannot {what}: the catalog's answer cannot be read")).with_source(e)
    })
}

/// An answer that is no yes. Not for commits, where an answer of 5xx says nothing about what happened.
pub(super) fn refusal(what: &str, answer: &Answer) -> Error {
    let kind = match answer.status.as_u16() {
        401 | 403 | TOKEN_EXPIRED => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::AlreadyExists,
        406 | 501 => ErrorKind::Unsupported,
        408 | 429 => ErrorKind::Unavailable,
        400..=499 => ErrorKind::InvalidInput,
        _ => ErrorKind::Unavailable,
    };
    let said = serde_json::from_slice::<ErrorAnswer>(&answer.body).ok().map(|a| a.error);
    let text = said.as_ref().and_then(|s| s.message.clone()).or_else(|| said.as_ref().and_then(|s| s.kind.clone()));
    let mut error = Error::new(kind, format!("cannot {what}"));
    error = error.with_detail(match text {
        // Some servers answer with pages of stack traces.
        Some(text) => {
            format!("The catalog answers {}: {}", answer.status, text.lines().next().unwrap_or_default())
        }
        None => format!("The catalog answers {}.", answer.status),
    });
    if kind == ErrorKind::PermissionDenied {
        error = error.with_hint("Look at the options \"token\" or \"credential\" of the catalog, and at its rights.");
    }
    error
}
