//! Addresses of a project's services: decided once per service name, so that nobody's address moves when another
//! service comes or goes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use igloo_base::dirs::ProjectId;
use igloo_base::file::{FileLock, create_dirs, read_optional, write_atomic};
use igloo_container::Ipv4Net;

use crate::context::Context;
use crate::error::OpsError;

/// The project's network, by its bridge's address.
pub(crate) fn subnet(id: &ProjectId) -> Ipv4Net {
    let net = igloo_container::network::subnet_for(&id.0);
    net.gateway().unwrap_or(net)
}

/// The address of each of `names`; new ones get the lowest number that no service of the project ever had.
pub(crate) fn addresses<'n>(
    ctx: &Context<'_>,
    id: &ProjectId,
    names: impl Iterator<Item = &'n str>,
) -> Result<BTreeMap<String, Ipv4Addr>, OpsError> {
    let state = ctx.dirs.project_state(id);
    create_dirs(&state)?;
    let _lock = FileLock::exclusive(state.join("addresses.lock"))?;
    let path = state.join("addresses.json");
    // A file that can't be read is derivable: numbers are given anew.
    let mut numbers: BTreeMap<String, u32> =
        read_optional(&path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let before = numbers.len();
    let subnet = subnet(id);
    let mut addresses = BTreeMap::new();
    for name in names {
        let number = match numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = (0..).find(|n| !numbers.values().any(|taken| taken == n)).unwrap_or(0);
                numbers.insert(name.to_owned(), number);
                number
            }
        };
        let net = subnet.service(number).ok_or_else(|| OpsError::TooManyServices { service: name.to_owned() })?;
        addresses.insert(name.to_owned(), net.address);
    }
    if numbers.len() != before {
        let text = serde_json::to_vec_pretty(&numbers).map_err(OpsError::Json)?;
        write_atomic(&path, &text)?;
    }
    Ok(addresses)
}
