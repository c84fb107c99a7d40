//! Who runs an image: its `USER` by the image's own `/etc/passwd` and `/etc/group`.

use igloo_container::User;

/// The identity that a text such as `postgres`, `1000`, `app:www-data` or `1000:1000` means. A number needs no entry; the
/// groups of a user are joined unless one is named. `None` if a name is not there.
pub(super) fn lookup(text: &str, passwd: &str, group: &str) -> Option<User> {
    let (who, of) = text.split_once(':').map_or((text, None), |(who, of)| (who, Some(of)));
    let who = if who.is_empty() { "0" } else { who };
    let entry = find(passwd, who);
    let uid = number(entry.as_ref().map_or(who, |fields| fields[2]))?;
    let login = entry.as_ref().map_or("", |fields| fields[0]);
    let (gid, groups) = match of.filter(|of| !of.is_empty()) {
        Some(of) => (number(find(group, of).map_or(of, |fields| fields[2]))?, Vec::new()),
        None => {
            let gid = entry.as_ref().and_then(|fields| number(fields.get(3)?)).unwrap_or(0);
            (gid, groups_of(login, group).filter(|id| *id != gid).collect())
        }
    };
    let home = entry.and_then(|fields| fields.get(5).map(|home| (*home).to_owned()));
    Some(User { uid, gid, groups, home: home.filter(|h| h.starts_with('/')).unwrap_or_else(|| "/".to_owned()) })
}

/// The fields of the line for a name, or else for a number.
fn find<'t>(text: &'t str, wanted: &str) -> Option<Vec<&'t str>> {
    let lines = || text.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|f| number_of(f).is_some());
    let number = number(wanted);
    lines().find(|f| f[0] == wanted).or_else(|| lines().find(|f| number.is_some() && number_of(f) == number))
}

fn number_of(fields: &[&str]) -> Option<u32> {
    number(fields.get(2)?)
}

/// All ones means "leave it" to the kernel, and is nobody's.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|n| *n != u32::MAX)
}

fn groups_of<'t>(login: &'t str, group: &'t str) -> impl Iterator<Item = u32> + 't {
    group.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_member = !login.is_empty() && fields.get(3)?.split(',').any(|member| member.trim() == login);
        if is_member { number_of(&fields) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/var/www:/bin/false\n\
                          1000:x:7:7::/seven:/bin/sh\nvscode:x:1000:1000::/home/vscode:/bin/bash\nbad:x:4294967295:0::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nssl:x:101:web,vscode\nsudo:x:27:vscode\nvscode:x:1000:\n";

    fn check(text: &str, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let wanted = User { uid, gid, groups: groups.to_vec(), home: home.to_owned() };
        assert_eq!(lookup(text, PASSWD, GROUP), Some(wanted), "{text}");
    }

    #[test]
    fn names_and_numbers_are_found() {
        check("", 0, 0, &[], "/root");
        check("root", 0, 0, &[], "/root");
        check("web", 33, 33, &[101], "/var/www");
        check("33", 33, 33, &[101], "/var/www");
        check("vscode", 1000, 1000, &[101, 27], "/home/vscode");
        // A name that looks like a number is a name first.
        check("1000", 7, 7, &[], "/seven");
        check("web:sudo", 33, 27, &[], "/var/www");
        check("web:5", 33, 5, &[], "/var/www");
        check("4242", 4242, 0, &[], "/");
        check("4242:4243", 4242, 4243, &[], "/");
        check(":sudo", 0, 27, &[], "/root");
    }

    #[test]
    fn who_is_not_there_is_nobody() {
        for text in ["nobody", "web:nobody", "bad", "4294967295", "-1", "1:4294967295"] {
            assert_eq!(lookup(text, PASSWD, GROUP), None, "{text}");
        }
        assert_eq!(lookup("root", "", ""), None);
        assert_eq!(lookup("", "", "").map(|u| (u.uid, u.gid, u.home)), Some((0, 0, "/".to_owned())));
    }
}
