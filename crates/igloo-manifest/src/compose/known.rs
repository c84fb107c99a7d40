//! Images that Debian has packages for, and how these are run so that they do what the image does.

/// Packages in the place of an image.
pub(super) struct Known {
    /// The last part of the image's name.
    pub(super) image: &'static str,
    pub(super) packages: &'static [&'static str],
    pub(super) user: &'static str,
    pub(super) run: &'static [&'static str],
    /// Once, while the volume is empty.
    pub(super) setup: Option<&'static str>,
    pub(super) ready: &'static str,
    pub(super) stop_signal: Option<&'static str>,
    /// Where its data is, if the file declares no volume for it.
    pub(super) data: Option<&'static str>,
    pub(super) tmpfs: &'static [&'static str],
}

/// As the image's entry point does it: a user, a password, a database, and everybody else by password.
const POSTGRES: &str = r#"
user="${POSTGRES_USER:-postgres}"; data=/var/lib/postgresql/data
printf '%s\n' "${POSTGRES_PASSWORD:?is not set}" > /tmp/password
initdb -D "$data" -U "$user" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8
rm /tmp/password
echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
database="${POSTGRES_DB:-$user}"
[ "$database" = postgres ] || echo "CREATE DATABASE \"$database\"" | postgres --single -D "$data" postgres
"#;

const MARIADB: &str = r#"
mariadb-install-db --datadir=/var/lib/mysql --auth-root-authentication-method=normal --skip-test-db > /dev/null
here=/run/mysqld/setup.sock
mariadbd --no-defaults --datadir=/var/lib/mysql --socket=$here --skip-networking &
until mariadb-admin --no-defaults --socket=$here -u root ping > /dev/null 2>&1; do
    kill -0 $! || exit 1
    sleep 0.1
done
{
    echo "DROP USER IF EXISTS ''@localhost, ''@'$HOSTNAME', root@'$HOSTNAME';"
    [ -z "${MARIADB_DATABASE:-${MYSQL_DATABASE:-}}" ] || echo "CREATE DATABASE \`${MARIADB_DATABASE:-$MYSQL_DATABASE}\`;"
    password="${MARIADB_ROOT_PASSWORD:-${MYSQL_ROOT_PASSWORD:-}}"
    [ -z "$password" ] || echo "ALTER USER root@localhost IDENTIFIED BY '$password'; CREATE USER root@'%' IDENTIFIED BY '$password'; GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
    user="${MARIADB_USER:-${MYSQL_USER:-}}"
    [ -z "$user" ] || echo "CREATE USER '$user'@'%' IDENTIFIED BY '${MARIADB_PASSWORD:-${MYSQL_PASSWORD:-}}'; GRANT ALL ON \`${MARIADB_DATABASE:-${MYSQL_DATABASE:-%}}\`.* TO '$user'@'%';"
    echo "SHUTDOWN;"
} | mariadb --no-defaults --socket=$here -u root
wait
"#;

const KNOWN: &[Known] = &[
    Known {
        image: "postgres",
        packages: &["@base", "postgresql"],
        user: "postgres",
        run: &["postgres", "-D", "/var/lib/postgresql/data", "-c", "listen_addresses=*"],
        setup: Some(POSTGRES),
        ready: "exec = [\"pg_isready\", \"--quiet\"]",
        stop_signal: Some("SIGINT"),
        data: Some("/var/lib/postgresql/data"),
        tmpfs: &["/run/postgresql"],
    },
    Known {
        image: "redis",
        packages: &["redis-server"],
        user: "redis",
        run: &["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data"],
        setup: None,
        ready: "tcp = 6379",
        stop_signal: None,
        data: Some("/data"),
        tmpfs: &[],
    },
    Known {
        image: "mariadb",
        packages: &["@base", "mariadb-server"],
        user: "mysql",
        run: &[
            "mariadbd",
            "--no-defaults",
            "--datadir=/var/lib/mysql",
            "--socket=/run/mysqld/mysqld.sock",
            "--bind-address=0.0.0.0",
        ],
        setup: Some(MARIADB),
        ready: "tcp = 3306",
        stop_signal: None,
        data: Some("/var/lib/mysql"),
        tmpfs: &["/run/mysqld"],
    },
    Known {
        image: "memcached",
        packages: &["memcached"],
        user: "memcache",
        run: &["memcached", "-l", "0.0.0.0"],
        setup: None,
        ready: "tcp = 11211",
        stop_signal: None,
        data: None,
        tmpfs: &[],
    },
];

/// The packages for an image such as `postgres:16-alpine` or `HOST/library/postgres`.
pub(super) fn known(image: &str) -> Option<&'static Known> {
    let name = image.split('@').next().unwrap_or(image);
    let (path, last) = name.rsplit_once('/').unwrap_or(("", name));
    let last = last.split(':').next().unwrap_or(last);
    // Only the ones that everybody means, not somebody's own of the same name.
    let official = path.is_empty() || path == "library" || path.ends_with("/library");
    KNOWN.iter().find(|known| official && known.image == last)
}
