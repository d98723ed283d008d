//! `bench http`: the same requests in several ways, at fixed rates and at the limit, interleaved, so
//! that a noisy minute of the machine hits every way alike. The generator shares the machine with what
//! it measures, and says how much of it it took.

mod fire;
mod meter;
mod rivals;
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;

use crate::load::{Client, Request};
use crate::stack::Stack;
use crate::workload::{FILL, Session, Workload, create, newest, sign};
use fire::{Fire, Load};
use meter::{Meter, Usage};
pub use rivals::Rivals;

/// How long a way is under load before anything counts: connections are made, caches are warm.
const SETTLE: Duration = Duration::from_millis(300);
/// How long it is measured, each time.
const WINDOW: Duration = Duration::from_millis(2500);
/// How long the answers to what was asked in that time are waited for.
const DRAIN: Duration = Duration::from_secs(5);
/// Above the backend's own deadline.
const CLIENT_LIMIT: Duration = Duration::from_secs(12);
/// As many connections at the limit as keep every way busy, Node's cluster included.
const CONNECTIONS: usize = 32;

/// The services whose processor time each measurement shows, beside that of the server asked.
const SHARED: [&str; 3] = ["nginx", "postgres", "redis"];

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The newest page of rows.
    Read,
    /// A new row.
    Write,
}

impl Ask {
    const ALL: [Ask; 2] = [Ask::Read, Ask::Write];

    /// Fixed rates that every way can keep up with on two cores, and the limit.
    fn loads(self) -> [Load; 3] {
        let rates = match self {
            Ask::Read => [250, 1000],
            Ask::Write => [100, 400],
        };
        [Load::Rate(rates[0]), Load::Rate(rates[1]), Load::Limit(CONNECTIONS)]
    }

    fn request(self, session: &Session) -> Request {
        let request = match self {
            Ask::Read => newest(),
            Ask::Write => create("remember the milk"),
        };
        sign(request, session)
    }

    fn expected(self) -> u16 {
        match self {
            Ask::Read => 200,
            Ask::Write => 201,
        }
    }
}

/// A way from the generator to the same data.
pub struct Way {
    name: &'static str,
    /// The container that does the work, as the engine names it.
    server: String,
    client: Client,
    sessions: Vec<Session>,
}

/// All that was measured of one way, under one load, with one kind of request.
pub struct Row {
    ask: Ask,
    load: Load,
    way: usize,
    latency: Histogram<u64>,
    /// Answers a second, one figure for each run.
    rates: Vec<f64>,
    errors: u64,
    /// Shares of one processor: nginx, the server, PostgreSQL, Redis, the generator.
    processor: [f64; 5],
}

/// What a container holds, in kilobytes.
pub struct Memory {
    name: String,
    before: u64,
    most: u64,
    after: u64,
}

/// Everything that was found.
pub struct Found {
    ways: Vec<&'static str>,
    rows: Vec<Row>,
    memory: Vec<Memory>,
}

/// Measures a stack that is up against the rivals, `runs` times each.
///
/// # Errors
/// The stack or a rival does not answer, or somebody's limit was measured instead of their work.
pub async fn run(stack: &Stack, image: &str, rival: &Path, runs: u32) -> Result<Found> {
    let people = populate(stack).await?;
    let rivals = Rivals::start(stack, image, rival).await?;
    let mut ways = backend_ways(stack, people).await?;
    ways.extend(rivals.ways(stack).await?);
    let meters = Meters::of(stack, &ways).await?;
    let before = meters.memory()?;
    let mut rows = rows(&ways);
    let mut most = before.clone();
    for way in &ways {
        warm_up(way).await?;
    }
    for run in 1..=runs {
        eprintln!("run {run} of {runs}");
        for index in turns(&rows, run) {
            let row = &mut rows[index];
            measure(row, &ways[row.way], &meters).await?;
            for (most, now) in most.iter_mut().zip(meters.memory()?) {
                *most = (*most).max(now);
            }
        }
    }
    // Idle again: what a server keeps of the load's memory is part of what it costs.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = meters.memory()?;
    let memory = meters.names.iter().zip(before.iter().zip(most.iter().zip(after)));
    let memory = memory.map(|(name, (&before, (&most, after)))| {
        let name = name.trim_start_matches(&format!("{}-", stack.project));
        Memory { name: name.trim_end_matches("-1").to_owned(), before, most, after }
    });
    let memory = memory.collect();
    Ok(Found { ways: ways.iter().map(|way| way.name).collect(), rows, memory })
}

impl Found {
    /// The tables, and the aims with what came of them.
    pub fn report(&self) -> String {
        table::report(self)
    }
}

