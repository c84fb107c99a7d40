//! The keys of every table of `igloo.toml`: the one place that the parser and the published schema both read.

/// A table with known keys.
pub(crate) struct Table {
    /// What messages call it, with its article: `a service`.
    pub(crate) what: &'static str,
    /// What editors say about it.
    pub(crate) doc: &'static str,
    /// Its keys.
    pub(crate) keys: &'static [Key],
}

/// A key of a table.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) kind: Kind,
    /// What editors say about it.
    pub(crate) doc: &'static str,
    /// What people coming from other tools write instead.
    pub(crate) also: &'static [&'static str],
}

/// What a value may be.
pub(crate) enum Kind {
    /// A text; the pattern is for editors, the parser is stricter and says more.
    Text(Option<&'static str>),
    /// One of some words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A whole number from .. to.
    Integer(i64, i64),
    /// A number above zero.
    Number,
    /// An array.
    List(&'static Kind),
    /// A table with free keys that match the pattern, if there is one.
    Map(Option<&'static str>, &'static Kind),
    /// A table with known keys.
    Table(&'static Table),
    /// Any of these.
    Any(&'static [Kind]),
}

pub(crate) const NAME: &str = "^[a-z0-9][a-z0-9_-]{0,63}$";
const SET_NAME: &str = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$";
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
const DURATION: &str = "^[0-9]+(ms|s|m|h)$";
const SIZE: &str = "^[0-9]+([KMGT](iB|B)?|B)$";
const ABSOLUTE: &str = "^/";
const MODE: &str = "^0?[0-7]{3}$";
const FULL_MODE: &str = "^0?[0-7]{3,4}$";
const SUITE: &str = "^[a-z0-9][a-z0-9._/-]*$";
const OF: &str = "^(shells|services)\\.[a-z0-9][a-z0-9_-]*$";
const PORT: &str = "^((.*|auto):)?[0-9]+(/(tcp|udp))?$";
const TCP: &str = "^(.+:)?[0-9]+$";
const HTTP: &str = "^(http://|/)";
const SNAPSHOT: &str = "^[0-9]{8}T[0-9]{6}Z$|^[0-9]{4}-[0-9]{2}-[0-9]{2}$";
const SPEC: &str = "^(@|!|[a-z]+:)?.+$";

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, required: false, kind, doc, also: &[] }
}

impl Key {
    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn also(mut self, names: &'static [&'static str]) -> Self {
        self.also = names;
        self
    }
}

const TEXT: Kind = Kind::Text(None);
static TEXT_REF: Kind = TEXT;
static SPEC_REF: Kind = Kind::Text(Some(SPEC));
const SPECS: Kind = Kind::List(&SPEC_REF);
static SPECS_REF: Kind = SPECS;
const COMMAND: Kind = Kind::List(&TEXT_REF);
const BASE: Kind = Kind::Choice(&["none", "minimal", "essential"]);

// What shells, services and images share.
const PACKAGES: Key = key(
    "packages",
    SPECS,
    "The packages in it: `name`, `name=version`, `name/suite`, `source:name`, `@set`, `!name` to leave one out, `flake:REF`.",
)
.also(&["image", "deps", "dependencies", "build"]);
const ENV: Key =
    key("env", Kind::Map(Some(VARIABLE), &TEXT_REF), "Environment variables.").also(&["environment", "variables"]);
const USER: Key = key("user", TEXT, "Who runs in it: `name`, `name:group`, `uid` or `uid:gid`.");
const WORKDIR: Key =
    key("workdir", Kind::Text(Some(ABSOLUTE)), "Where it runs, an absolute path.").also(&["working_dir", "cwd"]);
const COPY_KEY: Key =
    key("copy", Kind::List(&COPY_REF), "The project's own files to put in, as a store object.").also(&["add"]);
const RECOMMENDS: Key = key("recommends", Kind::Flag, "Whether recommended packages come along.");
const BASE_KEY: Key = key("base", BASE, "What it starts from, instead of what the source says.");

static COPY_REF: Kind = Kind::Table(&COPY);

pub(crate) static ROOT: Table = Table {
    what: "the manifest",
    doc: "An Igloo project.",
    keys: &[
        key("project", Kind::Table(&PROJECT), "`[project]` with the project's name.").required(),
        key("sources", Kind::Table(&SOURCES), "Where packages come from.").also(&["source"]),
        key(
            "sets",
            Kind::Map(Some(SET_NAME), &SPECS_REF),
            "Named lists of packages, used as `@name`. A set with a built-in one's name replaces it; `@name` in it means the built-in one.",
        ),
        key("shells", Kind::Map(Some(NAME), &SHELL_REF), "Environments to work in: `igloo shell [NAME]`.")
            .also(&["shell"]),
        key("services", Kind::Map(Some(NAME), &SERVICE_REF), "What runs: `igloo up`.").also(&["service"]),
        key(
            "tasks",
            Kind::Map(Some(NAME), &TASK_REF),
            "What runs once: `igloo task NAME`, or before the services that need it.",
        )
        .also(&["task", "jobs"]),
        key("images", Kind::Map(Some(NAME), &IMAGE_REF), "OCI images: `igloo image build`.").also(&["image"]),
        key("vm", Kind::Table(&VM), "The virtual machine for `isolation = \"vm\"`, and for everything on macOS."),
        key(
            "scripts",
            Kind::Map(None, &DECISION_REF),
            "What is done about the maintainer scripts of a package that no trigger covers.",
        ),
    ],
};

static SHELL_REF: Kind = Kind::Table(&SHELL);
static SERVICE_REF: Kind = Kind::Table(&SERVICE);
static TASK_REF: Kind = Kind::Table(&TASK);
static IMAGE_REF: Kind = Kind::Table(&IMAGE);
static DECISION_REF: Kind = Kind::Choice(&["ignore", "recipe", "sandbox"]);
static LOOSEN_REF: Kind = Kind::Choice(&["sandboxes"]);
static SYSTEM_REF: Kind = Kind::Choice(&["x86_64-linux", "amd64", "aarch64-linux", "arm64"]);
static SUITE_REF: Kind = Kind::Text(Some(SUITE));

pub(crate) static PROJECT: Table = Table {
    what: "`[project]`",
    doc: "The project.",
    keys: &[
        key("name", Kind::Text(Some(NAME)), "The project's name.").required(),
        key(
            "source",
            Kind::Choice(&["debian", "nixpkgs"]),
            "Where names without a prefix are looked up: the only source, else `debian`, unless said.",
        ),
        key("systems", Kind::List(&SYSTEM_REF), "The systems to lock for; the machine's own unless said.").also(&[
            "system",
            "platforms",
            "architectures",
        ]),
    ],
};

pub(crate) static SOURCES: Table = Table {
    what: "`[sources]`",
    doc: "Where packages come from.",
    keys: &[
        key("debian", Kind::Table(&DEBIAN), "A Debian archive: needs no Nix and no root."),
        key("nixpkgs", Kind::Table(&NIXPKGS), "A flake; locked with `nix`, used without it.").also(&["nix"]),
    ],
};

pub(crate) static DEBIAN: Table = Table {
    what: "`[sources.debian]`",
    doc: "A Debian archive.",
    keys: &[
        key("suite", Kind::Text(Some(SUITE)), "The main suite, `bookworm`.").required().also(&[
            "release",
            "codename",
            "distribution",
        ]),
        key(
            "suites",
            Kind::List(&SUITE_REF),
            "Every suite to read, the main one among them; with its updates and security unless said.",
        ),
        key("components", Kind::List(&TEXT_REF), "Components of the archive, `[\"main\"]` unless said."),
        key("url", TEXT, "The archive's address; the machine's apt configuration decides unless said.")
            .also(&["uri", "mirror"]),
        key("security-url", TEXT, "The address of the archive of `-security` suites."),
        key("keyring", TEXT, "The keys that may sign it, relative to this file.").also(&["signed-by", "key"]),
        key("snapshot", Kind::Text(Some(SNAPSHOT)), "A moment of the dated archive, `20250520T000000Z`."),
        key("base", BASE, "What every environment starts from, `minimal` unless said."),
        RECOMMENDS,
    ],
};

pub(crate) static NIXPKGS: Table = Table {
    what: "`[sources.nixpkgs]`",
    doc: "A flake of nixpkgs' shape.",
    keys: &[
        key(
            "flake",
            TEXT,
            "A flake reference, `github:NixOS/nixpkgs/nixos-25.11`; or a pin of npins or niv, `npins:nixpkgs`, `niv:nixpkgs`.",
        )
        .required()
        .also(&["url", "pin"]),
        key("overlays", Kind::List(&TEXT_REF), "Overlays: files, or directories of them, relative to this file.").also(&["overlay"]),
        key("allow-unfree", Kind::Flag, "Whether packages without a free licence may be used.").also(&["allowUnfree"]),
        key("permitted-insecure", Kind::List(&TEXT_REF), "Packages with known faults that may be used, `openssl-1.1.1w`.")
            .also(&["permittedInsecurePackages", "permittedInsecure"]),
        key("caches", Kind::List(&TEXT_REF), "Binary caches, asked before those that Nix is configured with.")
            .also(&["substituters", "cache"]),
        key("trusted-keys", Kind::List(&TEXT_REF), "Public keys of caches, `name:base64`; beside those that Nix trusts.")
            .also(&["trusted-public-keys", "keys"]),
    ],
};

pub(crate) static COPY: Table = Table {
    what: "a copy",
    doc: "A file or directory of the project that becomes part of the environment.",
    keys: &[
        key("from", TEXT, "A path in the project, relative to this file.").required().also(&["source", "src"]),
        key("to", Kind::Text(Some(ABSOLUTE)), "An absolute path in the environment.")
            .required()
            .also(&["target", "dest"]),
        key("mode", Kind::Text(Some(MODE)), "The mode of the files, `0755`; their own unless said.").also(&["chmod"]),
        key("exclude", Kind::List(&TEXT_REF), "What stays out: names, `*.pyc`, or paths below `from`, `docs/build`.")
            .also(&["ignore", "except"]),
    ],
};

pub(crate) static SHELL: Table = Table {
    what: "a shell",
    doc: "An environment to work in.",
    keys: &[
        PACKAGES,
        ENV,
        USER,
        WORKDIR,
        COPY_KEY,
        RECOMMENDS,
        BASE_KEY,
        key("isolation", ISOLATION, "How far it is from your machine, `host` unless said."),
        key("hook", TEXT, "Shell commands to run on entry.").also(&["shellHook", "shell-hook", "run"]),
    ],
};

const ISOLATION: Kind = Kind::Choice(&["host", "pure", "container", "vm"]);
static VOLUME_REF: Kind = TEXT;
static PORT_REF: Kind = Kind::Any(&[Kind::Text(Some(PORT)), Kind::Integer(1, 65535)]);

pub(crate) static SERVICE: Table = Table {
    what: "a service",
    doc: "Something that runs.",
    keys: &[
        PACKAGES,
        ENV,
        USER,
        WORKDIR,
        COPY_KEY,
        RECOMMENDS,
        BASE_KEY,
        key("run", COMMAND, "The command, as a list of words; no shell is involved. An image has one of its own.")
            .also(&["command", "cmd", "exec", "start"]),
        key("image", TEXT, "Instead of packages: somebody else's image, `HOST/NAME:TAG`, `oci:DIR` or `./FILE.tar`."),
        key("entrypoint", COMMAND, "Words before the command of an image, instead of the image's own."),
        key("setup", COMMAND, "A command to run once before the first start, while the volumes are empty.")
            .also(&["pre-start"]),
        NEEDS,
        key("volumes", Kind::List(&VOLUME_REF), "`name:/target`, `./path:/target:ro`, `tmpfs:/target:size=64M`.")
            .also(&["mounts"]),
        key(
            "ports",
            Kind::List(&PORT_REF),
            "`5432`, `8080:5000`, `0.0.0.0:8080:5000`, `53:53/udp`; `auto:5000` takes a free port. On 127.0.0.1 unless said.",
        )
        .also(&["publish", "expose"]),
        key("ready", Kind::Table(&READY), "How to see that it is ready.").also(&["probe", "startup"]),
        key("health", Kind::Table(&HEALTH), "How to see, from then on, that it is still well.").also(&["healthcheck", "liveness"]),
        key(
            "restart",
            Kind::Any(&RESTART_KINDS),
            "When it is started again: `no`, `on-failure` (unless said), `on-failure:3`, `always`, `unless-stopped`, or a table.",
        ),
        key("reload", Kind::Any(&RELOAD_KINDS), "What `igloo reload` does: a signal, `SIGHUP`, or a command that is run inside."),
        key(
            "profiles",
            Kind::List(&NAME_REF),
            "It is only brought up by `up --profile` with one of these, or when it is named or needed.",
        ),
        key("replicas", Kind::Integer(1, 100), "How many of it there are, 1 unless said; they share its name.").also(&["scale"]),
        key("watch", Kind::List(&WATCH_REF), "What `up --watch` does when files of the project change.").also(&["develop"]),
        key("limits", Kind::Table(&LIMITS), "What it may use.").also(&["resources", "deploy"]),
        key(
            "loosen",
            Kind::List(&LOOSEN_REF),
            "What of the isolation is given up: `sandboxes` lets its programs make namespaces and mounts of their own.",
        )
        .also(&["cap_add", "security_opt", "privileged"]),
        key(
            "env-file",
            Kind::List(&TEXT_REF),
            "Files of `NAME=value` lines, relative to this file; later ones win, and `env` wins over all.",
        )
        .also(&["env_file", "envfile"]),
        key("secrets", Kind::Map(Some(SECRET_NAME), &SECRET_REF), "What it alone can read, below /run/secrets.")
            .also(&["secret"]),
        key(
            "init",
            Kind::Choice(&["system"]),
            "`system`: its program is the init of a whole system, `/sbin/init` unless `run` says another.",
        ),
        key(
            "network",
            Kind::Choice(&["none", "internal", "open"]),
            "What it reaches: itself, the project's services (unless said), or other machines by TCP as well.",
        )
        .also(&["network_mode", "networks"]),
        key(
            "host",
            Kind::List(&HOST_PORT_REF),
            "Ports of this machine's 127.0.0.1 that it reaches at `host.igloo`.",
        )
        .also(&["extra_hosts"]),
        key("read-only", Kind::Flag, "`true`: its root can't be written; volumes can.").also(&["read_only", "readonly"]),
        key("stop-signal", TEXT, "The signal that asks it to stop, `SIGTERM` unless said."),
        key("stop-grace", Kind::Text(Some(DURATION)), "How long it has before it is killed, `10s` unless said.")
            .also(&["stop_grace_period", "stop-timeout"]),
        key("isolation", ISOLATION, "How far it is from your machine, `container` unless said."),
        key("hostname", TEXT, "Its host name; the service's name unless said."),
    ],
};

static HOST_PORT_REF: Kind = Kind::Integer(1, 65535);
static SECRET_REF: Kind = Kind::Table(&SECRET);
const SECRET_NAME: &str = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,126}$";

