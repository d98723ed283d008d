//! What requests do while the database gives none of them a connection.

use std::{mem, time::Duration};

use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};

/// When who asks begins anew. What was under way when the network came back would not learn of it: a name
/// that is looked up, a packet whose repetition is a second off. A third of the acquire deadline, so that a
/// slow server has the rest of it.
const ANEW: Duration = Duration::from_millis(500);

/// Whether the database leaves requests without a connection. Then one of them at a time asks for one, and
/// the others wait for what it finds: each connection that is given up stays in the server's queue,
/// and a server that comes back works off all of those before it serves anybody.
#[derive(Default)]
pub(super) struct Silence {
    is_on: watch::Sender<bool>,
    asking: Mutex<()>,
}

impl Silence {
    /// Carries an attempt out, now or when somebody else's succeeded.
    pub(super) async fn pass<T, F>(&self, attempt: impl Fn() -> F) -> T
    where
        F: Future<Output = T>,
    {
        let mut is_on = self.is_on.subscribe();
        if *is_on.borrow_and_update() {
            if let Ok(_asking) = self.asking.try_lock() {
                return match timeout(ANEW, attempt()).await {
                    Ok(outcome) => outcome,
                    Err(_) => attempt().await,
                };
            }
            // The sender lives as long as `self`.
            let _ = is_on.wait_for(|is_on| !is_on).await;
        }
        attempt().await
    }

    /// Whether an attempt was left without a connection.
    pub(super) fn tell(&self, is_on: bool) {
        self.is_on.send_if_modified(|was| mem::replace(was, is_on) != is_on);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waited_goes_on_when_another_one_succeeds() {
        let silence = Silence::default();
        silence.tell(true);
        let asking = silence.asking.try_lock().unwrap();
        let (answer, ()) =
            tokio::join!(silence.pass(async || "served"), async { silence.tell(false) });
        assert_eq!(answer, "served");
        drop(asking);
    }
}
