//! How does an answer become a stream of events?

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Frame;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::cli::demo::servers::http::Server;
use crate::cli::demo::servers::message::Object;
use crate::cli::demo::servers::message::answer;
use crate::cli::demo::servers::toolbox::Channel;

/// Events made and not yet sent.
const EVENTS_MAX: usize = 16;
/// A comment in a stream that is otherwise silent, so that nobody on the way takes it for dead.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// One event that carries a message.
pub(super) fn event(message: &Value) -> Bytes {
    format!("event: message\ndata: {message}\n\n").into()
}

/// A call of a tool that answers in a stream.
pub(super) struct Call {
    /// The request's id.
    pub(super) id: Value,
    /// The tool.
    pub(super) tool: String,
    /// Its arguments.
    pub(super) arguments: Object,
    /// What the tool can say; its events are replaced by the stream's.
    pub(super) channel: Channel,
    /// Fires, or fails, when the call is to end without an answer.
    pub(super) ended: oneshot::Receiver<()>,
}

/// Runs the call in its own task. `finish` turns its result into what is sent; `done` is called however it ends.
pub(super) fn respond(
    server: Arc<Server>,
    call: Call,
    finish: impl FnOnce(&Server, Value) -> Value + Send + 'static,
    done: impl FnOnce() + Send + 'static,
) -> Response {
    let (events, received) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(async move {
        let Call { id, tool, arguments, channel, ended } = call;
        let channel = Channel { events: Some(events.clone()), ..channel };
        let work = async {
            let result = server.toolbox.call(&tool, &arguments, &channel).await;
            let message = answer(id, result.map(|result| finish(&server, result)));
            let _ = events.send(event(&message)).await;
        };
        tokio::select! {
            () = work => {}
            () = keep_alive(&events) => {}
            _ = ended => {}
        }
        done();
    });
    let headers = [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")];
    (headers, Body::new(Stream(received))).into_response()
}

/// Ends when the client is gone.
async fn keep_alive(events: &mpsc::Sender<Bytes>) {
    loop {
        tokio::select! {
            () = events.closed() => return,
            () = tokio::time::sleep(KEEPALIVE) => {}
        }
        let _ = events.try_send(Bytes::from_static(b": still at it\n\n"));
    }
}

struct Stream(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
