//! Which MCP servers does the demo offer?
//!
//! `files` as two replicas over one tree, and `database`; each on a loopback port that the system chooses, on a thread
//! and a runtime of their own. They speak Streamable HTTP from 2025-03-26 to 2026-07-28, without a line of the gateway.

mod database;
mod files;
mod http;
mod message;
mod protocol;
mod sessions;
mod sql;
mod stateless;
mod stream;
mod toolbox;

#[cfg(test)]
mod tests;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::sync::watch;

use crate::cli::demo::servers::database::Database;
use crate::cli::demo::servers::files::Files;
use crate::cli::demo::servers::files::Tree;
use crate::cli::demo::servers::http::Server;
use crate::cli::demo::servers::toolbox::Toolbox;

/// Connections one sample server holds at once.
const CONNECTIONS_MAX: usize = 256;
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);

/// Replicas of the `files` server, as their answers name them.
pub const REPLICAS: [&str; 2] = ["files-1", "files-2"];

/// The running sample servers. Dropping it ends them.
#[must_use = "the servers end when this is dropped"]
pub struct Samples {
    files: Vec<String>,
    database: String,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Samples {
    /// The MCP endpoints of the `files` server's replicas.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// The MCP endpoint of the `database` server.
    pub fn database(&self) -> &str {
        &self.database
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed, and ends nothing here.
            let _ = thread.join();
        }
    }
}

/// Starts the sample servers: when this returns, they take connections.
pub fn start() -> io::Result<Samples> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = watch::channel(());
    let launch = |toolbox: Toolbox| -> io::Result<String> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}/mcp", listener.local_addr()?);
        let router = http::router(Arc::new(Server::new(toolbox)));
        let _within = runtime.enter();
        runtime.spawn(serve(TcpListener::from_std(listener)?, router, stopped.clone()));
        Ok(url)
    };
    let tree = Arc::new(Tree::sample());
    let replicas = REPLICAS.map(|replica| Toolbox::Files(Files::new(replica, Arc::clone(&tree))));
    let files = replicas.into_iter().map(launch).collect::<io::Result<_>>()?;
    let database = launch(Toolbox::Database(Database::sample()))?;
    let mut ended = stopped.clone();
    let thread = std::thread::Builder::new().name("samples".into()).spawn(move || {
        runtime.block_on(async move {
            // An error: the sender is gone.
            let _ = ended.changed().await;
        });
    })?;
    Ok(Samples { files, database, stop: Some(stop), thread: Some(thread) })
}

async fn serve(listener: TcpListener, router: Router, mut stopped: watch::Receiver<()>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        let Ok((io, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Events are small and each is to be seen at once; without this the system may hold them back.
        let _ = io.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            let _ = pin!(builder.serve_connection(TokioIo::new(io), service)).await;
            drop(permit);
        });
    }
}
