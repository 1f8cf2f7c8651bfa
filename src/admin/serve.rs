//! How many may ask at once, and for how long?

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::admin::bind::Listener;

/// Connections served at once; further ones wait to be accepted.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// Header lines of one request.
pub(super) const HEADER_COUNT_MAX: usize = 32;
/// Bytes of one request's head: the least that hyper can do.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;
/// From one answer to the end of the next request's head.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// After this a connection ends with the answer it is at; a scraper opens another.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);
/// How long an answer under way may take at the end.
const LAST_ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// After an accept that failed, which is most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stopped` fires or its sender is dropped.
pub(super) async fn serve(listener: Listener, router: Router, stopped: oneshot::Receiver<()>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accepting = async {
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let accepted = match &listener {
                Listener::Tcp(listener) => listener.accept().await.map(|(io, _)| attend(io, &router, permit)),
                Listener::Unix(listener) => listener.accept().await.map(|(io, _)| attend(io, &router, permit)),
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "the admin listener cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = stopped => {}
    }
}

fn attend<I>(io: I, router: &Router, permit: OwnedSemaphorePermit)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.clone());
    tokio::spawn(async move {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_headers(HEADER_COUNT_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(io), service);
        let mut connection = pin!(connection);
        // What a client does wrong on this listener is its own affair: nothing is told.
        if timeout(CONNECTION_TIME_MAX, connection.as_mut()).await.is_err() {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(LAST_ANSWER_TIME_MAX, connection).await;
        }
        drop(permit);
    });
}
