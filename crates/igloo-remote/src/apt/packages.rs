//! Package lists: fetched, checked and made into an index in one pass, never held whole.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use igloo_base::{At, Reporter, Sha256, Task, Unit};
use igloo_formats::deb::index::{Index, IndexError, build};
use igloo_formats::deb::release::Release;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use super::state::SuiteDir;
use super::{Mapped, PackageIndex};
use crate::check::{Checked, Promise};
use crate::client::url;
use crate::{Client, RemoteError};

/// Memory that a decompressor may take: what the highest level of xz needs.
const MAX_DECODER: u64 = 80 << 20;

/// Longest list whose length is not signed.
const MAX_PLAIN: u64 = 1 << 30;

/// How a list is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Xz,
    Gz,
    Plain,
}

/// A package list of a suite, as its release file promises it.
pub(super) struct List {
    /// What a person calls it: `bookworm main amd64`.
    pub(super) label: String,
    /// Digest that its index is kept under.
    pub(super) key: Sha256,
    /// The suite's directory at the archive.
    dists: String,
    by_hash: bool,
    /// What the decompressed list must be, if that is signed too.
    plain: Promise,
    plain_is_signed: bool,
    forms: Vec<(Form, String, Promise)>,
}

impl List {
    /// The list below a directory such as `main/binary-amd64`, if the release file has it.
    pub(super) fn of(archive: &str, suite: &str, release: &Release, directory: &str, label: String) -> Option<Self> {
        let entry = |suffix: &str| {
            let path = format!("{directory}/Packages{suffix}");
            let (size, sha256) = *release.files.get(&path)?;
            Some((path, Promise { size, sha256 }))
        };
        let forms = [(Form::Xz, ".xz"), (Form::Gz, ".gz"), (Form::Plain, "")];
        let forms: Vec<_> = forms
            .into_iter()
            .filter_map(|(form, suffix)| entry(suffix).map(|(p, promise)| (form, p, promise)))
            .collect();
        let first = forms.first()?.2;
        let plain = entry("").map(|(_, promise)| promise);
        Some(Self {
            label,
            key: plain.unwrap_or(first).sha256,
            dists: url::file_url(archive, &format!("dists/{suite}")),
            by_hash: release.acquire_by_hash,
            plain: plain.unwrap_or(Promise { size: MAX_PLAIN, sha256: first.sha256 }),
            plain_is_signed: plain.is_some(),
            forms,
        })
    }

    /// The index in the cache, if there is one that can be used.
    pub(super) fn cached(&self, dir: &SuiteDir) -> Result<Option<PackageIndex>, RemoteError> {
        let path = dir.index(&self.key);
        match Mapped::open(&path) {
            // One that cannot be read was made by another version of this program.
            Ok(map) => Ok(Index::open(map).ok()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Fetches the list and makes its index.
    pub(super) fn fetch(
        &self,
        client: &Client,
        dir: &SuiteDir,
        reporter: &dyn Reporter,
    ) -> Result<PackageIndex, RemoteError> {
        let mut last = None;
        for (form, path, promise) in &self.forms {
            for address in self.addresses(path, promise) {
                let made = client.retry(|| self.fetch_from(client, &address, *form, *promise, dir, reporter));
                match made {
                    Ok(index) => return Ok(index),
                    Err(error) if error.is_of_address() => last = last.or(Some(error)),
                    Err(error) => return Err(error),
                }
            }
        }
        Err(last.unwrap_or_else(|| RemoteError::NoAddress { label: self.label.clone() }))
    }

    /// By digest first, since what is there never changes, while the archive may be replacing the named file.
    fn addresses(&self, path: &str, promise: &Promise) -> Vec<String> {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let by_hash = format!("{directory}/by-hash/SHA256/{}", promise.sha256);
        let paths = if self.by_hash { vec![by_hash.as_str(), path] } else { vec![path] };
        paths.into_iter().map(|path| url::file_url(&self.dists, path)).collect()
    }

    fn fetch_from(
        &self,
        client: &Client,
        address: &str,
        form: Form,
        promise: Promise,
        dir: &SuiteDir,
        reporter: &dyn Reporter,
    ) -> Result<PackageIndex, RemoteError> {
        let task = Task::start(reporter, format!("index {}", self.label), Some(promise.size), Unit::Bytes);
        let progress = |read: u64| task.advance(read);
        if let Some(path) = url::local(address) {
            let file = std::fs::File::open(&path).at("open", &path)?;
            return self.index(Checked::new(address, file, promise, &progress), form, dir);
        }
        let mut answer = client.get(address, &[])?;
        if answer.status != 200 {
            return Err(RemoteError::Status { url: address.to_owned(), status: answer.status });
        }
        if let Some(found) = answer.length().filter(|found| *found != promise.size) {
            return Err(RemoteError::Size { url: address.to_owned(), expected: promise.size, found });
        }
        let body = answer.reader();
        self.index(Checked::new(address, body, promise, &progress), form, dir)
    }

    /// From compressed bytes to an index in its place.
    fn index<R: Read>(&self, mut raw: Checked<'_, R>, form: Form, dir: &SuiteDir) -> Result<PackageIndex, RemoteError> {
        let path = dir.index(&self.key);
        igloo_base::file::create_dirs(dir.indexes()).map_err(RemoteError::from_path)?;
        let mut temporary = tempfile::Builder::new()
            .prefix(".igloo-")
            .tempfile_in(dir.indexes())
            .map_err(|source| RemoteError::write(&path, source))?;

        let built = {
            let mut out = BufWriter::with_capacity(256 << 10, temporary.as_file_mut());
            self.decompress(&mut raw, form, &mut out)
                .and_then(|()| out.flush().map_err(|source| RemoteError::write(&path, source)))
        };
        // What was promised about the bytes as they came says more than what went wrong with what they hold.
        raw.finish()?;
        built.map_err(|error| match error {
            RemoteError::Index { url, source } => match *source {
                IndexError::Write(source) => RemoteError::write(&path, source),
                other => RemoteError::Index { url, source: Box::new(other) },
            },
            other => other,
        })?;
        self.put(temporary, &path)
    }

    fn decompress<R: Read>(
        &self,
        raw: &mut Checked<'_, R>,
        form: Form,
        out: &mut dyn Write,
    ) -> Result<(), RemoteError> {
        let name = raw.url().to_owned();
        let index = |source| RemoteError::Index { url: name.clone(), source: Box::new(source) };
        let decoder: Box<dyn Read + '_> = match form {
            Form::Xz => {
                let stream = Stream::new_stream_decoder(MAX_DECODER, CONCATENATED);
                let stream = stream.map_err(|e| index(IndexError::Read(io::Error::from(e))))?;
                Box::new(XzDecoder::new_stream(raw, stream))
            }
            Form::Gz => Box::new(MultiGzDecoder::new(raw)),
            Form::Plain => Box::new(raw),
        };
        let silent = |_| {};
        let plain = Checked::new(&name, decoder, self.plain, &silent);
        let mut plain = BufReader::with_capacity(256 << 10, plain);
        build(&mut plain, out).map_err(index)?;
        if self.plain_is_signed { plain.into_inner().finish() } else { Ok(()) }
    }

    fn put(&self, temporary: tempfile::NamedTempFile, path: &Path) -> Result<PackageIndex, RemoteError> {
        temporary.as_file().sync_all().map_err(|source| RemoteError::write(path, source))?;
        temporary.persist(path).map_err(|e| RemoteError::write(path, e.error))?;
        let index = Index::open(Mapped::open(path)?);
        index.map_err(|source| RemoteError::Index { url: path.display().to_string(), source: Box::new(source) })
    }
}
