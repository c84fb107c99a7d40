//! Who has a port: `/proc/net` knows the socket, `/proc/<pid>/fd` whose it is, as far as we may look.

use std::collections::BTreeSet;
use std::fs;

use crate::spec::Protocol;

/// ```postgres` (pid 123)``, if that can be found out.
pub(crate) fn of(protocol: Protocol, port: u16) -> Option<String> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let inodes: BTreeSet<u64> = tables
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening(&table, protocol, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let links: BTreeSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(fds) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = fds.flatten().any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|link| link.to_str().is_some_and(|link| links.contains(link)))
        });
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("`{}` (pid {pid})", name.trim_end()));
        }
    }
    None
}

/// Inodes of sockets bound to `port` in one table; listening ones only for TCP.
fn listening(table: &str, protocol: Protocol, port: u16) -> Vec<u64> {
    let row = |line: &str| -> Option<u64> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let state = *fields.get(3)?;
        let bound = u16::from_str_radix(local, 16).ok()? == port && (protocol == Protocol::Udp || state == "0A");
        fields.get(9)?.parse().ok().filter(|_| bound)
    };
    table.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let holder = of(Protocol::Tcp, port).expect("a holder");
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
        let udp = std::net::UdpSocket::bind("[::1]:0").expect("bind");
        assert!(of(Protocol::Udp, udp.local_addr().expect("address").port()).is_some());
        drop(listener);
        assert_eq!(of(Protocol::Tcp, port), None);
    }
}
