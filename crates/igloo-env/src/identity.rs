//! Users and groups that packages ask for, and their ids.

use std::collections::{BTreeMap, BTreeSet};

use igloo_manifest::lock::{LockedGroup, LockedUser};

use crate::{EnvError, Group, User};

/// The ids of one project: the lock holds them, [`crate::plan`] only ever adds to them.
///
/// Ids that Debian fixes for everybody (`root`, `www-data`, `shadow`, …) are not in here; they come from
/// base-passwd's masters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    /// Users, by name.
    pub users: Vec<LockedUser>,
    /// Groups, by name.
    pub groups: Vec<LockedGroup>,
}

/// Ids of Debian's policy, for environments without base-passwd: name, uid, gid, home.
const STATIC_USERS: &[(&str, u32, u32, &str)] = &[
    ("root", 0, 0, "/root"),
    ("daemon", 1, 1, "/usr/sbin"),
    ("bin", 2, 2, "/bin"),
    ("sys", 3, 3, "/dev"),
    ("sync", 4, 65534, "/bin"),
    ("games", 5, 60, "/usr/games"),
    ("man", 6, 12, "/var/cache/man"),
    ("lp", 7, 7, "/var/spool/lpd"),
    ("mail", 8, 8, "/var/mail"),
    ("news", 9, 9, "/var/spool/news"),
    ("uucp", 10, 10, "/var/spool/uucp"),
    ("proxy", 13, 13, "/bin"),
    ("www-data", 33, 33, "/var/www"),
    ("backup", 34, 34, "/var/backups"),
    ("list", 38, 38, "/var/list"),
    ("irc", 39, 39, "/run/ircd"),
    ("nobody", 65534, 65534, "/nonexistent"),
];

/// Groups of Debian's policy.
const STATIC_GROUPS: &[(&str, u32)] = &[
    ("root", 0),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("mail", 8),
    ("news", 9),
    ("uucp", 10),
    ("man", 12),
    ("proxy", 13),
    ("kmem", 15),
    ("dialout", 20),
    ("fax", 21),
    ("voice", 22),
    ("cdrom", 24),
    ("floppy", 25),
    ("tape", 26),
    ("sudo", 27),
    ("audio", 29),
    ("dip", 30),
    ("www-data", 33),
    ("backup", 34),
    ("operator", 37),
    ("list", 38),
    ("irc", 39),
    ("src", 40),
    ("shadow", 42),
    ("utmp", 43),
    ("video", 44),
    ("sasl", 45),
    ("plugdev", 46),
    ("staff", 50),
    ("games", 60),
    ("users", 100),
    ("nogroup", 65534),
];

/// Ids that are given out.
const FREE: std::ops::RangeInclusive<u32> = 100..=999;

/// What a package says about a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UserRequest {
    pub(crate) name: String,
    pub(crate) uid: Option<u32>,
    /// Primary group: a name, a number, or a group of the user's own name.
    pub(crate) group: PrimaryGroup,
    pub(crate) home: String,
    pub(crate) shell: String,
    pub(crate) gecos: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum PrimaryGroup {
    #[default]
    Own,
    Named(String),
    Id(u32),
}

#[derive(Debug, Clone)]
struct UserRow {
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
    gecos: String,
    package: String,
}

#[derive(Debug, Clone)]
struct GroupRow {
    gid: u32,
    members: BTreeSet<String>,
    package: String,
}

/// The users and groups of one environment, as they are found.
pub(crate) struct Registry {
    users: BTreeMap<String, UserRow>,
    groups: BTreeMap<String, GroupRow>,
    known: Identities,
    /// Whether unknown names get ids: when planning, not when assembling.
    allocate: bool,
    taken: BTreeSet<u32>,
}

/// Owner of rows from base-passwd's masters: not locked.
const MASTER: &str = "";

impl Registry {
    pub(crate) fn new(known: &Identities, allocate: bool) -> Self {
        let mut taken: BTreeSet<u32> = known.users.iter().map(|u| u.uid).collect();
        taken.extend(known.groups.iter().map(|g| g.gid));
        taken.extend(STATIC_GROUPS.iter().map(|g| g.1));
        Self { users: BTreeMap::new(), groups: BTreeMap::new(), known: known.clone(), allocate, taken }
    }

