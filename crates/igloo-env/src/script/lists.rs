//! The commands that scripts use and igloo need not do, or does elsewhere.

/// Commands that change nothing that an environment holds: they ask, talk, or do what only a running machine needs.
#[rustfmt::skip]
pub(super) const HARMLESS: &[&str] = &[
    // Questions and talk.
    "awk", "base64", "cmp", "comm", "cut", "date", "df", "diff", "dpkg-architecture", "dpkg-query", "dpkg-vendor",
    "du", "egrep", "expr", "fgrep", "file", "find", "free", "gawk", "grep", "head", "hostname", "id", "less",
    "locale", "logger", "ls", "lsb_release", "mawk", "md5sum", "mktemp", "more", "nproc", "od", "pgrep", "pidof",
    "ps", "pwd", "readlink", "realpath", "rev", "seq", "sha1sum", "sha256sum", "sort", "stat", "sum", "tac", "tail",
    "tempfile", "tput", "tr", "tty", "uname", "uniq", "wc", "whoami", "xargs", "findmnt", "mountpoint", "ischroot",
    "getconf", "dpkg-trigger", "dpkg-maintscript-helper", "dpkg-list-manpages", "deb-systemd-helper",
    "deb-systemd-invoke", "debconf-communicate", "debconf-show", "local_debconf", "getopt", "jobs", "wall", "sleep",
    "wait", "sync", "kill", "killall", "pkill", "ucfr", "ucfq", "apt-config",
    // Shell words that only the shell knows.
    "alias", "hash", "set", "shopt", "times", "trap", "ulimit", "umask", "unalias", "getopts", "cd", "chdir", "let",
    // Services are started by igloo, not by packages.
    "invoke-rc.d", "service", "start-stop-daemon", "systemctl", "update-rc.d", "initctl", "telinit", "rc-service",
    "runit-helper", "runlevel", "pam_getenv", "update-inetd", "systemd-run", "udevadm", "sysctl", "modprobe",
    "depmod", "update-initramfs", "update-grub", "swapon", "loginctl", "dbus-send", "busctl", "crontab",
    // The machine's security modules and devices.
    "aa-status", "apparmor_parser", "aa-enabled", "restorecon", "selinuxenabled", "semodule", "setcap", "getcap",
    "chcon", "chattr", "mknod", "makedev", "MAKEDEV", "mount", "umount", "ip", "iptables", "ifup", "ifdown",
    // Byte code and indexes of documentation: made when used, if at all.
    "py3compile", "py3clean", "pycompile", "pyclean", "pypy3compile", "pypycompile", "mandb", "install-info",
    "update-info-dir", "install-docs", "update-command-not-found", "xemacs-package", "emacs-package-install",
    "emacs-package-remove", "emacs-install", "emacsen-common", "ispell-autobuildhash", "validlocale",
    // Left for dpkg's own state, which is not there.
    "update-passwd", "dpkg-reconfigure", "update-menus", "update-app-install",
];

/// Caches of desktops and fonts: programs work without, slower or plainer. Reported as such.
#[rustfmt::skip]
pub(super) const CACHES: &[&str] = &[
    "fc-cache", "glib-compile-schemas", "gtk-update-icon-cache", "update-icon-caches", "update-mime-database",
    "update-desktop-database", "update-mime", "gio-querymodules", "gdk-pixbuf-query-loaders", "update-fonts-alias",
    "update-fonts-scale", "update-fonts-dir", "mkfontscale", "mkfontdir", "update-gconf-defaults", "appstreamcli",
    "systemd-hwdb", "journalctl", "update-pciids", "update-usbids", "gio-launch-desktop", "update-gtk-immodules",
    "gtk-query-immodules-2.0", "gtk-query-immodules-3.0", "update-update-notifier", "helpztags", "update-gsfontmap",
    "update-catalog", "emacs-install", "emacs-package-install", "update-xmlcatalog", "gtk-query-immodules",
];

/// What makes secrets or state: for a service's first start, never for an environment.
#[rustfmt::skip]
pub(super) const FIRST_START: &[&str] = &[
    "pg_createcluster", "pg_upgradecluster", "pg_ctlcluster", "mysql_install_db", "mariadb-install-db", "ssh-keygen",
    "make-ssl-cert", "dbus-uuidgen", "uuidgen", "systemd-machine-id-setup", "rabbitmqctl", "unbound-anchor",
    "unbound-control-setup", "rndc-confgen", "openssl", "mcookie", "pwgen", "mysqladmin", "mariadb-admin", "psql",
    "mysql", "mariadb", "systemd-random-seed", "newaliases", "postalias", "postmap", "nft", "apg", "sss_cache",
    "nscd",
];

/// Commands that one of igloo's triggers does for the whole environment, and the trigger's name.
#[rustfmt::skip]
pub(super) const TRIGGERS: &[(&str, &str)] = &[
    ("ldconfig", "ld.so.cache"), ("systemd-tmpfiles", "tmpfiles"), ("systemd-sysusers", "users"),
    ("update-ca-certificates", "certificates"), ("pam-auth-update", "pam"), ("update-shells", "shells"),
    ("locale-gen", "locales"), ("update-locale", "locales"), ("localedef", "locales"), ("shadowconfig", "passwd"),
    ("pwconv", "passwd"), ("grpconv", "passwd"), ("pwck", "passwd"), ("grpck", "passwd"),
];
