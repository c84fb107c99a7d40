//! The project's network: one bridge in the sandbox's network namespace and a veth pair per container.
//!
//! Speaks rtnetlink itself, synchronously: no program is run and nothing is waited for. A [`Link`] is a
//! socket that belongs for ever to the namespace it was opened in, so that a process which then moves
//! on to another namespace can still arrange both ends of a pair.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::str::FromStr;

use igloo_base::Sha256;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeader, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use serde::{Deserialize, Serialize};

use crate::spec::Ipv4Net;

/// Index of the loopback device, the same in every network namespace.
const LOOPBACK: u32 = 1;
/// Index that we give to the one device of ours in a namespace (the bridge, or a container's `eth0`), so
/// that nobody has to look it up. High, since kernels with tunnel modules put devices of their own at 2, 3, ...
const OURS: u32 = 1000;

/// An act on the network that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act}")]
pub struct NetworkError {
    /// What was tried: ``create the bridge `igloo0` ``.
    pub act: String,
    /// What the kernel said.
    pub source: io::Error,
}

/// A text that is no IPv4 network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no IPv4 network (`10.64.3.0/24`)")]
pub struct BadNet(pub String);

impl Ipv4Net {
    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0)
    }

    /// True if the address lies in this network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (u32::from(self.address) ^ u32::from(address)) & self.mask() == 0
    }

    /// The network's host number `n`, 1 being the first; `None` beyond the last (the broadcast address is no host).
    pub fn host(&self, n: u32) -> Option<Self> {
        let last = !self.mask();
        let usable = n >= 1 && n < last;
        usable.then(|| Self { address: Ipv4Addr::from((u32::from(self.address) & self.mask()) + n), ..*self })
    }

    /// The bridge's own address: host 1.
    pub fn gateway(&self) -> Option<Self> {
        self.host(1)
    }

    /// Address of the service with this index (0, 1, ...): from host 2 on.
    pub fn service(&self, index: u32) -> Option<Self> {
        self.host(index.checked_add(2)?)
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Ipv4Net {
    type Err = BadNet;

    fn from_str(text: &str) -> Result<Self, BadNet> {
        let bad = || BadNet(text.chars().take(64).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        match (address.parse(), prefix.parse()) {
            (Ok(address), Ok(prefix @ 0..=32)) => Ok(Self { address, prefix }),
            _ => Err(bad()),
        }
    }
}

/// The network of a project, always the same one for the same project: one of the 16384 `/24` of
/// 10.64.0.0/10. Each project has a network namespace of its own, so that two which share a number do not meet.
pub fn subnet_for(project: &str) -> Ipv4Net {
    let digest = Sha256::of(project.as_bytes()).0;
    Ipv4Net { address: Ipv4Addr::new(10, 64 + (digest[0] & 63), digest[1], 0), prefix: 24 }
}

/// What [`attach`] needs to know of one container's connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Name of the bridge's end of the pair, at most 15 bytes; see [`veth_name`].
    pub name: String,
    /// The container's address.
    pub address: Ipv4Net,
    /// Where its default route goes; none means that there is nothing but the project's network.
    pub gateway: Option<Ipv4Addr>,
}

/// Name of the bridge's end for the service with this index.
pub fn veth_name(index: u32) -> String {
    format!("veth{index}")
}

/// Makes the bridge of the network namespace that the caller is in, gives it its address and sets it and `lo` up.
pub fn create_bridge(name: &str, gateway: Ipv4Net) -> Result<(), NetworkError> {
    let mut link = Link::open()?;
    let mut bridge = LinkMessage::default();
    bridge.header.index = OURS;
    set_up(&mut bridge);
    bridge.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            // No spanning tree and no learning delay: a port forwards from the moment that it is up.
            LinkInfo::Data(InfoData::Bridge(vec![
                InfoBridge::ForwardDelay(0),
                InfoBridge::StpState(BridgeStpState::Disabled),
                InfoBridge::MulticastSnooping(false),
            ])),
        ]),
    ];
    link.request(vec![
        (format!("create the bridge `{name}`"), RouteNetlinkMessage::NewLink(bridge), NLM_F_CREATE | NLM_F_EXCL),
        up(LOOPBACK, "lo"),
        address(OURS, name, gateway),
    ])
}

