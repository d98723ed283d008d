//! Whether writes succeed at present. Asking the parts is not enough to know: a disk without a free
//! byte and a Redis at its ceiling answer every question and take nothing.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::Response,
};
use tokio::time::Instant;

use crate::error::Busy;

/// So many in a row, without a success between them, are no accident.
const ENOUGH: u32 = 3;
/// Whoever is not ready may be sent no more writes that could succeed: after this long without one,
/// it is time to try again.
const MEMORY: Duration = Duration::from_secs(5);

/// The writes that failed since the last one that succeeded. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Writes(Arc<Mutex<Failures>>);

#[derive(Debug, Default)]
struct Failures {
    count: u32,
    last: Option<Instant>,
}

impl Writes {
    /// How many writes failed in a row, if that is what happens at present.
    pub fn failing(&self) -> Option<u32> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = failures.last.is_some_and(|last| last.elapsed() < MEMORY);
        (is_recent && failures.count >= ENOUGH).then_some(failures.count)
    }

    fn ended(&self, status: StatusCode) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if status.is_success() {
            *failures = Failures::default();
        } else if status == StatusCode::SERVICE_UNAVAILABLE {
            failures.count = failures.count.saturating_add(1);
            failures.last = Some(Instant::now());
        }
        // Anything else says something about the request, and nothing about us.
    }
}

/// A layer that sees how every write ends.
pub(crate) async fn watch(State(writes): State<Writes>, request: Request, next: Next) -> Response {
    let is_write = !request.method().is_safe();
    let response = next.run(request).await;
    // Whoever waited for a turn in vain wrote nothing: a flood of sign-ins must not make everybody
    // believe that the disk is full.
    if is_write && response.extensions().get::<Busy>().is_none() {
        writes.ended(response.status());
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing::post};
    use tower::ServiceExt;

    use super::*;
    use crate::error::Error;

    const FAILED: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

    #[tokio::test(start_paused = true)]
    async fn writes_that_fail_in_a_row_count_until_one_succeeds_or_time_passes() {
        let writes = Writes::default();
        for status in [FAILED, FAILED, StatusCode::CONFLICT] {
            writes.ended(status);
            assert_eq!(writes.failing(), None);
        }
        writes.ended(FAILED);
        assert_eq!(writes.failing(), Some(3));
        writes.ended(StatusCode::CREATED);
        assert_eq!(writes.failing(), None);
        for _ in 0..4 {
            writes.ended(FAILED);
        }
        assert_eq!(writes.failing(), Some(4));
        tokio::time::advance(MEMORY).await;
        assert_eq!(writes.failing(), None);
    }

    #[tokio::test]
    async fn a_flood_of_sign_ins_is_no_failure_of_writes() {
        let writes = Writes::default();
        let router = Router::new()
            .route("/busy", post(async || Error::busy("signing in")))
            .route("/full", post(async || Error::unavailable("the database", "no space")))
            .layer(middleware::from_fn_with_state(writes.clone(), watch));
        let send = async |path| {
            let request = Request::post(path).body(Body::empty()).unwrap();
            assert_eq!(router.clone().oneshot(request).await.unwrap().status(), FAILED);
        };
        for _ in 0..20 {
            send("/busy").await;
        }
        assert_eq!(writes.failing(), None);
        for _ in 0..3 {
            send("/full").await;
        }
        assert_eq!(writes.failing(), Some(3));
    }
}
