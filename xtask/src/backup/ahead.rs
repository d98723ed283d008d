//! Backups whose time has not come: a clock was wrong when they were taken. Their names come after those
//! of all that are taken later, so they would be the latest for good. Pure.

use std::time::{Duration, SystemTime};

use super::catalogue::time_of;

/// The clocks of two hosts may differ by so much.
const TOLERANCE: Duration = Duration::from_secs(10 * 60);
/// What is wrong with one, for people.
pub(crate) const WHY: &str = "its time has not come: the clock was wrong, now or when it was taken";

/// Whether the time in a backup's name lies in the future, or is none at all. Such a backup can be restored by
/// its name, and is never the latest.
pub(crate) fn is_ahead(id: &str, now: SystemTime) -> bool {
    time_of(id).is_none_or(|time| time > now + TOLERANCE)
}

/// Behind the words that there is no latest: what there is instead.
pub(crate) fn but(ahead: &[String]) -> String {
    if ahead.is_empty() {
        return String::new();
    }
    format!(". {} is never `latest`, {WHY}; take it by its name", ahead.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_has_not_come_is_told_from_clocks_that_differ() {
        let now = time_of("20261124T120000Z").unwrap();
        for past in ["20261124T115959Z", "20261124T120000Z", "20261124T121000Z"] {
            assert!(!is_ahead(past, now), "{past}");
        }
        for ahead in ["20261124T121001Z", "20361124T120000Z", "20261399T120000Z"] {
            assert!(is_ahead(ahead, now), "{ahead}");
        }
    }
}
