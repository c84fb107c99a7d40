//! User namespaces: which ids there are inside a sandbox, and what they are outside.
//!
//! [`Identity::Root`] gives each project a range of 65536 ids, aligned to 65536, between 524288 and 1878982656: the
//! range that systemd-nspawn sets aside for containers. It follows from the project's id, so that it stays the same;
//! a range that `/etc/subuid` or `/etc/subgid` gives to a person is passed over. No file on disk ever has such an
//! owner, since everything is mounted through an id map.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use igloo_base::{At, Sha256};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{Act, ContainerError};
use crate::spec::Identity;

const FIRST: u32 = 524_288;
const LAST: u32 = 1_878_982_656;
const COUNT: u32 = 65_536;
/// With fewer ids, services with users of their own have to share one anyway.
const FEW: u32 = 1000;
const SHARED: &str = "only one user id is to be had, so all files of a service belong to one user";

/// One line of `/proc/PID/uid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The ids of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The mode.
    pub identity: Identity,
    /// User ids.
    pub uids: Vec<IdMap>,
    /// Group ids.
    pub gids: Vec<IdMap>,
    /// What a person should know about it; empty if nothing.
    pub detail: String,
    /// True if files are to be shown through an id map.
    pub idmapped: bool,
}

/// Picks the wanted mode, or the best that this machine allows.
pub fn choose(wanted: Option<Identity>, project: &str) -> Result<Mapping, ContainerError> {
    let root = rustix::process::geteuid().is_root();
    match wanted {
        Some(Identity::Root) if !root => {
            Err(ContainerError::Identity { mode: "root", why: "the caller is not root".to_owned() })
        }
        Some(Identity::Root) => Ok(for_root(project)),
        Some(Identity::Subuid) => for_subuid().map_err(|why| ContainerError::Identity { mode: "subuid", why }),
        Some(Identity::SingleUid) => Ok(single("")),
        None if root => Ok(match for_root(project) {
            // Root by name only, in somebody's user namespace.
            few if few.uids.iter().map(|m| m.count).sum::<u32>() < FEW => single(SHARED),
            mapping => mapping,
        }),
        None => Ok(for_subuid().unwrap_or_else(|why| single(&format!("{SHARED}: {why}")))),
    }
}

fn for_root(project: &str) -> Mapping {
    let taken = |path: &str| fs::read_to_string(path).map(|text| all_ranges(&text)).unwrap_or_default();
    let mut taken_ranges = taken("/etc/subuid");
    taken_ranges.extend(taken("/etc/subgid"));
    let outside = range_for(project, &taken_ranges);
    let own = |path| fs::read_to_string(path).map(|text| parse_map(&text)).unwrap_or_default();
    let (uids, gids) = (own("/proc/self/uid_map"), own("/proc/self/gid_map"));
    let covers = |map: &[IdMap]| {
        map.iter().any(|m| {
            let end = u64::from(m.inside) + u64::from(m.count);
            m.inside <= outside && u64::from(outside) + u64::from(COUNT) <= end
        })
    };
    if covers(&uids) && covers(&gids) {
        let map = vec![IdMap { inside: 0, outside, count: COUNT }];
        return Mapping {
            identity: Identity::Root,
            uids: map.clone(),
            gids: map,
            detail: String::new(),
            idmapped: true,
        };
    }
    identity_map(&uids, &gids, "root here is already in a user namespace with few ids")
}

/// Ids mean the same inside and outside.
pub(crate) fn identity_map(uids: &[IdMap], gids: &[IdMap], why: &str) -> Mapping {
    let same = |map: &[IdMap]| {
        let within = map.iter().filter(|m| m.inside < COUNT);
        within.map(|m| IdMap { inside: m.inside, outside: m.inside, count: m.count.min(COUNT - m.inside) }).collect()
    };
    Mapping {
        identity: Identity::Root,
        uids: same(uids),
        gids: same(gids),
        detail: format!("user ids inside and outside are the same: {why}"),
        idmapped: false,
    }
}