/// Connects a container: makes a veth pair, one end on the bridge of `bridge`'s namespace, the other one
/// as `eth0` in the namespace `netns`, which must be the one that `container` was opened in.
pub fn attach(
    bridge: &mut Link,
    container: &mut Link,
    netns: BorrowedFd<'_>,
    to: &Attachment,
) -> Result<(), NetworkError> {
    let mut peer = LinkMessage::default();
    peer.header.index = OURS;
    peer.attributes = vec![LinkAttribute::IfName("eth0".to_owned()), LinkAttribute::NetNsFd(netns.as_raw_fd())];
    let mut port = LinkMessage::default();
    // The kernel heeds the peer's index only if this end asks for one, too.
    port.header.index = port_index(&to.name);
    set_up(&mut port);
    port.attributes = vec![
        LinkAttribute::IfName(to.name.clone()),
        LinkAttribute::Controller(OURS),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    let act = format!("create the network interface `{}` on the bridge", to.name);
    bridge.request(vec![(act, RouteNetlinkMessage::NewLink(port), NLM_F_CREATE | NLM_F_EXCL)])?;
    let mut acts = vec![up(LOOPBACK, "lo"), address(OURS, "eth0", to.address), up(OURS, "eth0")];
    if let Some(gateway) = to.gateway {
        acts.push(default_route(gateway));
    }
    container.request(acts)
}

/// An index for the bridge's end of a pair: from the number at the end of its name, above all that the kernel gives.
fn port_index(name: &str) -> u32 {
    let number = name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    (OURS + 1).saturating_add(number)
}

/// Sets up `lo` of the network namespace that the caller is in.
pub fn loopback_up() -> Result<(), NetworkError> {
    Link::open()?.request(vec![up(LOOPBACK, "lo")])
}

type Act = (String, RouteNetlinkMessage, u16);

fn set_up(message: &mut LinkMessage) {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
}

fn up(index: u32, name: &str) -> Act {
    let mut message = LinkMessage::default();
    message.header.index = index;
    set_up(&mut message);
    (format!("set the network interface `{name}` up"), RouteNetlinkMessage::SetLink(message), 0)
}

fn address(index: u32, name: &str, net: Ipv4Net) -> Act {
    let mut message = AddressMessage::default();
    message.header = AddressHeader {
        family: AddressFamily::Inet,
        prefix_len: net.prefix.min(32),
        scope: AddressScope::Universe,
        index,
        ..AddressHeader::default()
    };
    let broadcast = Ipv4Addr::from(u32::from(net.address) | !net.mask());
    message.attributes = vec![
        AddressAttribute::Local(net.address.into()),
        AddressAttribute::Address(net.address.into()),
        AddressAttribute::Broadcast(broadcast),
    ];
    let act = format!("give the network interface `{name}` the address {net}");
    (act, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

fn default_route(gateway: Ipv4Addr) -> Act {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Boot,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(OURS)];
    (format!("route by way of {gateway}"), RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// A routing socket of one network namespace.
pub struct Link {
    socket: Socket,
    sequence: u32,
}

impl Link {
    /// Opens a socket of the namespace that the caller is in.
    pub fn open() -> Result<Self, NetworkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self { socket, sequence: 0 })
        };
        open().map_err(|source| NetworkError { act: "open a routing socket".to_owned(), source })
    }

    /// Opens a socket of the namespace `netns`; the calling thread is in it meanwhile, and back afterwards.
    pub fn open_in(netns: BorrowedFd<'_>) -> Result<Self, NetworkError> {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        let enter = |fd: BorrowedFd<'_>| {
            move_into_link_name_space(fd, Some(LinkNameSpaceType::Network))
                .map_err(|e| NetworkError { act: "enter a network namespace".to_owned(), source: e.into() })
        };
        let own = std::fs::File::open("/proc/thread-self/ns/net")
            .map_err(|source| NetworkError { act: "open the own network namespace".to_owned(), source })?;
        enter(netns)?;
        let link = Self::open();
        enter(own.as_fd())?;
        link
    }

    /// Sends all requests in one message and reads one answer for each; the first refusal is the error.
    fn request(&mut self, acts: Vec<Act>) -> Result<(), NetworkError> {
        let mut batch = Vec::new();
        let first = self.sequence.wrapping_add(1);
        let mut names = Vec::with_capacity(acts.len());
        for (act, message, flags) in acts {
            self.sequence = self.sequence.wrapping_add(1);
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
            header.sequence_number = self.sequence;
            let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
            message.finalize();
            let start = batch.len();
            batch.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut batch[start..]);
            names.push(act);
        }
        let Some(whole) = names.first().cloned() else { return Ok(()) };
        let failed = |act: String| move |source: io::Error| NetworkError { act, source };
        self.socket.send(&batch, 0).map_err(failed(whole.clone()))?;
        let mut answers = 0;
        let mut result = Ok(());
        while answers < names.len() {
            let (bytes, _) = self.socket.recv_from_full().map_err(failed(whole.clone()))?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|e| failed(whole.clone())(io::Error::new(io::ErrorKind::InvalidData, e)))?;
                let length = (message.header.length as usize).next_multiple_of(4).clamp(16, rest.len());
                rest = &rest[length..];
                let NetlinkPayload::Error(answer) = message.payload else { continue };
                answers += 1;
                if let (Some(code), Ok(())) = (answer.code, &result) {
                    let index = message.header.sequence_number.wrapping_sub(first) as usize;
                    let act = names.get(index).unwrap_or(&whole).clone();
                    result = Err(failed(act)(io::Error::from_raw_os_error(code.get().saturating_abs())));
                }
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_a_network() {
        let net: Ipv4Net = "10.64.3.0/24".parse().expect("parse");
        assert_eq!(net.gateway().map(|n| n.to_string()).as_deref(), Some("10.64.3.1/24"));
        assert_eq!(net.service(0).map(|n| n.to_string()).as_deref(), Some("10.64.3.2/24"));
        assert_eq!(net.service(252).map(|n| n.to_string()).as_deref(), Some("10.64.3.254/24"));
        assert_eq!(net.service(253), None);
        assert_eq!(net.service(u32::MAX), None);
        assert!(net.contains(Ipv4Addr::new(10, 64, 3, 255)) && !net.contains(Ipv4Addr::new(10, 64, 4, 0)));
    }

    #[test]
    fn text_of_a_network() {
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert!(bad.parse::<Ipv4Net>().is_err(), "{bad}");
        }
        let net = Ipv4Net { address: Ipv4Addr::LOCALHOST, prefix: 8 };
        assert_eq!(net.to_string(), "127.0.0.1/8");
        assert_eq!(net.to_string().parse(), Ok(net));
    }

    #[test]
    fn a_project_keeps_its_network() {
        let net = subnet_for("guestbook-0123abcd");
        assert_eq!(net, subnet_for("guestbook-0123abcd"));
        assert!("10.64.0.0/10".parse::<Ipv4Net>().expect("parse").contains(net.address));
        assert_ne!(net, subnet_for("guestbook-0123abce"));
    }
}
