//! Registers this server with hosts, in two steps: planning the changes of their files, and applying them.
//! `config/hosts.yaml` names each host's file and the form of an entry in it.
//!
//! Planning only reads, so that the user can see the plan before it is applied. This room prints nothing.

mod apply;
mod edit;
mod edit_json;
mod edit_toml;
mod entry;
mod plan;

pub(crate) use self::apply::{Applied, apply};
pub(crate) use self::plan::{FileEdit, SetupPlan, SetupRequest, plan};