pub(crate) static SECRET: Table = Table {
    what: "a secret",
    doc: "Where a secret comes from: exactly one of file, env and command. It is read when services are brought up.",
    keys: &[
        key("file", TEXT, "A file, relative to this one."),
        key("env", TEXT, "A variable of whoever runs `igloo up`.").also(&["environment"]),
        key("command", COMMAND, "A command on this machine that prints it: `[\"pass\", \"show\", \"db\"]`.")
            .also(&["exec", "run"]),
    ],
};

const NEEDS: Key = key(
    "needs",
    Kind::List(&NEED_REF),
    "What must be ready first: names, or `{ service = \"migrate\", condition = \"completed\" }`.",
)
.also(&["depends_on", "depends-on", "requires"]);
static NEED_KINDS: [Kind; 2] = [TEXT, Kind::Table(&NEED)];
static NEED_REF: Kind = Kind::Any(&NEED_KINDS);
static NAME_REF: Kind = Kind::Text(Some(NAME));
static WATCH_REF: Kind = Kind::Table(&WATCH);
static RESTART_KINDS: [Kind; 2] = [Kind::Text(Some(RESTART_WORD)), Kind::Table(&RESTART)];
static RELOAD_KINDS: [Kind; 2] = [TEXT, COMMAND];
const RESTART_WORD: &str = "^(no|on-failure(:[0-9]+)?|always|unless-stopped)$";
static STATUS_KINDS: [Kind; 3] = [Kind::Integer(100, 599), Kind::Text(Some(STATUS)), Kind::List(&STATUS_ITEM_REF)];
static STATUS_ITEMS: [Kind; 2] = [Kind::Integer(100, 599), Kind::Text(Some(STATUS))];
static STATUS_ITEM_REF: Kind = Kind::Any(&STATUS_ITEMS);
const STATUS: &str = "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$";

