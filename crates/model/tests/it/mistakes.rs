//! Each mistake is one diagnostic, with its code and its place.

use model::load::load_str;

/// `expected`: a line per diagnostic, `LINE:COLUMN CODE underlined text`.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let loaded = load_str(text);
    let found: Vec<String> = loaded
        .diagnostics
        .iter()
        .map(|it| {
            let text = &loaded.sources.files[it.span.file as usize].text;
            let (start, end) = (it.span.start as usize, it.span.end as usize);
            let line = text[..start].matches('\n').count() + 1;
            let column = start - text[..start].rfind('\n').map_or(0, |at| at + 1) + 1;
            format!("{line}:{column} {} {}", it.code, text[start..end].lines().next().unwrap_or(""))
        })
        .collect();
    assert_eq!(found, expected, "{:#?}", loaded.diagnostics);
}

#[test]
fn one_misspelt_name_is_one_mistake() {
    check(
        "isobar: 1
services:
  web: {operations: {\"GET /\": {work: 1ms, calls: [checkuot]}}}
  checkout: {}
",
        &["3:51 E0301 checkuot"],
    );
}

#[test]
fn a_broken_definition_does_not_spoil_its_references() {
    check(
        "isobar: 1
services:
  web: {operations: {\"GET /\": {work: 1ms, calls: [cart \"GET /\", cart \"GET /x\"]}}}
  cart: 17
",
        &["4:9 E0203 17"],
    );
}

#[test]
fn syntax_errors_do_not_end_the_reading() {
    check(
        "isobar: 1
teams:
  a: {contact: \"#a\"
  b: {contact: \"#b\"}
services:
  web: {team: c, replicas: 0}
  cart: {team: a, tiemout: 3}
",
        &["4:3 E0006 b:", "6:28 E0209 0", "7:19 E0201 tiemout"],
    );
}

#[test]
fn a_mapping_that_never_opened_is_read_from_its_next_line() {
    check(
        "isobar: 1
services: {a: {}, db: {}}
edges:
  * -> db: {timeout: 1s}
  a -> db: {timeout: 3}
scenarios:
  x: {do: [remove b]}
",
        &["4:3 E0006 *", "5:22 E0204 3", "7:12 E0301 remove b"],
    );
}

#[test]
fn a_law_cut_by_a_comma_is_one_mistake() {
    check(
        "isobar: 1
services:
  a: {operations: {read: uniform(1ms, 5ms), write: {work: lognormal(p50 1ms, p99 8ms), calls: []}}}
",
        &["3:26 E0016 uniform(1ms, 5ms)", "3:59 E0016 lognormal(p50 1ms, p99 8ms)"],
    );
}

/// One line of a service, an edge and so on, and the codes it gives. A good file surrounds it.
#[track_caller]
fn line(section: &str, text: &str, expected: &[&str]) {
    let (mut services, mut rest) = (String::new(), String::new());
    match section {
        "service" => services = format!("  it: {text}\n"),
        "operation" => services = format!("  it:\n    operations:\n      x: {text}\n"),
        "edge" => rest = format!("edges:\n  web -> db: {text}\n"),
        "edges" => rest = format!("edges:\n  {text}\n"),
        "route" => rest = format!("gateways:\n  g: {{listen: '127.0.0.1:80', routes: [{text}]}}\n"),
        "gateway" => rest = format!("gateways:\n  g: {text}\n"),
        "traffic" => rest = format!("traffic:\n  users2: {text}\n"),
        "do" => rest = format!("scenarios:\n  s: {{do: ['{text}']}}\n"),
        "expect" => rest = format!("scenarios:\n  s: {{expect: ['{text}']}}\n"),
        "scenario" => rest = format!("scenarios:\n  s: {text}\n"),
        "network" => rest = format!("network:\n  {text}\n"),
        "waive" => rest = format!("waive:\n  - {text}\n"),
        "top" => rest = format!("{text}\n"),
        unknown => panic!("no section {unknown}"),
    }
    let traffic = if rest.starts_with("traffic") {
        String::new()
    } else {
        "traffic: {users: {to: web \"GET /\", rate: 1/s}}\n".into()
    };
    let file = format!(
        "isobar: 1
teams: {{t: {{}}}}
places: {{eu: {{zones: [a, b]}}, us: {{}}}}
services:
  web: {{team: t, replicas: 3, versions: {{v1.0.0: {{}}}}, operations: {{\"GET /\": 1ms, \"GET /b\": 1ms}}}}
  db: {{kind: store, operations: {{read: 1ms}}}}
  cache: {{kind: cache}}
{services}{traffic}{rest}"
    );
    let loaded = load_str(&file);
    let found: Vec<&str> = loaded.diagnostics.iter().map(|it| it.code).collect();
    assert_eq!(found, expected, "{section}: {text}\n{:#?}", loaded.diagnostics);
}

#[test]
fn services_are_strict() {
    for (text, expected) in [
        ("{}", &[][..]),
        ("{replicas: 0}", &["E0209"]),
        ("{replicas: {eu: 0, us: 2}}", &[]),
        ("{replicas: {eu: 0}}", &["E0209"]),
        ("{replicas: {eu/a: 2}}", &[]),
        ("{replicas: {eu/a: 2, eu: 1}}", &["E0207"]),
        ("{replicas: {eu/z: 2}}", &["E0304"]),
        ("{replicas: {asia: 2}}", &["E0304"]),
        ("{replicas: -1}", &["E0209"]),
        ("{replicas: three}", &["E0204"]),
        ("{replicas: 30000000}", &["E0209"]),
        ("{replicas: 0, autoscale: {min: 0, max: 3, hpa: {}}}", &[]),
        ("{replicas: 5, autoscale: {max: 3, hpa: {}}}", &["E0209"]),
        ("{autoscale: {max: 3}}", &["E0202"]),
        ("{autoscale: {max: 3, hpa: {}, step: {steps: []}}}", &["E0211"]),
        ("{autoscale: {min: 4, max: 3, hpa: {}}}", &["E0209"]),
        ("{team: nobody}", &["E0303"]),
        ("{kind: grcp}", &["E0205"]),
        ("{kind: external, run: ./x}", &["E0211"]),
        ("{run: ./x, endpoints: ['h:1']}", &["E0211"]),
        ("{endpoints: [h]}", &["E0506"]),
        ("{endpoints: ['h:1'], tls: {}}", &[]),
        ("{endpoints: ['h:1'], tls: {ca: ca.pem, server_name: h.example, cert: c.pem, key: k.pem}}", &[]),
        ("{endpoints: ['h:1'], tls: {server_name: '::1'}}", &[]),
        ("{endpoints: ['h:1'], tls: {server_name: 'h.example:443'}}", &["E0206"]),
        ("{endpoints: ['h:1'], tls: {cert: c.pem}}", &["E0202"]),
        ("{endpoints: ['h:1'], tls: {root: ca.pem}}", &["E0201"]),
        ("{endpoints: ['h:1'], tls: true}", &["E0203"]),
        ("{tls: {ca: ca.pem}}", &["E0211"]),
        ("{run: {shell: true}}", &["E0202"]),
        ("{run: {command: x, shell: yes}}", &["E0205"]),
        ("{run: {command: x, port: 70000}}", &["E0209"]),
        ("{health: {path: healthz}}", &["E0507"]),
        ("{health: {path: /, tcp: true}}", &["E0211"]),
        ("{health: {every: 0}}", &["E0209"]),
        ("{health: nine}", &["E0205"]),
        ("{concurrency: 0}", &["E0209"]),
        ("{queue: {discipline: codell}}", &["E0205"]),
        ("{queue: unbound}", &["E0205"]),
        ("{slo: {availability: 100%}}", &["E0209"]),
        ("{slo: {availability: 0.999}}", &["E0204"]),
        ("{slo: {latency: {p50: 20ms, p99: 10ms}}}", &["E0209"]),
        ("{slo: {latency: {p100: 20ms}}}", &["E0205"]),
        ("{slo: {latency: {p99: 0}}}", &["E0209"]),
        ("{versions: {v1: {}}}", &["E0508"]),
        ("{versions: {v1.02.0: {}}}", &["E0508"]),
        ("{versions: {v1.0.0: {weight: 90%}, v1.1.0: {weight: 20%}}}", &["E0404"]),
        ("{versions: {v1.0.0: {weight: 90%}, v1.1.0: {}}}", &[]),
        ("{versions: {v1.0.0: {weight: 90%}}}", &["E0404"]),
        ("{versions: {v1.0.0: {weight: 9}, v1.1.0: {weight: 20%}}}", &["E0204"]),
        ("{cache: {hit_rate: 90%}}", &["E0211"]),
        ("{kind: cache, cache: {}}", &["E0202"]),
        ("{kind: cache, cache: {keys: 10}}", &["E0202"]),
        ("{kind: cache, cache: {hit_rate: 110%}}", &["E0209"]),
        ("{needs: [it]}", &["E0401"]),
        ("{needs: [{db: completed}]}", &["E0405"]),
        ("{needs: [db, db]}", &["E0207"]),
        ("{needs: [{db: ready}]}", &["E0205"]),
        ("{secrets: x}", &["E0208"]),
        ("{x-own: anything}", &[]),
        ("{price: 1}", &["E0204"]),
        ("[a]", &["E0203"]),
    ] {
        line("service", text, expected);
    }
}

#[test]
fn operations_are_strict() {
    for (text, expected) in [
        ("1ms", &[][..]),
        ("{work: 1ms, calls: [db]}", &[]),
        ("{calls: [web]}", &["E0509"]),
        ("{calls: ['web \"GET /\"']}", &[]),
        ("{calls: ['web \"GET /nothing\"']}", &["E0302"]),
        ("{calls: ['cache \"get\"']}", &["E0302"]),
        ("{calls: [cache]}", &[]),
        ("{calls: [web GET /]}", &["E0503"]),
        ("{calls: [it]}", &["E0403"]),
        ("{calls: [{call: it, chance: 50%}]}", &[]),
        ("{calls: [{call: db, chance: 150%}]}", &["E0209"]),
        ("{calls: [{call: db, times: 0}]}", &["E0209"]),
        ("{calls: [{call: db, fallback: {call: db}}]}", &["E0402"]),
        ("{calls: [{call: db, fallback: {call: nothing}}]}", &["E0301"]),
        ("{calls: [{call: 'web \"GET /\"', version: v1.0.0}]}", &[]),
        ("{calls: [{call: 'web \"GET /\"', version: v1.0.1}]}", &["E0306"]),
        ("{calls: [{all: [db, {work: 1ms}]}, {work: 2}]}", &["E0504"]),
        ("{calls: [{any: [db]}]}", &["E0202", "E0201"]),
        ("{work: normal(1ms)}", &["E0504"]),
        ("{response: 8}", &["E0204"]),
        ("{errors: 101%}", &["E0209"]),
    ] {
        line("operation", text, expected);
    }
    line("service", "{operations: {'GTE /': 1ms}}", &["E0206"]);
    line("service", "{operations: {'GET /{a}/{a}': 1ms}}", &["E0507"]);
    line("service", "{operations: {my.Service/Do: 1ms, a b: 1ms}}", &["E0206"]);
}

#[test]
fn edges_are_strict() {
    for (text, expected) in [
        ("{timeout: 0}", &["E0209"][..]),
        ("{timeout: none}", &[]),
        ("{timeout: 5}", &["E0204"]),
        ("{retry: {attempts: 0}}", &["E0209"]),
        ("{retry: {on: [4xx]}}", &["E0205"]),
        ("{retry: {backoff: {base: 2s, max: 1s}}}", &["E0209"]),
        ("{retry: {backoff: {base: 2s}}}", &[]),
        ("{retry: 3}", &["E0203"]),
        ("{hedge: {}}", &["E0202"]),
        ("{hedge: {after: 1ms, copies: 1}}", &["E0209"]),
        ("{breaker: {failures: 0}}", &["E0209"]),
        ("{breaker: {failures: 5, errors: 50%}}", &["E0211"]),
        ("{breaker: {window: 10s}}", &["E0202"]),
        ("{breaker: {failures: 5, pause: 10s, pause_max: 1s}}", &["E0209"]),
        ("{eject: {share: 150%}}", &["E0209"]),
        ("{balance: fair}", &["E0205"]),
        ("{locality: zone}", &["E0205"]),
        ("{concurrency: {gradient: {min: 10, max: 5}}}", &["E0209"]),
        ("{concurrency: {}}", &["E0202"]),
        ("{rate_limit: 0/s}", &["E0209"]),
        ("{throttle: {k: 0.5}}", &["E0209"]),
        ("{connections: 0}", &["E0209"]),
        ("{tiemout: 1s}", &["E0201"]),
        ("{mesh: on}", &["E0208"]),
    ] {
        line("edge", text, expected);
    }
    for (text, expected) in [
        ("wbe -> db: {timeout: 1s}", &["E0305"][..]),
        ("web -> dbb: {timeout: 1s}", &["E0301"]),
        ("web to db: {timeout: 1s}", &["E0502"]),
        ("web -> db \"wirte\": {timeout: 1s}", &["E0302"]),
        ("'* -> * \"read\"': {timeout: 1s}", &["E0502"]),
        ("web->db: {timeout: 1s}\n  web -> db: {timeout: 2s}", &["E0207"]),
        ("'* -> *': {timeout: 1s}\n  default: {timeout: 2s}", &["E0207"]),
    ] {
        line("edges", text, expected);
    }
}

#[test]
fn gateways_are_strict() {
    for (text, expected) in [
        ("{path: /, to: web}", &[][..]),
        ("{path: /, to: web@v1.0.0}", &[]),
        ("{path: /, to: web@v9.0.0}", &["E0306"]),
        ("{path: /, to: nobody}", &["E0301"]),
        ("{to: web}", &["E0202"]),
        ("{path: /, exact: /, to: web}", &["E0211"]),
        ("{path: /}", &["E0202"]),
        ("{path: x, to: web}", &["E0507"]),
        ("{template: '/a{b}', to: web}", &["E0507"]),
        ("{regex: '/v[0-9', to: web}", &["E0512"]),
        ("{regex: '(a{1000}){1000}', to: web}", &["E0512"]),
        ("{path: /, to: {web: 0}}", &["E0404"]),
        ("{path: /, methods: [get], to: web}", &["E0205"]),
        ("{path: /, host: ['a b'], to: web}", &["E0506"]),
        ("{path: /, redirect: {to: /x, status: 200}}", &["E0205"]),
        ("{path: /, reply: {status: 99}}", &["E0209"]),
        ("{path: /, to: web, cors: {}}", &["E0208"]),
    ] {
        line("route", text, expected);
    }
    line("gateway", "{routes: [{path: /, to: web}]}", &["E0202"]);
    line("gateway", "{listen: ':80', routes: []}", &["E0506", "E0209"]);
    line("gateway", "{listen: 'h:80', routes: [{path: /, to: web}], tls: {cert: c}}", &["E0202"]);
    line("top", "gateways: {web: {listen: 'h:80', routes: [{path: /, to: web}]}}", &["E0207"]);
}

#[test]
fn traffic_and_scenarios_are_strict() {
    for (text, expected) in [
        ("{to: web \"GET /\", rate: 1/s}", &[][..]),
        ("{to: web, rate: 1/s}", &["E0509"]),
        ("{to: web \"GET /x\", rate: 1/s}", &["E0302"]),
        ("{to: nobody \"GET /\", rate: 1/s}", &["E0305"]),
        ("{to: db, rate: 0/s}", &["E0209"]),
        ("{to: db, rate: 1}", &["E0204"]),
        ("{to: db}", &["E0202"]),
        ("{to: db, rate: 1/s, users: 3}", &["E0211"]),
        ("{to: db, users: 3, arrivals: constant}", &["E0211"]),
        ("{to: db, rate: 1/s, from: asia}", &["E0304"]),
        ("{to: db, rate: 1/s, shape: {burst: {to: 2/s, lasting: 2min, every: 1min}}}", &["E0209"]),
        ("{to: db, rate: 1/s, shape: {}}", &["E0202"]),
    ] {
        line("traffic", text, expected);
    }
    for (text, expected) in [
        ("stop web", &[][..]),
        ("stop 3 of web", &[]),
        ("stop 4 of web", &["E0209"]),
        ("stop 0 of web", &["E0501"]),
        ("stop web#2", &[]),
        ("stop web#3", &["E0209"]),
        ("stop wbe", &["E0301"]),
        ("stop web in eu/z", &["E0304"]),
        ("stop 150% of web", &["E0209"]),
        ("halt web", &["E0501"]),
        ("slow web", &["E0501"]),
        ("slow web by 3", &["E0204"]),
        ("slow web x", &["E0204"]),
        ("error web 5", &["E0501"]),
        ("lose mars", &["E0304"]),
        ("partition eu", &["E0501"]),
        ("partition eu <-> eu", &["E0505"]),
        ("flush web", &["E0211"]),
        ("flush cache", &[]),
        ("load x2", &[]),
        ("load users x2", &[]),
        ("load people x2", &["E0307"]),
        ("load users to 5", &["E0204"]),
        ("release web v1.0.0 at 10%", &[]),
        ("release web v2.0.0 at 10%", &["E0306"]),
        ("scale web to many", &["E0501"]),
    ] {
        line("do", text, expected);
    }
    for (text, expected) in [
        ("web availability >= 99%", &[][..]),
        ("web \"GET /\" p99 <= 1s", &[]),
        ("web \"GET /x\" p99 <= 1s", &["E0302"]),
        ("web availability 99%", &["E0513"]),
        ("web p99 <= 5%", &["E0204"]),
        ("web speed >= 5/s", &["E0205"]),
        ("wbe errors <= 1%", &["E0305"]),
        ("web availability >= 110%", &["E0209"]),
    ] {
        line("expect", text, expected);
    }
    line("scenario", "{steps: [{at: 1s}]}", &["E0202"]);
    line("scenario", "{at: 9s, do: [load x2], lasts: 5s}", &["E0209"]);
    line("scenario", "{at: 9s, steps: [{do: [load x2]}]}", &["E0211"]);
    line("scenario", "{do: [load x2], steps: [{do: [load x2]}]}", &["E0211"]);
}

#[test]
fn the_rest_is_strict() {
    line("network", "eu <-> us: {jitter: 150%}", &["E0209"]);
    line("network", "eu <-> us: {bandwidth: 1MB}", &["E0204"]);
    line("network", "eu <-> mars: {rtt: 1ms}", &["E0304"]);
    line("network", "nearby: {rtt: 1ms}", &["E0505"]);
    line("network", "eu <-> us: {rtt: 1ms}\n  us -> eu: {rtt: 2ms}", &["E0207"]);
    line("waive", "{lint: L007, on: web, reason: r, until: 2027-03-31}", &[]);
    line("waive", "{lint: L007, on: web -> db, reason: r, until: 2027-03-31}", &[]);
    line("waive", "{lint: L007, on: t, reason: r, until: 2027-03-31}", &[]);
    line("waive", "{lint: L999, reason: r, until: 2027-02-30}", &["E0510", "E0511"]);
    line("waive", "{lint: L007, on: nobody}", &["E0202", "E0202", "E0305"]);
    line("top", "isobarr: 2", &["E0201"]);
    line("top", "journal: {}", &["E0208"]);
    line("top", "x-mine: [1, {a: b}]", &[]);
}