/// True if an id exists inside.
pub(crate) fn is_mapped(map: &[IdMap], id: u32) -> bool {
    map.iter().any(|m| id >= m.inside && id - m.inside < m.count)
}

/// The maps, of users and of groups, of this very process.
pub(crate) fn own_maps() -> Result<(Vec<IdMap>, Vec<IdMap>), ContainerError> {
    let read = |path: &str| fs::read_to_string(path).at("read", path).map(|text| parse_map(&text));
    Ok((read("/proc/self/uid_map")?, read("/proc/self/gid_map")?))
}

fn single(detail: &str) -> Mapping {
    let map = |outside| vec![IdMap { inside: 0, outside, count: 1 }];
    Mapping {
        identity: Identity::SingleUid,
        uids: map(rustix::process::geteuid().as_raw()),
        gids: map(rustix::process::getegid().as_raw()),
        detail: detail.to_owned(),
        idmapped: false,
    }
}

fn for_subuid() -> Result<Mapping, String> {
    for program in ["newuidmap", "newgidmap"] {
        find(program).ok_or_else(|| format!("`{program}` is not installed (package uidmap)"))?;
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let name = user_name(uid).unwrap_or_default();
    let map = |path: &str, own: u32| {
        let text = fs::read_to_string(path).map_err(|e| format!("cannot read `{path}`: {e}"))?;
        let mut map = vec![IdMap { inside: 0, outside: own, count: 1 }];
        let mut inside = 1;
        for (outside, count) in subordinate(&text, &name, uid) {
            let count = count.min(COUNT - inside);
            if count > 0 {
                map.push(IdMap { inside, outside, count });
                inside += count;
            }
        }
        if map.len() > 1 { Ok(map) } else { Err(format!("`{path}` has no range for user {uid} {name}")) }
    };
    Ok(Mapping {
        identity: Identity::Subuid,
        uids: map("/etc/subuid", uid)?,
        gids: map("/etc/subgid", gid)?,
        detail: String::new(),
        idmapped: false,
    })
}

/// Removes a tree that may hold files of a project's containers' users, while no sandbox of it runs.
pub fn remove_tree(exe: &Path, project: &str, path: &Path) -> Result<(), ContainerError> {
    crate::sandbox::remove_with(exe, &choose(None, project)?, path)
}

/// First id of a project's range, avoiding those in `taken` (first id, count).
pub fn range_for(project: &str, taken: &[(u32, u32)]) -> u32 {
    let slots = (LAST - FIRST) / COUNT + 1;
    let digest = Sha256::of(project.as_bytes()).0;
    let start = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % slots;
    let base = |slot: u32| FIRST + (start + slot) % slots * COUNT;
    let free = |base: &u32| {
        let overlaps = |(first, count): &(u32, u32)| {
            u64::from(*first) < u64::from(*base) + u64::from(COUNT)
                && u64::from(*base) < u64::from(*first) + u64::from(*count)
        };
        !taken.iter().any(overlaps)
    };
    (0..slots).map(base).find(free).unwrap_or_else(|| base(0))
}

/// Ranges (first id, count) that a text like `/etc/subuid` gives to a user, by name or number.
pub fn subordinate(text: &str, name: &str, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    lines(text)
        .filter(|(owner, ..)| (*owner == name && !name.is_empty()) || *owner == number)
        .map(|(_, f, c)| (f, c))
        .collect()
}

fn all_ranges(text: &str) -> Vec<(u32, u32)> {
    lines(text).map(|(_, first, count)| (first, count)).collect()
}

fn lines(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (!owner.starts_with('#') && count > 0).then_some((owner, first, count))
    })
}

fn parse_map(text: &str) -> Vec<IdMap> {
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace().map(str::parse);
        Some(IdMap { inside: fields.next()?.ok()?, outside: fields.next()?.ok()?, count: fields.next()?.ok()? })
    };
    text.lines().filter_map(line).collect()
}

fn user_name(uid: u32) -> Option<String> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    text.lines().find_map(name)
}