pub(crate) static NEED: Table = Table {
    what: "a need",
    doc: "What must be reached before a service starts.",
    keys: &[
        key("service", Kind::Text(Some(NAME)), "A service or task.").required().also(&["name", "task"]),
        key(
            "condition",
            Kind::Choice(&["started", "ready", "completed"]),
            "What it must have reached, `ready` unless said.",
        ),
    ],
};

pub(crate) static RESTART: Table = Table {
    what: "`restart`",
    doc: "When and how a service is started again.",
    keys: &[
        key(
            "policy",
            Kind::Choice(&["no", "on-failure", "always", "unless-stopped"]),
            "When, `on-failure` unless said.",
        ),
        key(
            "tries",
            Kind::Integer(1, 1_000_000),
            "Given up after so many ends in a row; 5 for `on-failure`, else never.",
        )
        .also(&["max_attempts", "max-attempts", "max_retries"]),
        key(
            "first",
            Kind::Text(Some(DURATION)),
            "The first pause, `100ms` unless said; each further one is twice as long.",
        )
        .also(&["delay"]),
        key("most", Kind::Text(Some(DURATION)), "The longest pause, `30s` unless said.").also(&["max"]),
        key(
            "healthy",
            Kind::Text(Some(DURATION)),
            "One that was ready so long is forgiven all ends before, `10s` unless said.",
        )
        .also(&["window"]),
    ],
};

