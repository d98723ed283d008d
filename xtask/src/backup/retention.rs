//! Which backups to keep: the newest ones, and the last of each of so many days, weeks and months
//! (grandfather, father, son). Pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::ahead::{WHY, is_ahead};

/// How many of each to keep. Days, weeks and months in which there is no backup do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) last: usize,
    pub(crate) daily: usize,
    pub(crate) weekly: usize,
    pub(crate) monthly: usize,
}

/// A backup that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its name, which is a time in UTC: names are in order.
    pub(crate) id: String,
    /// Whether a restore of it was proven by the last drill.
    pub(crate) is_verified: bool,
    /// Whether one was ever proven, also where a later drill has failed.
    pub(crate) was_verified: bool,
    /// Whether it is what a restore has replaced.
    pub(crate) is_safety: bool,
}

/// What to do with each, in the order of their names: why it is kept, or nothing for one to delete.
///
/// Whatever the policy, the newest is kept, and so is the newest whose restore was proven, also where
/// a later drill on it has failed; then the newest on which none has failed is kept as well. One whose
/// time lies in the future is kept and takes nobody's place: it would be the newest for good.
///
/// Of a day, a week or a month the last proven one is kept rather than the last; where none is proven, the last that is
/// not what a restore has replaced: that is data which somebody wanted to be rid of. It is kept beside, for as long as the
/// day's own.
pub(crate) fn decide(
    candidates: &[Candidate],
    policy: Policy,
    now: SystemTime,
) -> BTreeMap<String, Vec<String>> {
    let mut kept: BTreeMap<String, Vec<String>> =
        candidates.iter().map(|candidate| (candidate.id.clone(), Vec::new())).collect();
    let mut keep = |id: &str, reason: String| kept.entry(id.to_owned()).or_default().push(reason);
    let (ahead, mut newest_first): (Vec<&Candidate>, Vec<&Candidate>) =
        candidates.iter().partition(|candidate| is_ahead(&candidate.id, now));
    newest_first.sort_by(|a, b| b.id.cmp(&a.id));
    for candidate in ahead {
        keep(&candidate.id, WHY.to_owned());
    }
    if let Some(newest) = newest_first.first() {
        keep(&newest.id, "newest".to_owned());
    }
    if let Some(proven) = newest_first.iter().find(|candidate| candidate.is_verified) {
        keep(&proven.id, "newest proven".to_owned());
    }
    let once = newest_first.iter().find(|candidate| candidate.was_verified);
    if let Some(once) = once.filter(|candidate| !candidate.is_verified) {
        // What failed later may have been the drill, and not the backup.
        keep(&once.id, "newest that was proven once".to_owned());
    }
    for candidate in newest_first.iter().take(policy.last) {
        keep(&candidate.id, format!("last {}", policy.last));
    }
    for period in [Period::Day, Period::Week, Period::Month] {
        let mut seen: Vec<String> = Vec::new();
        let (name, count) = match period {
            Period::Day => ("day", policy.daily),
            Period::Week => ("week", policy.weekly),
            Period::Month => ("month", policy.monthly),
        };
        for candidate in &newest_first {
            let this = period.of(&candidate.id);
            if seen.contains(&this) || seen.len() >= count {
                continue;
            }
            let within = || newest_first.iter().filter(|other| period.of(&other.id) == this);
            let proven = within().find(|other| other.is_verified);
            match proven.or_else(|| within().find(|other| !other.is_safety)) {
                Some(best) if best.is_verified => {
                    keep(&best.id, format!("last proven of its {name}"))
                }
                best => keep(&best.unwrap_or(candidate).id, format!("last of its {name}")),
            }
            if let (Period::Day, Some(replaced)) = (period, within().find(|other| other.is_safety))
            {
                keep(&replaced.id, "what a restore replaced that day".to_owned());
            }
            seen.push(this);
        }
    }
    kept
}

#[derive(Clone, Copy)]
enum Period {
    Day,
    Week,
    Month,
}

impl Period {
    /// Which one a backup of this name falls in.
    fn of(self, id: &str) -> String {
        match self {
            Period::Day => id[..8].to_owned(),
            Period::Week => week(id),
            Period::Month => id[..6].to_owned(),
        }
    }
}

