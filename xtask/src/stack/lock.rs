//! One change at a time: the lock on a stack, and the word on who holds it.
//!
//! The operating system's file lock ends with its holder, however that ends, so there is no stale
//! lock to break. The file's text only serves the message.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::ctx::{Ctx, Invocation};
use crate::stack::project::{Project, shown};
use crate::stack::secrets;

/// How long a second command waits for the first; a cold build of everything fits in.
const WAIT_LIMIT: Duration = Duration::from_secs(15 * 60);
const PAUSE: Duration = Duration::from_millis(50);
/// A wait this short is not worth a word; by then the holder has written who it is, too.
const PATIENCE: Duration = Duration::from_millis(200);

/// Held for as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

#[derive(Deserialize, Serialize)]
struct Holder {
    pid: u32,
    command: String,
    /// Unix time in seconds.
    since: u64,
}

/// Takes the lock of a stack, waiting for another command to end if there is one.
///
/// The file lies outside `target/`, in a folder of this user's, by the project's name: two clones
/// that drive the same project meet here, and `cargo clean` does not take it away.
///
/// # Errors
/// The stack is another user's; or the wait was interrupted or took longer than fifteen minutes: then the message
/// names the holder.
pub(crate) fn acquire(ctx: &Ctx, project: &Project, command: &str) -> Result<Lock> {
    expect_own(ctx, project)?;
    let path = lock_path(project)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // What stands there under the lock's name may be a link to a file that is dear to somebody.
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(&path)
        .with_context(|| format!("open the lock {}", path.display()))?;
    let started = Instant::now();
    let mut step = None;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {
                let holder = describe_holder(&mut file);
                if step.is_none() && started.elapsed() > PATIENCE {
                    step = Some(ctx.ui.step(format!("waiting for {holder}")).announce());
                }
                if started.elapsed() > WAIT_LIMIT {
                    bail!("{holder} still works on `{}`; end it, or try again later", project.name);
                }
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
        ctx.check_interrupted()?;
        std::thread::sleep(PAUSE);
    }
    if let Some(step) = step {
        step.vanish();
    }
    write_holder(&mut file, command).with_context(|| format!("write {}", path.display()))?;
    Ok(Lock { _file: file })
}

/// That what this checkout knows of the stack is this user's. Another one would not meet the lock, which is each user's
/// own, and would leave files that the first can neither read nor replace; root, too.
///
/// # Errors
/// It is another user's.
pub(crate) fn expect_own(ctx: &Ctx, project: &Project) -> Result<()> {
    let me = rustix::process::getuid().as_raw();
    for folder in [secrets::folder(ctx, project), project.state_dir(ctx)] {
        let owner = fs::metadata(&folder).map(|found| found.uid()).unwrap_or(me);
        if owner != me {
            let name = |id: u32| name_of(ctx, id);
            bail!(
                "{}",
                refusal(&shown(ctx, &folder), (owner, &name(owner)), &name(me), ctx.root())
            );
        }
    }
    Ok(())
}

fn refusal(folder: &str, (owner, name): (u32, &str), me: &str, root: &Path) -> String {
    format!(
        "{folder} belongs to {name} (user {owner}), and you are {me}: a stack is driven by one user, always the same, so \
         that two never change it at once. Nothing was done. Run this as {name}: `sudo -iu {name}`, then `cd {}` and the same \
         command. If it is {me} who should own the stack: `sudo chown -R {me}: .secrets target`, the environment file and \
         the folder of the backups as well",
        root.display()
    )
}

/// The name of a user, or the number where there is none, as sudo takes it.
fn name_of(ctx: &Ctx, id: u32) -> String {
    let said = ctx.read(Invocation::new("id").args(["--user", "--name", &id.to_string()]));
    said.map_or_else(|_| format!("#{id}"), |name| name.trim().to_owned())
}

fn lock_path(project: &Project) -> Result<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let folder = std::env::temp_dir().join(format!("xtask-locks-{user}"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("make the folder for locks {}", folder.display()))?;
    expect_ours(&folder, user)?;
    Ok(folder.join(format!("{}.lock", project.name)))
}

/// Everybody may make a folder where temporary files are, under any name.
fn expect_ours(folder: &Path, user: u32) -> Result<()> {
    let found = fs::symlink_metadata(folder)
        .with_context(|| format!("look at the folder for locks {}", folder.display()))?;
    ensure!(
        found.is_dir() && found.uid() == user && found.mode() & 0o022 == 0,
        "{} is to hold locks, and another user could write there: remove it, or set TMPDIR",
        folder.display()
    );
    Ok(())
}

fn describe_holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    match (read, serde_json::from_str::<Holder>(&text)) {
        (Ok(_), Ok(holder)) => {
            let age = Duration::from_secs(now().saturating_sub(holder.since));
            let age = crate::ui::seconds(age);
            format!("`cargo xtask {}` (process {}, for {age})", holder.command, holder.pid)
        }
        // It was locked and not written yet.
        _ => "another cargo xtask".to_owned(),
    }
}

fn write_holder(file: &mut File, command: &str) -> Result<()> {
    let holder = Holder { pid: std::process::id(), command: command.to_owned(), since: now() };
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(serde_json::to_string(&holder)?.as_bytes())?;
    Ok(())
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn who_drives_the_stack_of_another_user_is_told_as_whom_to_run_it() {
        let said = refusal(".secrets/shop", (1001, "ann"), "root", Path::new("/srv/shop"));
        for words in
            ["belongs to ann (user 1001)", "you are root", "`sudo -iu ann`", "`cd /srv/shop`"]
        {
            assert!(said.contains(words), "{words:?} is not in: {said}");
        }
    }

    #[test]
    fn a_folder_that_others_can_write_to_holds_no_lock() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, link) = (parent.path().join("locks"), parent.path().join("link"));
        fs::create_dir(&folder).unwrap();
        symlink(&folder, &link).unwrap();
        let user = rustix::process::getuid().as_raw();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        expect_ours(&folder, user).unwrap();
        assert!(expect_ours(&link, user).is_err());
        assert!(expect_ours(&folder, user + 1).is_err());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let error = expect_ours(&folder, user).expect_err("anybody can write there");
        assert!(error.to_string().contains("set TMPDIR"), "{error:#}");
    }
}
