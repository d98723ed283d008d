//! A TCP proxy between the backend and its data that fails as networks do: it delays, throttles,
//! resets, and goes silent. It runs in the drill's process, on this machine's side of the bridge,
//! and listens on nothing that another machine could reach.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{RwLock, watch};
use tokio::time::{sleep, timeout};

use crate::stack::Stack;

/// How long a connection to the service may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Before the next try, when a connection cannot be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How the network behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As if there were no proxy.
    #[default]
    Clear,
    /// Every answer comes later.
    Latency(Duration),
    /// So many bytes a second, each way.
    Slow(u32),
    /// Half-open: connections that exist never get another byte, even afterwards, and no end
    /// either; new ones are accepted and get nothing while this lasts.
    Silent,
    /// One in so many answers of the service is thrown away, and its connection reset on both sides: what
    /// was asked for was carried out, and nobody is told.
    ResetAnswer(u64),
}

/// A proxy in front of one service.
#[derive(Clone)]
pub struct Proxy {
    service: &'static str,
    port: u16,
    /// Where it listens.
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    target: Arc<RwLock<Option<IpAddr>>>,
    answers: Arc<AtomicU64>,
    disturbed: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts to listen on `ip`, for a service that may not be up yet.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start(
        stack: Stack,
        service: &'static str,
        port: u16,
        ip: IpAddr,
    ) -> Result<Proxy> {
        let listener = TcpListener::bind((ip, 0)).await;
        let listener = listener.with_context(|| format!("listen on {ip} for {service}"))?;
        let proxy = Proxy {
            service,
            port,
            address: listener.local_addr()?,
            mode: watch::Sender::new(Mode::Clear),
            target: Arc::default(),
            answers: Arc::default(),
            disturbed: Arc::default(),
        };
        let (accepting, listener) = (proxy.clone(), Arc::new(listener));
        let accept = move || {
            let listener = listener.clone();
            async move { listener.accept().await.map(|(client, _)| client) }
        };
        tokio::spawn(accept_all(accept, move |client| {
            let (proxy, stack) = (accepting.clone(), stack.clone());
            // A connection that fails ends; the backend sees that and tries again.
            tokio::spawn(async move { proxy.serve(&stack, client).await });
        }));
        Ok(proxy)
    }

    /// Changes how the network behaves until the guard is dropped.
    pub fn fault(&self, mode: Mode) -> Fault {
        self.mode.send_replace(mode);
        Fault(self.mode.clone())
    }

    /// How often something was delayed, torn or swallowed: a fault that met nobody was none.
    pub fn disturbed(&self) -> u64 {
        self.disturbed.load(Ordering::Relaxed)
    }

    fn disturb(&self) {
        self.disturbed.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks again where the service is: the stack is another one.
    pub async fn forget(&self) {
        *self.target.write().await = None;
    }

    async fn serve(&self, stack: &Stack, client: TcpStream) {
        let mut mode = self.mode.subscribe();
        if *mode.borrow_and_update() == Mode::Silent {
            self.disturb();
            return hold(client).await;
        }
        let mut client = client;
        let Some(mut server) = self.connect(stack).await else { return };
        let end = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            tokio::select! {
                end = self.pump(from_client, to_server, false) => end,
                end = self.pump(from_server, to_client, true) => end,
            }
        };
        if end == End::Reset {
            for stream in [&client, &server] {
                // Closed without a goodbye; a socket that is gone already is what is wanted.
                let _ = stream.set_zero_linger();
            }
        }
    }

    /// To the service, at the address that it has now.
    async fn connect(&self, stack: &Stack) -> Option<TcpStream> {
        for attempt in 0..2 {
            let known = *self.target.read().await;
            let ip = match known {
                Some(ip) if attempt == 0 => ip,
                _ => {
                    let ip = stack.address_of(self.service).await.ok()?;
                    *self.target.write().await = Some(ip);
                    ip
                }
            };
            let stream = timeout(CONNECT_LIMIT, TcpStream::connect((ip, self.port))).await;
            if let Ok(Ok(stream)) = stream {
                stream.set_nodelay(true).ok()?;
                return Some(stream);
            }
        }
        None
    }

    async fn pump(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, is_answer: bool) -> End {
        let mut changes = self.mode.subscribe();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let mode = *changes.borrow_and_update();
            let read = match mode {
                Mode::Silent => {
                    self.disturb();
                    return silence(from).await;
                }
                _ => tokio::select! {
                    read = from.read(&mut buffer) => read,
                    _ = changes.changed() => continue,
                },
            };
            let Ok(length @ 1..) = read else {
                return End::Closed;
            };
            match mode {
                Mode::Latency(delay) if is_answer => {
                    self.disturb();
                    sleep(delay).await;
                }
                Mode::Slow(rate) => {
                    self.disturb();
                    sleep(Duration::from_secs_f64(length as f64 / f64::from(rate))).await;
                }
                Mode::ResetAnswer(every) if is_answer => {
                    let number = self.answers.fetch_add(1, Ordering::Relaxed);
                    if number % every == every - 1 {
                        self.disturb();
                        return End::Reset;
                    }
                }
                _ => {}
            }
            if to.write_all(&buffer[..length]).await.is_err() {
                return End::Closed;
            }
        }
    }
}

/// Hands every connection on, for ever. One that cannot be accepted is no reason to end: descriptors that
/// are used up are free again in a moment, and a proxy that has ended would be a fault that nobody made.
async fn accept_all<C, F>(accept: impl Fn() -> F, serve: impl Fn(C))
where
    F: Future<Output = io::Result<C>>,
{
    loop {
        match accept().await {
            Ok(client) => serve(client),
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

/// The network is as it should be again when this is dropped.
pub struct Fault(watch::Sender<Mode>);

impl Drop for Fault {
    fn drop(&mut self) {
        self.0.send_replace(Mode::Clear);
    }
}

/// Swallows whatever comes until this side gives the connection up.
async fn silence(mut from: ReadHalf<'_>) -> End {
    let mut buffer = vec![0; 4096];
    while matches!(from.read(&mut buffer).await, Ok(1..)) {}
    End::Closed
}

async fn hold(mut client: TcpStream) {
    let (from, _to) = client.split();
    silence(from).await;
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_connection_that_cannot_be_accepted_ends_no_proxy() {
        let tries = AtomicU64::new(0);
        let accept = || {
            let number = tries.fetch_add(1, Ordering::Relaxed);
            async move {
                match number {
                    0 => Ok("first"),
                    1 | 2 => Err(io::Error::from_raw_os_error(24)), // EMFILE
                    3 => Ok("second"),
                    _ => std::future::pending().await,
                }
            }
        };
        let (sender, mut served) = mpsc::unbounded_channel();
        let serve = |client| sender.send(client).unwrap();
        let _ = timeout(Duration::from_secs(60), accept_all(accept, serve)).await;
        assert_eq!([served.try_recv(), served.try_recv()], [Ok("first"), Ok("second")]);
    }
}
