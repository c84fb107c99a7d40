//! The few rules of nftables that send connections to a socket of ours, spoken to the kernel directly: no program is
//! run, and they end with the network namespace that they are in.

use std::io;
use std::net::Ipv4Addr;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

const IPV4: u8 = 2;
const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const TABLE: &[u8] = b"igloo\0";
const CHAIN: &[u8] = b"output\0";
const TCP: u8 = 6;
/// Of an IPv4 header: where the destination is.
const DESTINATION: u32 = 16;
/// Of a TCP header: where the port is.
const PORT: u32 = 2;

/// What happens to a connection that a program of the namespace makes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// One to an address of this network goes its way.
    Pass(Ipv4Addr, u8),
    /// One to this address and port is answered at a port of 127.0.0.1.
    Divert(Ipv4Addr, u16, u16),
    /// So is any other.
    DivertAll(u16),
}

/// Installs rules for TCP, the first that fits counts.
pub(super) fn install(rules: &[Rule]) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.message(BATCH_BEGIN, REQUEST, 0, 10, &[]);
    batch.message(NEW_TABLE, REQUEST | CREATE | ACK, IPV4, 0, &attribute(1, TABLE));
    // Where packets are that the namespace's own programs send, before they are routed.
    let hook = [attribute(1, &3u32.to_be_bytes()), attribute(2, &(-100i32).to_be_bytes())].concat();
    let chain = [attribute(1, TABLE), attribute(3, CHAIN), attribute(4 | NESTED, &hook), attribute(7, b"nat\0")];
    batch.message(NEW_CHAIN, REQUEST | CREATE | ACK, IPV4, 0, &chain.concat());
    for rule in rules {
        let expressions = match *rule {
            Rule::Pass(net, prefix) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
                let net = u32::from(net) & mask;
                [to(mask, net), verdict_accept()].concat()
            }
            Rule::Divert(address, port, here) => {
                [to(u32::MAX, u32::from(address)), tcp(), at_port(port), redirect(here)].concat()
            }
            Rule::DivertAll(here) => [tcp(), redirect(here)].concat(),
        };
        let rule = [attribute(1, TABLE), attribute(2, CHAIN), attribute(4 | NESTED, &expressions)].concat();
        batch.message(NEW_RULE, REQUEST | CREATE | APPEND | ACK, IPV4, 0, &rule);
    }
    batch.message(BATCH_END, REQUEST, 0, 10, &[]);
    batch.send()
}

/// Messages that the kernel takes all or none of.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    answers: usize,
}

impl Batch {
    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) {
        let length = u32::try_from(16 + 4 + attributes.len()).unwrap_or(u32::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(attributes);
        self.sequence += 1;
        self.answers += usize::from(flags & ACK != 0);
    }

    fn send(self) -> io::Result<()> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.send(&self.bytes, 0)?;
        let mut answers = 0;
        while answers < self.answers {
            let (bytes, _) = socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while let Some((head, _)) = rest.split_first_chunk::<20>() {
                let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
                if u16::from_ne_bytes([head[4], head[5]]) == ERROR {
                    let code = i32::from_ne_bytes([head[16], head[17], head[18], head[19]]);
                    if code != 0 {
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    answers += 1;
                }
                rest = rest.get(length.next_multiple_of(4).max(20)..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn expression(name: &[u8], data: &[Vec<u8>]) -> Vec<u8> {
    let inner = [attribute(1, name), attribute(2 | NESTED, &data.concat())].concat();
    attribute(1 | NESTED, &inner)
}

fn value(kind: u16, bytes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, &attribute(1, bytes))
}

/// In register 1, equal to this.
fn equals(bytes: &[u8]) -> Vec<u8> {
    expression(b"cmp\0", &[number(1, 1), number(2, 0), value(3, bytes)])
}

/// The destination is in a network.
fn to(mask: u32, net: u32) -> Vec<u8> {
    let load = expression(b"payload\0", &[number(1, 1), number(2, 1), number(3, DESTINATION), number(4, 4)]);
    let (mask, none) = (value(4, &mask.to_be_bytes()), value(5, &[0; 4]));
    let masked = expression(b"bitwise\0", &[number(1, 1), number(2, 1), number(3, 4), mask, none]);
    [load, masked, equals(&net.to_be_bytes())].concat()
}

fn tcp() -> Vec<u8> {
    const PROTOCOL: u32 = 16;
    [expression(b"meta\0", &[number(1, 1), number(2, PROTOCOL)]), equals(&[TCP])].concat()
}

fn at_port(port: u16) -> Vec<u8> {
    let load = expression(b"payload\0", &[number(1, 1), number(2, 2), number(3, PORT), number(4, 2)]);
    [load, equals(&port.to_be_bytes())].concat()
}

fn verdict_accept() -> Vec<u8> {
    let verdict = attribute(2 | NESTED, &number(1, 1));
    expression(b"immediate\0", &[number(1, 0), attribute(2 | NESTED, &verdict)])
}

/// To a port of 127.0.0.1.
fn redirect(port: u16) -> Vec<u8> {
    let load = expression(b"immediate\0", &[number(1, 1), value(2, &port.to_be_bytes())]);
    [load, expression(b"redir\0", &[number(1, 1)])].concat()
}
