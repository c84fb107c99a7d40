//! Plain HTTP through a proxy: the connection goes to the proxy, and the request names the whole address.
//!
//! The library below only knows `CONNECT`. So its resolver is told the proxy's address whatever is asked, and the
//! first line of each request is rewritten on its way out.

use std::fmt::Debug;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Error, Proxy};

use super::base64;
use super::resolve::Remembering;

/// Resolves every address to that of the proxy.
#[derive(Debug)]
pub(super) struct ProxyResolver {
    proxy: Uri,
    inner: Remembering,
}

impl ProxyResolver {
    pub(super) fn new(proxy: &Proxy) -> Self {
        Self { proxy: proxy.uri().clone(), inner: Remembering::default() }
    }
}

impl Resolver for ProxyResolver {
    fn resolve(&self, _: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        self.inner.resolve(&self.proxy, config, timeout)
    }
}

/// Wraps connections in [`Forward`].
#[derive(Debug)]
pub(super) struct ForwardConnector {
    credentials: Option<String>,
}

impl ForwardConnector {
    pub(super) fn new(proxy: &Proxy) -> Self {
        let credentials = proxy
            .username()
            .map(|user| base64::encode(format!("{user}:{}", proxy.password().unwrap_or_default()).as_bytes()));
        Self { credentials }
    }
}

impl<T: Transport> Connector<T> for ForwardConnector {
    type Out = Forward<T>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<T>) -> Result<Option<Forward<T>>, Error> {
        let origin = details.uri.authority().map(|host| format!("http://{host}")).unwrap_or_default();
        let credentials = self.credentials.clone();
        Ok(chained.map(|inner| Forward { inner, origin, credentials, in_head: false }))
    }
}

/// A connection to a proxy.
#[derive(Debug)]
pub(super) struct Forward<T> {
    inner: T,
    origin: String,
    credentials: Option<String>,
    /// The first line is out and the end of the head is not.
    in_head: bool,
}

impl<T: Transport> Transport for Forward<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let buffer = self.inner.buffers().output();
        let longest = buffer.len().max(1);
        let mut out = buffer[..amount].to_vec();
        // Requests have no content here, so what is not within a head begins one. The first line always comes whole:
        // it is written to an empty buffer in one go.
        if !self.in_head {
            out = rewrite(&out, &self.origin, self.credentials.as_deref());
        }
        self.in_head = !out.ends_with(b"\r\n\r\n");
        for part in out.chunks(longest) {
            let length = part.len();
            self.inner.buffers().output()[..length].copy_from_slice(part);
            self.inner.transmit_output(length, timeout)?;
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

/// `GET /x` becomes `GET http://host/x`.
fn rewrite(head: &[u8], origin: &str, credentials: Option<&str>) -> Vec<u8> {
    let Some(blank) = head.iter().position(|b| *b == b' ') else { return head.to_vec() };
    let (method, rest) = head.split_at(blank + 1);
    let mut out = [method, origin.as_bytes(), rest].concat();
    if let (Some(credentials), Some(end)) = (credentials, out.windows(2).position(|w| w == b"\r\n")) {
        let header = format!("\r\nProxy-Authorization: Basic {credentials}");
        out.splice(end..end, header.into_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_whole_address() {
        let head = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
        let text = |credentials| String::from_utf8(rewrite(head, "http://h:1", credentials)).expect("text");
        assert_eq!(text(None), "GET http://h:1/a HTTP/1.1\r\nHost: h\r\n\r\n");
        let with = "GET http://h:1/a HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\nHost: h\r\n\r\n";
        assert_eq!(text(Some("dTpw")), with);
    }
}
