//! The peers, each set up for each mode as its own manual would: one worker, keep-alive to the back end, no log.
//!
//! A peer that is not installed is skipped. Envoy is looked for where `$ENVOY` says, then on the path, then among the
//! clients that the tests install (`target/clients`).

use crate::process::{LOAD_CORE, PROXY_CORE, Paths, Running, installed, pinned, start};
use crate::{BACK_GRPC, BACK_H1, BACK_H2, FRONT, Fallible};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) const PEERS: [&str; 4] = ["isobar", "haproxy", "nginx", "envoy"];

fn envoy() -> Option<PathBuf> {
    let given = std::env::var("ENVOY").ok().map(PathBuf::from);
    // The package's own program is a script that starts the real one, and a script's processor time says nothing.
    let packaged = |root: &Path| {
        let versions = std::fs::read_dir(root.join("lib")).ok()?;
        versions.flatten().map(|it| it.path().join("site-packages/envoy/_bin/envoy")).find(|it| it.is_file())
    };
    let behind = |path: PathBuf| path.parent().and_then(Path::parent).and_then(packaged).unwrap_or(path);
    given
        .map(behind)
        .or_else(|| packaged(Path::new("target/clients")))
        .or_else(|| installed("envoy"))
        .filter(|path| path.is_file())
}

