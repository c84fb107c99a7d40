//! What the machine's own apt is configured to use.
