//! Images with and without a registry. No registry can be counted on where tests run, so the one
//! used here is started by the test itself; it holds images under the official names.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::kills::Started;
use crate::stand::{Stand, Visitor, docker, free_port, remove_images, root, run};

/// A container registry on this machine, ended with the test. What was pulled from it goes away with it, so it
/// is made before the stack that runs this.
struct Registry {
    process: Started,
    address: String,
    _data: tempfile::TempDir,
}

impl Registry {
    fn start() -> Registry {
        let data = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let config = data.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            data.path().display()
        );
        fs::write(&config, text).unwrap();
        let mut program = Command::new("docker-registry");
        program.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Started::new(&mut program);
        let registry = Registry { process, address, _data: data };
        let url = format!("http://{}/v2/", registry.address);
        let deadline = Instant::now() + Duration::from_secs(30);
        while ureq::get(&url).call().is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer");
            thread::sleep(Duration::from_millis(50));
        }
        registry
    }

    /// Puts an image of this machine into the registry under an official name, and only there.
    fn publish(&self, local: &str, official: &str) -> String {
        let name = format!("{}/library/{official}", self.address);
        docker(&["tag", local, &name]).ok();
        docker(&["push", "--quiet", &name]).ok();
        docker(&["image", "rm", "--force", &name]).ok();
        name
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        remove_images(&format!("{}/*/*", self.address));
    }
}

