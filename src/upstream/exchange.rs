//! How is a permitted call sent?
//!
//! One request on one connection, and its answer's head under the server's deadline. Nothing is sent that policy did
//! not permit, and no byte goes to a second connection once one went to a first: only a kept connection that turns
//! out closed before anything was written is replaced, once.

use std::future::Future;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::header;
use http_body_util::Full;
use hyper::body::Body as _;
use hyper::body::Incoming;
use hyper::ext::on_informational;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::call::Action;
use crate::policy::Permitted;
use crate::upstream::answer::Answer;
use crate::upstream::answer::Body;
use crate::upstream::connection::Connection;
use crate::upstream::credential::UpstreamCredential;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::error::Failure;
use crate::upstream::error::Mishap;
use crate::upstream::error::UpstreamError;
use crate::upstream::server::Dispatch;
use crate::upstream::target::Target;

/// Interim answers (1xx) before the one that counts.
pub const INTERIM_ANSWERS_MAX: usize = 8;

/// Never taken from the caller's lines: what frames the message, what belongs to one connection, what only a credential
/// sets, and what the call itself says.
const OWN_HEADERS: [HeaderName; 17] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::UPGRADE,
    header::EXPECT,
    header::ACCEPT_ENCODING,
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    header::RANGE,
    LAST_EVENT_ID,
];

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The request for a call: its exact bytes, the caller's headers, the gateway's own, the credential.
pub(crate) fn request(
    target: &Target,
    permitted: &Permitted,
    credential: &UpstreamCredential,
    dispatch: Dispatch<'_>,
) -> Request<Full<Bytes>> {
    let Dispatch { mut headers, path, handed: _ } = dispatch;
    // Callers bring a handful of lines, all of which may stay: looking at those costs less than looking for all of these.
    if headers.keys().any(|name| OWN_HEADERS.contains(name)) {
        for name in OWN_HEADERS {
            headers.remove(name);
        }
    }
    let (method, body) = match &permitted.call().action {
        Action::Message(_) => {
            let body = permitted.body().unwrap_or_default();
            headers.insert(header::CONTENT_LENGTH, body.len().into());
            (Method::POST, body)
        }
        Action::Listen(listen) => {
            headers.remove(header::CONTENT_TYPE);
            headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
            let id = listen.last_event_id.as_ref().and_then(|id| HeaderValue::from_bytes(id.as_bytes()).ok());
            headers.extend(id.map(|id| (LAST_EVENT_ID, id)));
            (Method::GET, Bytes::new())
        }
        Action::EndSession => (Method::DELETE, Bytes::new()),
    };
    headers.insert(header::HOST, target.authority.clone());
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    credential.present(&mut headers);
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.map_or_else(|| target.path.clone(), Uri::from);
    *request.headers_mut() = headers;
    request
}

/// Why no head came, and the request if certainly none of its bytes left.
pub(crate) struct Unanswered {
    mishap: Mishap,
    pub(crate) unsent: Option<Request<Full<Bytes>>>,
}

impl Unanswered {
    pub(crate) fn at(self, endpoint: &Endpoint, attempts: u32) -> UpstreamError {
        self.mishap.at(&endpoint.target.origin, attempts, self.unsent.is_none())
    }
}

/// Sends a request on one connection and waits for its answer's head.
pub(crate) async fn exchange(
    mut connection: Connection,
    mut request: Request<Full<Bytes>>,
    endpoint: &Arc<Endpoint>,
    attempts: u32,
    deadline: Instant,
) -> Result<Answer, Unanswered> {
    let unanswered = |mishap| Unanswered { mishap, unsent: None };
    let interim = Interim::counted_for(&mut request);
    let response = {
        let mut sending = pin!(timeout_at(deadline, connection.send(request)));
        let unless_flooded = poll_fn(|cx| match sending.as_mut().poll(cx) {
            _ if interim.are_too_many() => Poll::Ready(None),
            response => response.map(Some),
        });
        unless_flooded.await
    };
    let response = match response {
        Some(Ok(Ok(response))) => response,
        Some(Ok(Err(mut error))) => {
            let unsent = error.take_message();
            return Err(Unanswered { mishap: Mishap::of_hyper(&error.into_error()), unsent });
        }
        Some(Err(_)) => return Err(unanswered(Mishap::new(Failure::Timeout, "its answer's head is missing"))),
        None => return Err(unanswered(Mishap::new(Failure::Protocol, "it has too many interim answers"))),
    };
    framed(&response).map_err(|detail| unanswered(Mishap::new(Failure::Protocol, detail)))?;
    let (mut head, incoming) = response.into_parts();
    if !incoming.is_end_stream() && incoming.size_hint().exact().is_none() {
        detach(&mut head.headers);
    }
    let length = incoming.size_hint().exact();
    let body = Body::new(incoming, connection, endpoint, length, attempts);
    Ok(Answer { status: head.status, headers: head.headers, body, attempts, reused: false, deadline })
}

/// Interim answers to one request. hyper skips any number of them.
#[derive(Clone, Default)]
struct Interim(Arc<AtomicUsize>);

impl Interim {
    fn counted_for(request: &mut Request<Full<Bytes>>) -> Self {
        let interim = Self::default();
        let counted = interim.clone();
        on_informational(request, move |_| {
            counted.0.fetch_add(1, Ordering::Relaxed);
        });
        interim
    }

    fn are_too_many(&self) -> bool {
        self.0.load(Ordering::Relaxed) > INTERIM_ANSWERS_MAX
    }
}

/// Copies the values out of the buffer they were read into. An answer of unknown length may be a stream that stays for
/// hours, and whoever keeps its headers would keep the whole buffer.
fn detach(headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
            *value = copy;
        }
    }
}

/// Refuses an answer whose framing two readers could understand differently. hyper lets these pass.
fn framed(response: &Response<Incoming>) -> Result<(), &'static str> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err("it switched protocols unasked");
    }
    let headers = response.headers();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    // A list such as `7, 7` is several lengths in one line.
    if lengths.next().is_some() || length.is_some_and(|length| !length.as_bytes().iter().all(u8::is_ascii_digit)) {
        return Err("it has several lengths");
    }
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match encodings.next() {
        None => Ok(()),
        Some(_) if length.is_some() => Err("it has both a length and a transfer encoding"),
        Some(encoding) if encoding.as_bytes().eq_ignore_ascii_case(b"chunked") && encodings.next().is_none() => Ok(()),
        Some(_) => Err("its transfer encoding is not `chunked`"),
    }
}
