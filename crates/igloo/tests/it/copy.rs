//! `copy`: the project's own files as store objects.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::world::{Person, people};

const MANIFEST: &str = r#"
[project]
name = "copied"
[sources.debian]
suite = "bookworm"
[shells.default]
packages = ["busybox-static"]
copy = [{ from = "app", to = "/srv/app", exclude = ["*.pyc", "docs/build"] }]
"#;

/// The object that the last `fetch` made.
fn object(person: &Person, project: &Path) -> PathBuf {
    person.igloo(project, &["fetch"]).ok();
    let roots = person.store().join("nix/var/nix/gcroots/igloo");
    let project = fs::read_dir(roots).expect("roots").flatten().find(|e| {
        let name = e.file_name();
        name.to_string_lossy().starts_with("copied-") && e.path().join("shells.default.copy").is_symlink()
    });
    let link = project.expect("the project").path().join("shells.default.copy");
    let target = fs::read_link(link).expect("root");
    let name = target.file_name().expect("name").to_owned();
    person.store().join("nix/store").join(name).join("data/srv/app")
}

#[test]
fn only_what_changed_is_copied_and_what_is_excluded_stays_out() {
    let person = &people()[0];
    let project = person.project("copied", MANIFEST);
    let app = project.join("app");
    for dir in ["lib", "docs/build", ".git"] {
        fs::create_dir_all(app.join(dir)).expect("mkdir");
    }
    for file in ["main.py", "lib/a.py", "lib/a.pyc", "docs/build/x", "docs/y", ".git/HEAD"] {
        fs::write(app.join(file), format!("one {file}")).expect("write");
    }
    let first = object(person, &project);
    for (file, is_in) in [
        ("main.py", true),
        ("lib/a.py", true),
        ("lib/a.pyc", false),
        ("docs/build", false),
        ("docs/y", true),
        (".git", false),
    ] {
        assert_eq!(first.join(file).exists(), is_in, "{file}");
    }
    // Changed right after it was looked at, with the same size: seen.
    fs::write(app.join("main.py"), "two main.py").expect("write");
    let second = object(person, &project);
    assert_eq!(fs::read_to_string(second.join("main.py")).expect("read"), "two main.py");
    // Once nothing is too new to be trusted, files that didn't change are those of the object before.
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(object(person, &project), second);
    fs::write(app.join("main.py"), "one main.py").expect("write");
    fs::set_permissions(app.join("docs/y"), fs::Permissions::from_mode(0o755)).expect("chmod");
    let third = object(person, &project);
    let inode = |path: PathBuf| fs::metadata(path).expect("stat").ino();
    assert_eq!(fs::read_to_string(third.join("main.py")).expect("read"), "one main.py");
    assert_eq!(inode(third.join("lib/a.py")), inode(second.join("lib/a.py")));
    assert_ne!(inode(third.join("docs/y")), inode(second.join("docs/y")));
    assert_eq!(fs::metadata(third.join("docs/y")).expect("stat").mode() & 0o777, 0o555);
    assert_eq!(fs::metadata(second.join("docs/y")).expect("stat").mode() & 0o777, 0o444);
    // The objects that share files are sound.
    person.igloo(&project, &["store", "verify", "--contents"]).ok();
    // A new name alone makes another object, too.
    fs::rename(app.join("docs/y"), app.join("docs/z")).expect("rename");
    assert!(object(person, &project).join("docs/z").exists());
    // Gone from the store, it is made again.
    person.igloo(&project, &["gc"]).ok();
    assert!(object(person, &project).join("docs/z").exists());
}
