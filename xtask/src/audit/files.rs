//! The items that the files decide; most of them are looked at in the running container as well.
//! "CIS Docker" is the CIS Docker Benchmark v1.6.0, "OWASP" the Docker Security Cheat Sheet.

use serde_json::Value;

use super::{Container, Item};

/// Folders of the host that no container has business in, nor below. The project's own folder may be anywhere
/// else.
const SENSITIVE: [&str; 9] =
    ["/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sys", "/usr", "/var/lib/docker"];
/// Folders of which only the whole is sensitive: a checkout, or its data, may be in them.
const SENSITIVE_WHOLE: [&str; 5] = ["/", "/home", "/root", "/var", "/var/lib"];

const fn item(id: &'static str, title: &'static str, source: &'static str) -> Item {
    Item { id, title, source, files: None, running: None, answer: None }
}

pub(super) const ITEMS: &[Item] = &[
    Item {
        files: Some(|_, s| wrong(!is_number(text(&s["user"])), "no numeric user but root")),
        running: Some(|_, c| wrong(any(c, "Uid:", |uid| uid == "0"), "a process runs as root")),
        ..item("CIS-4.1", "a user of its own, not root", "CIS Docker 4.1; OWASP rule 2")
    },
    Item {
        files: Some(|_, s| wrong(is_floating(text(&s["image"])), "its image has no fixed version")),
        ..item("CIS-4.2", "images by a fixed version", "CIS Docker 4.2, 5.28")
    },
    Item {
        files: Some(|_, s| wrong(!has_health_check(s), "no health check")),
        running: Some(|_, c| {
            wrong(text(&c.inspect["State"]["Health"]["Status"]) != "healthy", "not healthy")
        }),
        ..item("CIS-4.6", "health is checked", "CIS Docker 4.6, 5.27")
    },
    Item {
        files: Some(|_, s| secret_names(s)),
        running: Some(|_, c| secrets_in(list(&c.inspect["Config"]["Env"]))),
        ..item("CIS-4.10", "no secret in the environment", "CIS Docker 4.10; OWASP rule 12")
    },
    Item {
        files: Some(|_, s| unconfined(s, "apparmor")),
        running: Some(|_, c| {
            wrong(text(&c.inspect["AppArmorProfile"]) == "unconfined", "AppArmor is off")
        }),
        ..item("CIS-5.2", "AppArmor is not switched off", "CIS Docker 5.2; OWASP rule 6")
    },
    Item {
        files: Some(|_, s| capabilities(&s["cap_drop"], &s["cap_add"])),
        running: Some(|_, c| {
            capabilities(&c.inspect["HostConfig"]["CapDrop"], &c.inspect["HostConfig"]["CapAdd"])
        }),
        ..item("CIS-5.4", "all capabilities are dropped", "CIS Docker 5.4; OWASP rule 3")
    },
    Item {
        files: Some(|_, s| wrong(s["privileged"] == true, "privileged")),
        running: Some(|_, c| wrong(c.inspect["HostConfig"]["Privileged"] == true, "privileged")),
        ..item("CIS-5.5", "not privileged", "CIS Docker 5.5; OWASP rule 3")
    },
    Item {
        files: Some(|_, s| sensitive(binds(s).map(|bind| text(&bind["source"])))),
        // Volumes are the engine's own folders.
        running: Some(|_, c| {
            let binds = mounts(c).filter(|mount| text(&mount["Type"]) == "bind");
            sensitive(binds.map(|mount| text(&mount["Source"])))
        }),
        ..item("CIS-5.6", "no sensitive folder of the host", "CIS Docker 5.6")
    },
    Item {
        files: Some(|_, s| {
            let low = ports(s).filter(|port| number(&port["published"]) < 1024);
            told("publishes", low.map(|port| text(&port["published"])))
        }),
        ..item("CIS-5.8", "no port of the host below 1024", "CIS Docker 5.8")
    },
    Item {
        files: Some(|name, s| {
            wrong(name != "nginx" && ports(s).next().is_some(), "publishes a port")
        }),
        running: Some(|name, c| {
            let bound = c.inspect["HostConfig"]["PortBindings"].as_object();
            wrong(name != "nginx" && bound.is_some_and(|b| !b.is_empty()), "publishes a port")
        }),
        ..item("CIS-5.9", "only nginx is reachable from outside", "CIS Docker 5.9")
    },
    Item {
        files: Some(|_, s| wrong(text(&s["network_mode"]) == "host", "the host's network")),
        running: Some(|_, c| host_mode(c, "NetworkMode")),
        ..item("CIS-5.10", "a network of its own", "CIS Docker 5.10; OWASP rule 5")
    },
    Item {
        files: Some(|_, s| wrong(number(&s["mem_limit"]) == 0, "no memory limit")),
        running: Some(|_, c| unlimited(c, "Memory")),
        ..item("CIS-5.11", "memory is limited", "CIS Docker 5.11; OWASP rule 7")
    },
    Item {
        files: Some(|_, s| wrong(s["cpus"].as_f64().unwrap_or_default() <= 0.0, "no limit")),
        running: Some(|_, c| unlimited(c, "NanoCpus")),
        ..item("CIS-5.12", "processor time is limited", "CIS Docker 5.12; OWASP rule 7")
    },
    Item {
        files: Some(|_, s| wrong(s["read_only"] != true, "its root file system is writable")),
        running: Some(|_, c| {
            wrong(c.inspect["HostConfig"]["ReadonlyRootfs"] != true, "its root is writable")
        }),
        ..item("CIS-5.13", "the root file system is read-only", "CIS Docker 5.13; OWASP rule 8")
    },
    Item {
        files: Some(|_, s| {
            let open = ports(s).filter(|port| ["", "0.0.0.0"].contains(&text(&port["host_ip"])));
            told("on all addresses:", open.map(|port| text(&port["published"])))
        }),
        ..item("CIS-5.14", "ports are bound to one address", "CIS Docker 5.14")
    },
    Item {
        files: Some(|_, s| {
            wrong(!text(&s["restart"]).starts_with("on-failure:"), "restarts without a limit")
        }),
        ..item("CIS-5.15", "restarts are limited", "CIS Docker 5.15")
    },
    Item {
        files: Some(|_, s| wrong(text(&s["pid"]) == "host", "the host's processes")),
        running: Some(|_, c| host_mode(c, "PidMode")),
        ..item("CIS-5.16", "processes of its own", "CIS Docker 5.16")
    },
    Item {
        files: Some(|_, s| wrong(text(&s["ipc"]) == "host", "the host's shared memory")),
        running: Some(|_, c| host_mode(c, "IpcMode")),
        ..item("CIS-5.17", "shared memory of its own", "CIS Docker 5.17")
    },
    Item {
        files: Some(|_, s| wrong(!list(&s["devices"]).is_empty(), "a device of the host")),
        running: Some(|_, c| {
            wrong(!list(&c.inspect["HostConfig"]["Devices"]).is_empty(), "a device of the host")
        }),
        ..item("CIS-5.18", "no device of the host", "CIS Docker 5.18")
    },
    Item {
        files: Some(|_, s| wrong(s["ulimits"]["nofile"].is_null(), "descriptors are not limited")),
        running: Some(|_, c| {
            let limits = list(&c.inspect["HostConfig"]["Ulimits"]);
            let files = limits.iter().any(|limit| text(&limit["Name"]) == "nofile");
            wrong(!files, "descriptors are not limited")
        }),
        ..item("CIS-5.19", "descriptors are limited", "CIS Docker 5.19; OWASP rule 7")
    },
    Item {
        files: Some(|_, s| {
            let shared =
                binds(s).filter(|bind| text(&bind["bind"]["propagation"]).contains("shared"));
            told("shared:", shared.map(|bind| text(&bind["target"])))
        }),
        running: Some(|_, c| {
            let shared = mounts(c).filter(|mount| text(&mount["Propagation"]).contains("shared"));
            told("shared:", shared.map(|mount| text(&mount["Destination"])))
        }),
        ..item("CIS-5.20", "mounts do not propagate", "CIS Docker 5.20")
    },
    Item {
        files: Some(|_, s| wrong(text(&s["uts"]) == "host", "the host's name")),
        running: Some(|_, c| host_mode(c, "UTSMode")),
        ..item("CIS-5.21", "a host name of its own", "CIS Docker 5.21")
    },
    Item {
        files: Some(|_, s| unconfined(s, "seccomp")),
        running: Some(|_, c| wrong(any(c, "Seccomp:", |mode| mode != "2"), "seccomp is off")),
        ..item("CIS-5.22", "system calls are filtered", "CIS Docker 5.22; OWASP rule 6")
    },
    Item {
        files: Some(|_, s| {
            let options = list(&s["security_opt"]);
            let on = options.iter().any(|option| text(option).starts_with("no-new-privileges"));
            wrong(!on || options.iter().any(|o| text(o) == "no-new-privileges:false"), "not set")
        }),
        running: Some(|_, c| wrong(any(c, "NoNewPrivs:", |set| set != "1"), "not in force")),
        ..item("CIS-5.26", "no process gains privileges", "CIS Docker 5.26; OWASP rule 4")
    },
    Item {
        files: Some(|_, s| wrong(number(&s["pids_limit"]) <= 0, "no limit")),
        running: Some(|_, c| unlimited(c, "PidsLimit")),
        ..item("CIS-5.29", "the number of processes is limited", "CIS Docker 5.29")
    },
    Item {
        files: Some(|_, s| {
            let own = s["networks"].as_object().is_some_and(|networks| networks.len() == 1);
            wrong(!own, "not on the one internal network alone")
        }),
        running: Some(|_, c| {
            let networks = c.inspect["NetworkSettings"]["Networks"].as_object();
            let one = networks.is_some_and(|n| n.len() == 1 && !n.contains_key("bridge"));
            wrong(!one, "not on the one internal network alone")
        }),
        ..item("CIS-5.30", "not on the default bridge", "CIS Docker 5.30; OWASP rule 5")
    },
    Item {
        files: Some(|_, s| wrong(text(&s["userns_mode"]) == "host", "the host's users")),
        running: Some(|_, c| host_mode(c, "UsernsMode")),
        ..item("CIS-5.31", "the host's user namespace is not asked for", "CIS Docker 5.31")
    },
    Item {
        files: Some(|_, s| socket(binds(s).map(|bind| text(&bind["source"])))),
        running: Some(|_, c| socket(mounts(c).map(|mount| text(&mount["Source"])))),
        ..item("CIS-5.32", "no socket of the engine", "CIS Docker 5.32; OWASP rule 1")
    },
    Item {
        files: Some(|_, s| {
            let open = binds(s).filter(|bind| bind["read_only"] != true);
            told("writable:", open.map(|bind| text(&bind["target"])))
        }),
        running: Some(|_, c| {
            let open = mounts(c).filter(|m| text(&m["Type"]) == "bind" && m["RW"] == true);
            told("writable:", open.map(|mount| text(&mount["Destination"])))
        }),
        ..item("OWASP-8", "files of the host are read-only inside", "OWASP rule 8")
    },
    Item {
        files: Some(|_, s| {
            let open = list(&s["tmpfs"]).iter().map(text).filter(|tmpfs| {
                ["noexec", "nosuid", "nodev", "size="].iter().any(|word| !tmpfs.contains(word))
            });
            told("too open:", open)
        }),
        ..item("NIST-4.4.4", "scratch space is small and not executable", "NIST SP 800-190, 4.4.4")
    },
    Item {
        files: Some(|_, s| {
            let options = &s["logging"]["options"];
            let is_bounded = options["max-size"].is_string() && options["max-file"].is_string();
            wrong(grows_for_ever(&s["logging"]["driver"]) && !is_bounded, "no rotation")
        }),
        running: Some(|_, c| {
            let log = &c.inspect["HostConfig"]["LogConfig"];
            let is_bounded = log["Config"]["max-size"].is_string();
            wrong(grows_for_ever(&log["Type"]) && !is_bounded, "no rotation")
        }),
        ..item("LOG-1", "logs cannot fill the disk", "Docker manual, JSON File logging driver")
    },
];