/// Makes sure that the distribution's images are here, to be published under other names.
pub(crate) fn distro_images() -> [(&'static str, &'static str, &'static str); 3] {
    let stand = Stand::new();
    stand.set("IMAGE_SOURCE", "distro");
    stand.xtask(&["build", "--yes"]).ok();
    [
        ("NGINX_IMAGE", "localhost/distro/nginx:1.22", "nginx:1.28-alpine"),
        ("POSTGRES_IMAGE", "localhost/distro/postgres:15", "postgres:15-alpine"),
        ("REDIS_IMAGE", "localhost/distro/redis:7.0", "redis:7-alpine"),
    ]
}

/// An image with this machine's own Rust toolchain, for the stage that compiles the backend.
fn rust_image(stand: &Stand) -> String {
    let name = format!("localhost/{}-rust:here", stand.name);
    let folder = tempfile::tempdir().unwrap();
    let dockerfile = "\
FROM localhost/distro/debian:12
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev
COPY --from=toolchain bin /usr/local/cargo/bin
COPY --from=toolchain lib /usr/local/cargo/lib
# Networks with a certificate authority of their own: cargo has to know it inside as well.
COPY --from=certificates ca-certificates.crt /etc/ssl/certs/
ENV PATH=/usr/local/cargo/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/usr/local/cargo
# What is tested is how the image comes about: optimised, the backend would take minutes to compile.
ENV CARGO_PROFILE_RELEASE_OPT_LEVEL=0
";
    fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
    let toolchain = run(Command::new("rustc").args(["--print", "sysroot"])).ok().stdout;
    let toolchain = format!("toolchain={}", toolchain.trim());
    let contexts =
        ["--build-context", &toolchain, "--build-context", "certificates=/etc/ssl/certs"];
    let folder = folder.path().display().to_string();
    docker(&[&["build", "--quiet", "--tag", &name], &contexts[..], &[&folder]].concat()).ok();
    name
}

/// Its data would be there, and unreadable, with the server that reads it gone.
#[test]
fn another_major_version_of_postgresql_is_refused_before_anything_is_changed() {
    let stand = Stand::new();
    stand.up().ok();
    let mut visitor = Visitor::new(&stand);
    visitor.sign_up();
    let newer = format!("{}-postgres:newer", stand.name);
    let folder = tempfile::tempdir().unwrap();
    let container = stand.container("postgres");
    let inspect = ["inspect", "--format", "{{.Config.Image}}", &container];
    let image = docker(&inspect).ok().stdout.trim().to_owned();
    let major = docker(&["exec", &container, "printenv", "PG_MAJOR"]).ok().stdout;
    let lines = format!("FROM {image}\nENV PG_MAJOR=99\n");
    fs::write(folder.path().join("Dockerfile"), lines).unwrap();
    docker(&["build", "--quiet", "--tag", &newer, &folder.path().display().to_string()]).ok();
    let before = stand.container_ids();
    stand.overlay(&format!("services:\n  postgres:\n    image: {newer}\n    build: !reset null\n"));
    let said = [
        &format!("data of PostgreSQL {},", major.trim()),
        "PostgreSQL 99",
        &format!("Name {image} again"),
        "docs/upgrades.md",
    ];
    stand.up().fails(1, &said);
    stand.xtask(&["up", "--dry-run"]).fails(1, &said);
    assert_eq!(stand.container_ids(), before);
    visitor.write("still served");
}

/// CI builds once, and what was tested there is what runs here.
#[test]
fn a_backend_that_was_built_elsewhere_is_pulled_and_not_compiled() {
    let registry = Registry::start();
    let stand = Stand::new();
    stand.up().ok();
    let built = format!("{}-backend:current", stand.name);
    let first = registry.publish(&built, "backend:1");
    let second = registry.publish(&labelled(&built), "backend:2");
    docker(&["image", "rm", "--force", &built]).ok();
    let image =
        || docker(&["inspect", "--format", "{{.Config.Image}}", &stand.container("backend")]);
    stand.set("BACKEND_IMAGE", &first);
    let up = stand.up().ok().says(&["pulling", "backend:1"]);
    assert!(!up.text.contains("compiling"), "{}", up.text);
    assert_eq!(image().stdout.trim(), first);
    let mut visitor = Visitor::new(&stand);
    visitor.sign_up();
    stand.up().ok().says(&["nothing to do"]);

    stand.set("BACKEND_IMAGE", &second);
    stand.xtask(&["deploy", "--watch", "1"]).ok().says(&["pulling", "backend:2", "deployed"]);
    assert_eq!(image().stdout.trim(), second);
    // Nothing is done about one that is not there.
    stand.set("BACKEND_IMAGE", &second.replace("backend:2", "backend:3"));
    stand.xtask(&["deploy"]).fails(1, &["backend:3"]);
    assert_eq!(image().stdout.trim(), second);
    visitor.write("still there");

    // In production a tag is pinned, as those of the other images are.
    stand.set("BACKEND_IMAGE", &second);
    stand.set("APP_ENV", "production");
    stand.up().ok();
    let pinned = stand.get("BACKEND_IMAGE");
    assert!(pinned.starts_with(&format!("{second}@sha256:")), "{pinned}");
    stand.up().ok().says(&["nothing to do"]);

    stand.set("BACKEND_IMAGE", "");
    stand.up().ok();
    assert_eq!(image().stdout.trim(), built);
}

/// The same program in an image of another identity.
fn labelled(image: &str) -> String {
    let name = format!("{image}-labelled");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Dockerfile"), format!("FROM {image}\nLABEL version=2\n"))
        .unwrap();
    docker(&["build", "--quiet", "--tag", &name, &folder.path().display().to_string()]).ok();
    name
}

#[test]
fn official_images_are_pulled_where_a_registry_has_them() {
    let images = distro_images();
    let mut registry = Registry::start();
    let stand = Stand::new();
    stand.set("IMAGE_SOURCE", "");
    for (variable, local, official) in images {
        stand.set(variable, &registry.publish(local, official));
    }
    // Here already, so it is used as it is; the other three have to be pulled.
    let rust = rust_image(&stand);
    stand.set("RUST_IMAGE", &rust);
    // A registry that has not this one is a registry all the same.
    let postgres = stand.get("POSTGRES_IMAGE");
    stand.set("POSTGRES_IMAGE", &postgres.replace("alpine", "alpin"));
    let said = ["a registry answered", "postgres:15-alpin", "IMAGE_SOURCE=distro"];
    stand.up().fails(1, &said);
    assert_eq!(stand.get("IMAGE_SOURCE"), "");
    stand.set("POSTGRES_IMAGE", &postgres);
    stand.up().ok().says(&["pulling", "postgres:15-alpine", "IMAGE_SOURCE=registry"]);
    assert_eq!(stand.get("IMAGE_SOURCE"), "registry");
    assert_eq!(stand.get("COMPOSE_FILE"), "compose.yaml");
    let status = stand.status();
    let image = status["services"][0]["image"].as_str().unwrap();
    assert_eq!(image, stand.get("POSTGRES_IMAGE"));
    let mut visitor = Visitor::new(&stand);
    visitor.sign_up();

    // Production runs the very bytes that it was begun with.
    stand.set("APP_ENV", "production");
    stand.up().ok();
    for (variable, ..) in images {
        assert!(stand.get(variable).contains("-alpine@sha256:"), "{}", stand.get(variable));
    }
    assert_eq!(stand.get("RUST_IMAGE"), rust);
    stand.up().ok().says(&["nothing to do"]);
    the_pinned_are_renewed_by_their_tags(&stand, &registry);

    // The choice is kept when the registry goes away.
    registry.process.kill().unwrap();
    stand.up().ok().says(&["nothing to do"]);
    stand.xtask(&["down"]).ok();
    stand.up().ok();
}

/// The registry has fixes under a tag that production has pinned.
fn the_pinned_are_renewed_by_their_tags(stand: &Stand, registry: &Registry) {
    let folder = stand.folder().join("fixed");
    fs::create_dir(&folder).unwrap();
    let dockerfile = "FROM localhost/distro/nginx:1.22\nLABEL fixed=yes\n";
    fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
    let fixed = docker(&["build", "--quiet", &folder.display().to_string()]).ok().stdout;
    registry.publish(fixed.trim(), "nginx:1.28-alpine");
    let before = ["NGINX_IMAGE", "REDIS_IMAGE", "RUST_IMAGE"].map(|name| stand.get(name));
    stand.up().ok().says(&["nothing to do"]);
    stand.xtask(&["build", "--force"]).ok().says(&["NGINX_IMAGE", "is now sha256:"]);
    let after = ["NGINX_IMAGE", "REDIS_IMAGE", "RUST_IMAGE"].map(|name| stand.get(name));
    assert_ne!(before[0], after[0]);
    assert_eq!(before[0].split('@').next(), after[0].split('@').next());
    assert_eq!(before[1..], after[1..]);
    stand.up().ok();
    let image = docker(&["inspect", "--format", "{{.Image}}", &stand.container("nginx")]).ok();
    assert_eq!(image.stdout, fixed);
}

#[test]
fn a_registry_that_hangs_does_not_hang_up() {
    distro_images();
    // Accepts connections and never says a word.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming().take(100).flatten() {
            open.push(stream);
        }
        for mut stream in open {
            let _ = stream.read(&mut [0]);
        }
    });
    let stand = Stand::new();
    stand.set("IMAGE_SOURCE", "");
    stand.take_images_from(&address.to_string());
    stand.up().ok().says(&["IMAGE_SOURCE=distro", "said nothing for"]);
    assert_eq!(stand.get("IMAGE_SOURCE"), "distro");
    assert_eq!(stand.get("COMPOSE_FILE"), "compose.yaml:deploy/distro/compose.yaml");
}

