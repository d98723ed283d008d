//! A user of Redis that a test may lock out without touching the stack's own.

use redis::FromRedisValue;

use crate::{database::name, support::redis_connection};

/// A user of Redis with the rules of the backend's own, which exists as long as this value.
pub(crate) struct RedisUser(pub(crate) String);

impl RedisUser {
    pub(crate) fn new(password: &str) -> Self {
        let user = Self(name());
        let rules = include_str!("../../../deploy/redis/backend.acl");
        let rules = rules.lines().filter(|line| !line.starts_with('#'));
        let mut words = vec!["on".to_owned(), format!(">{password}")];
        words.extend(rules.flat_map(str::split_whitespace).map(str::to_owned));
        user.set(&words);
        user
    }

    pub(crate) fn set(&self, words: &[String]) {
        ask::<()>(redis::cmd("ACL").arg("SETUSER").arg(&self.0).arg(words));
    }

    /// What a network does as well: every connection is gone.
    pub(crate) fn cut(&self) {
        ask::<i64>(redis::cmd("CLIENT").arg("KILL").arg("USER").arg(&self.0));
    }
}

impl Drop for RedisUser {
    fn drop(&mut self) {
        ask::<i64>(redis::cmd("ACL").arg("DELUSER").arg(&self.0));
    }
}

fn ask<T: FromRedisValue>(command: &redis::Cmd) -> T {
    command.query(&mut redis_connection()).unwrap()
}
