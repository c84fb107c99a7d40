//! Nix archives (`nix-archive-1`).
