//! The environment variables of a command.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::{Caller, Isolation};

/// Variables about the caller's terminal, language and time zone: they say nothing about the machine and make no
/// difference to what a command does, but to how it shows it.
const KEPT: &[&str] = &["TERM", "COLORTERM", "NO_COLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "LANG", "LANGUAGE", "TZ"];

/// Makes the environment of a command from the caller's and the declared one.
///
/// [`Isolation::Host`] keeps the caller's variables and puts the declared ones over them; `PATH` is the declared
/// one, then the caller's. The other levels keep nothing but what concerns the terminal, the language and the time zone.
pub fn environment(
    isolation: Isolation,
    inherited: impl IntoIterator<Item = (OsString, OsString)>,
    declared: &BTreeMap<String, String>,
    caller: &Caller,
) -> Vec<(OsString, OsString)> {
    let host = isolation == Isolation::Host;
    let kept = |key: &OsStr| host || KEPT.iter().any(|k| key == *k) || key.as_bytes().starts_with(b"LC_");
    let mut env: BTreeMap<OsString, OsString> = inherited.into_iter().filter(|(key, _)| kept(key)).collect();
    let path = env.get(OsStr::new("PATH")).cloned();
    for (key, value) in
        [("HOME", caller.home.as_os_str()), ("USER", caller.name.as_ref()), ("LOGNAME", caller.name.as_ref())]
    {
        env.insert(key.into(), value.to_owned());
    }
    if !host {
        env.insert("SHELL".into(), caller.shell.clone().into());
    }
    for (key, value) in declared {
        env.insert(key.into(), value.into());
    }
    if let (true, Some(inherited), Some(declared)) = (host, path, declared.get("PATH")) {
        env.insert("PATH".into(), join(declared.as_ref(), &inherited));
    }
    env.into_iter().collect()
}

/// The entries of both, each once.
fn join(first: &OsStr, second: &OsStr) -> OsString {
    let mut entries: Vec<&[u8]> = Vec::new();
    for entry in [first, second].into_iter().flat_map(|p| p.as_bytes().split(|b| *b == b':')) {
        if !entry.is_empty() && !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    OsString::from_vec(entries.join(&b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(isolation: Isolation) -> BTreeMap<String, String> {
        let caller = Caller { name: "eve".into(), uid: 7, gid: 7, home: "/home/eve".into(), shell: "/bin/bash".into() };
        let inherited = [
            ("PATH", "/home/eve/bin:/usr/bin"),
            ("SECRET", "1"),
            ("TERM", "xterm"),
            ("LC_TIME", "C"),
            ("SHELL", "/bin/zsh"),
            ("EDITOR", "vi"),
        ];
        let declared = BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into()), ("EDITOR".into(), "ed".into())]);
        environment(isolation, inherited.map(|(k, v)| (k.into(), v.into())), &declared, &caller)
            .into_iter()
            .map(|(k, v)| (k.into_string().expect("text"), v.into_string().expect("text")))
            .collect()
    }

    #[test]
    fn host_keeps_and_pure_cleans() {
        let host = made(Isolation::Host);
        assert_eq!(host["PATH"], "/usr/bin:/bin:/home/eve/bin");
        assert_eq!((&*host["SECRET"], &*host["SHELL"], &*host["EDITOR"]), ("1", "/bin/zsh", "ed"));
        for isolation in [Isolation::Pure, Isolation::Container] {
            let pure = made(isolation);
            let keys: Vec<&str> = pure.keys().map(String::as_str).collect();
            assert_eq!(keys, ["EDITOR", "HOME", "LC_TIME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"]);
            assert_eq!((&*pure["PATH"], &*pure["SHELL"]), ("/usr/bin:/bin", "/bin/bash"));
        }
    }
}