/// The number of a day's week, which begins on Monday.
fn week(id: &str) -> String {
    let days = super::catalogue::time_of(id)
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |age| age.as_secs() / 86_400);
    // The first of January 1970 was a Thursday.
    ((days + 3) / 7).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(ids: &[&str]) -> Vec<Candidate> {
        let candidate = |id: &&str| {
            let id = (*id).to_owned();
            Candidate { id, is_verified: false, was_verified: false, is_safety: false }
        };
        ids.iter().map(candidate).collect()
    }

    fn kept(candidates: &[Candidate], policy: Policy) -> Vec<String> {
        let now = crate::backup::catalogue::time_of("20261201T000000Z").unwrap();
        let decided = decide(candidates, policy, now);
        decided.into_iter().filter(|(_, why)| !why.is_empty()).map(|(id, _)| id).collect()
    }

    #[test]
    fn the_last_of_each_period_is_kept() {
        let all = candidates(&[
            "20260930T010000Z",
            "20261001T010000Z",
            "20261115T010000Z", // a Sunday
            "20261116T010000Z", // a Monday: another week
            "20261117T010000Z",
            "20261117T130000Z",
            "20261118T010000Z",
        ]);
        let policy = |last, daily, weekly, monthly| Policy { last, daily, weekly, monthly };
        assert_eq!(kept(&all, policy(0, 0, 0, 0)), ["20261118T010000Z"]);
        assert_eq!(kept(&all, policy(2, 0, 0, 0)), ["20261117T130000Z", "20261118T010000Z"]);
        assert_eq!(
            kept(&all, policy(0, 3, 0, 0)),
            ["20261116T010000Z", "20261117T130000Z", "20261118T010000Z"]
        );
        assert_eq!(kept(&all, policy(0, 0, 2, 0)), ["20261115T010000Z", "20261118T010000Z"]);
        assert_eq!(
            kept(&all, policy(0, 0, 0, 9)),
            ["20260930T010000Z", "20261001T010000Z", "20261118T010000Z"]
        );
    }

    #[test]
    fn the_newest_and_the_newest_proven_stay_whatever_is_asked() {
        let mut all = candidates(&["20260101T000000Z", "20260102T000000Z", "20260103T000000Z"]);
        (all[0].is_verified, all[0].was_verified) = (true, true);
        assert_eq!(kept(&all, Policy::default()), ["20260101T000000Z", "20260103T000000Z"]);
        // A drill that failed later takes the protection from neither.
        all[1].was_verified = true;
        assert_eq!(kept(&all, Policy::default()).len(), 3);
        all[0].is_verified = false;
        assert_eq!(kept(&all, Policy::default()), ["20260102T000000Z", "20260103T000000Z"]);
        assert!(kept(&[], Policy::default()).is_empty());
    }

    #[test]
    fn what_a_restore_replaced_and_what_was_not_proven_take_no_others_place() {
        let nightly = ["20261110T013000Z", "20261111T013000Z", "20261112T013000Z"];
        let mut all = candidates(&nightly);
        all.iter_mut().for_each(|night| night.is_verified = true);
        let mut more = candidates(&["20261111T150000Z", "20261111T160000Z", "20261112T020000Z"]);
        // Two restores on the eleventh, and on the twelfth a drill that found no room.
        (more[0].is_safety, more[1].is_safety) = (true, true);
        all.extend(more);
        let policy = |daily, weekly, monthly| Policy { last: 0, daily, weekly, monthly };
        // The newest one is kept whatever it is.
        let newest = "20261112T020000Z";
        assert_eq!(kept(&all, policy(0, 1, 1)), ["20261112T013000Z", newest]);
        let days = [nightly[0], nightly[1], "20261111T160000Z", nightly[2], newest];
        assert_eq!(kept(&all, policy(7, 0, 0)), days);
        all.iter_mut().for_each(|night| night.is_verified = false);
        assert_eq!(
            kept(&all, policy(7, 0, 0)),
            [nightly[0], nightly[1], "20261111T160000Z", newest]
        );
        // With the day it goes.
        assert_eq!(kept(&all, policy(1, 0, 0)), [newest]);
    }

    #[test]
    fn one_from_the_future_pushes_no_other_out() {
        let mut all = candidates(&["20260101T000000Z", "20260102T000000Z", "20260103T000000Z"]);
        all[1].is_verified = true;
        let policy = Policy { last: 1, daily: 1, weekly: 1, monthly: 1 };
        let without = kept(&all, policy);
        let mut ahead = candidates(&["20361231T000000Z", "20361231T010000Z"]);
        ahead[1].is_verified = true;
        all.extend(ahead);
        let with = kept(&all, policy);
        assert_eq!(with[..without.len()], without);
        assert_eq!(with[without.len()..], ["20361231T000000Z", "20361231T010000Z"]);
    }
}
