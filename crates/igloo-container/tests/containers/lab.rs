//! A sandbox with a busybox image, and ways to run things in it.

use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use igloo_container::{
    Container, ContainerEvent, ContainerSpec, Identity, Ipv4Net, Limits, Mount, MountKind, Sandbox, SandboxConfig, User,
};

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 99, 7, 1);
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Lab {
    pub dir: tempfile::TempDir,
    pub mode: Identity,
    pub sandbox: Sandbox,
    pub image: PathBuf,
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Much of it belongs to users that only exist inside.
        let entries = fs::read_dir(self.dir.path()).unwrap().filter_map(Result::ok);
        entries.for_each(|entry| drop(self.sandbox.remove_tree(&entry.path())));
    }
}

pub struct Outcome {
    pub events: Vec<ContainerEvent>,
    pub output: String,
}

impl Outcome {
    pub fn end(&self) -> &ContainerEvent {
        self.events.last().expect("an event")
    }

    #[track_caller]
    pub fn ok(self) -> String {
        let expected = ContainerEvent::Exited { code: Some(0), signal: None, oom: false };
        assert_eq!(*self.end(), expected, "output: {}", self.output);
        self.output
    }
}

pub struct Running {
    pub container: Container,
    events: mpsc::Receiver<ContainerEvent>,
    output: std::thread::JoinHandle<String>,
}

pub fn busybox() -> Option<PathBuf> {
    let place = |dir: &str| Path::new(dir).join("busybox");
    ["/usr/bin", "/bin"].map(place).into_iter().find(|path| {
        // A dynamic one names its interpreter.
        fs::read(path).is_ok_and(|bytes| !bytes.windows(8).take(4096).any(|w| w == b"/ld-linu"))
    })
}

pub fn ordinary_user() -> Option<(u32, u32)> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let line = text.lines().find(|line| line.starts_with("igloo-test:"))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

impl Lab {
    pub fn new(mode: Identity) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("igloo-container-").tempdir().unwrap();
        let image = dir.path().join("store/nix/store/0000-busybox/data");
        make_image(&image);
        let config = config(dir.path(), mode);
        let sandbox = Sandbox::start(&config).map_err(|e| chain(&e))?;
        Ok(Self { dir, mode, sandbox, image })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A shell script as a container.
    pub fn sh(&self, id: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            id: id.into(),
            hostname: format!("{id}-host"),
            lowers: vec![self.image.clone()],
            state_dir: self.path("containers").join(id),
            args: ["/bin/sh", "-c", script].map(String::from).into(),
            env: vec![("PATH".into(), "/bin".into()), ("GREETING".into(), "hello there".into())],
            user: User { home: "/root".into(), ..User::default() },
            prefix: 24,
            gateway: Some(GATEWAY),
            ..ContainerSpec::default()
        }
    }

    /// This program itself as a container, with the host's libraries; see `probe`.
    pub fn probe(&self, id: &str, args: &[&str]) -> ContainerSpec {
        let exe = self.path("probe");
        if !exe.exists() {
            fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
        }
        let mut spec = self.sh(id, "");
        spec.args = ["/probe", "probe"].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
        let bind = |source: PathBuf, target: &str| Mount {
            kind: MountKind::Bind { source },
            target: target.into(),
            read_only: true,
        };
        spec.mounts.push(bind(exe, "/probe"));
        let dirs = ["/usr/lib", "/lib", "/lib64"].into_iter().filter(|dir| Path::new(dir).exists());
        spec.mounts.extend(dirs.map(|dir| bind(dir.into(), dir)));
        spec
    }

    pub fn start(&self, spec: &ContainerSpec) -> Running {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (sender, events) = mpsc::channel();
        let on_event = Box::new(move |event| drop(sender.send(event)));
        let stderr = writer.try_clone().unwrap();
        let container = self.sandbox.spawn(spec, writer.into(), stderr.into(), on_event).unwrap();
        let output = std::thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        Running { container, events, output }
    }

    /// For specs that may be refused at once.
    pub fn try_spawn(&self, spec: &ContainerSpec) -> Result<Running, String> {
        let null = || fs::File::options().write(true).open("/dev/null").unwrap().into();
        let (sender, events) = mpsc::channel();
        let on_event = Box::new(move |event| drop(sender.send(event)));
        let container = self.sandbox.spawn(spec, null(), null(), on_event).map_err(|e| chain(&e))?;
        Ok(Running { container, events, output: std::thread::spawn(String::new) })
    }

    pub fn run(&self, spec: &ContainerSpec) -> Outcome {
        self.start(spec).finish()
    }

    /// Output of a script that must succeed.
    #[track_caller]
    pub fn out(&self, id: &str, script: &str) -> String {
        self.run(&self.sh(id, script)).ok()
    }
}

