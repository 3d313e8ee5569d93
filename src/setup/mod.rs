//! Registers this server with hosts: what would change in their files, and the change itself. `config/hosts.yaml` says
//! where each host keeps its servers, and how an entry looks there.
//!
//! A plan is made from the texts of the files and changes nothing; a person sees it before it is applied. This room
//! prints nothing.

mod apply;
mod edit;
mod edit_json;
mod edit_toml;
mod entry;
mod plan;

pub(crate) use self::apply::{Applied, apply};
pub(crate) use self::plan::{FileEdit, SetupPlan, SetupRequest, plan};
