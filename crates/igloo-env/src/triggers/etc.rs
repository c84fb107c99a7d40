//! Triggers 6 and 7: the files of `/etc` that every program expects, and the time zone.

use crate::EnvError;
use crate::layer::{Layer, Owner};
use crate::script::Findings;

const HOSTS: &str =
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

const NSSWITCH: &str = "\
passwd:         files
group:          files
shadow:         files
gshadow:        files

hosts:          files dns
networks:       files

protocols:      db files
services:       db files
ethers:         db files
rpc:            db files

netgroup:       nis
";

pub(crate) fn run(layer: &mut Layer<'_>, findings: &Findings) -> Result<(), EnvError> {
    for (from, to) in [
        ("usr/share/base-files/profile", "etc/profile"),
        ("usr/share/base-files/motd", "etc/motd"),
        ("usr/share/base-files/dot.profile", "root/.profile"),
        ("usr/share/base-files/dot.bashrc", "root/.bashrc"),
        ("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),
        ("usr/share/base-files/nsswitch.conf", "etc/nsswitch.conf"),
    ] {
        layer.copy(from, to);
    }
    layer.put("etc/nsswitch.conf", NSSWITCH);
    layer.put("etc/hosts", HOSTS);
    layer.put("etc/resolv.conf", "");
    layer.put("etc/hostname", "localhost\n");
    layer.put("etc/environment", "");
    layer.put("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n");
    if layer.lstat("etc/fstab").is_none() {
        layer.put("etc/fstab", "");
    }
    for (path, mode) in [("var/log/wtmp", 0o664), ("var/log/btmp", 0o660), ("var/log/lastlog", 0o664)] {
        // Only where there is something to log in with; group utmp of Debian's policy.
        if layer.exists("usr/bin/login") && layer.put(path, "") {
            layer.set_owner(path, Owner { mode: Some(mode), uid: Some(0), gid: Some(43) });
        }
    }
    shells(layer, findings)?;
    time_zone(layer)
}

fn shells(layer: &mut Layer<'_>, findings: &Findings) -> Result<(), EnvError> {
    let mut lines = vec!["/bin/sh".to_owned()];
    for dir in ["usr/share/debianutils/shells.d", "usr/share/debianutils/shells"] {
        for path in layer.list_files(dir, "") {
            for line in layer.read_text(&path)?.unwrap_or_default().lines().filter(|l| l.starts_with('/')) {
                lines.push(line.to_owned());
            }
        }
    }
    lines.extend(findings.shells.iter().cloned());
    lines.extend(["/bin/bash", "/bin/dash"].map(str::to_owned));
    let mut text = String::from("# /etc/shells: valid login shells\n");
    let mut seen = Vec::new();
    for line in lines {
        if layer.exists(&line) && !seen.contains(&line) {
            text += &format!("{line}\n");
            // A merged /usr has each shell under two names.
            if let Some(rest) = line.strip_prefix("/bin/") {
                text += &format!("/usr/bin/{rest}\n");
                seen.push(format!("/usr/bin/{rest}"));
            }
            seen.push(line);
        }
    }
    layer.replace_generated("etc/shells", text);
    Ok(())
}

fn time_zone(layer: &mut Layer<'_>) -> Result<(), EnvError> {
    if layer.exists("usr/share/zoneinfo/Etc/UTC") {
        // In place of what the script makes of a debconf that answers nothing: a link that leads nowhere.
        layer.relink("/usr/share/zoneinfo/Etc/UTC", "etc/localtime");
        layer.replace_generated("etc/timezone", "Etc/UTC\n");
    }
    Ok(())
}
