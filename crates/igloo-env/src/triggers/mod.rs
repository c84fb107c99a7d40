//! What igloo does in place of dpkg's triggers and of scripts. The order is part of [`crate::TRIGGERS`].

pub(crate) mod accounts;
pub(crate) mod alternatives;
pub(crate) mod certificates;
pub(crate) mod diversions;
pub(crate) mod dpkg;
pub(crate) mod etc;
pub(crate) mod ldcache;
pub(crate) mod links;
pub(crate) mod pam;
pub(crate) mod tmpfiles;
pub(crate) mod units;
