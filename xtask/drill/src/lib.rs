//! Proof under load and faults. One supervisor owns the workload, the faults and the checker: it
//! loads a stack of its own at a constant rate, breaks a part of it for real, and compares what the
//! stack says afterwards with what it had acknowledged.
//!
//! `cargo xtask drill` prepares that stack, runs this program and removes the stack again.
//!
//! The same load without faults is a benchmark: [`bench`], which is a program of its own.

pub mod arena;
pub mod bench;
pub mod cases;
pub mod checker;
pub mod docker;
pub mod load;
pub mod probe;
pub mod proxy;
pub mod report;
pub mod root;
pub mod run;
pub mod secrets;
pub mod stack;
pub mod supervisor;
pub mod undo;
pub mod usage;
pub mod workload;
