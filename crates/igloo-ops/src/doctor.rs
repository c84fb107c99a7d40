//! `igloo doctor`: what this machine allows. TEMPORARY
#[allow(missing_docs)]
#[derive(serde::Serialize,PartialEq,Clone,Copy)]
pub enum Status{Ok,Degraded,Missing}
#[allow(missing_docs)]
#[derive(serde::Serialize)]
pub struct Finding{pub status:Status,pub name:String,pub detail:String,pub cause:Option<String>,pub remedy:Option<String>}
use crate::context::Context;
/// x
pub fn examine(_: &Context<'_>) -> Vec<Finding> { Vec::new() }
