//! What services reach: in a network of this test's own, with another machine and a name server in it.

use std::fs;
use std::process::Command;

use crate::world::people;

const MANIFEST: &str = r#"
[project]
name = "network"

[sources.debian]
suite = "bookworm"

[services.open]
packages = ["busybox-static"]
network = "open"
run = ["/bin/busybox", "sleep", "1000"]

[services.inside]
packages = ["busybox-static"]
run = ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/etc"]

[services.host]
packages = ["busybox-static"]
host = [7000]
run = ["/bin/busybox", "sleep", "1000"]

[services.alone]
packages = ["busybox-static"]
network = "none"
run = ["/bin/busybox", "sleep", "1000"]
"#;

/// Another machine at 198.51.100.2, which this one (198.51.100.1) reaches by a cable, and which knows all names. Both have
/// a web server; this one's 127.0.0.1 has two.
const WORLD: &str = r#"
set -e
mount --make-rprivate /
unshare -n sleep 1000 & peer=$!
trap 'kill $(jobs -p)' EXIT
while [ "$(readlink /proc/$peer/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do :; done
ip link set lo up
ip link add cable type veth peer name cable netns $peer
ip addr add 198.51.100.1/24 dev cable; ip link set cable up
nsenter -t $peer -n sh -c 'ip link set lo up; ip addr add 198.51.100.2/24 dev cable; ip link set cable up'
nsenter -t $peer -n python3 "$1/server.py" peer 198.51.100.2:80 dns &
python3 "$1/server.py" own 198.51.100.1:80 127.0.0.1:7000 127.0.0.1:7001 &
echo nameserver 198.51.100.2 > "$1/resolv.conf"
mount --bind "$1/resolv.conf" /etc/resolv.conf
for address in 198.51.100.2/80 198.51.100.1/80 127.0.0.1/7000 127.0.0.1/7001; do
    until (: < /dev/tcp/$address) 2>/dev/null; do :; done
done
cd "$1"; shift
setpriv --reuid="$1" --regid="$2" --clear-groups -- bash -c '
    trap "igloo down >/dev/null 2>&1" EXIT
    igloo up --wait || exit 1
    get() { timeout 20 igloo exec "$1" /bin/busybox timeout 5 /bin/busybox wget -q -O - "$2" 2>/dev/null || echo nothing; }
    no() { timeout 20 igloo exec "$1" /bin/busybox timeout 1 /bin/busybox wget -q -O - "$2" 2>/dev/null || echo nothing; }
    echo "peer $(get open http://198.51.100.2/)"
    echo "name $(get open http://anything.example/)"
    echo "own $(no open http://198.51.100.1/)"
    echo "loopback $(no open http://127.0.0.1:7000/)"
    echo "metadata $(no open http://169.254.169.254/)"
    echo "host-unnamed $(no open http://host.igloo:7000/)"
    echo "neighbour $(get open http://inside/hostname)"
    echo "large $(igloo exec open /bin/busybox wget -q -O - http://198.51.100.2/large | sha256sum | cut -c1-16)"
    echo "inside-peer $(no inside http://198.51.100.2/)"
    echo "inside-name $(no inside http://anything.example/)"
    echo "host-named $(get host http://host.igloo:7000/)"
    echo "host-other $(no host http://host.igloo:7001/)"
    echo "host-peer $(no host http://198.51.100.2/)"
    echo "alone-neighbour $(no alone http://inside/hostname)"
    echo "alone-devices $(igloo exec alone /bin/busybox ls /sys/class/net)"
    igloo audit --brief --json >/dev/null && echo audit passes
    igloo ps --security'
"#;

/// An HTTP server that says who it is, and a name server for which every name is 198.51.100.2.
const SERVER: &str = r#"
import http.server, socket, sys, threading
name, *places = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = bytes(range(256)) * 65536 if self.path == '/large' else name.encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
def names():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('198.51.100.2', 53))
    while True:
        q, who = s.recvfrom(512)
        end = q.index(0, 12) + 5
        v4 = q[end-4:end-2] == b'\x00\x01'
        a = b'\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04' + bytes([198, 51, 100, 2]) if v4 else b''
        s.sendto(q[:2] + b'\x81\x80\x00\x01' + bytes([0, int(v4)]) + b'\x00\x00\x00\x00' + q[12:end] + a, who)
for place in places:
    if place == 'dns':
        threading.Thread(target=names).start()
        continue
    host, port = place.rsplit(':', 1)
    server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
    threading.Thread(target=server.serve_forever).start()
"#;

#[test]
fn services_reach_what_they_were_given() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can make a network to try this in");
        return;
    }
    for person in people() {
        let project = person.project("network", MANIFEST);
        fs::write(project.join("server.py"), SERVER).expect("write");
        fs::write(project.join("world.sh"), WORLD).expect("write");
        person.own(&project);
        person.igloo(&project, &["fetch"]).ok();
        let own = person.igloo_command(&project, &[]);
        let mut command = Command::new("unshare");
        command.args(["-n", "-m", "bash"]).arg(project.join("world.sh")).arg(&project);
        command.args(person.ids().map(|id| id.to_string())).env_clear();
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.output().expect("run");
        let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        for line in [
            "peer peer",
            "name peer",
            "own nothing",
            "loopback nothing",
            "metadata nothing",
            "host-unnamed nothing",
            "neighbour inside",
            "inside-peer nothing",
            "inside-name nothing",
            "host-named own",
            "host-other nothing",
            "host-peer nothing",
            "alone-neighbour nothing",
            "alone-devices lo",
            "audit passes",
        ] {
            assert!(text.lines().any(|l| l == line), "{}: no `{line}` in\n{text}\n{said}", person.name);
        }
        let large = igloo_base::Sha256::of(&(0..=255).collect::<Vec<u8>>().repeat(65536)).to_string();
        let digest = large.trim_start_matches("sha256:").get(..16).expect("digest").to_owned();
        assert!(text.contains(&format!("large {digest}")), "{text} {digest}");
        assert!(text.contains("network = \"open\"") && text.contains("host = [7000]"), "{text}");
    }
}
