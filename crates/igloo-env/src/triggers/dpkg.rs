//! Trigger 11: dpkg's database, for scanners and for people who ask `dpkg -l` or `dpkg -L`.

use crate::EnvError;
use crate::layer::Layer;

pub(crate) fn run(layer: &mut Layer<'_>) -> Result<(), EnvError> {
    let union = layer.union;
    let mut order: Vec<usize> = (0..union.members.len()).collect();
    order.sort_by_key(|&m| (&union.members[m].name, &union.members[m].architecture));
    let mut status = String::new();
    for m in order {
        let Some(control) = union.control(m, "control")? else { continue };
        let control = String::from_utf8_lossy(&control);
        let mut lines = control.lines().take_while(|l| !l.trim().is_empty());
        if let Some(first) = lines.next() {
            status += &format!("{first}\nStatus: install ok installed\n");
        }
        for line in lines.filter(|l| !l.to_ascii_lowercase().starts_with("status:")) {
            status += line;
            status.push('\n');
        }
        let conffiles = &union.metas[m].conffiles;
        if !conffiles.is_empty() {
            // dpkg compares digests only at an upgrade, which never happens here.
            status += "Conffiles:\n";
            for path in conffiles {
                status += &format!(" {path} newconffile\n");
            }
        }
        status.push('\n');
        let member = &union.members[m];
        let same = control.lines().any(|l| l.trim_end() == "Multi-Arch: same");
        let name = if same { format!("{}:{}", member.name, member.architecture) } else { member.name.clone() };
        let mut list = String::from("/.\n");
        for entry in &union.metas[m].entries {
            list.push('/');
            list += &entry.path;
            list.push('\n');
        }
        layer.put(&format!("var/lib/dpkg/info/{name}.list"), list);
    }
    layer.put("var/lib/dpkg/status", status);
    layer.put("var/lib/dpkg/available", "");
    layer.put("var/lib/dpkg/info/format", "1\n");
    layer.directory("var/lib/dpkg/updates", 0o755, 0, 0, false);
    Ok(())
}
