//! One file on its way to a place or from it: streamed, hashed, encrypted or decrypted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use age::x25519::Recipient;
use age::{Decryptor, Encryptor, Identity};
use anyhow::{Context, Result};
use archive::file::Hashed;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use object_store::path::Path as Key;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::place::{Object, Place};

/// What goes over at a time.
const CHUNK: usize = 256 << 10;

/// Stores a file, encrypted where there are recipients.
pub(crate) async fn store(
    place: &Place,
    key: &Key,
    path: &Path,
    recipients: Vec<Recipient>,
) -> Result<Object> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    // Large ones go up in parts; nobody sees the object before its last part is there.
    let writer = BufWriter::new(place.store.clone(), key.clone());
    let bridge = SyncIoBridge::new(writer);
    let (writer, object) = spawn_blocking(move || -> Result<_> {
        let mut hashed = Hashed::new(bridge);
        if recipients.is_empty() {
            copy(&mut file, &mut hashed)?;
        } else {
            let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
            let mut encrypted = Encryptor::with_recipients(recipients)?.wrap_output(&mut hashed)?;
            copy(&mut file, &mut encrypted)?;
            encrypted.finish()?;
        }
        let (bridge, bytes, sha256) = hashed.finish();
        Ok((bridge.into_inner(), Object { bytes, sha256 }))
    })
    .await??;
    let mut writer = writer;
    writer.shutdown().await?;
    Ok(object)
}

/// Reads an object to its end, and says what it is.
pub(crate) async fn look(place: &Place, key: &Key) -> Result<Object> {
    fetch(place, key, Vec::new(), Destination::Nowhere).await
}

/// Where an object goes.
pub(crate) enum Destination {
    /// Only its sum is wanted.
    Nowhere,
    /// As it is stored.
    Plain(File),
    /// Decrypted.
    Decrypted(File),
}

/// Fetches an object. What it says is of the object as it is stored.
pub(crate) async fn fetch(
    place: &Place,
    key: &Key,
    identities: Vec<Box<dyn Identity + Send>>,
    to: Destination,
) -> Result<Object> {
    let stream = place.store.get(key).await?.into_stream().map_err(io::Error::other);
    let reader = SyncIoBridge::new(StreamReader::new(stream));
    spawn_blocking(move || -> Result<Object> {
        let mut tee = Tee { from: reader, hashed: Hashed::new(io::sink()) };
        match to {
            Destination::Nowhere => copy(&mut tee, &mut io::sink())?,
            Destination::Plain(mut file) => {
                copy(&mut tee, &mut file)?;
                file.sync_all()?;
            }
            Destination::Decrypted(mut file) => {
                let decryptor =
                    Decryptor::new(&mut tee).context("read the encrypted file's head")?;
                let known = identities.iter().map(|identity| &**identity as &dyn Identity);
                copy(&mut decryptor.decrypt(known)?, &mut file)?;
                file.sync_all()?;
            }
        }
        // What the decryptor did not need is part of the object all the same.
        copy(&mut tee, &mut io::sink())?;
        let (_, bytes, sha256) = tee.hashed.finish();
        Ok(Object { bytes, sha256 })
    })
    .await?
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => to.write_all(&buffer[..read])?,
        }
    }
}

/// Hashes what is read.
struct Tee<R> {
    from: R,
    hashed: Hashed<io::Sink>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hashed.write_all(&buffer[..read])?;
        Ok(read)
    }
}
