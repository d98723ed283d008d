//! What runs against what is wanted: the engine's own words about a container, compared with Compose's
//! rendering. Pure. A container that was changed by hand, or made before a change, shows here.

use serde::Serialize;
use serde_json::{Value, json};

/// One property of a running container that is not what the files say.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Drift {
    pub(crate) service: String,
    pub(crate) field: &'static str,
    pub(crate) wanted: Value,
    pub(crate) running: Value,
}

/// Compares a service of the rendering, whole, with `docker inspect` of its container.
pub(crate) fn drift(
    service: &str,
    rendering: &Value,
    image_id: &str,
    running: &Value,
) -> Vec<Drift> {
    let wanted = &rendering["services"][service];
    let host = &running["HostConfig"];
    let own = &running["Config"];
    let fields: [(&'static str, Value, Value); 19] = [
        ("image", json!(image_id), running["Image"].clone()),
        ("user", text(&wanted["user"]), text(&own["User"])),
        ("environment", wanted_environment(wanted), their_environment(wanted, own)),
        ("ports", wanted_ports(wanted), bound_ports(host)),
        ("mounts", wanted_mounts(rendering, wanted), bound_mounts(running)),
        ("restart", text(&wanted["restart"]), text(&host["RestartPolicy"]["Name"])),
        ("memory", number(&wanted["mem_limit"]), number(&host["Memory"])),
        ("cpus", nano(&wanted["cpus"]), number(&host["NanoCpus"])),
        ("pids", number(&wanted["pids_limit"]), number(&host["PidsLimit"])),
        ("read_only", flag(&wanted["read_only"]), flag(&host["ReadonlyRootfs"])),
        ("privileged", flag(&wanted["privileged"]), flag(&host["Privileged"])),
        ("cap_drop", sorted(&wanted["cap_drop"]), sorted(&host["CapDrop"])),
        ("cap_add", sorted(&wanted["cap_add"]), sorted(&host["CapAdd"])),
        ("security_opt", sorted(&wanted["security_opt"]), sorted(&host["SecurityOpt"])),
        ("networks", wanted_networks(rendering, wanted), their_networks(running)),
        ("command", wanted["command"].clone(), if_said(&wanted["command"], &own["Cmd"])),
        (
            "entrypoint",
            wanted["entrypoint"].clone(),
            if_said(&wanted["entrypoint"], &own["Entrypoint"]),
        ),
        ("tmpfs", wanted_tmpfs(wanted), their_tmpfs(host)),
        ("init", flag(&wanted["init"]), flag(&host["Init"])),
    ];
    let mut found: Vec<Drift> = Vec::new();
    let health =
        ("healthcheck", wanted["healthcheck"]["test"].clone(), own["Healthcheck"]["Test"].clone());
    for (field, wanted, running) in fields.into_iter().chain([health]) {
        if wanted != running {
            let (wanted, running) = without_common(wanted, running);
            found.push(Drift { service: service.to_owned(), field, wanted, running });
        }
    }
    found
}

/// A service that has no container, beside others of its stack that have one.
pub(crate) fn missing(service: &str) -> Drift {
    let (wanted, running) = (json!("one"), json!("none"));
    Drift { service: service.to_owned(), field: "container", wanted, running }
}

/// Of two sets what is in one of them only: the rest would hide it.
fn without_common(wanted: Value, running: Value) -> (Value, Value) {
    match (&wanted, &running) {
        (Value::Array(left), Value::Array(right)) => {
            let only = |of: &[Value], other: &[Value]| -> Value {
                of.iter().filter(|item| !other.contains(item)).cloned().collect()
            };
            (only(left, right), only(right, left))
        }
        _ => (wanted, running),
    }
}

fn text(value: &Value) -> Value {
    json!(value.as_str().unwrap_or_default())
}

fn flag(value: &Value) -> Value {
    json!(value.as_bool().unwrap_or_default())
}

/// Compose writes some numbers as text; the engine says null or 0 for "no limit".
fn number(value: &Value) -> Value {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    json!(value.as_i64().or(parsed).unwrap_or_default())
}

fn nano(value: &Value) -> Value {
    let cpus = value.as_f64().unwrap_or_default();
    // Billionths of a processor: far below what a 64-bit number holds exactly.
    #[expect(clippy::cast_possible_truncation, reason = "a limit is a few processors")]
    let nano = (cpus * 1e9).round() as i64;
    json!(nano)
}

fn sorted(value: &Value) -> Value {
    let mut items: Vec<&str> =
        value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    items.sort_unstable();
    json!(items)
}

fn wanted_environment(wanted: &Value) -> Value {
    let pairs = wanted["environment"].as_object().into_iter().flatten();
    let mut lines: Vec<String> = pairs
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    lines.sort_unstable();
    json!(lines)
}

/// Of a container's environment the part that the files speak of: the image has variables of its own.
fn their_environment(wanted: &Value, own: &Value) -> Value {
    let lines = own["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let is_ours = |line: &&str| {
        line.split_once('=').is_some_and(|(name, _)| wanted["environment"].get(name).is_some())
    };
    let mut lines: Vec<&str> = lines.filter(is_ours).collect();
    lines.sort_unstable();
    json!(lines)
}

fn wanted_ports(wanted: &Value) -> Value {
    let ports = wanted["ports"].as_array().into_iter().flatten();
    let mut lines: Vec<String> = ports
        .map(|port| {
            let address = port["host_ip"].as_str().unwrap_or_default();
            let published = port["published"].as_str().unwrap_or_default();
            format!("{address}:{published}->{}/{}", port["target"], word(&port["protocol"]))
        })
        .collect();
    lines.sort_unstable();
    json!(lines)
}

fn bound_ports(host: &Value) -> Value {
    let bindings = host["PortBindings"].as_object().into_iter().flatten();
    let mut lines: Vec<String> = Vec::new();
    for (target, places) in bindings {
        for place in places.as_array().into_iter().flatten() {
            lines.push(format!(
                "{}:{}->{target}",
                word(&place["HostIp"]),
                word(&place["HostPort"])
            ));
        }
    }
    lines.sort_unstable();
    json!(lines)
}

/// What is mounted, where, and with which rights: a volume by the engine's name for it.
fn wanted_mounts(rendering: &Value, wanted: &Value) -> Value {
    let volumes = wanted["volumes"].as_array().into_iter().flatten();
    let targets = volumes.map(|mount| {
        let rights = if mount["read_only"].as_bool() == Some(true) { "ro" } else { "rw" };
        let source = word(&mount["source"]);
        let volume = word(&rendering["volumes"][source]["name"]);
        let source = if word(&mount["type"]) == "volume" { volume } else { source };
        format!("{source} -> {} {rights}", word(&mount["target"]))
    });
    let secrets = wanted["secrets"].as_array().into_iter().flatten();
    let secrets = secrets.map(|secret| {
        let target = word(&secret["target"]);
        let name = if target.is_empty() { word(&secret["source"]) } else { target };
        let path =
            if name.starts_with('/') { name.to_owned() } else { format!("/run/secrets/{name}") };
        let file = word(&rendering["secrets"][word(&secret["source"])]["file"]);
        format!("{file} -> {path} ro")
    });
    let mut lines: Vec<String> = targets.chain(secrets).collect();
    lines.sort_unstable();
    json!(lines)
}

fn bound_mounts(running: &Value) -> Value {
    let mounts = running["Mounts"].as_array().into_iter().flatten();
    let mounts = mounts.filter(|mount| word(&mount["Type"]) != "tmpfs");
    let mut lines: Vec<String> = mounts
        .map(|mount| {
            let rights = if mount["RW"].as_bool() == Some(true) { "rw" } else { "ro" };
            let is_volume = word(&mount["Type"]) == "volume";
            let source = word(&mount[if is_volume { "Name" } else { "Source" }]);
            format!("{source} -> {} {rights}", word(&mount["Destination"]))
        })
        .collect();
    lines.sort_unstable();
    json!(lines)
}

/// The image decides where the files say nothing, and the image is compared as a whole.
fn if_said(wanted: &Value, running: &Value) -> Value {
    if wanted.is_null() { Value::Null } else { running.clone() }
}

/// The engine's names of the networks that the service names by their keys.
fn wanted_networks(rendering: &Value, wanted: &Value) -> Value {
    let keys = wanted["networks"].as_object().into_iter().flatten().map(|(key, _)| key);
    let mut names: Vec<&str> = keys.map(|key| word(&rendering["networks"][key]["name"])).collect();
    names.sort_unstable();
    json!(names)
}

fn their_networks(running: &Value) -> Value {
    let networks = running["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    let mut names: Vec<&str> = networks.map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    json!(names)
}

fn wanted_tmpfs(wanted: &Value) -> Value {
    sorted(&wanted["tmpfs"])
}

/// As Compose writes them: the place, and its options behind a colon.
fn their_tmpfs(host: &Value) -> Value {
    let places = host["Tmpfs"].as_object().into_iter().flatten();
    let line = |(place, options): (&String, &Value)| match word(options) {
        "" => place.clone(),
        options => format!("{place}:{options}"),
    };
    let mut lines: Vec<String> = places.map(line).collect();
    lines.sort_unstable();
    json!(lines)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendering() -> Value {
        json!({"networks": {"internal": {"name": "x_internal"}}, "services": {"a": wanted()},
            "volumes": {"data": {"name": "x_data"}}, "secrets": {"key": {"file": "/here/key"}}})
    }

    fn wanted() -> Value {
        json!({"networks": {"internal": null}, "command": ["serve"], "entrypoint": ["/go"],
            "tmpfs": ["/tmp:size=1m"], "init": true, "user": "1:1", "restart": "unless-stopped", "mem_limit": "1024", "cpus": 0.5,
            "read_only": true, "cap_drop": ["ALL"], "environment": {"A": "1"},
            "healthcheck": {"test": ["CMD", "x"]},
            "ports": [{"host_ip": "127.0.0.1", "published": "80", "target": 80, "protocol": "tcp"}],
            "volumes": [{"type": "volume", "source": "data", "target": "/data"},
                {"type": "bind", "source": "/here/conf", "target": "/conf", "read_only": true}],
            "secrets": [{"source": "key"}]})
    }

    fn running() -> Value {
        json!({"Image": "id", "Config": {"User": "1:1", "Env": ["A=1", "PATH=/bin"],
            "Cmd": ["serve"], "Entrypoint": ["/go"],
            "Healthcheck": {"Test": ["CMD", "x"]}},
            "HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}, "Memory": 1024,
                "NanoCpus": 500_000_000, "PidsLimit": null, "ReadonlyRootfs": true,
                "Tmpfs": {"/tmp": "size=1m"}, "Init": true,
                "Privileged": false, "CapDrop": ["ALL"], "CapAdd": null, "SecurityOpt": null,
                "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "80"}]}},
            "NetworkSettings": {"Networks": {"x_internal": {}}},
            "Mounts": [{"Type": "volume", "Name": "x_data", "Destination": "/data", "RW": true},
                {"Type": "bind", "Source": "/here/conf", "Destination": "/conf", "RW": false},
                {"Type": "bind", "Source": "/here/key", "Destination": "/run/secrets/key", "RW": false}]})
    }

    #[test]
    fn a_container_that_is_as_it_was_made_has_not_drifted() {
        assert_eq!(drift("a", &rendering(), "id", &running()), []);
    }

    #[test]
    fn what_the_files_leave_to_the_image_is_compared_with_the_image() {
        let mut silent = rendering();
        silent["services"]["a"]["command"] = Value::Null;
        silent["services"]["a"]["entrypoint"] = Value::Null;
        assert_eq!(drift("a", &silent, "id", &running()), []);
    }

    #[test]
    fn each_property_is_looked_at() {
        for (pointer, value, field) in [
            ("/Image", json!("other"), "image"),
            ("/Config/User", json!("0"), "user"),
            ("/Config/Env/0", json!("A=2"), "environment"),
            ("/Config/Healthcheck/Test", json!(["NONE"]), "healthcheck"),
            ("/HostConfig/RestartPolicy/Name", json!("no"), "restart"),
            ("/HostConfig/Memory", json!(0), "memory"),
            ("/HostConfig/NanoCpus", json!(0), "cpus"),
            ("/HostConfig/PidsLimit", json!(5), "pids"),
            ("/HostConfig/ReadonlyRootfs", json!(false), "read_only"),
            ("/HostConfig/Privileged", json!(true), "privileged"),
            ("/HostConfig/CapDrop", json!([]), "cap_drop"),
            ("/HostConfig/CapAdd", json!(["SYS_ADMIN"]), "cap_add"),
            ("/HostConfig/SecurityOpt", json!(["seccomp=unconfined"]), "security_opt"),
            ("/HostConfig/PortBindings/80~1tcp/0/HostIp", json!("0.0.0.0"), "ports"),
            ("/Mounts/0/RW", json!(false), "mounts"),
            ("/Mounts/0/Name", json!("y_data"), "mounts"),
            ("/Mounts/1/Source", json!("/there/conf"), "mounts"),
            ("/Mounts/2/Source", json!("/there/key"), "mounts"),
            ("/NetworkSettings/Networks", json!({"x_internal": {}, "bridge": {}}), "networks"),
            ("/Config/Cmd", json!(["sh"]), "command"),
            ("/Config/Entrypoint", json!(null), "entrypoint"),
            ("/HostConfig/Tmpfs", json!({"/tmp": "size=1m,exec"}), "tmpfs"),
            ("/HostConfig/Init", json!(null), "init"),
        ] {
            let mut changed = running();
            *changed.pointer_mut(pointer).unwrap() = value;
            let found = drift("a", &rendering(), "id", &changed);
            let fields: Vec<&str> = found.iter().map(|drift| drift.field).collect();
            assert_eq!(fields, [field], "{pointer}");
        }
    }
}