/// People with a page of rows each. They sign up through nginx, as everybody does.
async fn populate(stack: &Stack) -> Result<Vec<Session>> {
    let workload =
        Workload::new(Client::new(&address(stack, "nginx", 80).await?, None, CLIENT_LIMIT)?);
    workload.populate(0).await?;
    stack.sql(FILL).await?;
    stack.sql("ANALYZE").await?;
    Ok(workload.journal.state().sessions.clone())
}

/// Inside the network, which this machine reaches: through a published port every byte would pass one
/// more program.
async fn address(stack: &Stack, service: &str, port: u16) -> Result<String> {
    Ok(format!("http://{}:{port}", stack.address_of(service).await?))
}

async fn backend_ways(stack: &Stack, sessions: Vec<Session>) -> Result<Vec<Way>> {
    let mut ways = Vec::new();
    for (name, service, port) in [("through nginx", "nginx", 80), ("direct", "backend", 3000)] {
        let client = Client::new(&address(stack, service, port).await?, None, CLIENT_LIMIT)?;
        let (server, sessions) = (stack.container("backend"), sessions.clone());
        ways.push(Way { name, server, client, sessions });
    }
    Ok(ways)
}

fn rows(ways: &[Way]) -> Vec<Row> {
    let mut rows = Vec::new();
    for ask in Ask::ALL {
        for load in ask.loads() {
            for way in 0..ways.len() {
                let (latency, rates) = (fire::histogram(), Vec::new());
                rows.push(Row { ask, load, way, latency, rates, errors: 0, processor: [0.0; 5] });
            }
        }
    }
    rows
}

/// The order of a run: the ways under one load follow each other, and each run begins with another.
fn turns(rows: &[Row], run: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let ways = rows.iter().map(|row| row.way + 1).max().unwrap_or(1);
    for group in order.chunks_mut(ways) {
        let length = group.len();
        group.rotate_left(run as usize % length);
    }
    order
}

/// Node compiles what it runs often; nobody shall be measured before that.
async fn warm_up(way: &Way) -> Result<()> {
    for ask in Ask::ALL {
        let fire =
            Fire { settle: SETTLE, window: 2 * SETTLE, ..fire(ask, Load::Limit(CONNECTIONS), way) };
        let volley = fire.run(|| Ok(())).await?;
        if let Some(error) = volley.first_error {
            bail!("{} answers wrongly: {error}", way.name);
        }
        ensure!(volley.answers > 0, "{} does not answer", way.name);
    }
    Ok(())
}

fn fire(ask: Ask, load: Load, way: &Way) -> Fire {
    Fire {
        client: way.client.clone(),
        requests: way.sessions.iter().map(|session| ask.request(session)).collect(),
        expected: ask.expected(),
        load,
        settle: SETTLE,
        window: WINDOW,
        drain: DRAIN,
    }
}

async fn measure(row: &mut Row, way: &Way, meters: &Meters) -> Result<()> {
    let read = || meters.usage(&way.server);
    let volley = fire(row.ask, row.load, way).run(read).await?;
    if let Some(error) = volley.first_error.as_ref().filter(|error| error.starts_with("429")) {
        bail!("a limit against abuse was measured, and not the work: {} says {error}", way.name);
    }
    row.latency.add(&volley.latency).context("add up a run")?;
    row.errors += volley.errors;
    row.rates.push(volley.rate);
    let runs = row.rates.len() as f64;
    for (mean, share) in row.processor.iter_mut().zip(volley.shares()) {
        *mean += (share - *mean) / runs;
    }
    Ok(())
}

/// A meter for each container that takes part.
struct Meters {
    names: Vec<String>,
    meters: Vec<Meter>,
}

impl Meters {
    async fn of(stack: &Stack, ways: &[Way]) -> Result<Meters> {
        let mut names: Vec<String> = SHARED.map(|service| stack.container(service)).to_vec();
        for way in ways {
            if !names.contains(&way.server) {
                names.push(way.server.clone());
            }
        }
        let mut meters = Vec::new();
        for name in &names {
            meters.push(Meter::of(name).await?);
        }
        Ok(Meters { names, meters })
    }

    /// Processor time so far: nginx, the server, PostgreSQL, Redis, the generator.
    fn usage(&self, server: &str) -> Result<Usage> {
        let server = self.names.iter().position(|name| name == server);
        let server = server.context("find the meter of the server that is asked")?;
        // The shared ones come first, in the order of their list.
        let mut usage = [meter::own_processor(); 5];
        for (place, index) in [0, server, 1, 2].into_iter().enumerate() {
            usage[place] = self.meters[index].processor()?;
        }
        Ok(usage)
    }

    fn memory(&self) -> Result<Vec<u64>> {
        self.meters.iter().map(Meter::memory_kb).collect()
    }
}