pub(crate) static WATCH: Table = Table {
    what: "a watch",
    doc: "What is done when files change while `up --watch` runs.",
    keys: &[
        key("path", TEXT, "A file or directory of the project, relative to this file.").required(),
        key("action", Kind::Choice(&["restart", "reload", "sync"]), "What is done, `restart` unless said."),
        key("to", Kind::Text(Some(ABSOLUTE)), "For `sync`: where in the service it is copied to.").also(&["target"]),
        key("run", COMMAND, "For `sync`: a command that is run inside after it.").also(&["exec"]),
        key("ignore", Kind::List(&TEXT_REF), "What doesn't count: names, `*.pyc`, or paths below `path`.")
            .also(&["exclude"]),
    ],
};

const STATUS_KEY: Key = key(
    "status",
    Kind::Any(&STATUS_KINDS),
    "For http: good statuses, `200` or `[200, \"300-399\"]`; 200 to 399 unless said.",
);
const HEADERS: Key = key("headers", Kind::Map(None, &TEXT_REF), "For http: headers that are sent along.");

pub(crate) static HEALTH: Table = Table {
    what: "`health`",
    doc: "How to see that a service which was ready is still well: exactly one of exec, tcp, http and notify.",
    keys: &[
        key("exec", COMMAND, "A command that succeeds inside the service.").also(&["test", "command", "run"]),
        key("tcp", Kind::Any(&TCP_KINDS), "A port that accepts, `5432` or `host:5432`.").also(&["port"]),
        key(
            "http",
            Kind::Text(Some(HTTP)),
            "An address, or a path on the service's first port, that answers with success.",
        )
        .also(&["url", "path"]),
        key("notify", Kind::Flag, "`true`: it says WATCHDOG=1 on $NOTIFY_SOCKET at least once in `interval`.")
            .also(&["watchdog"]),
        STATUS_KEY,
        HEADERS,
        key("interval", Kind::Text(Some(DURATION)), "How long between two looks, `10s` unless said."),
        key("timeout", Kind::Text(Some(DURATION)), "How long a look may take, `5s` unless said."),
        key("retries", Kind::Integer(1, 1000), "So many failed looks in a row are an illness, 3 unless said."),
        key("on-unhealthy", Kind::Choice(&["restart", "stop", "ignore"]), "What is done then, `restart` unless said.")
            .also(&["on_unhealthy"]),
    ],
};

