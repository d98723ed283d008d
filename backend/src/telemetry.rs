//! Logs: one JSON object per line on standard output, where the container's engine collects them.

use std::{
    io::{self, BufWriter, Stdout, Write},
    thread,
    time::Duration,
};

use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// How many lines wait for the engine at most: about a megabyte.
const WAITING: usize = 4096;

/// How long the writing thread waits for more lines after it wrote some. Without it every request would
/// wake that thread, and the engine's, for one line.
const GATHER: Duration = Duration::from_millis(20);

/// Standard output, to which the lines of a moment go together.
struct Gathered(BufWriter<Stdout>);

impl Write for Gathered {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line)
    }

    /// Asked for by the writing thread whenever no line is left.
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        thread::sleep(GATHER);
        Ok(())
    }
}

/// Starts logging for a role that serves. The one-shot roles talk to a person on standard error.
///
/// The fields of the current span (the request id among them) are part of every line.
///
/// A thread of its own writes them. When the engine takes no more, its pipe being full, lines beyond
/// [`WAITING`] are dropped: a request is worth more than its line. Dropping what is returned writes
/// the last ones.
pub fn init() -> WorkerGuard {
    let lines = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING);
    let (writer, guard) = lines.finish(Gathered(BufWriter::new(io::stdout())));
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
