//! No number is given out twice. A restored database would count on from where the backup was, while
//! sessions, e-mails and other systems still know the numbers that were given out since: whoever
//! signs up next would be taken for somebody else. So each sequence of the restored database goes on
//! from at least where the replaced one had come.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::postgres::Postgres;
use super::swap::literal;

/// What clients may draw between the last look at the old database and its end, which is
/// milliseconds. A second look at the database that was put aside follows.
pub(super) const HEADROOM: i64 = 10_000;

/// A sequence that has given out a number.
#[derive(Deserialize)]
struct Sequence {
    schema: String,
    name: String,
    last: i64,
    increment: i64,
    min: i64,
    max: i64,
}

/// One that begins anew by its own definition gives numbers out again anyway.
const SEQUENCES: &str = "\
SELECT json_build_object('schema', schemaname, 'name', sequencename, 'last', last_value, \
  'increment', increment_by, 'min', min_value, 'max', max_value) \
FROM pg_sequences WHERE last_value IS NOT NULL AND NOT cycle";

/// Brings the sequences of the database `to` at least to where those of `from` are, and `headroom`
/// further; none goes back. Both are read as the superuser, who sees them all.
///
/// # Errors
/// The server refuses it.
pub(super) fn raise(server: &Postgres, from: &str, to: &str, headroom: i64) -> Result<()> {
    let lines = server.query(from, SEQUENCES)?;
    let sequences: Vec<Sequence> = lines
        .iter()
        .map(|line| serde_json::from_str(line).context("read the sequences"))
        .collect::<Result<_>>()?;
    if sequences.is_empty() {
        return Ok(());
    }
    let script: String = sequences.iter().map(|one| statement(one, headroom)).collect();
    server
        .query(to, &script)
        .map(|_| ())
        .with_context(|| format!("let {to} go on from the numbers that {from} has given out"))
}

/// Sets the sequence of the same name, where there is one that is not as far.
fn statement(sequence: &Sequence, headroom: i64) -> String {
    let is_rising = sequence.increment > 0;
    // A narrow sequence must not be used up by this.
    let (left, sign, nearer, beyond) = if is_rising {
        (sequence.max.saturating_sub(sequence.last), 1, "least", "<")
    } else {
        (sequence.last.saturating_sub(sequence.min), -1, "greatest", ">")
    };
    let wanted = sequence.last + sign * headroom.min(left / 100);
    let bound = if is_rising { "max_value" } else { "min_value" };
    format!(
        "SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, {nearer}({wanted}, {bound})) \
         FROM pg_sequences WHERE schemaname = {} AND sequencename = {} \
         AND (last_value IS NULL OR last_value {beyond} {wanted});\n",
        literal(&sequence.schema),
        literal(&sequence.name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(last: i64, increment: i64) -> Sequence {
        let (min, max) = if increment > 0 { (1, 32_767) } else { (-32_768, -1) };
        Sequence {
            schema: "public".to_owned(),
            name: "o'clock".to_owned(),
            last,
            increment,
            min,
            max,
        }
    }

    #[test]
    fn a_sequence_goes_on_from_where_the_other_one_was_and_never_back() {
        let rising = statement(&sequence(700, 1), 0);
        assert!(rising.contains("least(700, max_value)"), "{rising}");
        assert!(rising.contains("sequencename = 'o''clock'"), "{rising}");
        assert!(rising.contains("last_value IS NULL OR last_value < 700"), "{rising}");
        let falling = statement(&sequence(-700, -1), 0);
        assert!(falling.contains("greatest(-700, min_value)"), "{falling}");
        assert!(falling.contains("last_value > -700"), "{falling}");
    }

    #[test]
    fn the_headroom_takes_a_hundredth_of_what_is_left_at_most() {
        assert!(statement(&sequence(700, 1), HEADROOM).contains("least(1020, "));
        assert!(statement(&sequence(-700, -1), HEADROOM).contains("greatest(-1020, "));
        let wide = Sequence { max: i64::MAX, ..sequence(700, 1) };
        assert!(statement(&wide, HEADROOM).contains("least(10700, "));
        assert!(statement(&sequence(32_767, 1), HEADROOM).contains("least(32767, "));
    }
}
