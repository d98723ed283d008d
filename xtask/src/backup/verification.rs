//! What drills have found on a backup, beside it.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::catalogue::Backup;
use super::manifest::VERIFICATION;
use super::partial;

/// `verification.json`: what the last drill found.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Verification {
    /// RFC 3339.
    pub(crate) verified_at: String,
    /// The manifest that this belongs to.
    pub(crate) manifest_sha256: String,
    /// None where everything was as it should be.
    pub(crate) failure: Option<String>,
    /// From nothing to servers with all data: what a restore on a new host takes at the least.
    pub(crate) restore_ms: u64,
    /// The comparison of what was restored with the manifest.
    pub(crate) compare_ms: u64,
    pub(crate) rows: u64,
    pub(crate) keys: u64,
    /// The last drill on this backup that passed: a later one that failed, for want of an image or of
    /// room, say, does not undo that it was restored once.
    #[serde(default)]
    pub(crate) last_success: Option<Success>,
}

/// A drill that passed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Success {
    /// RFC 3339.
    pub(crate) verified_at: String,
    pub(crate) restore_ms: u64,
    pub(crate) compare_ms: u64,
}

impl Verification {
    /// The last success that it tells of: its own, or a former one.
    pub(crate) fn success(&self) -> Option<Success> {
        if self.failure.is_some() {
            return self.last_success.clone();
        }
        let verified_at = self.verified_at.clone();
        Some(Success { verified_at, restore_ms: self.restore_ms, compare_ms: self.compare_ms })
    }

    /// With its end, and what was known before it began.
    pub(super) fn ended(
        mut self,
        failure: Option<String>,
        former: Option<&Verification>,
    ) -> Verification {
        self.failure = failure;
        self.last_success = former.and_then(Verification::success);
        self.last_success = self.success();
        self
    }
}

/// The result of the last drill on a backup; none where there was none, or for another manifest.
pub(crate) fn result(backup: &Backup) -> Option<Verification> {
    let text = fs::read_to_string(backup.path(VERIFICATION)).ok()?;
    let verification: Verification = serde_json::from_str(&text).ok()?;
    (verification.manifest_sha256 == backup.manifest_sha256).then_some(verification)
}

/// Whether a drill has ever passed on this backup, whatever came after it.
pub(crate) fn was_verified(backup: &Backup) -> bool {
    result(backup).is_some_and(|verification| verification.success().is_some())
}

/// Whether the last drill on this backup has passed.
pub(crate) fn is_verified(backup: &Backup) -> bool {
    result(backup).is_some_and(|verification| verification.failure.is_none())
}

/// Writes it beside the backup that it is about.
///
/// # Errors
/// The disk does not take it.
pub(super) fn write(backup: &Backup, verification: &Verification) -> Result<()> {
    let text = serde_json::to_string_pretty(verification)? + "\n";
    let path = backup.path(VERIFICATION);
    let write = || -> std::io::Result<()> {
        // In the folder of the project: an interrupted write must not make the backup look damaged.
        let folder = backup.folder.parent().unwrap_or(&backup.folder);
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        partial::sync_folder(&backup.folder)
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drilled(at: &str) -> Verification {
        let text = format!(
            r#"{{"verified_at": "{at}", "manifest_sha256": "", "failure": null, "restore_ms": 7,
                "compare_ms": 2, "rows": 1, "keys": 1}}"#
        );
        // Without `last_success`, as it was written before there was one.
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_drill_that_fails_does_not_undo_the_last_that_passed() {
        let first = drilled("monday");
        let failed = drilled("tuesday").ended(Some("no image".to_owned()), Some(&first));
        let again = drilled("wednesday").ended(Some("no room".to_owned()), Some(&failed));
        for verification in [&failed, &again] {
            assert_eq!(verification.last_success, first.success());
            assert!(verification.failure.is_some());
        }
        let passed = drilled("thursday").ended(None, Some(&again));
        assert_eq!(passed.last_success.map(|success| success.verified_at).unwrap(), "thursday");
        let never = drilled("friday").ended(Some("no image".to_owned()), None);
        assert_eq!(never.success(), None);
    }
}
