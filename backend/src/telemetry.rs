//! Logs: one JSON object per line on standard output, where the container's engine collects them.

use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// How many lines wait for the engine at most: about a megabyte.
const WAITING: usize = 4096;

/// Starts logging for a role that serves. The one-shot roles talk to a person on standard error.
///
/// The fields of the current span (the request id among them) are part of every line.
///
/// A thread of its own writes them. When the engine takes no more, its pipe being full, lines beyond
/// [`WAITING`] are dropped: a request is worth more than its line. Dropping what is returned writes
/// the last ones.
pub fn init() -> WorkerGuard {
    let lines = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING);
    let (writer, guard) = lines.finish(std::io::stdout());
    let format = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_target(false)
        .with_writer(writer);
    // sqlx logs every statement below `warn`, and values could stand in one.
    let filter = Targets::new().with_default(Level::INFO).with_target("sqlx", Level::WARN);
    tracing_subscriber::registry().with(filter).with(format).init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("a panic without a message");
        tracing::error!(place, message, "panic");
    }));
    guard
}
