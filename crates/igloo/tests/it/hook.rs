//! The hooks, evaluated by the shells that they are for: a session is fed line by line, so that each line is followed
//! by a prompt.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::{Person, people};

const PROJECT: &str = r#"
[project]
name = "hooked"
[sources.debian]
suite = "bookworm"
[shells.default]
packages = ["jq"]
env = { GREETING = "it's \\ here" }
"#;

fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        println!("skipped: `{program}` is not installed; tests/run does that");
    }
    found.is_ok()
}

/// Standard output and error of a shell that was given these lines.
fn session(person: &Person, shell: &[&str], lines: &str) -> (Vec<String>, String) {
    let mut child = person
        .command(shell[0])
        .args(&shell[1..])
        .env("GREETING", "mine")
        .env("PS1", "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the shell");
    child.stdin.take().expect("stdin").write_all(lines.as_bytes()).expect("write");
    let output = child.wait_with_output().expect("the shell");
    let text = String::from_utf8_lossy(&output.stdout);
    let said = text.lines().filter_map(|l| Some(l.split_once("=> ")?.1.into()));
    (said.collect(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The lines of a session, in words that bash, zsh and fish share; `prompt` makes a prompt where the shell makes
/// none by itself.
fn lines(project: &Path, load: &str, prompt: &str, own_path: &str, status: &str) -> String {
    let project = project.display();
    format!(
        r#"{load}
echo "=> $(printenv PATH)"
cd {project}
{prompt}
echo "=> $GREETING"
igloo allow -q
{prompt}
echo "=> $GREETING"
jq -rn '"=> " + (6*7|tostring)'
sh -c "exit 7"
echo "=> ${status}"
sed -i 's/it.s/now it is/' igloo.toml
{prompt}
echo "=> $GREETING"
{own_path}
{prompt}
cd /
{prompt}
echo "=> $GREETING $IGLOO_SHELL$IGLOO_UNDO$IGLOO_HOOK"
echo "=> $(printenv PATH)"
cd {project}
cp igloo.toml kept
echo oops >> igloo.toml
{prompt}
{prompt}
echo "=> $GREETING"
cp kept igloo.toml
{prompt}
echo "=> $GREETING"
cd /
exit
"#
    )
}

fn check(shell: &[&str], load: &str, prompt: &str, own_path: &str, status: &str) {
    if !is_there(shell[0]) {
        return;
    }
    for person in people() {
        let project = person.project("hooked", PROJECT);
        person.igloo(&project, &["fetch"]).ok();
        let (said, err) = session(&person, shell, &lines(&project, load, prompt, own_path, status));
        let who = format!("{} {shell:?}\n{said:#?}\n{err}", person.name);
        assert_eq!(said.len(), 10, "{who}");
        let path = said[0].clone();
        assert_eq!(said[1], "mine", "not before it is allowed: {who}");
        assert!(err.contains("`igloo allow`"), "{who}");
        assert_eq!(said[2], r"it's \ here", "{who}");
        assert_eq!(said[3], "42", "{who}");
        assert_eq!(said[4], "7", "exit codes are kept: {who}");
        assert_eq!(said[5], r"now it is \ here", "a changed manifest is seen: {who}");
        assert_eq!(said[6], "mine ", "what was there is put back: {who}");
        assert_eq!(said[7], format!("/own:{path}"), "what was put on PATH meanwhile stays: {who}");
        assert_eq!(said[8], "mine", "a broken manifest activates nothing: {who}");
        assert_eq!(said[9], r"now it is \ here", "{who}");
        assert_eq!(err.matches("not TOML").count(), 1, "a mistake is told once: {who}");
        assert_eq!(err.matches("is not activated").count(), 1, "{who}");
    }
}

#[test]
fn bash_enters_and_leaves() {
    let load = r#"eval "$(igloo hook bash)""#;
    check(&["bash", "--norc", "--noprofile", "-i"], load, "", "PATH=/own:$PATH", "?");
}

#[test]
fn zsh_enters_and_leaves() {
    let load = r#"eval "$(igloo hook zsh)""#;
    check(&["zsh", "-f", "-i"], load, "", "PATH=/own:$PATH", "?");
}

#[test]
fn fish_enters_and_leaves() {
    // Without a terminal fish makes no prompt: its event is sent by hand, and says nothing of exit codes.
    check(
        &["fish", "--no-config"],
        "igloo hook fish | source",
        "emit fish_prompt",
        "set -gx PATH /own $PATH",
        "status",
    );
}

#[test]
fn direnv_enters_and_leaves() {
    if !is_there("direnv") {
        return;
    }
    for person in people() {
        let project = person.project("hooked", PROJECT);
        let config = project.join("config");
        fs::create_dir_all(config.join("direnv/lib")).expect("mkdir");
        let hook = person.igloo(&project, &["hook", "direnv"]).ok();
        fs::write(config.join("direnv/lib/igloo.sh"), hook).expect("write");
        fs::write(project.join(".envrc"), "use igloo\n").expect("write");
        let direnv = |words: &[&str]| {
            let mut command = person.command("direnv");
            command.env("XDG_CONFIG_HOME", &config).env("XDG_DATA_HOME", project.join("data"));
            command.args(words).current_dir(&project).output().expect("direnv")
        };
        let blocked = direnv(&["exec", ".", "printenv", "GREETING"]);
        assert!(!blocked.status.success(), "{blocked:?}");
        assert!(direnv(&["allow", "."]).status.success());
        let greeting = direnv(&["exec", ".", "printenv", "GREETING"]);
        assert_eq!(String::from_utf8_lossy(&greeting.stdout), "it's \\ here\n", "{greeting:?}");
        let answer = direnv(&["exec", ".", "jq", "-n", "6*7"]);
        assert_eq!(String::from_utf8_lossy(&answer.stdout), "42\n", "{answer:?}");
        // A manifest that can't be used fails, instead of leaving an environment that looks right.
        fs::write(project.join("igloo.toml"), "oops").expect("write");
        let broken = direnv(&["exec", ".", "true"]);
        assert!(!broken.status.success(), "{broken:?}");
    }
}
