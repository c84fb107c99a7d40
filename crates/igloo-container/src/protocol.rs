//! Messages between supervisor, sandbox and shim.
