//! What requests do while the database gives none of them a connection.

use std::mem;

use tokio::sync::{Mutex, watch};

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
    pub(super) async fn pass<T>(&self, attempt: impl Future<Output = T>) -> T {
        let mut is_on = self.is_on.subscribe();
        let mut asking = None;
        if *is_on.borrow_and_update() {
            asking = self.asking.try_lock().ok();
            if asking.is_none() {
                // The sender lives as long as `self`.
                let _ = is_on.wait_for(|is_on| !is_on).await;
            }
        }
        let outcome = attempt.await;
        drop(asking);
        outcome
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
            tokio::join!(silence.pass(async { "served" }), async { silence.tell(false) });
        assert_eq!(answer, "served");
        drop(asking);
    }
}