/// Where setuid helpers are; `PATH` has no say in what runs with privileges.
fn find(program: &str) -> Option<PathBuf> {
    let dirs = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/run/wrappers/bin"];
    dirs.iter().map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
}

/// Writes the maps of a process that has just entered a new user namespace.
pub(crate) fn write(mapping: &Mapping, pid: Pid) -> Result<(), ContainerError> {
    let mode = match mapping.identity {
        Identity::Root => "root",
        Identity::Subuid => "subuid",
        Identity::SingleUid => "single",
    };
    let failed = |source| ContainerError::UserNamespace { mode, source };
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    match mapping.identity {
        Identity::Subuid => {
            helper("newuidmap", pid, &mapping.uids).map_err(failed)?;
            helper("newgidmap", pid, &mapping.gids).map_err(failed)
        }
        identity => {
            if identity == Identity::SingleUid {
                fs::write(proc.join("setgroups"), "deny").map_err(failed)?;
            }
            fs::write(proc.join("uid_map"), render(&mapping.uids)).map_err(failed)?;
            fs::write(proc.join("gid_map"), render(&mapping.gids)).map_err(failed)
        }
    }
}

/// Enters a user namespace in which the caller is `uid`:`gid` and nobody else exists.
pub(crate) fn enter_as(uid: u32, gid: u32) -> Result<(), ContainerError> {
    let (own_uid, own_gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let failed = |source| ContainerError::UserNamespace { mode: "nested", source };
    crate::sys::unshare(rustix::thread::UnshareFlags::NEWUSER).map_err(failed)?;
    let one = |inside, outside| render(&[IdMap { inside, outside, count: 1 }]);
    // Already denied where the outer namespace denies it.
    let _ = fs::write("/proc/self/setgroups", "deny");
    fs::write("/proc/self/uid_map", one(uid, own_uid)).map_err(failed)?;
    fs::write("/proc/self/gid_map", one(gid, own_gid)).map_err(failed)
}

/// True if this process may call setgroups in its user namespace.
pub(crate) fn may_set_groups() -> Result<bool, ContainerError> {
    let text = fs::read_to_string("/proc/self/setgroups").act("read whether groups may be set")?;
    Ok(text.trim() == "allow")
}

fn render(map: &[IdMap]) -> String {
    map.iter().map(|m| format!("{} {} {}\n", m.inside, m.outside, m.count)).collect()
}

fn helper(program: &str, pid: Pid, map: &[IdMap]) -> io::Result<()> {
    let path = find(program).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut command = Command::new(path);
    command.arg(pid.as_raw_nonzero().to_string()).stdin(Stdio::null()).stdout(Stdio::null());
    for m in map {
        command.args([m.inside.to_string(), m.outside.to_string(), m.count.to_string()]);
    }
    let output = command.stderr(Stdio::piped()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_user() {
        let text = "# comment:1:2\nalice:100000:65536\n1001:200000:10\nbob:300000:65536\nalice:400000:5\nbroken:x:1\n";
        assert_eq!(subordinate(text, "alice", 1000), [(100_000, 65536), (400_000, 5)]);
        assert_eq!(subordinate(text, "carol", 1001), [(200_000, 10)]);
        assert_eq!(subordinate(text, "", 7), []);
    }

    #[test]
    fn a_project_keeps_its_range() {
        let base = range_for("guestbook-1234", &[]);
        assert_eq!(base, range_for("guestbook-1234", &[]));
        assert_eq!(base % COUNT, 0);
        assert!((FIRST..=LAST).contains(&base));
        let other = range_for("guestbook-1234", &[(base + 10, 1)]);
        assert_ne!(other, base, "a range that somebody has is passed over");
        assert_ne!(range_for("guestbook-1235", &[]), base);
    }

    #[test]
    fn maps_are_read_and_written() {
        let text = "         0     100000      65536\n     65536          7          1\n";
        let map = parse_map(text);
        assert_eq!(render(&map), "0 100000 65536\n65536 7 1\n");
    }
}
