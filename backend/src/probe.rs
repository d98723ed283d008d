//! The two roles that only ask: `healthcheck`, which the container's engine runs every few
//! seconds, and `wait`, which scripts use where no PostgreSQL client is installed. Both speak their
//! protocol by hand over one socket: a process that starts this often should be small.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    thread::sleep,
    time::{Duration, Instant},
};

/// Above the limit of `/readyz` itself (2 s), below the time-out of the container's health check.
const HEALTH_DEADLINE: Duration = Duration::from_millis(2500);
/// For so long, one that does not listen yet is asked again by the same probe: the engine's next one would
/// come later, and costs more. Together with the deadline it stays below the time-out of the health check.
const PATIENCE: Duration = Duration::from_millis(400);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(5);
/// How long one attempt of `wait` may take.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Asks the backend in this container whether it is ready. The error is what it answered.
pub fn healthcheck(port: u16) -> Result<(), String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let answer = patiently(|| readyz(address))
        .map_err(|error| format!("http://{address}/readyz: {error}"))?;
    if answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.0 200 ") {
        return Ok(());
    }
    // The engine keeps this text: `docker inspect` shows why a container is not healthy.
    let body = answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body);
    Err(body.to_owned())
}

/// The first attempt that reaches somebody, or fails for another reason than that nobody listens.
fn patiently<T>(attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused
                    && start.elapsed() < PATIENCE =>
            {
                sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

fn readyz(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, HEALTH_DEADLINE)?;
    stream.set_read_timeout(Some(HEALTH_DEADLINE))?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Waits until PostgreSQL accepts connections, as `pg_isready` judges it: without signing in.
pub fn wait(host: &str, port: u16, limit: Duration, report: &dyn Fn(&str)) -> Result<(), String> {
    let start = Instant::now();
    let mut last = String::new();
    loop {
        let reason = match ask(host, port) {
            Ok(()) => return Ok(()),
            Err(reason) => reason,
        };
        if start.elapsed() >= limit {
            return Err(format!(
                "PostgreSQL at {host}:{port} did not answer within {} s. The last answer: {reason}",
                limit.as_secs()
            ));
        }
        if reason != last {
            report(&format!("waiting for PostgreSQL at {host}:{port}: {reason}"));
            last = reason;
        }
        sleep(Duration::from_millis(200).min(limit));
    }
}

/// One start-up message, as a client that wants to sign in sends it. A server that asks for the
/// password is ready, and so is one that refuses us; one that is starting says so.
fn ask(host: &str, port: u16) -> Result<(), String> {
    let answer = startup_answer(host, port).map_err(|error| error.to_string())?;
    match answer.first() {
        Some(b'R') => Ok(()),
        Some(b'E') => match error_field(&answer, b'C') {
            Some("57P03") => Err(error_field(&answer, b'M').unwrap_or("it is starting").to_owned()),
            Some(_) => Ok(()),
            None => Err("the answer is not PostgreSQL's".to_owned()),
        },
        Some(_) => Err("the answer is not PostgreSQL's".to_owned()),
        None => Err("it closed the connection without an answer".to_owned()),
    }
}

fn startup_answer(host: &str, port: u16) -> io::Result<Vec<u8>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, ATTEMPT) {
            Ok(stream) => return exchange(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(mut stream: TcpStream) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(ATTEMPT))?;
    // Length, protocol 3.0, then the parameters, each ended by a zero byte.
    let parameters = b"user\0postgres\0database\0postgres\0application_name\0backend wait\0\0";
    let length = u32::try_from(8 + parameters.len()).unwrap_or(u32::MAX);
    let mut message = length.to_be_bytes().to_vec();
    message.extend(196_608_u32.to_be_bytes());
    message.extend(parameters);
    stream.write_all(&message)?;
    let mut answer = vec![0; 1024];
    let read = stream.read(&mut answer)?;
    answer.truncate(read);
    Ok(answer)
}

/// A field of an ErrorResponse: one letter, then text up to a zero byte.
fn error_field(answer: &[u8], letter: u8) -> Option<&str> {
    answer
        .get(5..)?
        .split(|byte| *byte == 0)
        .find(|field| field.first() == Some(&letter))
        .and_then(|field| std::str::from_utf8(&field[1..]).ok())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// A server that answers every connection with the same bytes.
    fn answering(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 512]);
                let _ = stream.write_all(answer);
            }
        });
        port
    }

    fn wait_once(port: u16) -> Result<(), String> {
        wait("127.0.0.1", port, Duration::ZERO, &|_| {})
    }

    #[test]
    fn a_server_that_asks_for_a_password_or_refuses_is_ready() {
        assert_eq!(wait_once(answering(b"R\0\0\0\x08\0\0\0\x05")), Ok(()));
        assert_eq!(wait_once(answering(b"E\0\0\0\x30SFATAL\0C28000\0Mno entry\0\0")), Ok(()));
    }

    #[test]
    fn a_server_that_starts_or_is_another_is_not() {
        let starting = b"E\0\0\0\x30SFATAL\0C57P03\0Mthe database system is starting up\0\0";
        let error = wait_once(answering(starting)).unwrap_err();
        assert!(error.contains("did not answer within 0 s"), "{error}");
        assert!(error.contains("the database system is starting up"), "{error}");
        let error = wait_once(answering(b"SSH-2.0-OpenSSH")).unwrap_err();
        assert!(error.contains("not PostgreSQL's"), "{error}");
    }

    #[test]
    fn the_health_check_passes_on_what_the_backend_says() {
        assert_eq!(healthcheck(answering(b"HTTP/1.0 200 OK\r\n\r\n{}")), Ok(()));
        let unready = answering(b"HTTP/1.0 503 Service Unavailable\r\n\r\nRedis is away");
        assert_eq!(healthcheck(unready), Err("Redis is away".to_owned()));
    }

    #[test]
    fn one_health_check_waits_a_moment_for_a_backend_that_does_not_listen_yet() {
        let attempts = std::cell::Cell::new(0);
        let refused = || Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        let third_time = || {
            attempts.set(attempts.get() + 1);
            if attempts.get() < 3 { refused() } else { Ok(()) }
        };
        assert!(patiently(third_time).is_ok());
        assert_eq!(attempts.get(), 3);
        // And not for ever.
        assert!(patiently(refused).is_err());
        // What is there and says no has said it.
        attempts.set(0);
        let reset = || {
            attempts.set(attempts.get() + 1);
            io::Result::<()>::Err(io::ErrorKind::ConnectionReset.into())
        };
        assert!(patiently(reset).is_err());
        assert_eq!(attempts.get(), 1);
    }
}