    /// Takes base-passwd's master files; without them, root and nobody.
    pub(crate) fn masters(&mut self, passwd: Option<&str>, group: Option<&str>) {
        let (passwd, group) = match (passwd, group) {
            (Some(passwd), Some(group)) => (passwd, group),
            _ => (
                "root:*:0:0:root:/root:/bin/sh\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
                "root:*:0:\nnogroup:*:65534:\n",
            ),
        };
        for line in passwd.lines() {
            let f: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, gecos, home, shell] = f[..] else { continue };
            let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { continue };
            let row = UserRow {
                uid,
                gid,
                home: home.into(),
                shell: shell.into(),
                gecos: gecos.into(),
                package: MASTER.into(),
            };
            self.taken.insert(uid);
            self.users.insert(name.to_owned(), row);
        }
        for line in group.lines() {
            let f: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members] = f[..] else { continue };
            let Ok(gid) = gid.parse() else { continue };
            let members = members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
            self.taken.insert(gid);
            self.groups.insert(name.to_owned(), GroupRow { gid, members, package: MASTER.into() });
        }
    }

    /// Adds a group; an existing one is fine. Its id.
    pub(crate) fn add_group(&mut self, name: &str, gid: Option<u32>, package: &str) -> Result<u32, EnvError> {
        if let Some(gid) = self.gid(name) {
            return Ok(gid);
        }
        let gid = match self.known.groups.iter().find(|g| g.name == name) {
            Some(group) => group.gid,
            None => self.id("group", name, gid, package)?,
        };
        let row = GroupRow { gid, members: BTreeSet::new(), package: package.to_owned() };
        self.groups.insert(name.to_owned(), row);
        Ok(gid)
    }

    /// Adds a user and, where needed, its group; an existing one is fine.
    pub(crate) fn add_user(&mut self, request: &UserRequest, package: &str) -> Result<(), EnvError> {
        if self.users.contains_key(&request.name) {
            return Ok(());
        }
        let locked = self.known.users.iter().find(|u| u.name == request.name).cloned();
        let group_id = match &request.group {
            PrimaryGroup::Id(gid) => *gid,
            PrimaryGroup::Named(name) => match name.parse() {
                Ok(gid) => gid,
                Err(_) => self.add_group(name, None, package)?,
            },
            PrimaryGroup::Own => self.add_group(&request.name, request.uid, package)?,
        };
        let (uid, gid) = match locked {
            Some(user) => (user.uid, user.gid),
            None => {
                // A user and its own group share one number.
                let own = request.group == PrimaryGroup::Own
                    && FREE.contains(&group_id)
                    && !self.users.values().any(|u| u.uid == group_id)
                    && !self.known.users.iter().any(|u| u.uid == group_id);
                let uid = if own && request.uid.is_none() && self.allocate {
                    group_id
                } else {
                    self.id("user", &request.name, request.uid, package)?
                };
                (uid, group_id)
            }
        };
        let row = UserRow {
            uid,
            gid,
            home: request.home.clone(),
            shell: request.shell.clone(),
            gecos: request.gecos.clone(),
            package: package.to_owned(),
        };
        self.users.insert(request.name.clone(), row);
        Ok(())
    }

    /// Makes a user a member of a group, both of which exist or the call does nothing.
    pub(crate) fn add_member(&mut self, user: &str, group: &str) {
        if self.users.contains_key(user)
            && let Some(row) = self.groups.get_mut(group)
        {
            row.members.insert(user.to_owned());
        }
    }

    fn id(&mut self, kind: &'static str, name: &str, wish: Option<u32>, package: &str) -> Result<u32, EnvError> {
        if !self.allocate {
            return Err(EnvError::NoIdentity { kind, name: name.into(), package: package.into() });
        }
        // A wish such as sysusers' may be shared by a user and a group of one name, which then ask one after the other.
        let fits = |id: u32| match kind {
            "user" => !self.users.values().any(|u| u.uid == id) && !self.known.users.iter().any(|u| u.uid == id),
            _ => !self.groups.values().any(|g| g.gid == id) && !self.known.groups.iter().any(|g| g.gid == id),
        };
        let id = match wish {
            Some(id) if fits(id) => Some(id),
            _ => FREE.into_iter().find(|id| !self.taken.contains(id)),
        };
        let id = id.ok_or_else(|| EnvError::NoFreeId { kind, name: name.into(), package: package.into() })?;
        self.taken.insert(id);
        Ok(id)
    }

    /// Id of a user by name or number, with the group it has.
    pub(crate) fn user(&self, name: &str) -> Option<(u32, u32)> {
        if let Some(user) = self.users.get(name) {
            return Some((user.uid, user.gid));
        }
        let fixed = STATIC_USERS.iter().find(|u| u.0 == name).map(|u| (u.1, u.2));
        fixed.or_else(|| name.parse().ok().map(|uid| (uid, uid)))
    }

    /// Id of a group by name or number.
    pub(crate) fn group(&self, name: &str) -> Option<u32> {
        let fixed = || STATIC_GROUPS.iter().find(|g| g.0 == name).map(|g| g.1);
        self.gid(name).or_else(fixed).or_else(|| name.parse().ok())
    }

    fn gid(&self, name: &str) -> Option<u32> {
        self.groups.get(name).map(|g| g.gid)
    }

    /// Whether there is such a user already.
    pub(crate) fn has_user(&self, name: &str) -> bool {
        self.users.contains_key(name)
    }

    /// Whether there is such a group already.
    pub(crate) fn has_group(&self, name: &str) -> bool {
        self.groups.contains_key(name)
    }

    /// The fields of `/etc/passwd` of a user: uid, gid, gecos, home, shell.
    pub(crate) fn passwd(&self, name: &str) -> Option<[String; 5]> {
        let u = self.users.get(name)?;
        Some([u.uid.to_string(), u.gid.to_string(), u.gecos.clone(), u.home.clone(), u.shell.clone()])
    }

    /// What the lock shall hold: everything known, with what this environment added or says anew.
    pub(crate) fn into_identities(self) -> Identities {
        let mut users: BTreeMap<String, LockedUser> =
            self.known.users.into_iter().map(|u| (u.name.clone(), u)).collect();
        for (name, u) in self.users.into_iter().filter(|(_, u)| u.package != MASTER) {
            let locked = LockedUser {
                name: name.clone(),
                uid: u.uid,
                gid: u.gid,
                home: u.home,
                shell: u.shell,
                gecos: u.gecos,
                package: u.package,
            };
            users.insert(name, locked);
        }
        let mut groups: BTreeMap<String, LockedGroup> =
            self.known.groups.into_iter().map(|g| (g.name.clone(), g)).collect();
        for (name, g) in self.groups.into_iter().filter(|(_, g)| g.package != MASTER) {
            let members = g.members.into_iter().collect();
            groups.insert(name.clone(), LockedGroup { name, gid: g.gid, package: g.package, members });
        }
        Identities { users: users.into_values().collect(), groups: groups.into_values().collect() }
    }

    /// Users in the order of `/etc/passwd`: by id, root first.
    fn users_by_id(&self) -> Vec<(&String, &UserRow)> {
        let mut rows: Vec<_> = self.users.iter().collect();
        rows.sort_by_key(|(name, u)| (u.uid, *name));
        rows
    }

    fn groups_by_id(&self) -> Vec<(&String, &GroupRow)> {
        let mut rows: Vec<_> = self.groups.iter().collect();
        rows.sort_by_key(|(name, g)| (g.gid, *name));
        rows
    }

    /// `/etc/passwd`, `/etc/group`, `/etc/shadow`, `/etc/gshadow`.
    pub(crate) fn files(&self) -> [(&'static str, String); 4] {
        let (mut passwd, mut group, mut shadow, mut gshadow) =
            (String::new(), String::new(), String::new(), String::new());
        for (name, u) in self.users_by_id() {
            let clean = |text: &str| text.replace([':', '\n'], " ");
            let (gecos, home, shell) = (clean(&u.gecos), clean(&u.home), clean(&u.shell));
            passwd += &format!("{name}:x:{}:{}:{gecos}:{home}:{shell}\n", u.uid, u.gid);
            // No password opens these; the date is fixed, since 0 would ask for a change at first login.
            let lock = if u.package == MASTER { "*" } else { "!" };
            shadow += &format!("{name}:{lock}:19000:0:99999:7:::\n");
        }
        for (name, g) in self.groups_by_id() {
            let members: Vec<&str> = g.members.iter().map(String::as_str).collect();
            let members = members.join(",");
            group += &format!("{name}:x:{}:{members}\n", g.gid);
            gshadow += &format!("{name}:!::{members}\n");
        }
        [("etc/passwd", passwd), ("etc/group", group), ("etc/shadow", shadow), ("etc/gshadow", gshadow)]
    }

    /// Everybody, as the environment's value has them.
    pub(crate) fn table(&self) -> (Vec<User>, Vec<Group>) {
        let users = self.users_by_id().into_iter().map(|(name, u)| User {
            name: name.clone(),
            uid: u.uid,
            gid: u.gid,
            groups: {
                let mut ids: Vec<u32> =
                    self.groups.values().filter(|g| g.members.contains(name)).map(|g| g.gid).collect();
                ids.retain(|gid| *gid != u.gid);
                ids.sort_unstable();
                ids
            },
            home: u.home.clone(),
            shell: u.shell.clone(),
        });
        let groups = self.groups_by_id().into_iter().map(|(name, g)| Group {
            name: name.clone(),
            gid: g.gid,
            members: g.members.iter().cloned().collect(),
        });
        (users.collect(), groups.collect())
    }
}

