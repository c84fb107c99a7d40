//! The way out of a container, if it has one: connections that its programs make are answered by sockets that the
//! supervisor holds, which lives in the host's network and connects on their behalf.
//!
//! So nothing of the host's network is touched, no device is needed, and the same works for everybody. The kernel does
//! TCP on both sides. It tells who was meant to be reached, and the supervisor decides whether that may be.

mod nft;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use nft::Rule;

use crate::spec::{Egress, Ipv4Net};

/// Where names are asked for in a container with a way out.
pub const NAMESERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 254);
/// Where the host is called so: an address of the project's network that nobody has.
pub const HOST: &str = "host.igloo";

/// Sockets and rules, in the network namespace that the caller is in. The first socket is for connections, the other
/// two for names, by datagram and by connection.
pub(crate) fn prepare(egress: &Egress, net: Ipv4Net, gateway: Option<Ipv4Addr>) -> io::Result<Vec<OwnedFd>> {
    let connections = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let here = connections.local_addr()?.port();
    let hosts =
        gateway.into_iter().flat_map(|gateway| egress.host.iter().map(move |p| Rule::Divert(gateway, *p, here)));
    let mut rules: Vec<Rule> = hosts.collect();
    let mut sockets = vec![connections.into()];
    if egress.open {
        rules.extend([
            Rule::Pass(net.address, net.prefix),
            Rule::Pass(Ipv4Addr::new(127, 0, 0, 0), 8),
            // Metadata of clouds and the like: for the machine, not for its guests.
            Rule::Pass(Ipv4Addr::new(169, 254, 0, 0), 16),
            Rule::Pass(Ipv4Addr::new(224, 0, 0, 0), 3),
            Rule::DivertAll(here),
        ]);
        sockets.push(UdpSocket::bind((NAMESERVER, 53))?.into());
        sockets.push(TcpListener::bind((NAMESERVER, 53))?.into());
    }
    nft::install(&rules)?;
    Ok(sockets)
}

/// Whom a connection that was answered here was meant for.
pub fn meant_for(connection: impl AsFd) -> io::Result<SocketAddr> {
    let (address, port) = crate::sys::original_destination(connection)?;
    Ok(SocketAddrV4::new(Ipv4Addr::from(address), port).into())
}