#[test]
fn a_source_that_is_forced_is_not_replaced_by_another() {
    let stand = Stand::new();
    stand.set("IMAGE_SOURCE", "registry");
    let nowhere = format!("127.0.0.1:{}", free_port());
    stand.take_images_from(&nowhere);
    stand.up().fails(1, &["pull", &nowhere]);
    assert_eq!(stand.container_ids(), [""; 0]);
    stand.set("IMAGE_SOURCE", "elsewhere");
    stand.up().fails(1, &["IMAGE_SOURCE is \"elsewhere\"", "`registry`, `distro`, or nothing"]);
}

#[test]
fn the_image_of_postgres_keeps_the_official_contract() {
    distro_images();
    let image = "localhost/distro/postgres:15";
    docker(&["run", "--rm", image]).fails(1, &["POSTGRES_PASSWORD_FILE"]);
    let both =
        ["run", "--rm", "-e", "POSTGRES_PASSWORD=a", "-e", "POSTGRES_PASSWORD_FILE=/b", image];
    docker(&both).fails(1, &["both"]);
    let id = docker(&["run", "--rm", image, "sh", "-c", "id -u postgres; id -g postgres"]).ok();
    assert_eq!(id.stdout, "70\n70\n");
    let version = docker(&["run", "--rm", image, "postgres", "--version"]).ok();
    assert!(version.stdout.contains("PostgreSQL) 15."), "{}", version.text);
}

#[test]
fn the_image_of_redis_keeps_the_official_contract() {
    distro_images();
    let image = "localhost/distro/redis:7.0";
    let id = docker(&["run", "--rm", image, "sh", "-c", "id -u redis; id -g redis; pwd"]).ok();
    assert_eq!(id.stdout, "999\n1000\n/data\n");
    docker(&["run", "--rm", image, "redis-server", "--version"]).ok().says(&["v=7."]);
}

#[test]
fn the_image_of_nginx_keeps_the_official_contract() {
    distro_images();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.conf.template"), "# ${SHOWN} ${uri}\n").unwrap();
    let mount = format!("{}:/etc/nginx/templates:ro", folder.path().display());
    // A template names variables; only those that are set are replaced.
    let rendered = docker(&[
        "run",
        "--rm",
        "-e",
        "SHOWN=seen",
        "-v",
        &mount,
        "localhost/distro/nginx:1.22",
        "sh",
        "-c",
        "/docker-entrypoint.sh nginx -t && cat /etc/nginx/conf.d/x.conf",
    ]);
    rendered.ok().says(&["# seen ${uri}", "syntax is ok"]);
    let id = docker(&["run", "--rm", "localhost/distro/nginx:1.22", "id", "-u", "nginx"]).ok();
    assert_eq!(id.stdout, "101\n");
}

#[test]
fn the_guard_of_the_data_refuses_what_it_must() {
    distro_images();
    let guard = root().join("deploy/flavour-guard.sh");
    let script = "\
set -u; mkdir /tmp/d; g='/g /tmp/d'
$g echo started; cat /tmp/d/.flavour
echo musl >/tmp/d/.flavour; $g echo started || echo refused
rm /tmp/d/.flavour; touch /tmp/d/PG_VERSION; $g echo started || echo unmarked
";
    let mount = format!("{}:/g:ro", guard.display());
    let image = "localhost/distro/postgres:15";
    let told =
        docker(&["run", "--rm", "--entrypoint", "sh", "-v", &mount, image, "-c", script]).ok();
    assert_eq!(told.stdout, "started\nglibc\nrefused\nunmarked\n", "{}", told.text);
}