/// Whether a name may stand in `/etc/passwd`: what `adduser` allows at its laxest, less what would break the file.
pub(crate) fn good_name(name: &str) -> bool {
    let good = |c: u8| c.is_ascii_alphanumeric() || b"_.-$".contains(&c);
    !name.is_empty() && name.len() <= 32 && !name.starts_with('-') && name.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str) -> UserRequest {
        UserRequest { name: name.into(), home: "/".into(), shell: "/bin/sh".into(), ..UserRequest::default() }
    }

    #[test]
    fn ids_are_given_once_and_kept() {
        let mut first = Registry::new(&Identities::default(), true);
        first.masters(None, None);
        first.add_user(&request("redis"), "redis-tools").expect("add");
        first.add_group("extra", None, "x").expect("add");
        let known = first.into_identities();
        assert_eq!((known.users[0].uid, known.users[0].gid), (101, 101));

        let mut second = Registry::new(&known, true);
        second.masters(None, None);
        second.add_user(&request("aaa"), "aaa").expect("add");
        second.add_user(&request("redis"), "redis-tools").expect("add");
        let grown = second.into_identities();
        assert_eq!(
            grown.users.iter().map(|u| (u.name.as_str(), u.uid)).collect::<Vec<_>>(),
            [("aaa", 103), ("redis", 101)]
        );
        assert_eq!(grown.groups.len(), 3, "what another environment needs stays");
    }

    #[test]
    fn assembling_gives_out_no_ids() {
        let mut registry = Registry::new(&Identities::default(), false);
        registry.masters(None, None);
        let error = registry.add_user(&request("redis"), "redis-tools").expect_err("not locked");
        assert!(error.to_string().contains("`redis`"), "{error}");
    }

    #[test]
    fn an_explicit_id_is_kept_unless_taken() {
        let mut registry = Registry::new(&Identities::default(), true);
        registry.masters(None, None);
        let user = UserRequest { uid: Some(200), ..request("a") };
        registry.add_user(&user, "p").expect("add");
        assert_eq!(registry.user("a"), Some((200, 200)));
        let user = UserRequest { uid: Some(200), ..request("b") };
        registry.add_user(&user, "p").expect("add");
        assert_ne!(registry.user("b"), Some((200, 200)));
    }
}
