//! Sessions: a random id in a cookie, a record in Redis. docs/redis-session-strategy.md says why
//! they are ours and what they promise.

mod cookie;
mod id;
mod signed_in;
mod store;

pub use cookie::Cookies;
pub use id::SessionId;
pub use signed_in::SignedIn;
pub use store::{Session, Sessions};
