//! What is saved and restored: rows as an application has them, and sessions as the backend writes them.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::backup::load::psql;
use crate::backup::postgres::Postgres;
use crate::backup::redis::Redis;
use crate::ui::Step;

/// How many sessions one script writes: Redis answers nobody else meanwhile.
const AT_ONCE: u32 = 5_000;
/// A person has so many browsers.
const SESSIONS_OF_ONE: u32 = 4;

/// Words made of syllables, some far more frequent than others, as in any language; a large table of
/// texts of all lengths, and one of short rows of many types. Each has the indexes that it would have.
/// Always the same rows, because the seed is.
const ROWS: &str = "\
SET ROLE owner;
SELECT setseed(0.25);
CREATE TABLE bench_texts (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint      NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    text       text        NOT NULL CHECK (char_length(text) <= 2000),
    created_at timestamptz NOT NULL
);
CREATE INDEX bench_texts_by_account ON bench_texts (account_id, id DESC);
CREATE TABLE bench_events (
    id         bigint        GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint        NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    kind       text          NOT NULL,
    amount     numeric(12,2) NOT NULL,
    request    uuid          NOT NULL UNIQUE,
    detail     jsonb         NOT NULL,
    created_at timestamptz   NOT NULL
);
CREATE INDEX bench_events_by_time ON bench_events (account_id, created_at);
INSERT INTO accounts (email, password_hash, created_at)
SELECT format('%s.%s@example.org', substr(md5(n::text), 1, 8), n),
       '$argon2id$v=19$m=19456,t=2,p=1$' || encode(sha256(n::text::bytea), 'base64'),
       timestamptz '2025-01-01' + n * interval '7 minutes'
FROM generate_series(1, :accounts) AS n;
SELECT set_config('bench.bytes', :'bytes', false), set_config('bench.accounts', :'accounts', false);
DO $$
DECLARE
    bytes bigint := current_setting('bench.bytes');
    accounts bigint := current_setting('bench.accounts');
    -- Not an array: its elements are found by counting from the first.
    words jsonb := (SELECT jsonb_agg(word) FROM (
        SELECT string_agg((ARRAY['ba','ko','lin','me','ser','ta','vo','ri','den','su','na','pel','gro','ti'])
                          [1 + floor(random() * 14)::int], '') AS word
        FROM generate_series(1, 3000) AS n, generate_series(1, 1 + n % 4) GROUP BY n) AS made);
    kinds text[] := ARRAY['opened', 'changed', 'paid', 'sent', 'returned', 'closed'];
BEGIN
    WHILE pg_database_size(current_database()) < bytes LOOP
        INSERT INTO bench_texts (account_id, text, created_at)
        SELECT 1 + floor(random() * accounts)::bigint,
               (SELECT string_agg(words ->> (random() * random() * 2999)::int, ' ')
                FROM generate_series(1, 8 + n % 113)),
               timestamptz '2025-01-01' + random() * interval '700 days'
        FROM generate_series(1, 2000) AS n;
        INSERT INTO bench_events (account_id, kind, amount, request, detail, created_at)
        SELECT 1 + floor(random() * accounts)::bigint,
               kinds[1 + n % 6],
               round((random() * random() * 5000)::numeric, 2),
               md5(random()::text || n)::uuid,
               jsonb_build_object('item', words ->> (random() * 2999)::int, 'count', 1 + n % 9,
                                  'from', words ->> (random() * random() * 2999)::int),
               timestamptz '2025-01-01' + random() * interval '700 days'
        FROM generate_series(1, 2000) AS n;
    END LOOP;
END $$;
RESET ROLE;
-- As autovacuum would have done long ago: the first reader shall not pay for it. By one process, as it:
-- several would share a piece of memory of maintenance_work_mem, for which /dev/shm is too small.
VACUUM (ANALYZE, PARALLEL 0);
CHECKPOINT;
";

/// Two keys and a list entry for each, in the form of the backend's own script. Their names are digests,
/// and theirs are of 256 bits.
const SESSIONS: &str = "\
local agents = {'Firefox on Linux', 'Chrome on Windows', 'Safari on iPhone', 'Chrome on Android', 'Edge on Windows'}
local now, accounts = tonumber(ARGV[3]), tonumber(ARGV[4])
for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local hash = (redis.sha1hex('a' .. i) .. redis.sha1hex('b' .. i)):sub(1, 64)
  local account = string.format('%d', i % accounts + 1)
  local created = string.format('%d', now - i * 7919 % 500000)
  local record = '{\"account_id\":' .. account .. ',\"created\":' .. created .. ',\"agent\":\"' .. agents[i % 5 + 1] .. '\"}'
  redis.call('SET', 'session:' .. hash, record, 'EX', 604800 - i * 31 % 86400)
  redis.call('ZADD', 'sessions-of:' .. account, created, hash)
  redis.call('EXPIRE', 'sessions-of:' .. account, 2592000)
end";

/// Fills the tables until the database has its size.
///
/// # Errors
/// The server refuses it.
pub(super) fn rows(server: &Postgres, database: &str, megabytes: u32, sessions: u32) -> Result<()> {
    let accounts = accounts(sessions);
    let bytes = u64::from(megabytes) << 20;
    let words = [format!("accounts={accounts}"), format!("bytes={bytes}")];
    let command = psql(server, database).args(["--set", &words[0], "--set", &words[1]]);
    server.ctx.run(command.stdin(ROWS))
}

/// Writes the sessions, and looks whether they are there.
///
/// # Errors
/// Redis refuses one.
pub(super) fn sessions(server: &Redis, sessions: u32, step: &Step) -> Result<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap_or(Duration::ZERO).as_secs().to_string();
    let accounts = accounts(sessions).to_string();
    let mut from = 1;
    while from <= sessions {
        let to = sessions.min(from + AT_ONCE - 1);
        step.note(&format!("{to} of {sessions}"));
        server.command(&[
            "EVAL",
            SESSIONS,
            "0",
            &from.to_string(),
            &to.to_string(),
            &now,
            &accounts,
        ])?;
        from = to + 1;
    }
    let keys = server.count(0)?;
    ensure!(
        keys > u64::from(sessions),
        "Redis has {keys} keys after {sessions} sessions were written"
    );
    Ok(keys)
}

fn accounts(sessions: u32) -> u32 {
    sessions.div_ceil(SESSIONS_OF_ONE)
}

/// Of each table the number of rows and the sum of their numbers, then how many indexes and
/// constraints there are.
const PRINT: &str = "\
SELECT (SELECT format('accounts %s %s', count(*), sum(id)) FROM accounts),
       (SELECT format('texts %s %s', count(*), sum(id)) FROM bench_texts),
       (SELECT format('events %s %s', count(*), sum(id)) FROM bench_events),
       (SELECT format('indexes %s', count(*)) FROM pg_indexes WHERE schemaname = 'public'),
       (SELECT format('constraints %s', count(*)) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace)";

/// By which two copies of the rows are compared.
///
/// # Errors
/// The server does not answer: a table may be missing.
pub(super) fn print(server: &Postgres, database: &str) -> Result<String> {
    Ok(server.query(database, PRINT)?.concat())
}