/// Whether a logging driver keeps files that nothing bounds unless it is told to. `local` bounds its own, and the
/// others (journald, syslog, fluentd and so on) hand the log to somebody else.
fn grows_for_ever(driver: &Value) -> bool {
    matches!(driver.as_str(), None | Some("json-file"))
}

fn wrong(is_wrong: bool, what: &str) -> Option<String> {
    is_wrong.then(|| what.to_owned())
}

fn told<'a>(what: &str, items: impl Iterator<Item = &'a str>) -> Option<String> {
    let items: Vec<&str> = items.collect();
    (!items.is_empty()).then(|| format!("{what} {}", items.join(", ")))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Compose writes some numbers as text; what is no number counts as 0.
fn number(value: &Value) -> i64 {
    value.as_i64().or_else(|| text(value).parse().ok()).unwrap_or_default()
}

fn ports(service: &Value) -> impl Iterator<Item = &Value> {
    list(&service["ports"]).iter()
}

fn binds(service: &Value) -> impl Iterator<Item = &Value> {
    list(&service["volumes"]).iter().filter(|mount| text(&mount["type"]) == "bind")
}

fn mounts(container: &Container) -> impl Iterator<Item = &Value> {
    list(&container.inspect["Mounts"]).iter()
}

/// A user id that is not root's, with or without a group.
fn is_number(user: &str) -> bool {
    let id = user.split(':').next().unwrap_or_default();
    id.parse::<u32>().is_ok_and(|id| id > 0)
}

fn is_floating(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let tag = image.rsplit('/').next().unwrap_or_default().split_once(':').map(|(_, tag)| tag);
    tag.is_none_or(|tag| tag == "latest")
}

fn has_health_check(service: &Value) -> bool {
    let check = &service["healthcheck"];
    let test = list(&check["test"]);
    check["disable"] != true && test.first().is_some_and(|word| text(word) != "NONE")
}

/// Names that promise a secret and are no path to one.
fn is_secret_name(name: &str) -> bool {
    let words = ["PASSWORD", "SECRET", "TOKEN", "_KEY", "CREDENTIAL"];
    words.iter().any(|word| name.contains(word)) && !name.ends_with("_FILE")
}

fn secret_names(service: &Value) -> Option<String> {
    let names = service["environment"].as_object().into_iter().flatten();
    told("", names.map(|(name, _)| name.as_str()).filter(|name| is_secret_name(name)))
}

fn secrets_in(environment: &[Value]) -> Option<String> {
    let names = environment.iter().filter_map(|line| text(line).split_once('='));
    told("", names.map(|(name, _)| name).filter(|name| is_secret_name(name)))
}

fn unconfined(service: &Value, what: &str) -> Option<String> {
    let options = list(&service["security_opt"]).iter().map(text);
    let mut off =
        options.filter(|option| option.starts_with(what) && option.ends_with("unconfined"));
    off.next().map(str::to_owned)
}

fn capabilities(dropped: &Value, added: &Value) -> Option<String> {
    if !list(dropped).iter().any(|name| text(name) == "ALL") {
        return Some("capabilities are left".to_owned());
    }
    told("added:", list(added).iter().map(text))
}

fn sensitive<'a>(sources: impl Iterator<Item = &'a str>) -> Option<String> {
    let is_below = |source: &str, folder: &str| {
        source.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    told(
        "mounts",
        sources.filter(|source| {
            let path = on_this_host(source);
            SENSITIVE_WHOLE.contains(&path)
                || path.ends_with("/.ssh")
                || SENSITIVE.iter().any(|folder| is_below(path, folder))
        }),
    )
}

/// A path without its end `/`, and by the name that systems use today: `/var/run` is a link to `/run`.
fn on_this_host(path: &str) -> &str {
    let path = if path == "/" { path } else { path.trim_end_matches('/') };
    match path.strip_prefix("/var/run") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => &path["/var".len()..],
        _ => path,
    }
}

fn socket<'a>(sources: impl Iterator<Item = &'a str>) -> Option<String> {
    // A folder with the socket in it is as good as the socket; to connect is no write.
    let has_it = |source: &&str| {
        let path = on_this_host(source);
        path.ends_with(".sock") || ["/", "/run", "/run/docker"].contains(&path)
    };
    told("mounts", sources.filter(has_it))
}

fn host_mode(container: &Container, field: &str) -> Option<String> {
    wrong(text(&container.inspect["HostConfig"][field]) == "host", "the host's")
}

fn unlimited(container: &Container, field: &str) -> Option<String> {
    wrong(number(&container.inspect["HostConfig"][field]) <= 0, "no limit is in force")
}

/// Whether a field of `/proc/PID/status` is so for any process.
pub(super) fn any(container: &Container, field: &str, is_so: impl Fn(&str) -> bool) -> bool {
    container.processes.iter().any(|status| {
        let value = status.lines().find_map(|line| line.strip_prefix(field));
        value.is_some_and(|value| is_so(value.split_whitespace().next().unwrap_or_default()))
    })
}
