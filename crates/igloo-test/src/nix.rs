//! Real Nix, on stores of our own: `tests/nixpkgs` built once for all tests of this checkout, kept between runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use igloo_base::Sha256;
use igloo_base::file::{FileLock, read_optional, write_atomic};
use igloo_formats::nix::StorePath;

/// A store below a directory, and Nix to look at it with.
#[derive(Debug, Clone)]
pub struct NixStore {
    /// `local?root=` of it.
    pub root: PathBuf,
    /// Where Nix's commands are, if not on PATH.
    pub bin: Option<PathBuf>,
}

impl NixStore {
    /// The store below `root`, which need not be there yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), bin: None }
    }

    /// The same, looked at by the Nix whose commands are in a directory.
    pub fn by(self, bin: Option<&Path>) -> Self {
        Self { bin: bin.map(Path::to_owned), ..self }
    }

    /// The address of it.
    pub fn url(&self) -> String {
        format!("local?root={}", self.root.display())
    }

    /// A command of Nix on this store, with the settings of `tests/nixpkgs`.
    pub fn command(&self, program: &str) -> Command {
        let home = self.root.join("nix-home");
        std::fs::create_dir_all(&home).expect("create a directory");
        let program = self.bin.as_ref().map_or_else(|| PathBuf::from(program), |bin| bin.join(program));
        let mut command = Command::new(program);
        command.env("NIX_CONF_DIR", fixture_dir()).env("HOME", &home).env("NIX_REMOTE", self.url());
        for name in ["NIX_CONFIG", "NIX_USER_CONF_FILES", "NIX_PATH", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command of Nix.
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program).args(args).output().expect("run nix")
    }

    /// Runs a command of Nix that must succeed: what it wrote to both sides.
    pub fn ok(&self, program: &str, args: &[&str]) -> String {
        let output = self.run(program, args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{program} {args:?}\n{out}{err}");
        format!("{out}{err}")
    }

    /// Has Nix check the store, contents included; nothing may be wrong.
    pub fn check(&self) {
        let said = self.ok("nix-store", &["--verify", "--check-contents"]);
        for word in ["differs", "disappeared", "error", "modified", "unexpected"] {
            assert!(!said.contains(word), "{said}");
        }
    }

    /// Makes a key below `dir`: the file of the secret half, and the public half.
    pub fn key(&self, dir: &Path, name: &str) -> (PathBuf, String) {
        let (secret, public) = (dir.join(format!("{name}.secret")), dir.join(format!("{name}.public")));
        let (s, p) = (secret.display().to_string(), public.display().to_string());
        self.ok("nix-store", &["--generate-binary-cache-key", name, &s, &p]);
        (secret, std::fs::read_to_string(public).expect("the public key"))
    }
}

/// `tests/nixpkgs`.
pub fn fixture_dir() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/nixpkgs");
    dir.canonicalize().expect("tests/nixpkgs")
}

/// Packages that were built. The store must not be changed: copy from it.
#[derive(Debug)]
pub struct Fixture {
    /// The store they are in.
    pub store: NixStore,
    /// Store paths by `attribute` or `attribute.output`.
    pub paths: BTreeMap<String, StorePath>,
}

impl Fixture {
    /// The path of `hello`, `libgreet.dev`, …
    pub fn path(&self, attribute: &str) -> &StorePath {
        self.paths.get(attribute).unwrap_or_else(|| panic!("{attribute} is not among what is built"))
    }
}

/// What is built of the set.
const BUILT: [(&str, &str); 7] = [
    ("hello", "hello"),
    ("git", "git"),
    ("jq", "jq"),
    ("libgreet", "libgreet"),
    ("libgreet.dev", "libgreet.dev"),
    ("libgreet.bin", "libgreet.bin"),
    ("python312", "python312"),
];

/// The built packages; none, and a line that says why, if there is no Nix here or it cannot build.
pub fn fixture() -> Option<&'static Fixture> {
    static FIXTURE: OnceLock<Option<Fixture>> = OnceLock::new();
    FIXTURE.get_or_init(build).as_ref()
}

fn build() -> Option<Fixture> {
    let version = match Command::new("nix").arg("--version").output() {
        Ok(output) => output.stdout,
        Err(_) => {
            println!("skipped: there is no Nix on this machine");
            return None;
        }
    };
    let dir = fixture_dir();
    let mut inputs = version;
    inputs_of(&dir, &mut inputs);
    let target = std::env::current_exe().ok()?.ancestors().nth(2)?.join("igloo-nixpkgs");
    // Each user has their own, since stores belong to somebody.
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").ok()?);
    let place = target.join(format!("{}-{uid}", &Sha256::of(&inputs).to_string()[..16]));
    std::fs::create_dir_all(&place).expect("create a directory");
    let _one = FileLock::exclusive(place.join("lock")).expect("lock");
    let store = NixStore::at(place.join("root"));
    let done = place.join("paths.json");
    if let Some(text) = read_optional(&done).expect("read") {
        let paths = serde_json::from_slice(&text).expect("paths");
        return Some(Fixture { store, paths });
    }
    let flake = format!("path:{}", dir.display());
    let mut paths = BTreeMap::new();
    for (name, attribute) in BUILT {
        let attribute = format!("{flake}#{attribute}");
        let built = store.run("nix", &["build", "--no-link", "--json", &attribute]);
        if !built.status.success() {
            println!("skipped: Nix cannot build here: {}", String::from_utf8_lossy(&built.stderr));
            return None;
        }
        let json: serde_json::Value = serde_json::from_slice(&built.stdout).expect("json");
        let outputs = json[0]["outputs"].as_object().expect("outputs");
        let wanted = name.split_once('.').map(|(_, output)| output);
        let output = wanted.and_then(|o| outputs.get(o)).or_else(|| outputs.values().next()).expect("an output");
        paths.insert(name.to_owned(), StorePath::parse(output.as_str().expect("a path")).expect("a store path"));
    }
    write_atomic(&done, &serde_json::to_vec(&paths).expect("json")).expect("write");
    Some(Fixture { store, paths })
}

fn inputs_of(dir: &Path, out: &mut Vec<u8>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir).expect("list").map(|e| e.expect("entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            inputs_of(&path, out);
        } else {
            out.extend_from_slice(path.as_os_str().as_encoded_bytes());
            out.extend(std::fs::read(&path).expect("read"));
        }
    }
}
