//! `/healthz` (the process runs), `/readyz` (definitions are loaded and connections are accepted) and `/metrics`
//! (Prometheus text format 0.0.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// True from the moment that statements are accepted until shutdown begins.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Collects the metrics of the whole process. Once per process; a second call gets a recorder of its own.
pub fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new()
        .set_buckets(&[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // A test process starts several servers: the first one's recorder stays.
    let _ = metrics::set_global_recorder(recorder);
    metrics::gauge!("tidewater_queries_waiting").set(0.0);
    metrics::gauge!("tidewater_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

pub async fn serve(
    listener: TcpListener,
    metrics: PrometheusHandle,
    ready: Readiness,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let readyz = move || {
        let ready = ready.clone();
        async move {
            if ready.get() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
        }
    };
    let text = move || {
        let metrics = metrics.clone();
        async move {
            metrics.run_upkeep();
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render()).into_response()
        }
    };
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(text));
    axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned()).await
}