pub(crate) static TASK: Table = Table {
    what: "a task",
    doc: "Something that runs once: by hand, or before the services that need it with the condition `completed`.",
    keys: &[
        PACKAGES,
        ENV,
        USER,
        WORKDIR,
        COPY_KEY,
        RECOMMENDS,
        BASE_KEY,
        key(
            "of",
            Kind::Text(Some(NAME)),
            "The service whose environment, user, variables and volumes it has, instead of packages of its own.",
        )
        .also(&["service", "from"]),
        key("run", COMMAND, "The command, as a list of words; no shell is involved.").required().also(&[
            "command",
            "cmd",
            "entrypoint",
            "exec",
            "start",
        ]),
        NEEDS,
        key("volumes", Kind::List(&VOLUME_REF), "`name:/target`, `./path:/target:ro`, `tmpfs:/target:size=64M`.")
            .also(&["mounts"]),
        key("limits", Kind::Table(&LIMITS), "What it may use.").also(&["resources", "deploy"]),
        key("every", Kind::Text(Some(DURATION)), "It is run so often while the project is up: `15m`.")
            .also(&["schedule", "interval"]),
    ],
};

static TCP_KINDS: [Kind; 2] = [Kind::Text(Some(TCP)), Kind::Integer(1, 65535)];

pub(crate) static READY: Table = Table {
    what: "`ready`",
    doc: "How to see that a service is ready: exactly one of exec, tcp, http, notify and log.",
    keys: &[
        key("exec", COMMAND, "A command that succeeds inside the service.").also(&["test", "command", "run"]),
        key("tcp", Kind::Any(&TCP_KINDS), "A port that accepts, `5432` or `host:5432`.").also(&["port"]),
        key(
            "http",
            Kind::Text(Some(HTTP)),
            "An address, or a path on the service's first port, that answers with success.",
        )
        .also(&["url", "path"]),
        key("notify", Kind::Flag, "`true`: the service says so itself, with READY=1 on $NOTIFY_SOCKET."),
        STATUS_KEY,
        HEADERS,
        key("log", TEXT, "A regular expression that a line of its output matches."),
        key("timeout", Kind::Text(Some(DURATION)), "How long until the start has failed, `60s` unless said."),
        key("interval", Kind::Text(Some(DURATION)), "How long between two tries, `200ms` unless said."),
    ],
};

