//! What a stack is: which files describe it, what is wanted, what is there, the plan between
//! the two, and the wait until it is carried out. Mostly pure; arrows point down to `ctx` only.

pub(crate) mod certificate;
pub(crate) mod claim;
pub(crate) mod green;
pub(crate) mod lock;
pub(crate) mod major;
pub(crate) mod plan;
pub(crate) mod ports;
pub(crate) mod project;
pub(crate) mod readiness;
pub(crate) mod reload;
pub(crate) mod rendering;
pub(crate) mod report;
pub(crate) mod roles;
pub(crate) mod rotation;
pub(crate) mod running;
pub(crate) mod secrets;
pub(crate) mod timings;
pub(crate) mod tracker;
pub(crate) mod trial;
pub(crate) mod usage;
pub(crate) mod wanted;
