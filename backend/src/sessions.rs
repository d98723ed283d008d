//! Sessions: a random id in a cookie, a record in Redis. docs/redis-session-strategy.md says why
//! they are ours and what they promise.

mod agent;
mod cookie;
mod handle;
mod id;
mod routes;
mod signed_in;
mod store;

pub use cookie::Cookies;
pub use handle::Handle;
pub use id::SessionId;
pub use routes::router;
pub use signed_in::SignedIn;
pub use store::{Session, Sessions};
