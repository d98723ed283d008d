//! A client for HTTP/1.1 with connections that are kept alive. It never sends a request twice by
//! itself, unless it is certain that not a byte of it left: a load generator that retries in silence
//! would hide the errors that it is there to count.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tls;

/// A connection that was idle for longer is not used again: the server is about to close it, and a
/// request that meets the end of its connection is lost without anybody's fault.
const IDLE_LIMIT: Duration = Duration::from_secs(15);
/// The largest answer.
const BODY_LIMIT: usize = 8 * 1024 * 1024;

type Message = hyper::Request<Full<Bytes>>;

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path with its query.
    pub path: String,
    /// Headers, but for `Host` and `Content-Length`.
    pub headers: Vec<(HeaderName, String)>,
    /// The body, empty if there is none.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    pub fn get(path: impl Into<String>) -> Request {
        let path = path.into();
        Request { method: Method::GET, path, headers: Vec::new(), body: Vec::new() }
    }

    /// A request without a body that deletes.
    pub fn delete(path: impl Into<String>) -> Request {
        Request { method: Method::DELETE, ..Request::get(path) }
    }

    /// A request with a JSON document.
    pub fn post(path: impl Into<String>, body: &serde_json::Value) -> Request {
        let request =
            Request { method: Method::POST, body: body.to_string().into(), ..Request::get(path) };
        request.header(hyper::header::CONTENT_TYPE, "application/json")
    }

    /// The same request with one more header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Request {
        self.headers.push((name, value.into()));
        self
    }
}

/// What came back, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, empty if it is missing or no text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON; `Null` if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection was to be had: the request was certainly not carried out.
    Connect(String),
    /// The connection broke after the request, or a part of it, had left.
    Broken(String),
    /// No answer in time.
    TimedOut,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect(reason) => write!(f, "no connection: {reason}"),
            Failure::Broken(reason) => write!(f, "the connection broke: {reason}"),
            Failure::TimedOut => f.write_str("no answer in time"),
        }
    }
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

struct Inner {
    address: SocketAddr,
    host: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Idle>>,
    limit: Duration,
}

/// The client. Cloning it shares its connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

impl Client {
    /// For `http://ADDRESS:PORT` or `https://…`; over HTTPS `ca` names the file with the only
    /// certificate that is trusted. `limit` is how long an answer may take.
    ///
    /// # Errors
    /// The address is no such URL, or the certificate cannot be read.
    pub fn new(url: &str, ca: Option<&Path>, limit: Duration) -> Result<Client> {
        let uri: Uri = url.parse().with_context(|| format!("read the address {url}"))?;
        let host = uri.host().with_context(|| format!("{url} names no host"))?.to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let ip = if host == "localhost" { "127.0.0.1" } else { &host };
        let ip = ip.parse().with_context(|| format!("{host} is no address of this machine"))?;
        let tls = match (is_tls, ca) {
            (false, _) => None,
            (true, Some(ca)) => {
                let name = ServerName::try_from(host.clone()).context("read the host's name")?;
                Some((tls::trusting(ca)?, name))
            }
            (true, None) => anyhow::bail!("{url} speaks HTTPS: name the certificate to trust"),
        };
        Ok(Client(Arc::new(Inner {
            address: SocketAddr::new(ip, port),
            host: format!("{host}:{port}"),
            tls,
            idle: Mutex::default(),
            limit,
        })))
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send(&self, request: Request) -> Result<Answer, Failure> {
        match tokio::time::timeout(self.0.limit, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::TimedOut),
        }
    }

    /// Closes the connections that no request is on.
    pub fn close_idle(&self) {
        self.idle().clear();
    }

    async fn exchange(&self, request: Request) -> Result<Answer, Failure> {
        let mut message = self.message(request)?;
        while let Some(mut sender) = self.take_idle() {
            match sender.try_send_request(message).await {
                Ok(response) => return self.read(sender, response).await,
                Err(mut error) => match error.take_message() {
                    // Given back: not a byte of it left.
                    Some(unsent) => message = unsent,
                    None => return Err(Failure::Broken(reason(&error.into_error()))),
                },
            }
        }
        let mut sender = self.connect().await?;
        match sender.try_send_request(message).await {
            Ok(response) => self.read(sender, response).await,
            Err(error) => Err(Failure::Broken(reason(&error.into_error()))),
        }
    }

    fn message(&self, request: Request) -> Result<Message, Failure> {
        let mut message = hyper::Request::builder().method(request.method).uri(request.path);
        message = message.header(HOST, &self.0.host);
        for (name, value) in request.headers {
            let value = HeaderValue::try_from(value);
            message =
                message.header(name, value.map_err(|error| Failure::Connect(error.to_string()))?);
        }
        message
            .body(Full::new(Bytes::from(request.body)))
            .map_err(|error| Failure::Connect(error.to_string()))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle();
        idle.retain(|connection| {
            connection.since.elapsed() < IDLE_LIMIT && !connection.sender.is_closed()
        });
        let ready = idle.iter().rposition(|connection| connection.sender.is_ready())?;
        Some(idle.swap_remove(ready).sender)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let failed = |error: std::io::Error| Failure::Connect(error.to_string());
        let stream = TcpStream::connect(self.0.address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        match &self.0.tls {
            None => handshake(TokioIo::new(stream)).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(failed)?;
                handshake(TokioIo::new(stream)).await
            }
        }
    }

    /// Reads the answer to its end, and keeps the connection for the next request.
    async fn read(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        response: hyper::Response<hyper::body::Incoming>,
    ) -> Result<Answer, Failure> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, BODY_LIMIT).collect().await;
        let body = body.map_err(|error| Failure::Broken(error.to_string()))?.to_bytes().to_vec();
        let client = self.clone();
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                client.idle().push(Idle { sender, since: Instant::now() });
            }
        });
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}

async fn handshake<S>(stream: TokioIo<S>) -> Result<SendRequest<Full<Bytes>>, Failure>
where
    TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| Failure::Connect(reason(&error));
    let (sender, connection) = http1::handshake(stream).await.map_err(failed)?;
    // Ends with the connection; how it ended is told to the request that was on it.
    tokio::spawn(connection);
    Ok(sender)
}

/// An error with its causes.
fn reason(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
