//! Where the API listens: the Unix socket of the data directory, and TCP when it is not switched
//! off. Both are bound before the node says that it is up, and served by one thread with its own
//! tokio.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use model::ApiError;
use tokio::signal::unix::{SignalKind, signal};

use super::{Api, Closing, routes};
use crate::api::routes::Refusal;
use crate::owner::Ownership;
use crate::socket::{self, SocketSpec};
use crate::tcp;
use crate::world::{self, JoinHandle, TcpListener, UnixListener};

/// Only root and the owner; the peer's credentials are looked at as well.
const API_SOCKET_MODE: u32 = 0o600;

/// The option that says where TCP is.
const HTTP: &str = "--http";

/// The sockets of the API, bound and not yet served.
pub struct Listeners {
    unix: UnixListener,
    tcp: Option<TcpListener>,
}

/// The API being served.
pub struct Serving {
    closing: Closing,
    thread: JoinHandle<()>,
}

/// Told of SIGTERM and SIGINT.
pub type OnSignal = Box<dyn Fn(&'static str) + Send>;

impl Listeners {
    /// Binds both sockets, or says who has the port.
    pub fn bind(socket: PathBuf, http: Option<SocketAddr>) -> Result<Listeners, ApiError> {
        let spec =
            SocketSpec { path: socket, mode: API_SOCKET_MODE, ownership: Ownership::default() };
        let unix = socket::bind(&spec)?;
        let tcp = http.map(|address| tcp::bind(address, HTTP)).transpose()?;
        Ok(Listeners { unix, tcp })
    }

    /// The address that TCP got, where it was asked for.
    pub fn http(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Serves until told to stop.
    pub fn serve(self, api: Api, on_signal: OnSignal) -> Result<Serving, ApiError> {
        let news = Arc::clone(&api.news);
        api.events.listen(Arc::new(move || news.notify_waiters()));
        let closing = api.closing.clone();
        let thread = world::spawn("viaduct-api", move || run(self, api, on_signal))
            .map_err(|error| ApiError::failed(format!("cannot start a thread: {error}")))?;
        Ok(Serving { closing, thread })
    }
}

impl Serving {
    /// Answers what was asked, takes nothing more, and ends.
    pub fn stop(self) {
        self.closing.close();
        if self.thread.join().is_err() {
            tracing::error!("the API thread panicked");
        }
    }
}

fn run(listeners: Listeners, api: Api, on_signal: OnSignal) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "the API cannot be served"),
    };
    runtime.block_on(async move {
        let closing = api.closing.clone();
        let unix = serve_unix(listeners.unix, api.clone());
        let tcp = serve_tcp(listeners.tcp, api);
        let signals = watch_signals(on_signal, closing);
        let (unix, tcp, signals) = tokio::join!(unix, tcp, signals);
        for result in [unix, tcp, signals] {
            if let Err(error) = result {
                tracing::error!(%error, "the API ended with an error");
            }
        }
    });
}

async fn serve_unix(listener: UnixListener, api: Api) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let own_uid = world::own_uid();
    let closing = api.closing.clone();
    let router = routes::all(api).layer(middleware::from_fn_with_state(own_uid, check_peer));
    let service = router.into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service).with_graceful_shutdown(closed(closing)).await
}

async fn serve_tcp(listener: Option<TcpListener>, api: Api) -> std::io::Result<()> {
    let Some(listener) = listener else { return Ok(()) };
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let closing = api.closing.clone();
    let service = routes::reading(api).into_make_service();
    axum::serve(listener, service).with_graceful_shutdown(closed(closing)).await
}

async fn closed(closing: Closing) {
    closing.closed().await;
}

async fn watch_signals(on_signal: OnSignal, closing: Closing) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = closing.closed();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            _ = terminate.recv() => on_signal("SIGTERM"),
            _ = interrupt.recv() => on_signal("SIGINT"),
            () = &mut stop => return Ok(()),
        }
    }
}

/// Who is at the other end of the Unix socket.
#[derive(Debug, Clone, Copy)]
struct Peer {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, tokio::net::UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, tokio::net::UnixListener>) -> Peer {
        Peer { uid: stream.io().peer_cred().ok().map(|credentials| credentials.uid()) }
    }
}

async fn check_peer(
    State(own_uid): State<u32>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    match peer.uid {
        Some(uid) if uid == 0 || uid == own_uid => next.run(request).await,
        uid => {
            let who =
                uid.map_or("a user that is not known".to_owned(), |uid| format!("user {uid}"));
            let error = ApiError::forbidden(format!("{who} may not use this node"));
            let next = format!("run the command as root or as user {own_uid}");
            Refusal::from(error.then(next)).into_response()
        }
    }
}
