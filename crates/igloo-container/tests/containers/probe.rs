//! Runs inside a container: a server, a client, and one who tries what a container must not do.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// `serve ADDRESS TEXT`, `fetch ADDRESS`, `calls`.
pub fn inside(args: &[String]) -> ExitCode {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", address, text] => {
            let listener = TcpListener::bind(address).unwrap();
            for mut stream in listener.incoming().map(Result::unwrap) {
                drop(stream.write_all(text.as_bytes()));
            }
            ExitCode::SUCCESS
        }
        ["fetch", address] => {
            // The other one may be on its way still.
            for _ in 0..100 {
                if let Ok(mut stream) = TcpStream::connect(address) {
                    let mut text = String::new();
                    stream.read_to_string(&mut text).unwrap();
                    println!("{text}");
                    return ExitCode::SUCCESS;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            ExitCode::FAILURE
        }
        _ => calls(),
    }
}

/// One line per attempt: name and errno, 0 if it worked.
fn calls() -> ExitCode {
    let tell = |name: &str, result: i64| {
        let errno = if result < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 };
        println!("{name} {errno}");
    };
    // SAFETY: every call is made with valid or null pointers; those that work do no harm to this process.
    unsafe {
        let call = |number: i64, a: u64, b: u64, c: u64| libc::syscall(number, a, b, c, 0, 0, 0);
        tell("unshare_user", call(libc::SYS_unshare, 0x1000_0000, 0, 0));
        tell("clone_user", call(libc::SYS_clone, 0x1000_0011, 0, 0));
        tell("clone3", call(libc::SYS_clone3, 0, 0, 0));
        tell("setns", call(libc::SYS_setns, 0, 0, 0));
        tell("mount", call(libc::SYS_mount, 0, 0, 0));
        tell("fsopen", call(libc::SYS_fsopen, 0, 0, 0));
        tell("bpf", call(libc::SYS_bpf, 0, 0, 0));
        tell("perf", call(libc::SYS_perf_event_open, 0, 0, 0));
        tell("userfaultfd", call(libc::SYS_userfaultfd, 0, 0, 0));
        tell("io_uring", call(libc::SYS_io_uring_setup, 1, 0, 0));
        tell("keyctl", call(libc::SYS_keyctl, 0, 0, 0));
        tell("add_key", call(libc::SYS_add_key, 0, 0, 0));
        tell("init_module", call(libc::SYS_init_module, 0, 0, 0));
        tell("kexec", call(libc::SYS_kexec_load, 0, 0, 0));
        tell("reboot", call(libc::SYS_reboot, 0, 0, 0));
        tell("open_by_handle", call(libc::SYS_open_by_handle_at, 0, 0, 0));
        tell("unknown", call(9999, 0, 0, 0));
        let socket = |family: i32, kind: i32| i64::from(libc::socket(family, kind, 0));
        tell("alg", socket(libc::AF_ALG, libc::SOCK_SEQPACKET));
        tell("vsock", socket(libc::AF_VSOCK, libc::SOCK_STREAM));
        tell("packet", socket(libc::AF_PACKET, libc::SOCK_RAW));
        tell("raw", socket(libc::AF_INET, libc::SOCK_RAW));
        tell("raw6", socket(libc::AF_INET6, libc::SOCK_RAW | libc::SOCK_CLOEXEC));
        tell("tcp", socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC));
        tell("udp6", socket(libc::AF_INET6, libc::SOCK_DGRAM));
        tell("netlink", socket(libc::AF_NETLINK, libc::SOCK_RAW));
        tell("tiocsti", i64::from(libc::ioctl(0, 0x5412, c"x".as_ptr())));
        tell("tiocsti_high", call(libc::SYS_ioctl, 0, 0x1_0000_5412, c"x".as_ptr() as u64));
        tell("tioclinux", i64::from(libc::ioctl(0, 0x541c, c"x".as_ptr())));
        tell("personality", i64::from(libc::personality(0x004_0000)));
        tell("personality_query", i64::from(libc::personality(0xffff_ffff)));
        tell("sethostname", i64::from(libc::sethostname(c"x".as_ptr(), 1)));
        tell("mknod", i64::from(libc::mknod(c"/tmp/disk".as_ptr(), libc::S_IFBLK | 0o600, libc::makedev(8, 0))));
        let forked = libc::fork();
        if forked == 0 {
            libc::_exit(0);
        }
        tell("fork", forked.into());
    }
    let threads = std::thread::spawn(|| 1).join();
    println!("thread {}", i32::from(threads.is_err()));
    ExitCode::SUCCESS
}
