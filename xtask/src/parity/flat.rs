//! A rendering as a map from paths to values, in which order means nothing that means nothing to
//! Compose. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// Values by path. A list whose order matters, such as a command, is one value.
pub(crate) type Flat = BTreeMap<Vec<String>, Value>;

/// Flattens what `docker compose config --format json` says. Paths of the host below `root`, the
/// project's folder, become relative to it.
pub(crate) fn flatten(config: &Value, root: &str) -> Flat {
    let mut flat = Flat::new();
    let parts = config.as_object().into_iter().flatten();
    // Extensions at the top are anchors, but for those that xtask reads.
    let is_read = |name: &str| {
        !name.starts_with("x-") || name.ends_with("-on-change") || name == "x-switch-over"
    };
    for (name, value) in parts.filter(|(name, _)| is_read(name)) {
        add(&mut flat, vec![name.clone()], value, root);
    }
    flat
}

fn add(flat: &mut Flat, path: Vec<String>, value: &Value, root: &str) {
    let below = |name: String| path.iter().cloned().chain([name]).collect::<Vec<String>>();
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                add(flat, below(name.clone()), field, root);
            }
        }
        Value::Array(items) if !is_ordered(&path) && !items.is_empty() => {
            let names: Vec<String> = items.iter().map(|item| key_of(item).0).collect();
            for item in items {
                let (name, rest) = key_of(item);
                // A port that is published twice is two things, and none may hide behind the other.
                let is_one = names.iter().filter(|other| **other == name).count() == 1;
                let name = if is_one { name } else { item.to_string() };
                add(flat, below(name), &rest, root);
            }
        }
        Value::String(text) => {
            let text = text.strip_prefix(root).map_or(text.as_str(), |rest| rest);
            flat.insert(path, Value::String(text.trim_start_matches('/').to_owned()));
        }
        other => {
            flat.insert(path, other.clone());
        }
    }
}

/// A command's words are in order; everything else that is a list is a set.
fn is_ordered(path: &[String]) -> bool {
    let last = path.last().map_or("", String::as_str);
    matches!(last, "command" | "entrypoint" | "test" | "to" | "back" | "probe")
}

/// What a list's item is called, and what is left of it.
fn key_of(item: &Value) -> (String, Value) {
    let text = |name: &str| item[name].as_str().map(str::to_owned);
    match item {
        Value::String(text) => match text.split_once(':') {
            // `/tmp:size=64m,noexec`, a tmpfs with its options.
            Some((target, options)) if target.starts_with('/') => {
                (target.to_owned(), options.into())
            }
            _ => (text.clone(), Value::Bool(true)),
        },
        Value::Object(fields) => {
            let port = item["target"].as_u64().map(|target| {
                format!("{target}/{}", text("protocol").unwrap_or_else(|| "tcp".to_owned()))
            });
            let name = port.or_else(|| text("target")).or_else(|| text("source"));
            let mut rest = fields.clone();
            rest.remove("target");
            (name.unwrap_or_else(|| item.to_string()), Value::Object(rest))
        }
        other => (other.to_string(), Value::Bool(true)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_that_is_published_twice_hides_no_other() {
        let port = |published: &str| json!({"target": 80, "published": published});
        let ports = |ports: &[serde_json::Value]| {
            flatten(&json!({"services": {"a": {"ports": ports}}}), "/")
        };
        let flat = ports(&[port("80"), port("8080")]);
        assert_eq!(flat.len(), 2 * ports(&[port("80")]).len(), "{flat:?}");
    }

    #[test]
    fn lists_become_sets_by_what_their_items_are_about() {
        let config = json!({"x-anchor": 1, "services": {"a": {
            "command": ["x", "y"],
            "tmpfs": ["/tmp:size=1m"],
            "cap_drop": ["ALL"],
            "ports": [{"target": 80, "protocol": "tcp", "published": "8080"}],
            "volumes": [{"type": "bind", "source": "/root/deploy/a", "target": "/etc/a"}],
        }}});
        let flat = flatten(&config, "/root");
        let lines: Vec<String> =
            flat.iter().map(|(path, value)| format!("{} = {value}", path.join(" "))).collect();
        assert_eq!(
            lines,
            [
                r#"services a cap_drop ALL = true"#,
                r#"services a command = ["x","y"]"#,
                r#"services a ports 80/tcp protocol = "tcp""#,
                r#"services a ports 80/tcp published = "8080""#,
                r#"services a tmpfs /tmp = "size=1m""#,
                r#"services a volumes /etc/a source = "deploy/a""#,
                r#"services a volumes /etc/a type = "bind""#,
            ]
        );
    }
}
