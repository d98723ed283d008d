//! The end of the process: stop accepting, let requests in flight finish, and do not wait for
//! ever. axum's graceful shutdown has no limit of its own: one stuck peer would hold it.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

/// How long requests in flight may take to finish; compose.yaml grants a little more.
const DEADLINE: Duration = Duration::from_secs(20);

/// Whether the process was told to end.
#[derive(Clone)]
pub struct Draining(watch::Receiver<bool>);

impl Draining {
    /// Turns true when the sender says so or is gone.
    pub fn when_told() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Turns true at the first SIGTERM or SIGINT.
    pub fn on_signal() -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot watch for signals: {error}");
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "stopping");
            // Without a receiver nobody is left who would have to know.
            let _ = sender.send(true);
            // Holds the sender: a receiver whose sender is gone could not wait.
            std::future::pending::<()>().await;
        });
        Ok(Self(receiver))
    }

    /// Whether it began.
    pub fn is_draining(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when it begins.
    pub async fn started(&self) {
        let _ = self.0.clone().wait_for(|draining| *draining).await;
    }
}

/// Runs the server to its end, or until the deadline after the signal.
pub(super) async fn until_done(
    server: impl Future<Output = io::Result<()>>,
    draining: &Draining,
) -> Result<(), String> {
    let deadline = async {
        draining.started().await;
        sleep(DEADLINE).await;
    };
    tokio::select! {
        outcome = server => outcome.map_err(|error| format!("the server stopped: {error}")),
        () = deadline => {
            tracing::warn!(seconds = DEADLINE.as_secs(), "requests in flight were cut off");
            Ok(())
        }
    }
}