/// The command that runs a peer in a mode, if we know how and it is installed.
pub(crate) fn peer(name: &str, mode: &str, paths: &Paths) -> Option<Command> {
    let file = |name: &str, text: &str| {
        let path = paths.dir.join(name);
        std::fs::write(&path, text).ok().map(|()| path)
    };
    let pem = paths.dir.join("both.pem");
    match name {
        "isobar" => {
            let mut command = pinned(PROXY_CORE, &paths.this.display().to_string());
            command.arg("serve").arg(mode).arg(&paths.dir);
            Some(command)
        }
        "haproxy" => {
            let haproxy = installed("haproxy")?;
            let (kind, bind, server) = match mode {
                "h1" => ("http", String::new(), format!("127.0.0.1:{BACK_H1}")),
                "h2" => ("http", " proto h2".into(), format!("127.0.0.1:{BACK_H2} proto h2")),
                "grpc" => ("http", " proto h2".into(), format!("127.0.0.1:{BACK_GRPC} proto h2")),
                "tls" => (
                    "http",
                    format!(" ssl crt {} alpn http/1.1", pem.display()),
                    format!("127.0.0.1:{BACK_H1}"),
                ),
                "tcp" => ("tcp", String::new(), format!("127.0.0.1:{BACK_H1}")),
                _ => return None,
            };
            let splice = if mode == "tcp" { "  option splice-auto\n" } else { "" };
            let text = format!(
                "global\n  nbthread 1\n  maxconn 4000\n  tune.h2.max-concurrent-streams 1000\ndefaults\n  mode {kind}\n{splice}  timeout connect 5s\n  \
                 timeout client 60s\n  timeout server 60s\n  http-reuse always\nfrontend f\n  bind 127.0.0.1:{FRONT}{bind}\n  \
                 default_backend b\nbackend b\n  server s {server}\n"
            );
            let path = file("haproxy.cfg", &text)?;
            let mut command = pinned(PROXY_CORE, &haproxy.display().to_string());
            command.arg("-db").arg("-f").arg(path);
            Some(command)
        }
        "nginx" if mode == "h1" || mode == "tls" => {
            let nginx = installed("nginx")?;
            let tls = match mode {
                "tls" => format!(
                    "ssl_certificate {d}/c.pem; ssl_certificate_key {d}/k.pem; ssl_protocols TLSv1.3;",
                    d = paths.dir.display()
                ),
                _ => String::new(),
            };
            let ssl = if mode == "tls" { " ssl" } else { "" };
            let text = nginx_conf(
                paths,
                "peer",
                &format!(
                    "upstream u {{ server 127.0.0.1:{BACK_H1}; keepalive 256; keepalive_requests 1000000000; }} server {{ listen \
                     127.0.0.1:{FRONT}{ssl}; {tls} location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header \
                     Connection \"\"; }} }}"
                ),
            );
            let path = file("nginx-peer.conf", &text)?;
            let mut command = pinned(PROXY_CORE, &nginx.display().to_string());
            command.arg("-c").arg(path);
            Some(command)
        }
        "envoy" if matches!(mode, "h1" | "h2" | "grpc") => {
            let envoy = envoy()?;
            let (back, options) = match mode {
                "h2" | "grpc" => (
                    if mode == "h2" { BACK_H2 } else { BACK_GRPC },
                    "\n    typed_extension_protocol_options:\n      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n        \
                     \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n        \
                     explicit_http_config: {http2_protocol_options: {}}",
                ),
                _ => (BACK_H1, ""),
            };
            let text = format!(
                "static_resources:\n  listeners:\n  - address: {{socket_address: {{address: 127.0.0.1, port_value: {FRONT}}}}}\n    \
                 filter_chains:\n    - filters:\n      - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
                 \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
                 stat_prefix: f\n          codec_type: AUTO\n          route_config: {{virtual_hosts: [{{name: a, domains: [\"*\"], routes: \
                 [{{match: {{prefix: /}}, route: {{cluster: b}}}}]}}]}}\n          http_filters:\n          - name: \
                 envoy.filters.http.router\n            typed_config: {{\"@type\": \
                 type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}\n  clusters:\n  - name: b\n    type: STATIC{options}\n    \
                 load_assignment: {{cluster_name: b, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: \
                 127.0.0.1, port_value: {back}}}}}}}}}]}}]}}\n"
            );
            let path = file("envoy.yaml", &text)?;
            let mut command = pinned(PROXY_CORE, &envoy.display().to_string());
            command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "off", "-c"]).arg(path);
            Some(command)
        }
        _ => None,
    }
}

/// An nginx configuration whose files all lie in our directory.
fn nginx_conf(paths: &Paths, name: &str, http: &str) -> String {
    let d = paths.dir.display();
    format!(
        "worker_processes 1; daemon off; master_process off; pid {d}/{name}.pid; error_log /dev/null; events {{ worker_connections 8192; }} \
         http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {d}/t1; proxy_temp_path {d}/t2; \
         fastcgi_temp_path {d}/t3; uwsgi_temp_path {d}/t4; scgi_temp_path {d}/t5; {http} }}\n"
    )
}

pub(crate) fn prepare(paths: &Paths) -> Fallible<()> {
    std::fs::create_dir_all(paths.dir.join("files"))?;
    for (name, size) in [("1k", 1 << 10), ("64k", 64 << 10), ("1m", 1 << 20)] {
        std::fs::write(paths.dir.join("files").join(name), vec![b'x'; size])?;
    }
    std::fs::write(paths.dir.join("message"), [0; 105])?;
    let body = "x".repeat(4 << 10);
    std::fs::write(paths.dir.join("post.lua"), format!("wrk.method = \"POST\"\nwrk.body = \"{body}\"\n"))?;
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"])
        .arg(paths.dir.join("k.pem"))
        .arg("-out")
        .arg(paths.dir.join("c.pem"))
        .stderr(Stdio::null())
        .status();
    if made.is_ok_and(|status| status.success()) {
        let both =
            [std::fs::read(paths.dir.join("c.pem"))?, std::fs::read(paths.dir.join("k.pem"))?].concat();
        std::fs::write(paths.dir.join("both.pem"), both)?;
    }
    let text = "0".repeat(128);
    let files = paths.dir.join("files");
    let back = |name: &str, listen: &str| -> Fallible<()> {
        let http = format!(
            "server {{ listen 127.0.0.1:{listen} backlog=4096; http2_max_concurrent_streams 1000; location / {{ return 200 \"{text}\"; }} \
             location /files/ {{ alias {}/; }} }}",
            files.display()
        );
        Ok(std::fs::write(paths.dir.join(name), nginx_conf(paths, name, &http))?)
    };
    back("back1.conf", &BACK_H1.to_string())?;
    back("back2.conf", &format!("{BACK_H2} http2"))
}

/// The back ends that the proxies stand in front of.
pub(crate) fn start_back_ends(paths: &Paths) -> Fallible<Vec<Running>> {
    let nginx = installed("nginx").ok_or("nginx is not installed, and it is the back end")?;
    let mut running = Vec::new();
    for (name, port) in [("back1.conf", BACK_H1), ("back2.conf", BACK_H2)] {
        let mut command = pinned(LOAD_CORE, &nginx.display().to_string());
        command.arg("-c").arg(paths.dir.join(name));
        running.push(start(command, port)?);
    }
    let mut command = pinned(LOAD_CORE, &paths.this.display().to_string());
    command.arg("grpc-upstream");
    running.push(start(command, BACK_GRPC)?);
    Ok(running)
}
