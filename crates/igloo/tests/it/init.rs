//! `igloo init --devcontainer`.

use std::fs;

use crate::world::people;

#[test]
fn an_editor_is_told_which_image_to_work_in() {
    let person = people().pop().expect("somebody");
    let fresh = person.directory("fresh");
    person.igloo(&fresh, &["init", "--devcontainer"]).ok();
    let file = fresh.join(".devcontainer/devcontainer.json");
    let text = fs::read_to_string(&file).expect("read");
    let name = fresh.file_name().expect("name").to_string_lossy();
    let expected = format!(
        r#"{{
  "name": "{name}",
  "image": "localhost/dev:latest",
  "initializeCommand": "igloo image load dev",
  "remoteUser": "vscode",
  "updateRemoteUserUID": true,
  "workspaceFolder": "/workspaces/${{localWorkspaceFolderBasename}}",
  "workspaceMount": "source=${{localWorkspaceFolder}},target=/workspaces/${{localWorkspaceFolderBasename}},type=bind"
}}
"#
    );
    assert_eq!(text, expected);
    let manifest = fs::read_to_string(fresh.join("igloo.toml")).expect("read");
    assert!(manifest.ends_with("[images.dev]\nkind = \"devcontainer\"\nof = \"shells.default\"\n"), "{manifest}");
    // Nothing is overwritten unasked, and the image is added once.
    fs::write(&file, "mine").expect("write");
    let said = person.igloo(&fresh, &["init", "--devcontainer"]).fails();
    assert!(said.contains("devcontainer.json` is there already") && said.contains("--force"), "{said}");
    assert_eq!(fs::read_to_string(&file).expect("read"), "mine");
    person.igloo(&fresh, &["init", "--devcontainer", "--force"]).ok();
    assert_eq!(fs::read_to_string(&file).expect("read"), expected);
    assert_eq!(fs::read_to_string(fresh.join("igloo.toml")).expect("read"), manifest);
    person.igloo(&fresh, &["init", "--force"]).fails();
}

#[test]
fn a_devcontainer_that_is_declared_is_used_by_its_name() {
    let person = people().pop().expect("somebody");
    let manifest = "[project]\nname = \"named\"\n[sources.debian]\nsuite = \"bookworm\"\n# work here\n[images.work]\n\
                    kind = \"devcontainer\"\npackages = [\"git\"]\nname = \"registry.example/acme/work\"\n";
    let project = person.project("named", manifest);
    fs::create_dir(project.join("below")).expect("mkdir");
    person.own(&project);
    person.igloo(&project.join("below"), &["init", "--devcontainer"]).ok();
    let text = fs::read_to_string(project.join(".devcontainer/devcontainer.json")).expect("read");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["image"], "registry.example/acme/work:latest");
    assert_eq!(json.get("initializeCommand"), None);
    assert_eq!(fs::read_to_string(project.join("igloo.toml")).expect("read"), manifest);
}