impl Running {
    #[track_caller]
    pub fn started(&self) -> u32 {
        match self.events.recv_timeout(PATIENCE).expect("an event") {
            ContainerEvent::Started { pid } => pid,
            other => panic!("not started: {other:?}"),
        }
    }

    pub fn split(self) -> (Container, Rest) {
        (self.container, Rest(self.events))
    }

    /// Everything until its end.
    pub fn finish(self) -> Outcome {
        let mut events = Vec::new();
        loop {
            let event = self.events.recv_timeout(PATIENCE).expect("an event");
            events.push(event);
            if !matches!(events.last(), Some(ContainerEvent::Started { .. })) {
                break;
            }
        }
        Outcome { events, output: self.output.join().unwrap() }
    }
}

/// What is left of a container whose handle is gone.
pub struct Rest(mpsc::Receiver<ContainerEvent>);

impl Rest {
    pub fn finish(self) -> Vec<ContainerEvent> {
        self.0.iter().collect()
    }
}

pub fn config(dir: &Path, mode: Identity) -> SandboxConfig {
    SandboxConfig {
        exe: std::env::current_exe().unwrap(),
        store_root: dir.join("store"),
        run_dir: dir.join("run"),
        project: format!("test-{}", std::process::id()),
        subnet: Some(Ipv4Net { address: GATEWAY, prefix: 24 }),
        identity: Some(mode),
    }
}

pub fn make_image(image: &Path) {
    let busybox = busybox().unwrap();
    for dir in ["bin", "etc", "root", "tmp", "srv/data/deep", "proc", "sys", "dev"] {
        fs::create_dir_all(image.join(dir)).unwrap();
    }
    fs::copy(&busybox, image.join("bin/busybox")).unwrap();
    let list = std::process::Command::new(&busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|name| *name != "busybox") {
        symlink("busybox", image.join("bin").join(applet)).unwrap();
    }
    fs::write(image.join("srv/data/readme"), "from the image\n").unwrap();
    fs::write(image.join("srv/data/deep/file"), "deep\n").unwrap();
    symlink("readme", image.join("srv/data/link")).unwrap();
    fs::write(image.join("etc/hostname"), "image\n").unwrap();
}

/// A process to be killed: starts a sandbox with a container in it, says so, and waits.
pub fn supervise_until_killed(args: &[String]) -> ! {
    let mode: Identity = serde_json::from_str(&args[1]).unwrap();
    let dir = PathBuf::from(&args[0]);
    let sandbox = Sandbox::start(&config(&dir, mode)).unwrap();
    let spec = ContainerSpec {
        id: "victim".into(),
        lowers: vec![dir.join("store/nix/store/0000-busybox/data")],
        state_dir: dir.join("containers/victim"),
        args: ["/bin/sh", "-c", "sleep 1000 & sleep 1001"].map(String::from).into(),
        env: vec![("PATH".into(), "/bin".into())],
        address: Some(Ipv4Addr::new(10, 99, 7, 50)),
        prefix: 24,
        limits: Limits::default(),
        ..ContainerSpec::default()
    };
    let null = || fs::File::options().write(true).open("/dev/null").unwrap().into();
    let on_event = Box::new(|event| {
        if let ContainerEvent::Started { pid } = event {
            println!("{pid}");
        } else {
            println!("{event:?}");
        }
    });
    let _container = sandbox.spawn(&spec, null(), null(), on_event).unwrap();
    loop {
        std::thread::park();
    }
}

pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
