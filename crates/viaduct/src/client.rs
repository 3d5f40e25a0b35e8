//! Requests to the node over its Unix socket: one connection for each, JSON both ways.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use model::limits::{BODY_BYTES_MAX, WAIT_SECONDS_MAX};
use model::{ApiError, ErrorKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// The longest answer to wait for: that to a request which itself waits, and some more.
const ANSWER_WAIT: Duration = Duration::from_secs(WAIT_SECONDS_MAX as u64 + 30);

/// A node that can be asked.
pub struct Client {
    data: PathBuf,
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    pub fn new(data: PathBuf) -> Result<Client, ApiError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ApiError::failed(format!("cannot start: {error}")))?;
        Ok(Client { socket: node::datadir::api_socket(&data), data, runtime })
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.send(Method::GET, path, Bytes::new())
    }

    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.send(Method::DELETE, path, Bytes::new())
    }

    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        self.send(Method::POST, path, json(body)?)
    }

    /// The same of what takes as long as it takes.
    pub fn post_patiently<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        self.send_within(node::api::CHECK_WAIT, (Method::POST, path, json(body)?))
    }

    pub fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        self.send(Method::PUT, path, json(body)?)
    }

    pub fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        self.send(Method::PATCH, path, json(body)?)
    }

    /// A request that is answered line by line. Between two of them it may take as long as any
    /// answer.
    pub fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        mut take: impl FnMut(T) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        self.stream(path, json(body)?, |status, text| {
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                take(serde_json::from_slice(&line).map_err(|error| odd(status, &error))?)?;
            }
            Ok(())
        })
    }

    /// What is answered is taken as it comes: from what is there, whatever is whole.
    fn stream(
        &self,
        path: &str,
        body: Bytes,
        mut take: impl FnMut(StatusCode, &mut Vec<u8>) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        self.runtime.block_on(async {
            let stream = UnixStream::connect(&self.socket).await;
            let stream = stream.map_err(|error| self.unreachable(&Unreachable::Connect(error)))?;
            let ended = |error: Broken| self.unreachable(&Unreachable::Exchange(error));
            let (mut sender, connection) =
                handshake(TokioIo::new(stream)).await.map_err(|error| ended(error.into()))?;
            tokio::spawn(connection);
            let request = request(Method::POST, path, body).map_err(|error| ended(error.into()))?;
            let answer = sender.send_request(request).await.map_err(|error| ended(error.into()))?;
            let status = answer.status();
            let mut body = answer.into_body();
            let mut text = Vec::new();
            loop {
                let frame = tokio::time::timeout(ANSWER_WAIT, body.frame()).await;
                let Some(frame) = frame.map_err(|_| silent(ANSWER_WAIT))? else { break };
                let frame = frame.map_err(|error| ended(error.into()))?;
                text.extend(frame.into_data().unwrap_or_default());
                if status.is_success() {
                    take(status, &mut text)?;
                }
            }
            match status.is_success() {
                true => Ok(()),
                false => Err(serde_json::from_slice(&text).map_err(|error| odd(status, &error))?),
            }
        })
    }

    /// A request that is answered with a file, which comes in pieces.
    pub fn pieces(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        self.stream(path, json(&())?, |_, bytes| {
            take(bytes)?;
            bytes.clear();
            Ok(())
        })
    }

    fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ApiError> {
        self.send_within(ANSWER_WAIT, (method, path, body))
    }

    fn send_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
        (method, path, body): (Method, &str, Bytes),
    ) -> Result<T, ApiError> {
        let exchange = exchange(&self.socket, method, path, body);
        let (status, body) = self
            .runtime
            .block_on(async { tokio::time::timeout(limit, exchange).await })
            .map_err(|_| silent(limit))?
            .map_err(|error| self.unreachable(&error))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| odd(status, &error));
        }
        Err(serde_json::from_slice(&body).map_err(|error| odd(status, &error))?)
    }

    fn unreachable(&self, error: &Unreachable) -> ApiError {
        let data = self.data.display();
        match error {
            Unreachable::Connect(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ApiError::not_now(
                    format!("no node runs on data directory {data}"),
                )
                .then(format!(
                    "viaduct up --data {data}; or name the directory of a running node with \
                             --data DIR or VIADUCT_DATA"
                )),
                io::ErrorKind::PermissionDenied => ApiError::new(
                    ErrorKind::Forbidden,
                    format!("you may not use the node on data directory {data}"),
                )
                .then("run the command as root or as the user that runs the node"),
                _ => ApiError::failed(format!("cannot reach {}: {error}", self.socket.display())),
            },
            Unreachable::Exchange(error) => {
                ApiError::failed(format!("the connection to the node broke: {error}"))
                    .then("viaduct status shows whether it still runs")
            }
        }
    }
}

fn silent(limit: Duration) -> ApiError {
    let seconds = limit.as_secs();
    ApiError::not_now(format!("the node did not answer within {seconds} s"))
        .then("look at its log (journalctl -u viaduct)")
}

fn odd(status: StatusCode, error: &serde_json::Error) -> ApiError {
    ApiError::failed(format!("the node's answer ({status}) is not understood: {error}"))
        .then("use the viaduct command of the same release as the node")
}

/// Why there is no answer.
enum Unreachable {
    Connect(io::Error),
    Exchange(Broken),
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

fn json(body: &impl Serialize) -> Result<Bytes, ApiError> {
    let bytes = serde_json::to_vec(body);
    bytes.map(Bytes::from).map_err(|error| ApiError::failed(error.to_string()))
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Unreachable> {
    let stream = UnixStream::connect(socket).await.map_err(Unreachable::Connect)?;
    talk(stream, method, path, body).await.map_err(Unreachable::Exchange)
}

fn request(
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "viaduct")
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
}

async fn talk(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Broken> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let request = request(method, path, body)?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    // The connection is driven until the answer is there; what it does afterwards is of no
    // interest.
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended?;
            answer.await
        }
    }
}