pub(crate) static LIMITS: Table = Table {
    what: "`limits`",
    doc: "What a service may use.",
    keys: &[
        key("memory", Kind::Text(Some(SIZE)), "Memory, `512M`.").also(&["mem", "mem_limit"]),
        key("cpus", Kind::Number, "Processors, also parts of one: `1.5`.").also(&["cpu"]),
        key("pids", Kind::Integer(1, 4_194_304), "Processes and threads, 4096 unless said.")
            .also(&["pids_limit", "processes"]),
        key("shm", Kind::Text(Some(SIZE)), "Shared memory in /dev/shm, `64M` unless said.")
            .also(&["shm_size", "shm-size"]),
        key(
            "nofile",
            Kind::Integer(1, 1_073_741_816),
            "Open files of each process; no more than you may have yourself.",
        )
        .also(&["ulimits", "ulimit", "files"]),
    ],
};

pub(crate) static IMAGE: Table = Table {
    what: "an image",
    doc: "An OCI image.",
    keys: &[
        PACKAGES,
        ENV,
        USER,
        WORKDIR,
        COPY_KEY,
        RECOMMENDS,
        BASE_KEY,
        key("of", Kind::Text(Some(OF)), "The shell or service whose environment it holds, `services.web`.")
            .also(&["from"]),
        key("kind", Kind::Choice(&["runtime", "devcontainer", "builder"]), "What it is for, `runtime` unless said.")
            .also(&["type"]),
        key("name", TEXT, "Its name in a registry, `registry.example/acme/guestbook`.").also(&["tag", "repository"]),
        key("run", COMMAND, "The command, as a list of words; the service's own unless said.")
            .also(&["command", "cmd"]),
        key("entrypoint", COMMAND, "Words that come before the command, whatever command it is run with."),
        key("labels", Kind::Map(None, &TEXT_REF), "Labels of its configuration.").also(&["label"]),
        key("annotations", Kind::Map(None, &TEXT_REF), "Annotations of its manifest.").also(&["annotation"]),
        key(
            "ports",
            Kind::List(&PORT_REF),
            "Ports that it says it listens on, `8080` or `53/udp`; those of the service unless said.",
        )
        .also(&["expose"]),
        key(
            "volumes",
            Kind::List(&ABSOLUTE_REF),
            "Directories that it says it keeps data in; those of the service's named volumes unless said.",
        )
        .also(&["volume"]),
        key("stop-signal", TEXT, "The signal that asks it to stop; the service's own unless said.")
            .also(&["stop_signal"]),
        key("healthcheck", Kind::Table(&HEALTHCHECK), "How to see that it is well; the service's `ready` unless said.")
            .also(&["health", "ready"]),
        key("files", Kind::List(&IMAGE_FILE_REF), "Files that are made for it.").also(&["file"]),
        key("compression", Kind::Choice(&["zstd", "gzip"]), "How its layers are compressed, `zstd` unless said."),
        key(
            "account",
            Kind::Text(Some(NAME)),
            "Login name of the ordinary user (id 1000) that the image adds and runs as; `app`, or `vscode` in a devcontainer.",
        ),
        key(
            "nix-db",
            Kind::Flag,
            "`true`: Nix works in it, as its user: a database of its store paths, and a store to write to.",
        )
        .also(&["includeNixDb", "includeNixDB", "nix-database"]),
    ],
};

