//! podman and buildah, away from this machine's own images.

use std::fs;
use std::path::{Path, PathBuf};

use crate::world::Person;

/// Their storage below a directory; emptied in the end.
pub struct Podman {
    person: Person,
    directory: PathBuf,
}

impl Podman {
    /// With what hosts without CAP_SYS_RESOURCE and cgroup v2 allow; `driver` is `vfs` or, for large images, `overlay`.
    pub fn new(person: &Person, directory: &Path, driver: &str) -> Self {
        let write = |name: &str, text: String| fs::write(directory.join(name), text).expect("write");
        let limits = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
        let engine = "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
        write("containers.conf", format!("{limits}{engine}"));
        let (root, runroot) = (directory.join("graph"), directory.join("rungraph"));
        let text = format!("[storage]\ndriver = {driver:?}\ngraphroot = {root:?}\nrunroot = {runroot:?}\n");
        write("storage.conf", text);
        write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#.to_owned());
        Self { person: person.clone(), directory: directory.to_owned() }
    }

    pub fn policy(&self) -> String {
        self.directory.join("policy.json").display().to_string()
    }

    /// Loads an archive.
    pub fn load(&self, archive: &str) {
        self.tool("podman", &["load", "--quiet", "--signature-policy", &self.policy(), "--input", archive]);
    }

    /// One of their tools, which must succeed; what it printed.
    pub fn tool(&self, name: &str, words: &[&str]) -> String {
        let output = self.command(name).args(words).output().expect("run it");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name} {words:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn command(&self, name: &str) -> std::process::Command {
        let mut command = self.person.command(name);
        command
            .env("CONTAINERS_CONF", self.directory.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.directory.join("storage.conf"))
            .env("TMPDIR", &self.directory)
            .current_dir(&self.directory);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        drop(self.command("podman").args(["rm", "--all", "--force"]).output());
        drop(self.command("podman").args(["rmi", "--all", "--force"]).output());
    }
}