static ABSOLUTE_REF: Kind = Kind::Text(Some(ABSOLUTE));
static IMAGE_FILE_REF: Kind = Kind::Table(&IMAGE_FILE);

pub(crate) static HEALTHCHECK: Table = Table {
    what: "`healthcheck`",
    doc: "How docker and podman see that a container of the image is well.",
    keys: &[
        key("exec", COMMAND, "A command that succeeds inside the container.")
            .required()
            .also(&["test", "command", "run"]),
        key("interval", Kind::Text(Some(DURATION)), "Between two checks."),
        key("timeout", Kind::Text(Some(DURATION)), "Of one check."),
        key("start-period", Kind::Text(Some(DURATION)), "Before failures count.").also(&["start_period"]),
        key("retries", Kind::Integer(1, 1000), "How many failures make it unhealthy."),
    ],
};

pub(crate) static IMAGE_FILE: Table = Table {
    what: "a file of an image",
    doc: "A file that is made for an image: exactly one of text, from, link and directory.",
    keys: &[
        key("path", Kind::Text(Some(ABSOLUTE)), "An absolute path in the image.").required().also(&["to"]),
        key("text", TEXT, "What is in it.").also(&["content"]),
        key("from", TEXT, "A file of the project that it is a copy of, relative to this file.").also(&["source"]),
        key("link", TEXT, "It is a symlink to this.").also(&["target"]),
        key("directory", Kind::Flag, "`true`: it is an empty directory.").also(&["dir"]),
        key("mode", Kind::Text(Some(FULL_MODE)), "Its mode, `0644`; of directories `0755`.").also(&["chmod"]),
        key("owner", TEXT, "Who owns it: `name`, `name:group`, `uid` or `uid:gid`; root unless said.")
            .also(&["user", "chown"]),
    ],
};

pub(crate) static VM: Table = Table {
    what: "`[vm]`",
    doc: "A virtual machine.",
    keys: &[
        key("cpus", Kind::Integer(1, 1024), "Processors.").also(&["cpu"]),
        key("memory", Kind::Text(Some(SIZE)), "Memory, `8G`.").also(&["mem", "ram"]),
        key("disk", Kind::Text(Some(SIZE)), "Disk, `40G`."),
    ],
};
